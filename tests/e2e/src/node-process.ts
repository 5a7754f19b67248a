// A process for one node at a time: told over IPC which one to run, and when to leave in good order.
import { runNode, type NodeOptions, type RunningNode } from './node.ts';

export type Order = { do: 'run'; options: NodeOptions } | { do: 'stop' };
export type Answer = { url: string } | { stopped: true } | { failed: string };

let node: RunningNode | undefined;

async function obey(order: Order): Promise<Answer> {
	if (order.do === 'run') {
		node = await runNode(order.options);
		return { url: node.url };
	}
	await node?.stop();
	node = undefined;
	return { stopped: true };
}

process.on('message', (order: Order) => {
	obey(order).then(
		(answer) => process.send!(answer),
		(error: Error) => process.send!({ failed: String(error.stack ?? error) }),
	);
});
process.on('disconnect', () => process.exit(0)); // never outlives the test
