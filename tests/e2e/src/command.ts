// What a node can be told from outside, over `POST /control`: the same in this process, in another, and in a Worker.
import type { SdkCommand } from './sdk-node.ts';
import type { Changed } from './server.ts';

export type Command =
	| { do: 'changed'; what: Changed }
	| { do: 'touch'; uri: string }
	| { do: 'send'; to?: string[]; data: unknown[] }
	| { do: 'sendEach'; list: { to: string[]; data: unknown }[] }
	| { do: 'has'; session: string }
	| { do: 'gaps' }
	| { do: 'errors' }
	| { do: 'stick'; id: string | number }
	| { do: 'unstick'; id: string | number }
	| { do: 'closeListens' }
	| { do: 'closeEngine' }
	| SdkCommand;

/** A finished SSE frame with a log notification in it: what the tests send from outside a request. */
export function frame(data: unknown): string {
	const message = { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data } };
	return `event: message\ndata: ${JSON.stringify(message)}\n\n`;
}
