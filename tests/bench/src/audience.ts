// Many sessions with real streams, and readers that count and check all that arrives.
import { randomUUID } from 'node:crypto';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { flat, take, takeExactly } from './frames.ts';
import type { Managers } from './row.ts';

type Streams = Managers['streams'];
export type Reader = ReadableStreamDefaultReader<Uint8Array>;

export function ids(count: number): string[] {
	return Array.from({ length: count }, () => flat(randomUUID()));
}

/** Opens a session's stream as tmcp's transport does: the manager gets the controller of a plain stream. */
export async function open(streams: Streams, id: string): Promise<Reader> {
	let created: void | Promise<void> = undefined;
	const stream = new ReadableStream<Uint8Array>({
		start(controller) {
			created = streams.create(id, controller);
		},
	});
	await created;
	return stream.getReader();
}

export class Audience {
	readonly ids: string[];
	/** What each session has read. */
	readonly #turns: number[];
	#exact = true;
	#left = 0;
	#done = () => {};
	#failed: (error: unknown) => void = () => {};
	/** What went wrong while nobody waited. */
	#error: unknown;

	private constructor(sessions: number) {
		this.ids = ids(sessions);
		this.#turns = new Array<number>(sessions).fill(0);
	}

	static async open(streams: Streams, sessions: number): Promise<Audience> {
		const audience = new Audience(sessions);
		const readers = await Promise.all(audience.ids.map((id) => open(streams, id)));
		readers.forEach((reader, session) => void audience.#read(reader, session).catch((error) => audience.#fail(error)));
		return audience;
	}

	/** Resolves when the next `events` events, counted over all sessions, have been read. */
	expect(events: number): Promise<void> {
		this.#check();
		this.#left = events;
		return new Promise((resolve, reject) => {
			this.#done = resolve;
			this.#failed = reject;
		});
	}

	/** Waits for what was expected, but no longer than this; returns how many events have not come. */
	async within(ms: number, read: Promise<void>): Promise<number> {
		const timer = { late: false };
		const late = sleep(ms, undefined, { ref: false }).then(() => void (timer.late = true));
		await Promise.race([read, late]);
		return timer.late ? this.#left : 0;
	}

	/** From here on only whose event it is, which turn, and its length are looked at: the bytes were seen to be right. */
	trust(): void {
		this.#exact = false;
	}

	/** Nothing comes that was not sent, and every session has read `turns` events. */
	async finish(turns: number): Promise<void> {
		for (let i = 0; i < 3; i++) await turn();
		this.#check();
		const other = this.#turns.findIndex((it) => it !== turns);
		if (other >= 0) throw new Error(`session ${other} has read ${this.#turns[other]} of its ${turns} events`);
	}

	async #read(reader: Reader, session: number): Promise<void> {
		for (;;) {
			const { value, done } = await reader.read();
			if (done) throw new Error(`the stream of session ${session} ended after ${this.#turns[session]} events`);
			for (let at = 0; at < value.length; this.#count()) {
				const seen = this.#turns[session]!;
				at = this.#exact ? takeExactly(value, at, session, seen) : take(value, at, session, seen);
				this.#turns[session] = seen + 1;
			}
		}
	}

	#count(): void {
		this.#left -= 1;
		if (this.#left === 0) this.#done();
	}

	#fail(error: unknown): void {
		this.#error ??= error;
		this.#failed(error);
	}

	/** Everything that was expected has come, and nothing else. */
	#check(): void {
		if (this.#error !== undefined) throw this.#error;
		if (this.#left !== 0) throw new Error(`${this.#left} events are still to come; below zero: too many came`);
	}
}
