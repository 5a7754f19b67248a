import { APART, LIVE, type Backend } from '../backend.ts';
import { redisServer } from '../apart/servers.ts';
import { version } from '../peer.ts';

export const redis: Backend = {
	name: 'redis',
	peerName: `@tmcp/session-manager-redis ${version('@tmcp/session-manager-redis')}`,
	server: redisServer,
	async managers(side, url = '') {
		if (side === 'peer') {
			const its = await import('@tmcp/session-manager-redis');
			return {
				streams: new its.RedisStreamSessionManager(url),
				info: new its.RedisInfoSessionManager(url),
				subscriptions: new its.RedisSubscriptionManager(url),
			};
		}
		const ours = await import('mcp-sessions/tmcp');
		const options = { url, ...APART, ...(side === 'live' ? LIVE : {}) };
		return {
			streams: new ours.RedisStreamSessionManager(options),
			info: new ours.RedisInfoSessionManager(options),
			subscriptions: new ours.RedisSubscriptionManager(options),
		};
	},
};
