// Servers on the official SDKs that ask their clients something: whichever replica gets the answer, or the
// cancellation, the one that waits for it hears of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answering, type Answer } from '../src/clients.ts';
import { startCluster, type Cluster } from '../src/cluster.ts';
import type { Sdk } from '../src/sdk-node.ts';
import { soon, within } from '../src/wait.ts';

const A = 0;
const B = 1;
const ACCEPTED = { action: 'accept', content: { text: 'me' } };
const SAMPLED = { role: 'assistant', model: 'm', content: { type: 'text', text: 'me' } };

for (const kind of ['sdk1', 'sdk2'] as Sdk[]) {
	for (const made of ['sdk', 'client'] as const) {
		const each = (name: string, run: (cluster: Cluster) => Promise<void>) =>
			test(`${kind}, ${made}: ${name}`, async () => {
				await using cluster = await startCluster({ kind });
				await run(cluster);
				for (const node of cluster.nodes) assert.deepEqual(await node.control({ do: 'errors' }), []);
			});

		/** A client whose session and calls are on one replica, and whose answers go to the other one. */
		async function apart({ front }: Cluster, answer: Answer) {
			front.route = () => A;
			const client = await answering(front.url, made, async (request) => {
				front.route = () => B;
				return answer(request);
			});
			await front.opened(client.session);
			return client;
		}

		/** What the client said to B was taken there; the answer to its call may come first. */
		const taken = (cluster: Cluster) =>
			cluster.front.changed.until(() => posted(cluster).some(([node, status]) => node === B && status === 202), 'what B took');

		const posted = ({ front }: Cluster) => front.passed.filter((it) => it.method === 'POST').map(({ node, status }) => [node, status]);

		each('an answer that reaches the other replica', async (cluster) => {
			await using client = await apart(cluster, async ({ method, params }) => {
				assert.deepEqual([method, params.message], ['elicitation/create', 'A asks']);
				return ACCEPTED;
			});
			assert.equal(await within(client.call('ask'), 'the call'), 'A heard me');
			await taken(cluster);
			// The session did not go there with it.
			assert.equal((await cluster.b.control({ do: 'stats' })).localSessions, 0);
		});

		each('an answer to what was asked on the stream, which is on another replica than the call', async (cluster) => {
			const { front } = cluster;
			front.route = ({ method }) => (method === 'GET' ? B : A);
			await using client = await answering(front.url, made, async ({ method }) => {
				assert.equal(method, 'sampling/createMessage');
				front.route = () => B;
				return SAMPLED;
			});
			await front.opened(client.session);
			assert.equal(await within(client.call('sample'), 'the call'), 'A heard me');
			await taken(cluster);
		});

		each('answers behind a front that knows nothing', async (cluster) => {
			await using client = await answering(cluster.front.url, made, async ({ method }) => (method === 'elicitation/create' ? ACCEPTED : SAMPLED));
			await cluster.front.opened(client.session);
			const heard = new Set<string>();
			for (let turn = 0; turn < 6; turn++) {
				heard.add(await within(client.call('ask'), 'the call'));
				heard.add(await within(client.call('sample'), 'the call'));
				await client.call('whoami');
			}
			assert.deepEqual([...heard].sort(), ['A heard me', 'B heard me']);
		});

		each('a cancellation that reaches the other replica', async (cluster) => {
			const { front, a } = cluster;
			await using client = await apart(cluster, async () => ACCEPTED);
			const giving = new AbortController();
			const called = client.call('hang', giving.signal);
			const refused = assert.rejects(within(called, 'the call'));
			await front.changed.until(() => posted(cluster).length === 3, 'the call');
			front.route = () => B;
			giving.abort();
			await refused;
			await soon('the end of the call', async () => (await a.control({ do: 'hung' })).length > 0);
			assert.deepEqual(await a.control({ do: 'hung' }), [client.session]);
			await taken(cluster);
		});
	}
}
