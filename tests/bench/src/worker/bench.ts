// The rows of one process, done inside a Worker: all that a row opens belongs to the one request that runs it.
import * as peer from '@tmcp/session-manager-durable-objects';
import * as ours from 'mcp-sessions/cloudflare';
import { LIVE } from '../backend.ts';
import type { Managers } from '../row.ts';
import { workerRows } from './rows.ts';

/** A row reads nothing but its events: no heartbeats in between. */
const QUIET = { lease: { renewMs: 600_000, ttlMs: 1_200_000 } };

function managers(side: string): Managers {
	if (side === 'peer') {
		return {
			streams: new peer.DurableObjectStreamSessionManager('PEER'),
			info: new peer.KVInfoSessionManager('PEER_INFO'),
			// Made at module scope, as its page says, it never works: made in the request it does for this one.
			subscriptions: new peer.DurableObjectSubscriptionManager('PEER'),
		};
	}
	const options = { ...QUIET, ...(side === 'live' ? LIVE : {}) };
	return {
		streams: new ours.DurableObjectStreamSessionManager('TMCP_DURABLE_OBJECT', options),
		info: new ours.KVInfoSessionManager('TMCP_SESSION_INFO', options),
		subscriptions: new ours.DurableObjectSubscriptionManager('TMCP_DURABLE_OBJECT', options),
	};
}

export class SyncLayer extends ours.SyncLayer {}
export class PeerLayer extends peer.SyncLayer {}

export default {
	async fetch(request: Request): Promise<Response> {
		const { searchParams } = new URL(request.url);
		const [side, id] = [searchParams.get('side') ?? '', searchParams.get('row')];
		const row = workerRows.find((it) => it.id === id);
		if (!row) return Response.json('ready');
		try {
			return Response.json({ values: await row.run(managers(side)) });
		} catch (error) {
			return Response.json({ error: String((error as Error).stack ?? error) });
		}
	},
};
