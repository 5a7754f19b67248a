// What a server is asked to do, as it counts itself.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Commands or transactions so far. */
export type Load = () => Promise<number>;

/** `undefined` where there is no server. */
export function loadOf(url: string | undefined): Load | undefined {
	if (url === undefined) return undefined;
	return url.startsWith('redis:') ? () => commands(url) : () => transactions(url);
}

async function commands(url: string): Promise<number> {
	const { hostname, port } = new URL(url);
	const socket = createConnection(Number(port), hostname).setEncoding('utf8');
	let answer = '';
	socket.on('data', (text: string) => (answer += text));
	socket.end('INFO stats\r\nQUIT\r\n');
	await once(socket, 'close');
	return Number(/^total_commands_processed:(\d+)/m.exec(answer)?.[1]);
}

async function transactions(url: string): Promise<number> {
	const counted = 'select xact_commit + xact_rollback from pg_stat_database where datname = current_database()';
	const { stdout } = await run('psql', [url, '-XAtq', '-c', counted]);
	return Number(stdout);
}
