// What the work costs when nobody does it: bytes that are ready go straight into the streams. No manager can be faster,
// so this says how much of a ratio was there to be had.
import type { Managers } from './row.ts';

export const FLOOR = 'the streams alone';

interface Controller {
	enqueue(chunk: Uint8Array): void;
	close(): void;
}

export class Floor {
	readonly #controllers = new Map<string, Controller>();
	readonly #ready = new Map<string, Uint8Array>();

	create(id: string, controller: Controller): void {
		this.#controllers.set(id, controller);
	}

	has(id: string): Promise<boolean> {
		return Promise.resolve(this.#controllers.has(id));
	}

	delete(id: string): void {
		this.#controllers.get(id)?.close();
		this.#controllers.delete(id);
	}

	send(ids: readonly string[] | undefined, payload: string): void {
		const bytes = this.#bytes(payload);
		if (ids === undefined) for (const controller of this.#controllers.values()) controller.enqueue(bytes);
		else for (const id of ids) this.#controllers.get(id)!.enqueue(bytes);
	}

	#bytes(payload: string): Uint8Array {
		const ready = this.#ready.get(payload);
		if (ready) return ready;
		const bytes = Buffer.from(payload);
		this.#ready.set(payload, bytes);
		return bytes;
	}
}

/** Managers for the rows about streams. */
export function floor(): Managers {
	return { streams: new Floor() } as unknown as Managers;
}
