// What a row needs of the server itself, beside the managers.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { promisify } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Side } from '../backend.ts';

const run = promisify(execFile);

export interface Server {
	/** What is started, by tests/support/servers.mjs. */
	readonly asked: string;
	/** Empties it. */
	prepare(url: string, side: Side): Promise<void>;
	ready(url: string, side: Side, sessions: number): Promise<void>;
	clutter(url: string, side: Side, count: number): Promise<void>;
	size(url: string): Promise<{ bytes: number; entries: number }>;
}

async function redis(url: string, command: string): Promise<string> {
	const { hostname, port } = new URL(url);
	const socket = createConnection(Number(port), hostname).setEncoding('utf8');
	let answer = '';
	socket.on('data', (text: string) => (answer += text));
	socket.end(`${command}\r\nQUIT\r\n`);
	await once(socket, 'close');
	return answer;
}

export const redisServer: Server = {
	asked: 'redis://',
	async prepare(url) {
		await redis(url, 'FLUSHALL');
	},
	async ready(url, side, sessions) {
		// Theirs does not wait for its subscriptions: two channels a session.
		while (side === 'peer') {
			const channels = Number(/^pubsub_channels:(\d+)/m.exec(await redis(url, 'INFO stats'))?.[1] ?? 0);
			if (channels >= sessions * 2) return;
			await sleep(1);
		}
	},
	async clutter(url, _side, count) {
		await redis(url, `EVAL "for i=1,${count} do redis.call('SET','unrelated:'..i,'x') end" 0`);
	},
	async size(url) {
		const [memory, keys] = [await redis(url, 'INFO memory'), await redis(url, 'DBSIZE')];
		return { bytes: Number(/^used_memory:(\d+)/m.exec(memory)?.[1]), entries: Number(/^:(\d+)/m.exec(keys)?.[1]) };
	},
};

async function sql(url: string, statement: string): Promise<string> {
	const { stdout } = await run('psql', [url, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', statement]);
	return stdout.trim();
}

/** As their package makes them, which fails when two processes do it at once. */
const THEIR_TABLES = `
	create table tmcp_sessions (id text primary key, updated_at timestamp default now());
	create table tmcp_session_client_info (id text primary key, value text);
	create table tmcp_session_client_capabilities (id text primary key, value text);
	create table tmcp_session_log_level (id text primary key, value text);
	create table tmcp_session_subscriptions (id text primary key, value text);
	create table tmcp_subscription_messages (id text primary key, value text not null, created_at timestamp not null default now());`;

export const postgresServer: Server = {
	asked: 'postgresql://',
	async prepare(url, side) {
		await sql(url, `drop schema public cascade; create schema public; ${side === 'peer' ? THEIR_TABLES : ''}`);
	},
	async ready() {},
	async clutter(url, _side, count) {
		for (const table of ['tmcp_session_client_info', 'tmcp_session_client_capabilities', 'tmcp_session_log_level']) {
			await sql(url, `insert into ${table} (id, value) select 'unrelated-' || n, '{}' from generate_series(1, ${count}) n`);
		}
	},
	async size(url) {
		const size = await sql(url, 'select pg_database_size(current_database())');
		const rows = await sql(url, 'select count(*) from tmcp_sessions');
		return { bytes: Number(size), entries: Number(rows) };
	},
};
