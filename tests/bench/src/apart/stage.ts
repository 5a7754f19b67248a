// Where rows of a shared backend run: who holds is this process, who sends is another.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Backend, Side } from '../backend.ts';
import type { Figure, Managers, Value } from '../row.ts';
import type { Order } from './sender.ts';

export interface Stage {
	readonly side: Side;
	readonly managers: Managers;
	/** Has the other process send; resolves when it has, with the times of each send where they are asked for. */
	send(order: Order): Promise<number[]>;
	/** Resolves when these streams, which were created, can receive: not every peer waits for that. */
	ready(sessions: number): Promise<void>;
	/** Puts so many keys (or rows) there that have nothing to do with the work. */
	clutter(count: number): Promise<void>;
	/** Bytes and keys (or rows) of the server. */
	size(): Promise<{ bytes: number; entries: number }>;
}

export interface SharedRow {
	readonly id: string;
	readonly figures: readonly Figure[];
	readonly history: boolean;
	/** What a commit waits for makes a difference: ours is measured with less, too, where that can be chosen. */
	readonly relaxed?: boolean;
	/** Backends it makes sense on, where it is not all of them. */
	readonly on?: readonly string[];
	run(stage: Stage): Promise<readonly Value[]>;
}

/** Sets the stage on an empty server. */
export async function setStage(backend: Backend, side: Side, url: string): Promise<Stage> {
	const server = backend.server;
	if (!server) throw new Error(`${backend.name} has no server`);
	await server.prepare(url, side);
	const managers = await backend.managers(side, url);
	await managers.streams.has('warm-up');
	const args = [backend.name, side, url];
	const child = fork(fileURLToPath(new URL('sender.ts', import.meta.url)), args, { execArgv: ['--import', 'tsx'] });
	const died = once(child, 'exit').then(([code]) => {
		throw new Error(`the sender ended with ${code}`);
	});
	died.catch(() => {});
	await Promise.race([once(child, 'message'), died]);
	return {
		side,
		managers,
		async send(order) {
			const answered = once(child, 'message');
			child.send(order);
			return ((await Promise.race([answered, died])) as [number[]])[0];
		},
		ready: (sessions) => server.ready(url, side, sessions),
		clutter: (count) => server.clutter(url, side, count),
		size: () => server.size(url),
	};
}
