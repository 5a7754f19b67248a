import type { Backend } from '../backend.ts';
import { version } from '../peer.ts';
import { workerRows } from '../worker/rows.ts';
import { runInWorker } from '../worker/workerd.ts';

export const cloudflare: Backend = {
	name: 'cloudflare',
	peerName: `@tmcp/session-manager-durable-objects ${version('@tmcp/session-manager-durable-objects')}`,
	rows: workerRows,
	run: runInWorker,
	managers() {
		throw new Error('these managers are made in a Worker');
	},
};
