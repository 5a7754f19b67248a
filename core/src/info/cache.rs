//! The local cache of session info: kept true by the backend's invalidations, emptied on any doubt.

use std::sync::Arc;

use crate::info::document::{InfoPatch, SessionInfo};
use crate::session::{SessionId, SessionMap};
use crate::sync::Mutex;

/// The most sessions cached; beyond, older ones make room.
const MAX_ENTRIES: usize = 16_384;

/// Told of each session whose info changed elsewhere; `None` stands for any.
pub(crate) type Watcher = Arc<dyn Fn(Option<&SessionId>) + Send + Sync>;

enum Entry {
    /// A read is under way; an invalidation meanwhile makes its result stale.
    Reading(u64),
    Known {
        info: Option<Arc<SessionInfo>>,
        read_ms: u64,
    },
}

/// Writes of this node that are under way.
#[derive(Default)]
struct Writes {
    count: usize,
    /// Another was under way, or failed: which one the backend has last is not known.
    unclear: bool,
}

#[derive(Default)]
struct State {
    writes: SessionMap<Writes>,
    entries: SessionMap<Entry>,
    reads: u64,
}

/// A bounded cache of whole session records.
pub(crate) struct InfoCache {
    state: Mutex<State>,
    watchers: Mutex<Vec<Watcher>>,
    /// A record is read again after this time, which is what lets it live on.
    fresh_ms: u64,
}

/// What to store a read under, if nothing changed meanwhile.
pub(crate) struct Ticket(u64);

impl InfoCache {
    pub(crate) fn new(fresh_ms: u64) -> Self {
        InfoCache { state: Mutex::default(), watchers: Mutex::default(), fresh_ms }
    }

    /// The record, if it is cached and fresh; the inner `None` says that there is none.
    pub(crate) fn get(&self, session: &SessionId, now_ms: u64) -> Option<Option<Arc<SessionInfo>>> {
        let state = self.state.lock();
        // Whoever reads after a write that is under way is to see it.
        if state.writes.contains_key(session) {
            return None;
        }
        match state.entries.get(session) {
            Some(Entry::Known { info, read_ms }) if now_ms < read_ms + self.fresh_ms => Some(info.clone()),
            _ => None,
        }
    }

    /// Notes that a read begins.
    pub(crate) fn begin(&self, session: &SessionId) -> Ticket {
        let mut state = self.state.lock();
        state.reads += 1;
        let ticket = state.reads;
        if state.entries.len() >= MAX_ENTRIES && !state.entries.contains_key(session) {
            let oldest = state.entries.keys().next().cloned();
            oldest.and_then(|key| state.entries.remove(&key));
        }
        state.entries.insert(session.clone(), Entry::Reading(ticket));
        Ticket(ticket)
    }

    /// Stores what was read, unless it was invalidated meanwhile. A missing record is not kept.
    pub(crate) fn store(
        &self,
        session: &SessionId,
        ticket: Ticket,
        info: Option<Arc<SessionInfo>>,
        now_ms: u64,
    ) {
        let mut state = self.state.lock();
        if !matches!(state.entries.get(session), Some(Entry::Reading(id)) if *id == ticket.0) {
            return;
        }
        match info {
            Some(_) => state.entries.insert(session.clone(), Entry::Known { info, read_ms: now_ms }),
            None => state.entries.remove(session),
        };
    }

    /// The record changed: it is read again next time.
    pub(crate) fn invalidate(&self, session: &SessionId) {
        self.state.lock().entries.remove(session);
        self.tell(Some(session));
    }

    /// Nothing cached can be trusted.
    pub(crate) fn clear(&self) {
        self.state.lock().entries.clear();
        self.tell(None);
    }

    /// This node is about to change the record itself: watchers need not be told.
    pub(crate) fn write<'c>(&'c self, session: &'c SessionId) -> Writing<'c> {
        let mut state = self.state.lock();
        let writes = state.writes.entry(session.clone()).or_default();
        writes.count += 1;
        writes.unclear |= writes.count > 1;
        Writing { cache: self, session, patch: None }
    }

    pub(crate) fn watch(&self, watcher: Watcher) {
        self.watchers.lock().push(watcher);
    }

    fn tell(&self, session: Option<&SessionId>) {
        let watchers = self.watchers.lock().clone();
        watchers.iter().for_each(|watcher| watcher(session));
    }
}

/// A write of this node; dropped when it is over.
pub(crate) struct Writing<'c> {
    cache: &'c InfoCache,
    session: &'c SessionId,
    patch: Option<InfoPatch>,
}

impl Writing<'_> {
    /// The backend has it: what is cached is changed, too, so that it need not be read again.
    pub(crate) fn done(mut self, patch: InfoPatch) {
        self.patch = Some(patch);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        let State { writes, entries, .. } = &mut *state;
        let Some(others) = writes.get_mut(self.session) else { return };
        others.count -= 1;
        others.unclear |= self.patch.is_none();
        let unclear = others.unclear;
        if others.count == 0 {
            writes.remove(self.session);
        }
        match (entries.get_mut(self.session), self.patch.take()) {
            (Some(Entry::Known { info: Some(info), .. }), Some(patch)) if !unclear => {
                Arc::make_mut(info).apply(patch);
            }
            // A read that is under way may have come too early.
            _ => drop(entries.remove(self.session)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::info::LogLevel;

    #[test]
    fn a_write_of_this_node_changes_what_is_cached_unless_it_is_unclear() {
        let cache = InfoCache::new(100);
        let id = SessionId::new("s1").unwrap();
        let read = |cache: &InfoCache| {
            let ticket = cache.begin(&id);
            cache.store(&id, ticket, Some(Arc::default()), 0);
        };
        let level = |level| InfoPatch { log_level: Some(level), ..InfoPatch::default() };
        let cached = |cache: &InfoCache| cache.get(&id, 0).flatten().and_then(|info| info.log_level);
        read(&cache);
        cache.write(&id).done(level(LogLevel::Error));
        assert_eq!(cached(&cache), Some(LogLevel::Error));
        drop(cache.write(&id));
        assert!(cache.get(&id, 0).is_none(), "it may have happened");
        read(&cache);
        let (first, second) = (cache.write(&id), cache.write(&id));
        second.done(level(LogLevel::Info));
        first.done(level(LogLevel::Debug));
        assert!(cache.get(&id, 0).is_none(), "which one was last is not known");
        read(&cache);
        let writing = cache.write(&id);
        cache.invalidate(&id);
        read(&cache);
        writing.done(level(LogLevel::Info));
        assert_eq!(cached(&cache), Some(LogLevel::Info), "what was read meanwhile is changed, too");
        let writing = cache.write(&id);
        let ticket = cache.begin(&id);
        writing.done(level(LogLevel::Alert));
        cache.store(&id, ticket, Some(Arc::default()), 0);
        assert!(cache.get(&id, 0).is_none(), "the read may have come before the write");
        assert!(cache.state.lock().writes.is_empty());
    }

    #[test]
    fn an_invalidation_during_a_read_makes_it_stale() {
        let cache = InfoCache::new(100);
        let id = SessionId::new("s1").unwrap();
        let ticket = cache.begin(&id);
        cache.invalidate(&id);
        cache.store(&id, ticket, Some(Arc::default()), 0);
        assert!(cache.get(&id, 0).is_none());
        let ticket = cache.begin(&id);
        cache.store(&id, ticket, Some(Arc::default()), 0);
        assert!(cache.get(&id, 99).is_some());
        assert!(cache.get(&id, 100).is_none(), "a record is read again so that it lives on");
    }

    #[test]
    fn it_is_bounded() {
        let cache = InfoCache::new(100);
        for n in 0..MAX_ENTRIES + 10 {
            let id = SessionId::new(format!("s{n}")).unwrap();
            let ticket = cache.begin(&id);
            cache.store(&id, ticket, Some(Arc::default()), 0);
        }
        assert!(cache.state.lock().entries.len() <= MAX_ENTRIES);
    }
}
