// What came out: as JSON for programs, as a table for people.
import type { Measured } from './measure.ts';
import type { Better, Figure } from './row.ts';
import { median } from './time.ts';

export interface Result {
	readonly name: string;
	readonly backend: string;
	readonly unit: string;
	readonly better: Better;
	/** A value a round. */
	readonly ours: readonly number[];
	readonly peer: readonly number[];
	readonly peerName: string;
	readonly aim: number;
}

/** Ours beside the peer's, with our default options and, where it matters, with history off. */
export function results(measured: readonly Measured[]): Result[] {
	const peers = measured.filter((it) => it.side === 'peer' && it.rounds.length > 0);
	return peers.flatMap((peer) =>
		(['ours', 'live'] as const).flatMap((side) => {
			const ours = measured.find((it) => it.row === peer.row && it.side === side && it.rounds.length > 0);
			return ours ? peer.row.figures.map((figure, n) => result(figure, n, ours, peer)) : [];
		}),
	);
}

function result(figure: Figure, n: number, ours: Measured, peer: Measured): Result {
	const { name, unit, better, aim = 1 } = figure;
	return {
		name: ours.side === 'live' ? `${name}, history off` : name,
		backend: ours.backend.name,
		unit,
		better,
		ours: ours.rounds.map((values) => values[n]!),
		peer: peer.rounds.map((values) => values[n]!),
		peerName: peer.backend.peerName,
		aim,
	};
}

/** More than 1: we are better. */
export function ratio({ better, ours, peer }: Result): number {
	return better === 'higher' ? median(ours) / median(peer) : median(peer) / median(ours);
}

export function json(all: readonly Result[]): string {
	const rows = all.map((it) => ({
		name: it.name,
		backend: it.backend,
		unit: it.unit,
		better: it.better,
		ours: significant(median(it.ours)),
		peer: significant(median(it.peer)),
		peer_name: it.peerName,
		ratio: significant(ratio(it)),
	}));
	return `${JSON.stringify(rows, undefined, 2)}\n`;
}

/** The table in Markdown, its columns aligned, so that it can be read as it is. */
export function table(all: readonly Result[]): string {
	const rows = all.map((it) => {
		const is = ratio(it);
		return [
			it.name,
			it.backend,
			`${shown(median(it.ours))} ${it.unit}`,
			`${shown(median(it.peer))} ${it.unit}`,
			it.peerName,
			`${shown(is)}×`,
			`≥ ${it.aim}×${is < it.aim ? ' (missed)' : ''}`,
		];
	});
	const head = ['', 'backend', 'ours', 'peer', 'who', 'ratio', 'aim'];
	const right = [false, false, true, true, false, true, false];
	const widths = head.map((text, n) => Math.max(text.length, 3, ...rows.map((row) => row[n]!.length)));
	const line = (row: readonly string[]) =>
		`| ${row.map((text, n) => (right[n] ? text.padStart(widths[n]!) : text.padEnd(widths[n]!))).join(' | ')} |`;
	const rule = `|${widths.map((width, n) => (right[n] ? `${'-'.repeat(width + 1)}:` : '-'.repeat(width + 2))).join('|')}|`;
	return [line(head), rule, ...rows.map(line)].join('\n');
}

function significant(value: number): number {
	return Number(value.toPrecision(4));
}

function shown(value: number): string {
	return Number(value.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 3 });
}
