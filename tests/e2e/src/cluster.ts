// Nodes of one backend and the front before them.
import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Front } from './front.ts';
import { runNode, tell, type NodeOptions, type RunningNode } from './node.ts';
import { within } from './wait.ts';

export type ClusterOptions = Omit<NodeOptions, 'name' | 'backend'> & { nodes?: number };

export interface Cluster extends AsyncDisposable {
	readonly front: Front;
	readonly nodes: RunningNode[];
	/** The first and the second node. */
	readonly a: RunningNode;
	readonly b: RunningNode;
}

/** The backend under test; the embedded one's nodes live in one process, so each test gets a hub of its own. */
export function backendUrl(): string {
	return process.env['MCP_SESSIONS_TEST_URL'] ?? `memory://e2e-${randomUUID()}`;
}

/** Two nodes (or more) behind a front, on a backend of their own. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
	const { nodes: count = 2, ...rest } = options;
	const backend = backendUrl();
	const names = Array.from({ length: count }, (_, i) => String.fromCharCode(65 + i));
	const nodes = await Promise.all(names.map((name) => startNode({ ...rest, name, backend })));
	const front = await Front.start(nodes.map((node) => node.url));
	return {
		front,
		nodes,
		a: nodes[0]!,
		b: nodes[1]!,
		async [Symbol.asyncDispose]() {
			await front.close();
			await Promise.all(nodes.map((node) => node.stop()));
		},
	};
}

/** Starts a node: here for the embedded backend, in a process of its own for any other. */
export function startNode(options: NodeOptions): Promise<RunningNode> {
	return options.backend.startsWith('memory:') ? runNode(options) : spawnNode(options);
}

export type SpawnedNode = RunningNode & { readonly child: ChildProcess; readonly stderr: () => string };

/** Runs a node in a child process. */
export async function spawnNode(options: NodeOptions): Promise<SpawnedNode> {
	const child = fork(new URL('node-process.ts', import.meta.url), [JSON.stringify(options)], {
		execArgv: ['--import', 'tsx'],
		stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
	});
	let stderr = '';
	child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
	const exited = once(child, 'exit');
	const died = exited.then(([code]) => {
		throw new Error(`node ${options.name} ended with ${code}: ${stderr}`);
	});
	died.catch(() => {});
	const [url] = (await within(
		Promise.race([once(createInterface(child.stdout!), 'line'), died]),
		`node ${options.name} has started`,
	)) as [string];
	const end = async (signal: NodeJS.Signals) => {
		if (child.exitCode === null && child.signalCode === null) child.kill(signal);
		await exited;
	};
	return {
		name: options.name,
		url,
		child,
		stderr: () => stderr,
		control: (command) => tell(url, command),
		stop: () => end('SIGTERM'),
		kill: () => end('SIGKILL'),
	};
}
