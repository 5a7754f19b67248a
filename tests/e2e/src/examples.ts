// The examples of the package, run as their readers would: each in a process of its own, beside the packages it names.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { within } from './wait.ts';

const SOURCES = new URL('../../../npm/examples/', import.meta.url);
const BESIDE = new URL('../node_modules/.examples/', import.meta.url);

export interface Example extends AsyncDisposable {
	readonly url: string;
	readonly child: ChildProcess;
	/** Its exit code, or the signal that ended it. */
	readonly exited: Promise<number | string>;
	/** Asks it to leave in good order, as a deploy does. */
	leave(): Promise<number | string>;
	/** `kill -9`. */
	kill(): Promise<void>;
}

/** Runs an example on a free port. */
export async function runExample(file: string, name: string, backend: string): Promise<Example> {
	await mkdir(BESIDE, { recursive: true });
	// Replicas of one example may start at the same time.
	const copy = new URL(`${name}-${process.pid}-${file}`, BESIDE);
	await copyFile(new URL(file, SOURCES), copy);
	const child = spawn(process.execPath, [fileURLToPath(copy)], {
		env: { ...process.env, PORT: '0', BACKEND: backend, NAME: name },
		stdio: ['ignore', 'pipe', 'pipe'],
	});
	let stderr = '';
	child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
	const exited = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
	const failed = exited.then((how) => Promise.reject(new Error(`${file} ended with ${how}: ${stderr}`)));
	failed.catch(() => {});
	const [line] = (await within(
		Promise.race([once(createInterface(child.stdout!), 'line'), failed]),
		`${file} listens`,
	)) as [string];
	const end = (signal: NodeJS.Signals) => {
		if (child.exitCode === null && child.signalCode === null) child.kill(signal);
		return within(exited, `the end of ${file}`);
	};
	return {
		url: new URL(line).origin,
		child,
		exited,
		leave: () => end('SIGTERM'),
		kill: async () => void (await end('SIGKILL')),
		[Symbol.asyncDispose]: async () => void (await end('SIGKILL')),
	};
}
