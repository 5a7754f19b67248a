import { APART, LIVE, type Backend } from '../backend.ts';
import { postgresServer } from '../apart/servers.ts';
import { version } from '../peer.ts';

export const postgres: Backend = {
	name: 'postgres',
	peerName: `@tmcp/session-manager-postgres ${version('@tmcp/session-manager-postgres')}`,
	peerNote: 'The harness has quoted its payloads and made its tables: by itself it sends nothing, and two processes of it do not start on an empty database',
	server: postgresServer,
	relaxes: true,
	quoted: (payload) => `'${payload.replaceAll("'", "''")}'`,
	async managers(side, url = '') {
		if (side === 'peer') {
			const its = await import('@tmcp/session-manager-postgres');
			const options = { connectionString: url, create: false };
			return {
				streams: new its.PostgresStreamSessionManager(options),
				info: new its.PostgresInfoSessionManager(options),
				subscriptions: new its.PostgresSubscriptionManager(options),
			};
		}
		const ours = await import('mcp-sessions/tmcp');
		const connectionString = side === 'relaxed' ? `${url}?durability=relaxed` : url;
		const options = { connectionString, ...APART, ...(side === 'live' ? LIVE : {}) };
		return {
			streams: new ours.PostgresStreamSessionManager(options),
			info: new ours.PostgresInfoSessionManager(options),
			subscriptions: new ours.PostgresSubscriptionManager(options),
		};
	},
};
