// Nodes of one backend and the front before them.
import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Front } from './front.ts';
import type { Answer, Order } from './node-process.ts';
import { runNode, tell, type NodeOptions, type RunningNode } from './node.ts';
import { startWorkers } from './workerd.ts';
import { within } from './wait.ts';

export type ClusterOptions = Omit<NodeOptions, 'name' | 'backend'> & { nodes?: number };

export interface Cluster extends AsyncDisposable {
	/** The backend's URL. */
	readonly backend: string;
	readonly front: Front;
	readonly nodes: RunningNode[];
	/** The first and the second node. */
	readonly a: RunningNode;
	readonly b: RunningNode;
}

/** The backend under test, and in it a place that nobody else uses. */
export function backendUrl(): string {
	const url = process.env['MCP_SESSIONS_TEST_URL'];
	if (url?.startsWith('worker:')) return url;
	if (!url || url.startsWith('memory:')) return `memory://e2e-${randomUUID()}`;
	const and = url.includes('?') ? '&' : '?';
	return url.startsWith('postgres') ? `${url}${and}schema=e2e-${randomUUID()}` : `${url}${and}prefix=e2e-${randomUUID()}:`;
}

/** Whether the nodes are in processes of their own. */
export const apart = !/^(memory|worker):/.test(backendUrl());

/** Whether they are Workers in one workerd: what goes wrong with a process or its server is not theirs. */
export const inWorkers = backendUrl().startsWith('worker:');

/** Two nodes (or more) behind a front, on a backend of their own. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
	const { nodes: count = 2, ...rest } = options;
	const backend = backendUrl();
	const names = Array.from({ length: count }, (_, i) => String.fromCharCode(65 + i));
	const nodes = inWorkers ? await startWorkers(names, rest) : await Promise.all(names.map((name) => startNode({ ...rest, name, backend })));
	const front = await Front.start(nodes.map((node) => node.url));
	return {
		backend,
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

/** A process that runs a node, or waits for the next one: starting one costs more than most tests. */
class Host {
	static readonly #idle: Host[] = [];
	readonly child: ChildProcess;
	readonly exited: Promise<unknown>;
	stderr = '';

	private constructor() {
		this.child = fork(new URL('node-process.ts', import.meta.url), [], {
			execArgv: ['--expose-gc', '--import', 'tsx'],
			stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
		});
		this.child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
		this.exited = once(this.child, 'exit');
		this.#ref(false);
	}

	static take(): Host {
		for (let host = Host.#idle.pop(); host; host = Host.#idle.pop()) if (host.alive) return host;
		return new Host();
	}

	get alive(): boolean {
		return this.child.exitCode === null && this.child.signalCode === null;
	}

	/** It is free for another node. */
	give(): void {
		if (this.alive) Host.#idle.push(this);
	}

	async tell(order: Order, what: string): Promise<Answer> {
		this.#ref(true);
		const died = this.exited.then(() => {
			throw new Error(`${what}: the process ended with ${this.child.exitCode ?? this.child.signalCode}: ${this.stderr}`);
		});
		died.catch(() => {});
		try {
			const answered = once(this.child, 'message') as Promise<[Answer]>;
			this.child.send(order);
			const [answer] = await within(Promise.race([answered, died]), what);
			if ('failed' in answer) throw new Error(`${what}: ${answer.failed}`);
			return answer;
		} finally {
			this.#ref(false);
		}
	}

	async end(): Promise<void> {
		this.child.ref();
		if (this.alive) this.child.kill('SIGKILL');
		await this.exited;
	}

	/** Idle ones end with the tests. */
	#ref(held: boolean): void {
		const channels = [this.child, this.child.channel, this.child.stderr as { ref?(): void; unref?(): void } | null];
		for (const it of channels) held ? it?.ref?.() : it?.unref?.();
	}
}

/** Runs a node in a process of its own. */
export async function spawnNode(options: NodeOptions): Promise<SpawnedNode> {
	const host = Host.take();
	const begun = host.stderr.length;
	const answer = await host.tell({ do: 'run', options }, `node ${options.name} has started`);
	const url = 'url' in answer ? answer.url : '';
	return {
		name: options.name,
		url,
		child: host.child,
		stderr: () => host.stderr.slice(begun),
		control: (command) => tell(url, command),
		async stop() {
			if (!host.alive) return;
			await host.tell({ do: 'stop' }, `node ${options.name} has stopped`);
			host.give();
		},
		kill: () => host.end(),
	};
}
