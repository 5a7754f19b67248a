// What a backend is to the bench: the same managers, ours and the peer's.
import type { Server } from './apart/servers.ts';
import type { Managers, Row } from './row.ts';

/**
 * Who does the work; `live` is ours with history off, `relaxed` ours with history and commits that wait for no disk,
 * `floor` is nobody: see floor.ts.
 */
export type Side = 'ours' | 'live' | 'relaxed' | 'peer' | 'floor';

export interface Backend {
	readonly name: string;
	/** Whom we are measured against, with its version. */
	readonly peerName: string;
	/** What has to be known of what the peer was given. */
	readonly peerNote?: string;
	/** Makes one side's managers. The other side's modules are not even loaded. */
	managers(side: Side, url?: string): Promise<Managers>;
	/** The server behind it; without one, all of it happens in one process. */
	readonly server?: Server;
	/** Whether how durable a commit is can be chosen. */
	readonly relaxes?: boolean;
	/** Its own rows, where it is not those of one process, or of two. */
	readonly rows?: readonly Row[];
	/** Does a row somewhere else. */
	run?(side: Side, row: string): Promise<readonly number[]>;
	/** What has to be done to a payload for the peer to send it at all. */
	quoted?(payload: string): string;
}

/**
 * Of managers whose sender is another process: one that sends as fast as it can may be far ahead of a reader that
 * is not scheduled, and by default a reader 1,024 events behind is cut off. The peers' queues have no bound.
 */
export const APART = { queue: { events: 16_384, bytes: 64 * 1024 * 1024 } };

/** The engine's options for live delivery alone. */
export const LIVE = { retention: { events: 0 }, broadcastRetention: { events: 0 } };
