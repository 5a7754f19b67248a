//! A bounded log in this process: offsets, trimming by count, bytes and age, idempotency keys.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::options::Retention;
use crate::runtime::random_epoch;
use crate::streams::{Payload, Position};

/// The most idempotency keys a log remembers.
const MAX_KEYS: usize = 1_024;

/// An entry with the time it was accepted and whatever its log notes beside.
pub(crate) struct Entry<N> {
    pub(crate) accepted_ms: u64,
    pub(crate) payload: Payload,
    pub(crate) note: N,
}

/// One life (epoch) of a log.
pub(crate) struct BoundedLog<N> {
    epoch: u64,
    /// The offset of the last event accepted.
    head: u64,
    entries: VecDeque<Entry<N>>,
    bytes: usize,
    keys: Option<Box<Keys>>,
}

#[derive(Default)]
struct Keys {
    order: VecDeque<(u64, Arc<str>)>,
    known: HashSet<Arc<str>>,
}

impl Keys {
    fn trim(&mut self, now_ms: u64, age_ms: u64) {
        while let Some((at, _)) = self.order.front() {
            if self.order.len() <= MAX_KEYS && at + age_ms > now_ms {
                break;
            }
            if let Some((_, key)) = self.order.pop_front() {
                self.known.remove(&key);
            }
        }
    }
}

/// What a log holds after a position.
pub(crate) struct Found<'a, N> {
    pub(crate) start: Position,
    pub(crate) gap: bool,
    pub(crate) entries: Vec<(u64, &'a Entry<N>)>,
}

impl<N> BoundedLog<N> {
    pub(crate) fn new() -> Self {
        BoundedLog { epoch: random_epoch(), head: 0, entries: VecDeque::new(), bytes: 0, keys: None }
    }

    pub(crate) fn head(&self) -> Position {
        Position { epoch: self.epoch, offset: self.head }
    }

    /// Whether a key was noted.
    pub(crate) fn knows(&mut self, key: &Arc<str>, now_ms: u64, retention: &Retention) -> bool {
        self.keys.as_mut().is_some_and(|keys| {
            keys.trim(now_ms, retention.age_ms);
            keys.known.contains(key)
        })
    }

    /// Notes a key; true when it was known.
    pub(crate) fn is_duplicate(&mut self, key: &Arc<str>, now_ms: u64, retention: &Retention) -> bool {
        let keys = self.keys.get_or_insert_default();
        keys.trim(now_ms, retention.age_ms);
        if !keys.known.insert(key.clone()) {
            return true;
        }
        keys.order.push_back((now_ms, key.clone()));
        keys.trim(now_ms, retention.age_ms);
        false
    }

    pub(crate) fn append(
        &mut self,
        payload: Payload,
        note: N,
        now_ms: u64,
        retention: &Retention,
    ) -> Position {
        self.head += 1;
        if retention.events > 0 {
            self.bytes += payload.len();
            self.entries.push_back(Entry { accepted_ms: now_ms, payload, note });
            self.trim(now_ms, retention);
        }
        self.head()
    }

    pub(crate) fn trim(&mut self, now_ms: u64, retention: &Retention) {
        while let Some(oldest) = self.entries.front() {
            // The newest stays however large it is, or a known session could never be given it later.
            let fits = self.bytes <= retention.bytes || self.entries.len() == 1;
            let kept = self.entries.len() <= retention.events
                && fits
                && oldest.accepted_ms + retention.age_ms > now_ms;
            if kept {
                break;
            }
            self.bytes -= oldest.payload.len();
            self.entries.pop_front();
        }
        if self.entries.is_empty() && self.entries.capacity() > 16 {
            self.entries = VecDeque::new();
        }
        if let Some(keys) = &mut self.keys {
            keys.trim(now_ms, retention.age_ms);
            if keys.order.is_empty() {
                self.keys = None;
            }
        }
    }

    /// When the next entry or key grows too old.
    pub(crate) fn due_ms(&self, retention: &Retention) -> Option<u64> {
        let entry = self.entries.front().map(|entry| entry.accepted_ms);
        let key = self.keys.as_ref().and_then(|keys| keys.order.front()).map(|(at, _)| *at);
        entry.into_iter().chain(key).min().map(|at| at + retention.age_ms)
    }

    fn first_retained(&self) -> u64 {
        self.head + 1 - self.entries.len() as u64
    }

    /// What follows `after`; when that can't be had without loss, everything retained and a gap.
    pub(crate) fn after(&self, after: Position) -> Found<'_, N> {
        let exact = after.epoch == self.epoch
            && after.offset <= self.head
            && after.offset + 1 >= self.first_retained();
        let from = if exact { after.offset + 1 } else { self.first_retained() };
        let skipped = (from - self.first_retained()) as usize;
        Found {
            start: Position { epoch: self.epoch, offset: from - 1 },
            gap: !exact,
            entries: (from..).zip(self.entries.iter().skip(skipped)).collect(),
        }
    }

    /// The position before the first entry accepted at or after `at_ms`.
    pub(crate) fn since(&self, at_ms: u64) -> Position {
        let later = self.entries.iter().rev().take_while(|entry| entry.accepted_ms >= at_ms).count();
        Position { epoch: self.epoch, offset: self.head - later as u64 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn log(events: usize, retention: &Retention) -> BoundedLog<()> {
        let mut log = BoundedLog::new();
        for at in 0..events {
            log.append(format!("m{at}").into(), (), at as u64, retention);
        }
        log
    }

    #[test]
    fn count_bytes_and_age_trim() {
        let by_count = log(10, &Retention { events: 3, ..Retention::default() });
        assert_eq!(by_count.entries.len(), 3);
        let by_bytes = log(10, &Retention { bytes: 5, ..Retention::default() });
        assert_eq!((by_bytes.entries.len(), by_bytes.bytes), (2, 4));
        let retention = Retention { age_ms: 4, ..Retention::default() };
        assert_eq!(log(10, &retention).entries.len(), 4);
    }

    #[test]
    fn a_trimmed_or_foreign_position_is_a_gap() {
        let log = log(10, &Retention { events: 3, ..Retention::default() });
        let at = |offset| Position { epoch: log.epoch, offset };
        assert!(log.after(at(6)).gap);
        assert!(!log.after(at(7)).gap);
        assert_eq!(log.after(at(7)).entries.len(), 3);
        assert!(!log.after(at(10)).gap);
        assert!(log.after(at(11)).gap, "a position beyond the head was never given");
        assert!(log.after(Position { epoch: log.epoch ^ 1, offset: 10 }).gap);
    }

    #[test]
    fn keys_are_bounded_and_age() {
        let retention = Retention { age_ms: 10, ..Retention::default() };
        let mut log: BoundedLog<()> = BoundedLog::new();
        assert!(!log.is_duplicate(&"k".into(), 0, &retention));
        assert!(log.is_duplicate(&"k".into(), 9, &retention));
        assert!(!log.is_duplicate(&"k".into(), 10, &retention));
        for n in 0..2 * MAX_KEYS {
            log.is_duplicate(&n.to_string().into(), 11, &retention);
        }
        assert_eq!(log.keys.as_ref().unwrap().known.len(), MAX_KEYS);
        log.trim(100, &retention);
        assert!(log.keys.is_none());
    }
}
