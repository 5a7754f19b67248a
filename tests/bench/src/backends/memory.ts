import { LIVE, type Backend } from '../backend.ts';
import { version } from '../peer.ts';

export const memory: Backend = {
	name: 'memory',
	peerName: `@tmcp/session-manager ${version('@tmcp/session-manager')}`,
	async managers(side) {
		if (side === 'peer') {
			const its = await import('@tmcp/session-manager');
			return {
				streams: new its.InMemoryStreamSessionManager(),
				info: new its.InMemoryInfoSessionManager(),
				subscriptions: new its.InMemorySubscriptionManager(),
			};
		}
		const ours = await import('mcp-sessions/tmcp');
		const options = side === 'live' ? LIVE : {};
		return {
			streams: new ours.InMemoryStreamSessionManager(options),
			info: new ours.InMemoryInfoSessionManager(options),
			subscriptions: new ours.InMemorySubscriptionManager(options),
		};
	},
};
