//! What was sent, and what clients saw, in the order of one clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::To;

/// What the sender knows of an event in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The backend has it (also: had it already, under the same key).
    Accepted,
    /// It failed, and nothing happened; or it was dropped.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// One event, from the first try to the last answer. Payloads are unique.
#[derive(Debug, Clone)]
pub struct Sent {
    pub payload: String,
    pub to: To,
    pub sender: usize,
    pub start: u64,
    pub end: u64,
    pub outcome: Outcome,
}

/// What the client of one session saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Opened {
        stream: u64,
        gap: bool,
    },
    Got {
        stream: u64,
        payload: String,
    },
    Ended {
        stream: u64,
        reason: String,
    },
    /// It does not listen to this stream any more, and resumes from what it has.
    Left {
        stream: u64,
    },
}

/// What clients saw and when, by session.
pub type AllSeen = BTreeMap<String, Vec<(u64, Seen)>>;

/// A time in which what was accepted may be on no server later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub since: u64,
    pub until: u64,
}

#[derive(Debug, Default)]
pub struct History {
    clock: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    seen: Mutex<AllSeen>,
    losses: Mutex<Vec<Loss>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// A moment later than all before.
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn sent(&self, sent: Sent) {
        lock(&self.sent).push(sent);
    }

    pub fn seen(&self, session: &str, seen: Seen) {
        // The moment is taken under the lock, so that each list is in order.
        let mut all = lock(&self.seen);
        let at = self.now();
        match all.get_mut(session) {
            Some(list) => list.push((at, seen)),
            None => drop(all.insert(session.to_owned(), vec![(at, seen)])),
        }
    }

    /// What was accepted since then, until now, may be lost.
    pub fn lost(&self, since: u64) {
        lock(&self.losses).push(Loss { since, until: self.now() });
    }

    pub fn all_losses(&self) -> Vec<Loss> {
        lock(&self.losses).clone()
    }

    pub fn all_sent(&self) -> Vec<Sent> {
        lock(&self.sent).clone()
    }

    pub fn all_seen(&self) -> AllSeen {
        lock(&self.seen).clone()
    }

    /// Whether the client of a session has this payload: not from a stream that it had left.
    pub fn has(&self, session: &str, payload: &str) -> bool {
        let all = lock(&self.seen);
        let mut current = None;
        all.get(session).into_iter().flatten().any(|(_, seen)| match seen {
            Seen::Opened { stream, .. } => {
                current = Some(*stream);
                false
            }
            Seen::Left { stream } | Seen::Ended { stream, .. } => {
                current.take_if(|current| current == stream);
                false
            }
            Seen::Got { stream, payload: got } => current == Some(*stream) && got == payload,
        })
    }
}
