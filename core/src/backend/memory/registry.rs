//! The registry and the notes of event logs in this process.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{MemoryBackend, Session};
use crate::backend::{
    ActiveRequests, Append, CloseStart, ListQuery, Listed, NewSession, Reason, RegistryStats, Signal, Swept,
    Touch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::Json;
use crate::registry::{OwnerHash, SessionRecord, SessionState};
use crate::session::{NodeId, SessionId};
use crate::streams::Position;

/// The most sessions one sweep of the registry looks at.
const SWEEP_BATCH: usize = 256;

/// A session's record, or its tombstone.
pub(super) struct Registered {
    owner: Option<OwnerHash>,
    node: NodeId,
    created_ms: u64,
    last_access_ms: u64,
    /// What each node reported.
    requests: Vec<(NodeId, u32)>,
    metadata: Option<Json>,
    phase: Phase,
}

enum Phase {
    Open,
    Closing(Reason),
    Closed { reason: Reason, until_ms: u64 },
}

impl Registered {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// When its tombstone goes.
    pub(super) fn gone_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Closed { until_ms, .. } => Some(until_ms),
            _ => None,
        }
    }
}

/// What finds sessions by something else than their id. Locked after a shard, never before.
#[derive(Default)]
pub(super) struct Index {
    owner_key: Option<[u8; 32]>,
    entries: BTreeMap<SessionId, Entry>,
    /// When a sweep has to look at which session, at the latest: an access does not move it.
    due: BTreeSet<(u64, SessionId)>,
    owners: HashMap<OwnerHash, BTreeSet<(u64, SessionId)>>,
    /// The logs of each scope.
    scopes: HashMap<String, BTreeSet<SessionId>>,
}

struct Entry {
    due_ms: u64,
    node: NodeId,
}

impl Index {
    fn put_off(&mut self, id: &SessionId, due_ms: u64) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        self.due.remove(&(entry.due_ms, id.clone()));
        entry.due_ms = due_ms;
        self.due.insert((due_ms, id.clone()));
    }

    fn remove(&mut self, id: &SessionId, of: &Registered) {
        if let Some(entry) = self.entries.remove(id) {
            self.due.remove(&(entry.due_ms, id.clone()));
        }
        let Some(owner) = of.owner else { return };
        if let Some(own) = self.owners.get_mut(&owner) {
            own.remove(&(of.created_ms, id.clone()));
            if own.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }

    /// A log is gone.
    pub(super) fn forget_log(&mut self, log: &SessionId) {
        let Some((scope, _)) = log.as_log() else { return };
        if let Some(logs) = self.scopes.get_mut(scope) {
            logs.remove(log);
            if logs.is_empty() {
                self.scopes.remove(scope);
            }
        }
    }
}

/// A session that is closing or closed takes nothing more.
pub(super) fn refuse_closed(session: &Session, id: &SessionId, operation: &'static str) -> Result<()> {
    match session.registered.as_ref().is_some_and(|registered| !registered.is_open()) {
        true => Err(Error::new(
            ErrorKind::NotFound,
            operation,
            format!("session {id} has been closed; answer 404, and the client starts a new one"),
        )),
        false => Ok(()),
    }
}

impl MemoryBackend {
    fn live_requests(&self, registered: &Registered, now_ms: u64) -> u64 {
        let alive = |id: &NodeId| self.hub.node(id).is_some_and(|node| node.alive(now_ms));
        let live = registered.requests.iter().filter(|(node, _)| alive(node));
        live.map(|(_, count)| u64::from(*count)).sum()
    }

    fn record(&self, id: &SessionId, of: &Registered, now_ms: u64) -> SessionRecord {
        let (state, reason) = match &of.phase {
            Phase::Open => (SessionState::Active, None),
            Phase::Closing(reason) => (SessionState::Closing, Some(reason.clone())),
            Phase::Closed { reason, .. } => (SessionState::Closed, Some(reason.clone())),
        };
        let mut record = SessionRecord::new(id.clone(), of.node.clone(), state);
        record.owner = of.owner;
        record.created_ms = of.created_ms;
        record.last_access_ms = of.last_access_ms;
        record.now_ms = now_ms;
        record.active_requests = self.live_requests(of, now_ms);
        record.reason = reason;
        record.metadata = of.metadata.clone();
        record
    }

    /// Does something with a session's record, if its tombstone has not run out.
    fn with_registered<T>(
        &self,
        id: &SessionId,
        now_ms: u64,
        act: impl FnOnce(&mut Registered) -> T,
    ) -> Option<T> {
        let mut shard = self.hub.shard(id).lock();
        let registered = shard.get_mut(id)?.registered.as_deref_mut()?;
        let there = registered.gone_ms().is_none_or(|gone| gone > now_ms);
        there.then(|| act(registered))
    }

    /// When a closing that nobody finished is taken on by somebody else.
    fn unfinished_ms(&self, now_ms: u64) -> u64 {
        now_ms + 2 * self.options.lease.ttl_ms
    }

    /// The session is closing from here on.
    fn begin_close(&self, id: &SessionId, registered: &mut Registered, reason: &Reason, now_ms: u64) {
        registered.phase = Phase::Closing(reason.clone());
        self.hub.registry.lock().put_off(id, self.unfinished_ms(now_ms));
        self.hub.signal_nodes(&Signal::SessionClosing { session: id.clone(), reason: reason.clone() });
    }

    pub(super) fn keep_key(&self, candidate: [u8; 32]) -> [u8; 32] {
        *self.hub.registry.lock().owner_key.get_or_insert(candidate)
    }

    pub(super) fn create(&self, id: &SessionId, new: NewSession) -> bool {
        let now_ms = self.now_ms();
        let mut shard = self.hub.shard(id).lock();
        let session = self.known_or_new(&mut shard, id, now_ms);
        let taken = session.registered.as_ref().is_some_and(|old| old.gone_ms().is_none_or(|at| at > now_ms));
        if taken {
            return false;
        }
        let mut index = self.hub.registry.lock();
        let due_ms = now_ms + self.options.registry.stale_ms;
        index.entries.insert(id.clone(), Entry { due_ms, node: new.node.clone() });
        index.due.insert((due_ms, id.clone()));
        if let Some(owner) = new.owner {
            index.owners.entry(owner).or_default().insert((now_ms, id.clone()));
        }
        session.registered = Some(Box::new(Registered {
            owner: new.owner,
            node: new.node,
            created_ms: now_ms,
            last_access_ms: now_ms,
            requests: Vec::new(),
            metadata: new.metadata,
            phase: Phase::Open,
        }));
        true
    }

    pub(super) fn read_record(&self, id: &SessionId, touch: Touch) -> Option<SessionRecord> {
        let now_ms = self.now_ms();
        let every_ms = self.options.registry.stale_ms / 20;
        self.with_registered(id, now_ms, |registered| {
            let touches = match touch {
                Touch::No => false,
                Touch::Yes => true,
                Touch::IfOwner(owner) => owner == registered.owner,
            };
            if touches && registered.is_open() && now_ms >= registered.last_access_ms + every_ms {
                registered.last_access_ms = now_ms;
            }
            self.record(id, registered, now_ms)
        })
    }

    pub(super) fn take_report(&self, node: &NodeId, report: &ActiveRequests) -> bool {
        let now_ms = self.now_ms();
        let taken = self.with_registered(&report.session, now_ms, |registered| {
            let alive = |id: &NodeId| self.hub.node(id).is_some_and(|node| node.alive(now_ms));
            registered.requests.retain(|(other, _)| other != node && alive(other));
            if !registered.is_open() {
                return false;
            }
            registered.last_access_ms = now_ms;
            if report.count > 0 {
                registered.requests.push((node.clone(), report.count));
            }
            true
        });
        taken.unwrap_or(false)
    }

    pub(super) fn adopt(&self, id: &SessionId, node: &NodeId) -> bool {
        let adopted = self.with_registered(id, self.now_ms(), |registered| {
            if !registered.is_open() {
                return false;
            }
            registered.node = node.clone();
            if let Some(entry) = self.hub.registry.lock().entries.get_mut(id) {
                entry.node = node.clone();
            }
            true
        });
        adopted.unwrap_or(false)
    }

    pub(super) fn start_close(&self, id: &SessionId, reason: &str) -> CloseStart {
        let now_ms = self.now_ms();
        let start = self.with_registered(id, now_ms, |registered| match registered.phase {
            Phase::Open => {
                self.begin_close(id, registered, &reason.into(), now_ms);
                CloseStart::Begun
            }
            Phase::Closing(_) => CloseStart::Underway,
            Phase::Closed { .. } => CloseStart::Gone,
        });
        start.unwrap_or(CloseStart::Gone)
    }

    pub(super) fn bury_session(&self, id: &SessionId) {
        let until_ms = self.now_ms() + self.options.registry.tombstone_ms;
        let mut shard = self.hub.shard(id).lock();
        let Some(session) = shard.get_mut(id) else { return };
        let Some(registered) = session.registered.as_deref_mut() else { return };
        let Phase::Closing(reason) = &registered.phase else { return };
        self.hub.registry.lock().remove(id, registered);
        registered.phase = Phase::Closed { reason: reason.clone(), until_ms };
        registered.owner = None;
        registered.metadata = None;
        registered.requests = Vec::new();
        self.hub.schedule(id, session, &self.options.retention);
    }

    pub(super) fn owned(&self, owner: &OwnerHash) -> Vec<SessionId> {
        let index = self.hub.registry.lock();
        let own = index.owners.get(owner);
        own.map(|own| own.iter().map(|(_, id)| id.clone()).collect()).unwrap_or_default()
    }

    pub(super) fn list_sessions(&self, query: ListQuery) -> Result<Listed> {
        let after = query.after.as_deref().map(SessionId::new).transpose()?;
        let index = self.hub.registry.lock();
        let of_node = |id: &SessionId| {
            let entry = index.entries.get(id);
            query.node.as_ref().is_none_or(|node| entry.is_some_and(|entry| entry.node == *node))
        };
        let follows = |id: &&SessionId| after.as_ref().is_none_or(|after| *id > after) && of_node(id);
        let mut sessions: Vec<SessionId> = match &query.owner {
            Some(owner) => {
                let own: BTreeSet<_> =
                    index.owners.get(owner).into_iter().flatten().map(|(_, id)| id).collect();
                own.into_iter().filter(follows).take(query.limit + 1).cloned().collect()
            }
            None => {
                use std::ops::Bound::{Excluded, Unbounded};
                let from = after.as_ref().map_or(Unbounded, Excluded);
                let later = index.entries.range::<SessionId, _>((from, Unbounded)).map(|(id, _)| id);
                later.filter(follows).take(query.limit + 1).cloned().collect()
            }
        };
        let more = sessions.len() > query.limit;
        sessions.truncate(query.limit);
        let next = more.then(|| sessions.last().map(ToString::to_string)).flatten();
        Ok(Listed { sessions, next })
    }

    pub(super) fn count_sessions(&self) -> RegistryStats {
        let (now_ms, stale_ms) = (self.now_ms(), self.options.registry.stale_ms);
        let ids: Vec<SessionId> = self.hub.registry.lock().entries.keys().cloned().collect();
        let mut stats = RegistryStats::default();
        for id in ids {
            self.with_registered(&id, now_ms, |registered| {
                let idle = now_ms >= registered.last_access_ms + stale_ms;
                match registered.phase {
                    Phase::Open if idle && self.live_requests(registered, now_ms) == 0 => stats.stale += 1,
                    Phase::Open => stats.active += 1,
                    Phase::Closing(_) => stats.closing += 1,
                    Phase::Closed { .. } => return,
                }
                stats.total += 1;
                *stats.by_node.entry(registered.node.clone()).or_default() += 1;
            });
        }
        stats
    }

    pub(super) fn sweep_registry(&self) -> Swept {
        let now_ms = self.now_ms();
        let due: Vec<SessionId> = {
            let mut index = self.hub.registry.lock();
            let due = index.due.iter().take_while(|(at, _)| *at <= now_ms).take(SWEEP_BATCH);
            let due: Vec<_> = due.map(|(_, id)| id.clone()).collect();
            // Whoever sweeps at the same time finds them gone.
            due.iter().for_each(|id| index.put_off(id, self.unfinished_ms(now_ms)));
            due
        };
        let mut swept = Swept { more: due.len() == SWEEP_BATCH, ..Swept::default() };
        for id in due {
            self.with_registered(&id, now_ms, |registered| {
                self.sweep_one(&id, registered, now_ms, &mut swept)
            });
        }
        swept
    }

    fn sweep_one(&self, id: &SessionId, registered: &mut Registered, now_ms: u64, swept: &mut Swept) {
        let options = &self.options.registry;
        match registered.phase {
            Phase::Open => {
                let stale_at = registered.last_access_ms + options.stale_ms;
                let busy = self.live_requests(registered, now_ms) > 0;
                if stale_at <= now_ms && !busy {
                    self.begin_close(id, registered, &"stale".into(), now_ms);
                    swept.stale.push(id.clone());
                } else {
                    let due_ms = if busy { stale_at.max(now_ms + options.sweep_ms) } else { stale_at };
                    self.hub.registry.lock().put_off(id, due_ms);
                }
            }
            Phase::Closing(_) => swept.unfinished.push(id.clone()),
            Phase::Closed { .. } => {}
        }
    }

    pub(super) fn append_event(&self, event: Append) -> Position {
        let now_ms = self.now_ms();
        let retention = &self.options.retention;
        let after_broadcast = self.hub.topic(crate::backend::Topic::Broadcasts).head();
        let id = &event.log;
        let mut shard = self.hub.shard(id).lock();
        let session = self.known_or_new(&mut shard, id, now_ms);
        session.remembered_until_ms = session.remembered_until_ms.max(now_ms + retention.age_ms);
        let position = session.log.append(event.payload.clone(), after_broadcast, now_ms, retention);
        if let Some(node) = session.live_holder(now_ms) {
            node.sink.signal(Signal::Event { session: id.clone(), position, payload: event.payload });
        }
        self.hub.schedule(id, session, retention);
        let mut index = self.hub.registry.lock();
        index.scopes.entry(event.scope.to_string()).or_default().insert(event.log.clone());
        position
    }

    pub(super) fn logs_of(&self, scope: &SessionId) -> Vec<SessionId> {
        let index = self.hub.registry.lock();
        index.scopes.get(scope.as_str()).map(|logs| logs.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn drop_logs(&self, logs: &[SessionId]) {
        let mut index = self.hub.registry.lock();
        logs.iter().for_each(|log| index.forget_log(log));
    }
}

#[cfg(all(test, not(loom)))]
impl super::MemoryHub {
    pub(crate) fn forget_owner_key(&self) {
        self.registry.lock().owner_key = None;
    }

    pub(crate) fn owner_key(&self) -> Option<[u8; 32]> {
        self.registry.lock().owner_key
    }

    /// The last renewals of a node are lost, as with a standby that takes over.
    pub(crate) fn forget_renewals(&self, node: &crate::session::NodeId) {
        let node = self.node(node).expect("it has joined");
        node.lease_until_ms.store(0, std::sync::atomic::Ordering::Release);
    }

    /// Sessions, entries of the registry, and scopes that have logs.
    pub(crate) fn left_over(&self) -> (usize, usize, usize) {
        let sessions = self.shards.iter().map(|shard| shard.lock().len()).sum();
        let index = self.registry.lock();
        (sessions, index.entries.len() + index.due.len() + index.owners.len(), index.scopes.len())
    }
}

#[cfg(all(test, not(loom)))]
impl MemoryBackend {
    pub(crate) fn hub(&self) -> &super::MemoryHub {
        &self.hub
    }
}
