//! The packed layouts of a crossing; `npm/src/wire.ts` is the other half.
//!
//! JavaScript writes text into the *inbox* and operations, as 32-bit words, into *ops*. This side
//! writes text into *out* and what happened, as 32-bit words, into *records*. All four are buffers of
//! JavaScript's that stay attached to a port.

/// Grows with each change of a layout: the TypeScript half refuses another one.
pub(crate) const VERSION: u32 = 2;

/// Operations: the first word of each.
pub(crate) mod op {
    /// `payload offset, length, target`
    pub(crate) const SEND_ONE: u32 = 1;
    /// `payload offset, length, count, target…`
    pub(crate) const SEND_LIST: u32 = 2;
    /// `payload offset, length`
    pub(crate) const SEND_ALL: u32 = 3;
    /// `call, payload offset, length, key offset, key length, count or ALL, target…`
    pub(crate) const SEND_CALL: u32 = 4;
    /// `token, id offset, length, cursor offset, length or NONE, flags`
    pub(crate) const OPEN: u32 = 5;
    /// `token`
    pub(crate) const RELEASE: u32 = 6;
    /// `token, 0 or 1`
    pub(crate) const PAUSE: u32 = 7;
    /// `call or 0, target, fields, (offset, length) a field`
    pub(crate) const INFO_PUT: u32 = 8;
    /// `call or 0, target`
    pub(crate) const INFO_DELETE: u32 = 9;
    /// `call or 0, target, uri offset, length`
    pub(crate) const SUBSCRIBE: u32 = 10;
    /// `call or 0, target, uri offset, length`
    pub(crate) const UNSUBSCRIBE: u32 = 11;
    /// `call, notification offset, length`
    pub(crate) const NOTIFY: u32 = 12;
    /// `token`
    pub(crate) const ACKNOWLEDGE: u32 = 13;
    /// `call`: done when all sends that follow in this exchange were answered; failures are told as lost
    pub(crate) const GROUP: u32 = 14;
}

/// A target is a stream's token, or this bit with the length of an id and a second word, its offset.
pub(crate) const ID_BIT: u32 = 0x8000_0000;
/// In place of a count: all sessions.
pub(crate) const ALL: u32 = u32::MAX;
/// In place of a length: absent.
pub(crate) const NONE: u32 = u32::MAX;

/// Flags of [`op::OPEN`].
pub(crate) mod open {
    /// Fail with `conflict` when a live node holds the session's stream.
    pub(crate) const REJECT: u32 = 1;
    /// Put an `id:` line in front of SSE frames.
    pub(crate) const FRAME_IDS: u32 = 2;
    /// Tell the cursor at which the stream starts, before its first event.
    pub(crate) const TELL_START: u32 = 4;
}

/// Fields of [`op::INFO_PUT`], in this order.
pub(crate) mod field {
    pub(crate) const CLIENT_INFO: u32 = 1;
    pub(crate) const CLIENT_CAPABILITIES: u32 = 2;
    pub(crate) const LOG_LEVEL: u32 = 4;
    pub(crate) const PROTOCOL_VERSION: u32 = 8;
    pub(crate) const INITIALIZE_PARAMS: u32 = 16;
}

/// Records: `kind, id, a, b, c`.
pub(crate) mod record {
    /// Words a record.
    pub(crate) const WORDS: usize = 5;
    /// Bytes for a stream: `token, from, to`
    pub(crate) const CHUNK: u32 = 1;
    /// A stream ended: `token, reason`
    pub(crate) const END: u32 = 2;
    /// A stream was opened, and this is worth telling: `token, cursor from, to, gap`
    pub(crate) const OPENED: u32 = 3;
    /// A stream was not opened: `token, error from, to`
    pub(crate) const OPEN_FAILED: u32 = 4;
    /// `call, accepted, dropped, duplicates`
    pub(crate) const RECEIPT: u32 = 5;
    /// A call is done: `call, JSON from, to`
    pub(crate) const DONE: u32 = 6;
    /// A call failed: `call, error from, to`
    pub(crate) const FAILED: u32 = 7;
    /// A stream that is read by asking has something: `token`
    pub(crate) const READABLE: u32 = 8;
    /// A notification: `token, JSON from, to`
    pub(crate) const NOTIFICATION: u32 = 9;
    /// A subscription ended: `token, reason`
    pub(crate) const SUBSCRIPTION_END: u32 = 10;
    /// A session's info changed elsewhere: `0, id from, to`; nothing between them stands for any
    pub(crate) const INFO_CHANGED: u32 = 11;
    /// An operation that nobody waits for failed: `0, error from, to`
    pub(crate) const LOST: u32 = 12;
    /// The next item needs more room in *out*: `0, bytes`
    pub(crate) const GROW: u32 = 13;
    /// An event that was asked for: `kind, payload from, to = cursor from, cursor to`
    pub(crate) const EVENT: u32 = 14;
}

/// What an exchange leaves in the first words of *records*; the records follow.
pub(crate) mod head {
    /// Words of records.
    pub(crate) const RECORDS: usize = 0;
    /// Words of operations that were done.
    pub(crate) const DONE: usize = 1;
    /// Bytes in *out*.
    pub(crate) const OUT: usize = 2;
    /// Words of the head.
    pub(crate) const WORDS: usize = 4;
}

/// What an exchange returns.
pub(crate) mod flag {
    /// There is more to fetch.
    pub(crate) const MORE: u32 = 1;
    /// A stream's queue is half full: fetch before going on.
    pub(crate) const PRESSED: u32 = 2;
    /// Other ports of this thread have something to fetch.
    pub(crate) const OTHERS: u32 = 4;
    /// There are records.
    pub(crate) const RECORDS: u32 = 8;
}

/// Why a stream or subscription ended, by number.
const REASONS: [&str; 8] =
    ["closed", "replaced", "overflow", "gap", "fenced", "terminated", "shutdown", "cancelled"];

/// The number of an end's reason.
pub(crate) fn reason(name: &str) -> u32 {
    REASONS.iter().position(|known| *known == name).unwrap_or_default() as u32
}

/// Reads 32-bit words out of bytes.
pub(crate) struct Words<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Words<'a> {
    /// The words from `from` to `to`, as far as there are any.
    pub(crate) fn new(bytes: &'a [u8], from: u32, to: u32) -> Self {
        Words { bytes, at: from as usize, end: (to as usize).min(bytes.len() / 4) }
    }

    /// How many words were read, counted from the buffer's start.
    pub(crate) fn position(&self) -> u32 {
        self.at as u32
    }

    pub(crate) fn next(&mut self) -> Option<u32> {
        if self.at >= self.end {
            return None;
        }
        let from = self.at * 4;
        self.at += 1;
        let word = self.bytes.get(from..from + 4)?;
        Some(u32::from_ne_bytes(word.try_into().ok()?))
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u32; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.next()?;
        }
        Some(words)
    }
}

fn put(records: &mut [u8], at: usize, word: u32) {
    if let Some(place) = records.get_mut(at * 4..at * 4 + 4) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

/// Notes how far the operations got, and nothing else.
pub(crate) fn note_done(records: &mut [u8], done: u32) {
    put(records, head::DONE, done);
}

/// Writes text and records into the buffers of one exchange.
pub(crate) struct Output<'a> {
    out: &'a mut [u8],
    records: &'a mut [u8],
    out_at: usize,
    records_at: usize,
}

impl<'a> Output<'a> {
    pub(crate) fn new(out: &'a mut [u8], records: &'a mut [u8]) -> Self {
        Output { out, records, out_at: 0, records_at: head::WORDS }
    }

    /// Whether one more record and this many bytes fit.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.out_at + bytes <= self.out.len() && (self.records_at + record::WORDS) * 4 <= self.records.len()
    }

    /// Whether they would not even fit into empty buffers.
    pub(crate) fn too_small_for(&self, bytes: usize) -> bool {
        bytes > self.out.len()
    }

    pub(crate) fn position(&self) -> u32 {
        self.out_at as u32
    }

    /// Appends text; the caller has asked whether it fits.
    pub(crate) fn text(&mut self, text: &str) {
        let end = self.out_at + text.len();
        if let Some(place) = self.out.get_mut(self.out_at..end) {
            place.copy_from_slice(text.as_bytes());
            self.out_at = end;
        }
    }

    pub(crate) fn record(&mut self, kind: u32, id: u32, rest: [u32; 3]) {
        let [a, b, c] = rest;
        for word in [kind, id, a, b, c] {
            put(self.records, self.records_at, word);
            self.records_at += 1;
        }
    }

    /// Makes the last record, a chunk, end at what was written since.
    pub(crate) fn extend_chunk(&mut self) {
        put(self.records, self.records_at - 2, self.out_at as u32);
    }

    /// Writes the head; returns whether there are records.
    pub(crate) fn finish(self, done: u32) -> bool {
        put(self.records, head::RECORDS, (self.records_at - head::WORDS) as u32);
        put(self.records, head::DONE, done);
        put(self.records, head::OUT, self.out_at as u32);
        self.records_at > head::WORDS
    }
}
