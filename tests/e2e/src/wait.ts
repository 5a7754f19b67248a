// Waiting for things that happen, each with a deadline that says what did not.
import { setTimeout as sleep } from 'node:timers/promises';

/** The longest that a test waits for anything; a healthy run needs a fraction of it. */
export const DEADLINE_MS = Number(process.env["E2E_DEADLINE_MS"] ?? 20_000);

/** Somebody tells, anybody waits. */
export class Signal {
	#waiters = new Set<() => void>();

	notify(): void {
		const waiters = this.#waiters;
		this.#waiters = new Set();
		for (const wake of waiters) wake();
	}

	/** Resolves once `condition` holds; looked at now and after every `notify`. */
	async until(condition: () => boolean, what: string | (() => string), deadlineMs = DEADLINE_MS): Promise<void> {
		let timer: NodeJS.Timeout | undefined;
		const late = new Promise<never>((_, reject) => {
			timer = setTimeout(() => {
				reject(new Error(`not within ${deadlineMs} ms: ${typeof what === 'string' ? what : what()}`));
			}, deadlineMs);
		});
		try {
			while (!condition()) await Promise.race([new Promise<void>((wake) => this.#waiters.add(wake)), late]);
		} finally {
			clearTimeout(timer);
		}
	}
}

/** Bounds a promise; the error says what was awaited. */
export async function within<T>(promise: Promise<T>, what: string, deadlineMs = DEADLINE_MS): Promise<T> {
	let timer: NodeJS.Timeout | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

/** Asks until it is so. */
export async function soon(what: string, check: () => Promise<boolean>): Promise<void> {
	let over = false;
	const asking = (async () => {
		while (!over && !(await check())) await sleep(20);
	})();
	await within(asking, what).finally(() => (over = true));
}

/** A list that grows and can be waited on. */
export class Inbox<T> {
	readonly items: T[] = [];
	readonly changed = new Signal();

	push(item: T): void {
		this.items.push(item);
		this.changed.notify();
	}

	/** Waits for the first item that matches. */
	async first(matches: (item: T) => boolean, what: string): Promise<T> {
		await this.changed.until(() => this.items.some(matches), () => `${what}; got ${JSON.stringify(this.items)}`);
		return this.items.find(matches)!;
	}

	/** Waits until `count` items are there. */
	async atLeast(count: number, what: string): Promise<T[]> {
		await this.changed.until(
			() => this.items.length >= count,
			() => `${what}: ${count} wanted, got ${JSON.stringify(this.items)}`,
		);
		return this.items;
	}

	/** Takes everything out. */
	drain(): T[] {
		return this.items.splice(0);
	}
}

/** Asks until it is so. */
export async function until(check: () => Promise<boolean>, what: string, deadlineMs = DEADLINE_MS): Promise<void> {
	for (const deadline = Date.now() + deadlineMs; !(await check()); await new Promise((wake) => setTimeout(wake, 20))) {
		if (Date.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
	}
}
