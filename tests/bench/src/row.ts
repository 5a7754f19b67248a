// What a row is: one piece of work, done with whatever managers it is given, and the figures that come of it.
import type {
	InfoSessionManager,
	StreamSessionManager,
	SubscriptionManager,
} from '@tmcp/session-manager';

export type Better = 'higher' | 'lower';

/** The managers that do the work: tmcp's own interfaces, so that a row does not know whose they are. */
export interface Managers {
	readonly streams: StreamSessionManager;
	readonly info: InfoSessionManager;
	readonly subscriptions: SubscriptionManager;
}

/** One for all backends, or one a backend. */
export type Aim = number | Readonly<Record<string, number>>;

export interface Figure {
	readonly name: string;
	readonly unit: string;
	readonly better: Better;
	/** The ratio to the peer that is aimed at, where it is not 1. */
	readonly aim?: Aim;
	/** The same with history off, where it is another. */
	readonly aimLive?: Aim;
}

/** A value, or a bound of one that there was no time, or no hope, to wait for. */
export type Value = number | { readonly atLeast: number; readonly why: string };

export interface Row {
	/** What `ROWS` chooses by. */
	readonly id: string;
	readonly figures: readonly Figure[];
	/** History makes a difference: ours is measured without it, too. */
	readonly history: boolean;
	/** Where all of it happens in one process, the streams alone are measured, too. */
	readonly floor?: boolean;
	/** Does the work in a process of its own; a value a figure. Throws if anything is lost, doubled or out of order. */
	run(managers: Managers): Promise<readonly Value[]>;
}
