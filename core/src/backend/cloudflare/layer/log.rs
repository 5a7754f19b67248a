//! A bounded log in storage: what `backend/log.rs` is in memory.

use serde::{Deserialize, Serialize};

use super::host::Host;
use super::keys;
use crate::backend::cloudflare::wire::Keep;
use crate::runtime::random_epoch;
use crate::streams::{Payload, Position};

/// The most idempotency keys a log remembers.
const MAX_KEYS: u64 = 1_024;
/// An entry's value: when it was accepted, after which broadcast, payload.
const HEADER: usize = 24;

/// One life (epoch) of a log; the events lie under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Log {
    epoch: u64,
    head: u64,
    /// The oldest event that is kept; beyond the head, if none is.
    first: u64,
    first_ms: u64,
    bytes: u64,
    keys: (u64, u64),
    first_key_ms: u64,
    pub(super) keep: Keep,
}

/// An event as it lies in storage.
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) accepted_ms: u64,
    pub(super) after_broadcast: Position,
    pub(super) payload: Payload,
}

/// What a log holds after a position.
pub(super) struct Found {
    pub(super) start: Position,
    pub(super) gap: bool,
    pub(super) entries: Vec<Entry>,
}

impl Log {
    pub(super) fn new(keep: Keep) -> Self {
        Log {
            epoch: random_epoch(),
            head: 0,
            first: 1,
            first_ms: 0,
            bytes: 0,
            keys: (0, 0),
            first_key_ms: 0,
            keep,
        }
    }

    pub(super) fn head(&self) -> Position {
        Position { epoch: self.epoch, offset: self.head }
    }

    fn is_empty(&self) -> bool {
        self.first > self.head
    }

    pub(super) fn append(
        &mut self,
        host: &impl Host,
        name: &str,
        payload: &Payload,
        after_broadcast: Position,
    ) -> Position {
        let now_ms = host.now_ms();
        self.head += 1;
        if self.keep.events == 0 {
            self.first = self.head + 1;
            return self.head();
        }
        let mut value = Vec::with_capacity(HEADER + payload.len());
        for number in [now_ms, after_broadcast.epoch, after_broadcast.offset] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value.extend_from_slice(payload.as_bytes());
        host.put(&keys::event(name, self.head), &value);
        if self.first == self.head {
            self.first_ms = now_ms;
        }
        self.bytes += payload.len() as u64;
        self.trim(host, name);
        self.head()
    }

    /// Removes what is too much or too old, events and idempotency keys.
    pub(super) fn trim(&mut self, host: &impl Host, name: &str) {
        let now_ms = host.now_ms();
        while !self.is_empty() {
            // The newest stays however large it is, or a known session could never be given it later.
            let fits = self.bytes <= self.keep.bytes || self.first == self.head;
            let count = self.head + 1 - self.first;
            if count <= self.keep.events && fits && self.first_ms.saturating_add(self.keep.age_ms) > now_ms {
                break;
            }
            let key = keys::event(name, self.first);
            let length = host.get(&key).map_or(0, |value| value.len().saturating_sub(HEADER));
            host.delete(&key);
            self.bytes = self.bytes.saturating_sub(length as u64);
            self.first += 1;
            let next = host.get(&keys::event(name, self.first)).and_then(|value| read_u64(&value, 0));
            self.first_ms = next.unwrap_or(now_ms);
        }
        self.trim_keys(host, name, now_ms);
    }

    fn trim_keys(&mut self, host: &impl Host, name: &str, now_ms: u64) {
        while self.keys.0 < self.keys.1 {
            if self.keys.1 - self.keys.0 <= MAX_KEYS
                && self.first_key_ms.saturating_add(self.keep.age_ms) > now_ms
            {
                break;
            }
            let order = keys::idempotency_order(name, self.keys.0);
            if let Some(value) = host.get(&order) {
                let text = String::from_utf8_lossy(value.get(8..).unwrap_or_default()).into_owned();
                host.delete(&keys::idempotency(name, &text));
            }
            host.delete(&order);
            self.keys.0 += 1;
            let next = host.get(&keys::idempotency_order(name, self.keys.0));
            self.first_key_ms = next.and_then(|value| read_u64(&value, 0)).unwrap_or(now_ms);
        }
    }

    /// Whether an idempotency key is noted.
    pub(super) fn knows(&mut self, host: &impl Host, name: &str, key: &str) -> bool {
        self.trim_keys(host, name, host.now_ms());
        host.get(&keys::idempotency(name, key)).is_some()
    }

    /// Notes an idempotency key.
    pub(super) fn note(&mut self, host: &impl Host, name: &str, key: &str) {
        let now_ms = host.now_ms();
        if self.keys.0 == self.keys.1 {
            self.first_key_ms = now_ms;
        }
        let order = [&now_ms.to_be_bytes(), key.as_bytes()].concat();
        host.put(&keys::idempotency_order(name, self.keys.1), &order);
        host.put(&keys::idempotency(name, key), &[]);
        self.keys.1 += 1;
        self.trim_keys(host, name, now_ms);
    }

    /// When the next event or key grows too old.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let event = (!self.is_empty()).then_some(self.first_ms);
        let key = (self.keys.0 < self.keys.1).then_some(self.first_key_ms);
        event.into_iter().chain(key).min().map(|at| at.saturating_add(self.keep.age_ms))
    }

    /// What follows `after`; when that can't be had without loss, everything retained and a gap.
    pub(super) fn after(&self, host: &impl Host, name: &str, after: Position) -> Found {
        let exact = after.epoch == self.epoch && after.offset <= self.head && after.offset + 1 >= self.first;
        let from = if exact { after.offset + 1 } else { self.first };
        Found {
            start: Position { epoch: self.epoch, offset: from - 1 },
            gap: !exact,
            entries: self.entries(host, name, from),
        }
    }

    /// The position before the first event accepted at or after `at_ms`.
    pub(super) fn since(&self, host: &impl Host, name: &str, at_ms: u64) -> Position {
        let entries = self.entries(host, name, self.first);
        let later = entries.iter().rev().take_while(|entry| entry.accepted_ms >= at_ms).count() as u64;
        Position { epoch: self.epoch, offset: self.head - later }
    }

    fn entries(&self, host: &impl Host, name: &str, from: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        if from > self.head {
            return entries;
        }
        let (low, high) = (keys::event(name, from), keys::event(name, self.head + 1));
        host.scan(&low, &high, usize::MAX, &mut |key, value| entries.extend(read_entry(key, value)));
        entries
    }

    /// Removes everything under its name.
    pub(super) fn clear(&mut self, host: &impl Host, name: &str) {
        for offset in self.first..=self.head {
            host.delete(&keys::event(name, offset));
        }
        self.first = self.head + 1;
        self.bytes = 0;
        self.keep.age_ms = 0;
        self.trim_keys(host, name, u64::MAX);
    }
}

fn read_entry(key: &[u8], value: &[u8]) -> Option<Entry> {
    let payload = std::str::from_utf8(value.get(HEADER..)?).ok()?;
    Some(Entry {
        offset: read_u64(key, key.len().checked_sub(8)?)?,
        accepted_ms: read_u64(value, 0)?,
        after_broadcast: Position { epoch: read_u64(value, 8)?, offset: read_u64(value, 16)? },
        payload: payload.into(),
    })
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
