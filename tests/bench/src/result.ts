// What came out: as JSON for programs, as a table for people.
import { FLOOR } from './floor.ts';
import type { Measured } from './measure.ts';
import type { Side } from './backend.ts';
import type { Better, Figure, Value } from './row.ts';
import type { AnyRow } from './measure.ts';
import { median } from './time.ts';

export interface Result {
	readonly name: string;
	readonly backend: string;
	readonly unit: string;
	readonly better: Better;
	/** A value a round. */
	readonly ours: readonly number[];
	readonly peer: readonly number[];
	/** What the peer came to is only a bound, or nothing: why. */
	readonly bound?: string | undefined;
	readonly peerName: string;
	readonly note?: string | undefined;
	/** The ratio that is aimed at, if one is. */
	readonly aim: number | undefined;
}

/** How a row's name goes on where it is not ours as it is by default. */
const VARIANTS: Partial<Record<Side, string>> = { live: ', history off', relaxed: ', durability=relaxed' };

/** Ours beside the peer's, with our default options and, where it matters, with history off; then beside what could be. */
export function results(measured: readonly Measured[]): Result[] {
	const found = (row: AnyRow, side: Side) => measured.find((it) => it.row === row && it.side === side && (it.rounds.length > 0 || it.error));
	const pairs = [['ours', 'peer'], ['live', 'peer'], ['relaxed', 'peer'], ['ours', 'floor']] as const;
	return [...new Set(measured.map((it) => it.row))].flatMap((row) =>
		pairs.flatMap(([side, other]) => {
			const [ours, theirs] = [found(row, side), found(row, other)];
			return ours?.rounds.length && theirs ? row.figures.map((figure, n) => result(figure, n, ours, theirs)) : [];
		}),
	);
}

function result(figure: Figure, n: number, ours: Measured, peer: Measured): Result {
	const { name, unit, better } = figure;
	const isPeer = peer.side === 'peer';
	return {
		name: `${name}${VARIANTS[ours.side] ?? ''}`,
		backend: ours.backend.name,
		unit,
		better,
		ours: ours.rounds.map((values) => number(values[n]!)),
		peer: peer.rounds.map((values) => number(values[n]!)),
		bound: peer.error ?? peer.rounds.map((values) => values[n]!).map((it) => (typeof it === 'number' ? undefined : it.why)).find(Boolean),
		peerName: isPeer ? peer.backend.peerName : FLOOR,
		note: isPeer ? peer.backend.peerNote : undefined,
		aim: isPeer ? aim(figure, ours) : undefined,
	};
}

function aim({ aim, aimLive }: Figure, { side, backend }: Measured): number {
	const asked = (side === 'live' ? aimLive : undefined) ?? aim;
	return (typeof asked === 'object' ? asked[backend.name] : asked) ?? 1;
}

function number(value: Value): number {
	return typeof value === 'number' ? value : value.atLeast;
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
		...(it.bound ? { peer_is_a_bound: it.bound } : {}),
	}));
	return `${JSON.stringify(rows, undefined, 2)}\n`;
}

/** The table in Markdown, its columns aligned, so that it can be read as it is. */
export function table(all: readonly Result[]): string {
	const notes: string[] = [];
	const mark = (note: string | undefined) => {
		if (note === undefined) return '';
		if (!notes.includes(note)) notes.push(note);
		return ` [${notes.indexOf(note) + 1}]`;
	};
	const rows = all.map((it) => {
		const is = ratio(it);
		return [
			it.name,
			it.backend,
			`${shown(median(it.ours))} ${it.unit}`,
			it.peer.length === 0 ? '–' : `${atLeast(it)}${shown(median(it.peer))} ${it.unit}`,
			`${it.peerName}${[it.note, it.bound].map(mark).join('')}`,
			it.peer.length === 0 ? '–' : `${atLeast(it)}${shown(is)}×`,
			it.aim === undefined ? '' : `≥ ${it.aim}×${is < it.aim ? ' (missed)' : ''}`,
		];
	});
	const head = ['', 'backend', 'ours', 'peer', 'who', 'ratio', 'aim'];
	const right = [false, false, true, true, false, true, false];
	const widths = head.map((text, n) => Math.max(text.length, 3, ...rows.map((row) => row[n]!.length)));
	const line = (row: readonly string[]) =>
		`| ${row.map((text, n) => (right[n] ? text.padStart(widths[n]!) : text.padEnd(widths[n]!))).join(' | ')} |`;
	const rule = `|${widths.map((width, n) => (right[n] ? `${'-'.repeat(width + 1)}:` : '-'.repeat(width + 2))).join('|')}|`;
	const below = notes.map((note, n) => `\n[${n + 1}] ${note}.`);
	return [line(head), rule, ...rows.map(line), ...below].join('\n');
}

function atLeast({ bound, better, peer }: Result): string {
	return bound && peer.length > 0 && better === 'lower' ? '≥ ' : '';
}

function significant(value: number): number {
	return Number(value.toPrecision(4));
}

function shown(value: number): string {
	return Number(value.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 3 });
}
