// What tests do to the server behind the nodes, whatever it is.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { promisify } from 'node:util';
import { asksForServer, startServer, type Server } from '../../support/servers.mjs';

const run = promisify(execFile);

/** The URL of the server under test, without what follows the address; `undefined` on the embedded backend. */
export const serverUrl = (() => {
	const url = process.env['MCP_SESSIONS_TEST_URL'] ?? 'memory:';
	return url.startsWith('memory:') || asksForServer(url) ? undefined : url;
})();

/** Another server of the same kind. */
export function anotherServer(options: { port?: number } = {}): Promise<Server> {
	return startServer(`${new URL(serverUrl!).protocol}//`, options);
}

/** Says one thing to a Redis server, and gives its answer as it came. */
export async function redis(url: string, command: string): Promise<string> {
	const { hostname, port } = new URL(url);
	const socket = createConnection(Number(port), hostname).setEncoding('utf8');
	let answer = '';
	socket.on('data', (text: string) => (answer += text));
	socket.end(`${command}\r\nQUIT\r\n`);
	await once(socket, 'close');
	return answer;
}

/** Runs one statement on a PostgreSQL server. */
export async function sql(url: string, statement: string): Promise<string> {
	const { stdout } = await run('psql', [url, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', statement]);
	return stdout.trim();
}

/** Cuts every connection to the server, of all nodes and both kinds. */
export async function cutConnections(url: string): Promise<void> {
	if (url.startsWith('redis:')) {
		await redis(url, 'CLIENT KILL TYPE normal');
		await redis(url, 'CLIENT KILL TYPE pubsub');
		return;
	}
	await sql(url, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'");
}

/** How many keys or rows a cluster's backend holds; `undefined` on the embedded one. */
export async function stored(backend: string): Promise<number | undefined> {
	if (serverUrl === undefined) return undefined;
	const place = new URL(backend).searchParams;
	if (serverUrl.startsWith('redis:')) {
		// The braces and the colon of a prefix mean nothing in a pattern.
		const answer = await redis(serverUrl, `EVAL "return #redis.call('KEYS', ARGV[1])" 0 ${place.get('prefix')}*`);
		return Number(answer.match(/^:(\d+)/)![1]);
	}
	const counted = `query_to_xml(format('select count(*) as c from %I.%I', schemaname, tablename), false, true, '')`;
	const sum = `select sum((xpath('//c/text()', ${counted}))[1]::text::int) from pg_tables where schemaname = '${place.get('schema')}'`;
	return Number(await sql(serverUrl, sum));
}
