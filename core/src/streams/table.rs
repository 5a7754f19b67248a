//! The local table session → stream, in shards so that sessions don't wait for each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::session::{SessionId, SessionMap};
use crate::streams::local::LocalStream;
use crate::sync::Mutex;

#[cfg(not(loom))]
const SHARDS: usize = 64;
#[cfg(loom)]
const SHARDS: usize = 2;

/// A session's streams on this node: the one that delivers, and one that is about to take over.
#[derive(Default)]
struct Slot {
    current: Option<Arc<LocalStream>>,
    opening: Option<Arc<LocalStream>>,
}

impl Slot {
    fn streams(&self) -> impl Iterator<Item = &Arc<LocalStream>> {
        self.current.iter().chain(&self.opening)
    }
}

/// The streams of this node.
pub(crate) struct StreamTable {
    shards: Vec<Mutex<SessionMap<Slot>>>,
    /// All of them in the order they were made, which is how they lie in memory, here and in a
    /// binding: a fan-out in the order of a hash table would miss the cache at each step.
    in_order: Mutex<BTreeMap<u64, Arc<LocalStream>>>,
}

impl StreamTable {
    pub(crate) fn new() -> Self {
        StreamTable { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), in_order: Mutex::default() }
    }

    fn shard(&self, session: &SessionId) -> &Mutex<SessionMap<Slot>> {
        &self.shards[session.shard(SHARDS)]
    }

    /// The stream that delivers.
    pub(crate) fn current(&self, session: &SessionId) -> Option<Arc<LocalStream>> {
        self.shard(session).lock().get(session)?.current.clone()
    }

    /// Every stream of the session: both get its events until one has taken over.
    pub(crate) fn get(&self, session: &SessionId) -> [Option<Arc<LocalStream>>; 2] {
        match self.shard(session).lock().get(session) {
            Some(slot) => [slot.current.clone(), slot.opening.clone()],
            None => [None, None],
        }
    }

    /// Puts a stream in that is about to open, so that it misses no signal.
    pub(crate) fn insert_opening(&self, stream: &Arc<LocalStream>) {
        self.in_order.lock().insert(stream.number(), stream.clone());
        let mut shard = self.shard(stream.session()).lock();
        shard.entry(stream.session().clone()).or_default().opening = Some(stream.clone());
    }

    /// The opening stream has the session now; returns the one that had it.
    pub(crate) fn settle(&self, stream: &Arc<LocalStream>) -> Option<Arc<LocalStream>> {
        let mut shard = self.shard(stream.session()).lock();
        let slot = shard.get_mut(stream.session())?;
        match slot.opening.take() {
            Some(opening) if Arc::ptr_eq(&opening, stream) => slot.current.replace(opening),
            other => {
                slot.opening = other;
                None
            }
        }
    }

    /// Takes this very stream out; another one of the same session stays.
    pub(crate) fn remove(&self, stream: &Arc<LocalStream>) {
        self.in_order.lock().remove(&stream.number());
        let mut shard = self.shard(stream.session()).lock();
        let Some(slot) = shard.get_mut(stream.session()) else { return };
        let is_it = |held: &mut Arc<LocalStream>| Arc::ptr_eq(held, stream);
        slot.current.take_if(is_it);
        slot.opening.take_if(is_it);
        if slot.streams().next().is_none() {
            shard.remove(stream.session());
            // A table that was full once should not stay large for ever.
            if shard.capacity() > 64 && shard.len() * 4 < shard.capacity() {
                shard.shrink_to_fit();
            }
        }
    }

    /// Calls `each` on every stream, oldest first. `each` must not touch the table.
    pub(crate) fn for_each(&self, each: impl FnMut(&Arc<LocalStream>)) {
        self.in_order.lock().values().for_each(each);
    }

    pub(crate) fn all(&self) -> Vec<Arc<LocalStream>> {
        self.in_order.lock().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
