// The events: finished SSE frames of 512 bytes that say whose they are and which of their sender's turns they are.

export const FRAME_BYTES = 512;
/** In place of a session's number: all sessions. */
export const ALL = 99_999;
/** Turns are told apart modulo this. */
export const TURNS = 8;

const BEFORE = 'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"';
const AFTER = '"}}\n\n';
const FILL = 'x'.repeat(FRAME_BYTES - BEFORE.length - AFTER.length - 'nnnnn.t '.length);
const NUMBER_AT = BEFORE.length;
const TURN_AT = NUMBER_AT + 6;

const ZERO = 0x30;
const NEWLINE = 0x0a;
const I = 0x69;

/** The frame of a session's (or of all sessions') turn. */
export function frame(session: number, turn: number): string {
	const text = `${BEFORE}${String(session).padStart(5, '0')}.${turn % TURNS} ${FILL}${AFTER}`;
	return flat(text);
}

/** The same text as if it had been read from a request: text that was put together is slower to compare and to write. */
export function flat(text: string): string {
	return Buffer.from(text, 'latin1').toString('latin1');
}

/** All the frames there are for `sessions` sessions: by turn, then by session. */
export function frames(sessions: number): string[][] {
	return Array.from({ length: TURNS }, (_, turn) => Array.from({ length: sessions }, (_, n) => frame(n, turn)));
}

/** Where the frame begins whose event begins at `at`: behind its `id:` line, if it has one. */
function start(bytes: Uint8Array, at: number): number {
	if (bytes[at] !== I) return at;
	// a loop: `indexOf` is a call out of JavaScript, which costs several times as much for a line this short
	let end = at;
	while (end < bytes.length && bytes[end] !== NEWLINE) end++;
	return end + 1;
}

/**
 * Reads one event of a chunk, which has to be the one of `session` (or of all) and `turn`; returns where the next one
 * begins.
 */
export function take(bytes: Uint8Array, at: number, session: number, turn: number): number {
	const from = start(bytes, at);
	const to = from + FRAME_BYTES;
	let number = 0;
	for (let digit = from + NUMBER_AT; digit < from + NUMBER_AT + 5; digit++) number = number * 10 + bytes[digit]! - ZERO;
	const right =
		to <= bytes.length &&
		(number === session || number === ALL) &&
		bytes[from + TURN_AT]! - ZERO === turn % TURNS &&
		bytes[to - 1] === NEWLINE &&
		bytes[to - 2] === NEWLINE;
	if (!right) throw new Error(wrong(bytes, at, session, turn));
	return to;
}

/** As {@link take}, every byte of it. */
export function takeExactly(bytes: Uint8Array, at: number, session: number, turn: number): number {
	const to = take(bytes, at, session, turn);
	const got = Buffer.from(bytes.buffer, bytes.byteOffset + to - FRAME_BYTES, FRAME_BYTES).toString('latin1');
	if (got !== frame(session, turn) && got !== frame(ALL, turn)) throw new Error(wrong(bytes, at, session, turn));
	return to;
}

function wrong(bytes: Uint8Array, at: number, session: number, turn: number): string {
	const got = JSON.stringify(Buffer.from(bytes.subarray(at, at + 200)).toString());
	return `session ${session} should have got its turn ${turn % TURNS} (of ${turn}), and got ${got}…`;
}
