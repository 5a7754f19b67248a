// What a backend is to the bench: the same managers, ours and the peer's.
import type { Managers } from './row.ts';

/** Who does the work; `live` is ours with history off. */
export type Side = 'ours' | 'live' | 'peer';

export interface Backend {
	readonly name: string;
	/** Whom we are measured against, with its version. */
	readonly peerName: string;
	/** Makes one side's managers. The other side's modules are not even loaded. */
	managers(side: Side): Promise<Managers>;
}

/** The engine's options for live delivery alone. */
export const LIVE = { retention: { events: 0 }, broadcastRetention: { events: 0 } };
