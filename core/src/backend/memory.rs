//! The embedded backend: everything in this process. Engines that name the same hub are separate
//! nodes of it, with their own leases. It is the oracle for the other backends.

mod registry;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::backend::log::BoundedLog;
use crate::backend::{
    Acceptance, ActiveRequests, Address, Append, Backend, Capability, Claim, Claimed, CloseStart, Joined,
    Lane, ListQuery, Listed, LogEntry, NewSession, Reclaim, RegistryStats, Release, Renewal, Signal,
    SignalSink, Start, Submission, Swept, Tail, Topic, TopicEntry, TopicTail, Touch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{InfoPatch, SessionInfo};
use crate::options::{Options, Retention};
use crate::registry::{OwnerHash, SessionRecord};
use crate::runtime::{Clock, SharedManualClock};
use crate::session::{NodeId, SessionId, SessionMap, SessionSet};
use crate::streams::{EndReason, Payload, Position, Positions};
use crate::sync::Mutex;

use registry::{Index, Registered, refuse_closed};

const SHARDS: usize = 64;
/// The most sessions one sweep looks at.
const SWEEP_BATCH: usize = 1_024;

/// The shared state of one hub.
pub(crate) struct MemoryHub {
    clock: Arc<dyn Clock>,
    manual: Option<SharedManualClock>,
    shards: Vec<Mutex<SessionMap<Session>>>,
    topics: [TopicLog; 2],
    nodes: Mutex<Arc<Vec<Arc<Node>>>>,
    /// Resource URI → the sessions subscribed to it.
    subscribers: Mutex<HashMap<Arc<str>, SessionSet>>,
    /// When which session is to be looked at; at most one entry a session that is not stale.
    due: Mutex<BinaryHeap<Reverse<(u64, SessionId)>>>,
    owner_epochs: AtomicU64,
    registry: Mutex<Index>,
}

struct TopicLog {
    log: Mutex<BoundedLog<()>>,
    epoch: u64,
    head: AtomicU64,
}

impl TopicLog {
    fn new() -> Self {
        let log = BoundedLog::new();
        TopicLog { epoch: log.head().epoch, head: AtomicU64::new(0), log: Mutex::new(log) }
    }

    fn head(&self) -> Position {
        Position { epoch: self.epoch, offset: self.head.load(Ordering::Acquire) }
    }
}

/// Takes the hub away from one node, as an outage would.
#[derive(Default)]
pub(crate) struct OutageSwitch {
    on: AtomicBool,
    sink: Mutex<Option<Arc<dyn SignalSink>>>,
}

impl OutageSwitch {
    /// Starts an outage, or ends it.
    pub(crate) fn set(&self, on: bool) {
        let was = self.on.swap(on, Ordering::AcqRel);
        let sink = self.sink.lock().clone().filter(|_| was && !on);
        if let Some(sink) = sink {
            sink.signal(Signal::Doubt);
        }
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }
}

struct Node {
    id: NodeId,
    sink: Arc<dyn SignalSink>,
    outage: Arc<OutageSwitch>,
    ttl_ms: u64,
    renewed_ms: AtomicU64,
    /// 0 once the node left or was found dead.
    lease_until_ms: AtomicU64,
    held: Mutex<SessionSet>,
}

impl Node {
    fn signal(&self, signal: Signal) {
        if !self.outage.is_on() {
            self.sink.signal(signal);
        }
    }

    fn alive(&self, now_ms: u64) -> bool {
        self.lease_until_ms.load(Ordering::Acquire) > now_ms
    }
}

struct Session {
    log: BoundedLog<Position>,
    owner_epoch: u64,
    holder: Option<Arc<Node>>,
    /// It is unheld because its holder's lease ran out: that node may reclaim it.
    lost: bool,
    /// Where a stream without a cursor starts.
    resume: Positions,
    /// The session is known until then for the sake of its last stream; 0 once that is over.
    remembered_until_ms: u64,
    info: Option<Record>,
    registered: Option<Box<Registered>>,
    /// When the heap will bring it up next.
    scheduled_ms: u64,
}

struct Record {
    info: Arc<SessionInfo>,
    uris: BTreeSet<Arc<str>>,
    touched_ms: u64,
    expires_ms: u64,
}

impl Session {
    fn new(broadcast: Position) -> Self {
        let log = BoundedLog::new();
        Session {
            resume: Positions { session: log.head(), broadcast },
            log,
            owner_epoch: 0,
            holder: None,
            lost: false,
            remembered_until_ms: 0,
            info: None,
            registered: None,
            scheduled_ms: u64::MAX,
        }
    }

    fn live_holder(&self, now_ms: u64) -> Option<&Arc<Node>> {
        self.holder.as_ref().filter(|node| node.alive(now_ms))
    }

    fn known(&self, now_ms: u64) -> bool {
        if let Some(registered) = &self.registered
            && registered.gone_ms().is_none_or(|gone| gone > now_ms)
        {
            return registered.is_open();
        }
        self.remembered_until_ms > now_ms
            || self.info.as_ref().is_some_and(|record| record.expires_ms > now_ms)
            // One whose node died counts until the node is buried, and is remembered from then on.
            || self.holder.is_some()
    }

    /// Takes the holder away; the session is remembered from now on.
    fn unhold(&mut self, session: &SessionId, until_ms: u64) {
        if let Some(node) = self.holder.take() {
            node.held.lock().remove(session);
        }
        self.remembered_until_ms = until_ms;
    }

    fn due_ms(&self, retention: &Retention) -> u64 {
        let waits = self.holder.is_none() && self.remembered_until_ms > 0;
        let remembered = waits.then_some(self.remembered_until_ms);
        let info = self.info.as_ref().map(|record| record.expires_ms);
        let tombstone = self.registered.as_ref().and_then(|registered| registered.gone_ms());
        let log = self.log.due_ms(retention);
        [log, remembered, info, tombstone].into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

impl MemoryHub {
    fn new(clock: Arc<dyn Clock>, manual: Option<SharedManualClock>) -> Arc<Self> {
        Arc::new(MemoryHub {
            clock,
            manual,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            topics: [TopicLog::new(), TopicLog::new()],
            nodes: Mutex::default(),
            subscribers: Mutex::default(),
            due: Mutex::default(),
            owner_epochs: AtomicU64::new(0),
            registry: Mutex::default(),
        })
    }

    /// The hub of this name, or a private one. Engines keep it alive.
    pub(crate) fn named(name: Option<&str>, manual_clock: bool, clock: &Arc<dyn Clock>) -> Result<Arc<Self>> {
        type Hubs = std::sync::Mutex<HashMap<String, Weak<MemoryHub>>>;
        static HUBS: OnceLock<Hubs> = OnceLock::new();
        let make = || {
            if manual_clock {
                let manual = SharedManualClock::default();
                MemoryHub::new(Arc::new(manual.clone()), Some(manual))
            } else {
                MemoryHub::new(clock.clone(), None)
            }
        };
        let Some(name) = name else { return Ok(make()) };
        let mut hubs = match HUBS.get_or_init(Hubs::default).lock() {
            Ok(hubs) => hubs,
            Err(poisoned) => poisoned.into_inner(),
        };
        hubs.retain(|_, hub| hub.strong_count() > 0);
        if let Some(hub) = hubs.get(name).and_then(Weak::upgrade) {
            return if hub.manual.is_some() == manual_clock {
                Ok(hub)
            } else {
                Err(Error::new(
                    ErrorKind::Config,
                    "connect",
                    format!("hub {name:?} runs on another clock; use the same clock= in every URL"),
                ))
            };
        }
        let hub = make();
        hubs.insert(name.to_owned(), Arc::downgrade(&hub));
        Ok(hub)
    }

    /// The clock that `advance_clock` moves, where the URL asked for one.
    pub(crate) fn manual_clock(&self) -> Option<&SharedManualClock> {
        self.manual.as_ref()
    }

    fn shard(&self, session: &SessionId) -> &Mutex<SessionMap<Session>> {
        &self.shards[session.shard(SHARDS)]
    }

    fn topic(&self, topic: Topic) -> &TopicLog {
        &self.topics[topic as usize]
    }

    fn node(&self, id: &NodeId) -> Option<Arc<Node>> {
        self.nodes.lock().iter().find(|node| node.id == *id).cloned()
    }

    /// Makes sure that the heap brings a session up when it is due.
    fn schedule(&self, id: &SessionId, session: &mut Session, retention: &Retention) {
        let due = session.due_ms(retention);
        if due < session.scheduled_ms {
            session.scheduled_ms = due;
            self.due.lock().push(Reverse((due, id.clone())));
        }
    }

    fn signal_nodes(&self, signal: &Signal) {
        self.signal_others(None, signal);
    }

    fn signal_others(&self, me: Option<&NodeId>, signal: &Signal) {
        let nodes = self.nodes.lock().clone();
        let others = nodes.iter().filter(|node| Some(&node.id) != me);
        others.for_each(|node| node.signal(signal.clone()));
    }

    fn unsubscribe_all(&self, id: &SessionId, uris: &BTreeSet<Arc<str>>) {
        let mut subscribers = self.subscribers.lock();
        for uri in uris {
            remove_subscriber(&mut subscribers, uri, id);
        }
    }
}

fn remove_subscriber(subscribers: &mut HashMap<Arc<str>, SessionSet>, uri: &str, id: &SessionId) {
    if let Some(sessions) = subscribers.get_mut(uri) {
        sessions.remove(id);
        if sessions.is_empty() {
            subscribers.remove(uri);
        }
    }
}

/// One node's view of a hub, with that node's options.
pub(crate) struct MemoryBackend {
    hub: Arc<MemoryHub>,
    options: Arc<Options>,
    me: OnceLock<NodeId>,
    outage: Arc<OutageSwitch>,
}

impl MemoryBackend {
    pub(crate) fn new(hub: Arc<MemoryHub>, options: Arc<Options>) -> Self {
        MemoryBackend { hub, options, me: OnceLock::new(), outage: Arc::default() }
    }

    /// What takes the hub away from this node.
    pub(crate) fn outage(&self) -> &Arc<OutageSwitch> {
        &self.outage
    }

    /// Every operation asks first.
    fn reach(&self, operation: &'static str) -> Result<()> {
        match self.outage.is_on() {
            true => Err(Error::new(ErrorKind::Unavailable, operation, "the hub is cut off by set_outage")),
            false => Ok(()),
        }
    }

    fn now_ms(&self) -> u64 {
        self.hub.clock.now_ms()
    }

    fn accept_for_session(&self, id: &SessionId, submission: &Submission, now_ms: u64) -> Acceptance {
        let retention = &self.options.retention;
        let mut shard = self.hub.shard(id).lock();
        let Some(session) = shard.get_mut(id).filter(|session| session.known(now_ms)) else {
            return Acceptance { dropped: 1, ..Acceptance::default() };
        };
        let after_broadcast = self.hub.topic(Topic::Broadcasts).head();
        let payload = submission.payload.clone();
        let held = session.live_holder(now_ms).is_some();
        let key = submission.idempotency_key.as_ref();
        if key.is_some_and(|key| session.log.knows(key, now_ms, retention)) {
            return Acceptance { duplicates: 1, ..Acceptance::default() };
        }
        if !held && retention.events == 0 {
            // Nobody gets it, so its key stays free (G5); the next cursor finds it missing (G3).
            session.log.append(payload, after_broadcast, now_ms, retention);
            return Acceptance { dropped: 1, ..Acceptance::default() };
        }
        if let Some(key) = key {
            session.log.is_duplicate(key, now_ms, retention);
        }
        let position = session.log.append(payload.clone(), after_broadcast, now_ms, retention);
        if let Some(node) = session.live_holder(now_ms) {
            // Signalled under the lock: this is what keeps the order of one session.
            node.signal(Signal::Event { session: id.clone(), position, payload });
        }
        self.hub.schedule(id, session, retention);
        Acceptance { accepted: 1, ..Acceptance::default() }
    }

    fn accept_for_topic(&self, topic: Topic, submission: &Submission, now_ms: u64) -> Acceptance {
        let retention = &self.options.broadcast_retention;
        let of_topic = self.hub.topic(topic);
        let mut log = of_topic.log.lock();
        if let Some(key) = &submission.idempotency_key
            && log.is_duplicate(key, now_ms, retention)
        {
            return Acceptance { duplicates: 1, ..Acceptance::default() };
        }
        let payload: Payload = submission.payload.clone();
        let position = log.append(payload.clone(), (), now_ms, retention);
        of_topic.head.store(position.offset, Ordering::Release);
        self.hub.signal_nodes(&Signal::Topic { topic, lane: Lane::default(), position, payload });
        Acceptance { accepted: 1, ..Acceptance::default() }
    }

    fn accept_one(&self, submission: &Submission, now_ms: u64) -> Acceptance {
        match &submission.to {
            Address::Session(id) => self.accept_for_session(id, submission, now_ms),
            Address::Topic(topic) => self.accept_for_topic(*topic, submission, now_ms),
            Address::Sessions(ids) => ids.iter().fold(Acceptance::default(), |sum, id| {
                let one = self.accept_for_session(id, submission, now_ms);
                Acceptance {
                    accepted: sum.accepted + one.accepted,
                    dropped: sum.dropped + one.dropped,
                    duplicates: sum.duplicates + one.duplicates,
                }
            }),
        }
    }

    /// Where a stream starts that brings no position of its own.
    fn fresh_start(&self, session: &Session, now_ms: u64) -> Positions {
        let Some(holder) = &session.holder else { return session.resume };
        let broadcasts = self.hub.topic(Topic::Broadcasts);
        if holder.alive(now_ms) {
            return Positions { session: session.log.head(), broadcast: broadcasts.head() };
        }
        // What its node was sent after it last renewed may never have reached its reader.
        let since = holder.renewed_ms.load(Ordering::Acquire);
        let own = session.log.since(since);
        let broadcast = broadcasts.log.lock().since(since);
        let floor = session.resume;
        Positions {
            session: own.at(own.offset.max(floor.session.offset)),
            broadcast: broadcast.at(broadcast.offset.max(floor.broadcast.offset)),
        }
    }

    fn tail(&self, session: &Session, after: Positions) -> Tail {
        let own = session.log.after(after.session);
        let broadcasts = self.hub.topic(Topic::Broadcasts).log.lock();
        let shared = broadcasts.after(after.broadcast);
        Tail {
            start: Positions { session: own.start, broadcast: shared.start },
            gap: own.gap || shared.gap,
            own: own
                .entries
                .into_iter()
                .map(|(offset, entry)| LogEntry {
                    offset,
                    after_broadcast: entry.note,
                    payload: entry.payload.clone(),
                })
                .collect(),
            broadcasts: shared
                .entries
                .into_iter()
                .map(|(offset, entry)| TopicEntry { offset, payload: entry.payload.clone() })
                .collect(),
        }
    }

    fn live_node(&self, id: &NodeId, now_ms: u64, operation: &'static str) -> Result<Arc<Node>> {
        self.hub.node(id).filter(|node| node.alive(now_ms)).ok_or_else(|| {
            let message = "this node's lease has run out; it is renewed shortly";
            Error::new(ErrorKind::Unavailable, operation, message)
        })
    }

    fn trim(&self, session: &mut Session, now_ms: u64) {
        session.log.trim(now_ms, &self.options.retention);
        self.hub.topic(Topic::Broadcasts).log.lock().trim(now_ms, &self.options.broadcast_retention);
    }

    fn reclaim_one(&self, node: &Arc<Node>, held: &Reclaim, now_ms: u64) -> Option<Tail> {
        let id = &held.session;
        let mut shard = self.hub.shard(id).lock();
        let session = shard.get_mut(id).filter(|session| session.known(now_ms))?;
        let is_its = match &session.holder {
            Some(holder) => holder.id == node.id,
            None => session.lost,
        };
        if !is_its || session.owner_epoch != held.owner_epoch {
            return None;
        }
        self.trim(session, now_ms);
        node.held.lock().insert(id.clone());
        session.holder = Some(node.clone());
        session.lost = false;
        let tail = self.tail(session, held.after);
        session.resume = tail.start;
        self.hub.schedule(id, session, &self.options.retention);
        Some(tail)
    }

    /// Ends the live stream of a session; true when there was one.
    fn end_holder(&self, id: &SessionId, session: &mut Session, reason: EndReason, now_ms: u64) -> bool {
        let live = session.live_holder(now_ms).cloned();
        if let Some(node) = &live {
            let owner_epoch = session.owner_epoch;
            node.signal(Signal::Ended { session: id.clone(), owner_epoch, reason });
        }
        if session.holder.is_some() {
            session.resume = self.fresh_start(session, now_ms);
            session.unhold(id, now_ms + self.options.retention.age_ms);
        }
        session.lost = false;
        live.is_some()
    }

    /// The record of a session, made if there is none; the session is known from here on.
    fn with_record<T>(
        &self,
        id: &SessionId,
        operation: &'static str,
        change: impl FnOnce(&mut Record) -> Result<T>,
    ) -> Result<T> {
        let now_ms = self.now_ms();
        let ttl_ms = self.options.session_ttl_ms;
        let mut shard = self.hub.shard(id).lock();
        let session = self.known_or_new(&mut shard, id, now_ms);
        refuse_closed(session, id, operation)?;
        if session.info.as_ref().is_some_and(|record| record.expires_ms <= now_ms) {
            self.drop_info(id, session);
        }
        let record = session.info.get_or_insert_with(|| Record {
            info: Arc::default(),
            uris: BTreeSet::new(),
            touched_ms: now_ms,
            expires_ms: 0,
        });
        record.touched_ms = now_ms;
        record.expires_ms = now_ms + ttl_ms;
        let result = change(record);
        self.hub.schedule(id, session, &self.options.retention);
        result
    }

    fn known_or_new<'s>(
        &self,
        shard: &'s mut SessionMap<Session>,
        id: &SessionId,
        now_ms: u64,
    ) -> &'s mut Session {
        let broadcast = self.hub.topic(Topic::Broadcasts).head();
        let session = shard.entry(id.clone()).or_insert_with(|| Session::new(broadcast));
        // One that has expired but was not swept yet is as good as gone.
        let gone = session.registered.as_ref().is_none_or(|old| old.gone_ms().is_some_and(|at| at <= now_ms));
        if session.scheduled_ms != u64::MAX && session.holder.is_none() && gone && !session.known(now_ms) {
            self.drop_info(id, session);
            *session = Session { scheduled_ms: session.scheduled_ms, ..Session::new(broadcast) };
        }
        session
    }

    fn drop_info(&self, id: &SessionId, session: &mut Session) -> bool {
        let Some(record) = session.info.take() else { return false };
        self.hub.unsubscribe_all(id, &record.uris);
        true
    }

    /// Trims what is too old of one session; true when nothing of it is left.
    fn expire(&self, id: &SessionId, session: &mut Session, now_ms: u64) -> bool {
        session.log.trim(now_ms, &self.options.retention);
        if session.info.as_ref().is_some_and(|record| record.expires_ms <= now_ms) {
            self.drop_info(id, session);
            self.hub.signal_nodes(&Signal::InfoChanged { session: id.clone() });
        }
        if session.remembered_until_ms <= now_ms {
            session.remembered_until_ms = 0;
        }
        if session.registered.as_ref().is_some_and(|old| old.gone_ms().is_some_and(|at| at <= now_ms)) {
            session.registered = None;
        }
        session.holder.is_none() && session.registered.is_none() && !session.known(now_ms)
    }

    /// The sessions of nodes whose lease ran out are unheld, and the nodes forgotten.
    fn bury_dead_nodes(&self, now_ms: u64) {
        let dead: Vec<_> = self.hub.nodes.lock().iter().filter(|node| !node.alive(now_ms)).cloned().collect();
        for node in dead {
            self.bury(&node, now_ms);
        }
    }

    fn bury(&self, node: &Arc<Node>, now_ms: u64) {
        let held: Vec<_> = node.held.lock().iter().cloned().collect();
        for id in held {
            let mut shard = self.hub.shard(&id).lock();
            let Some(session) = shard.get_mut(&id) else { continue };
            if session.holder.as_ref().is_some_and(|holder| Arc::ptr_eq(holder, node)) {
                session.resume = self.fresh_start(session, now_ms);
                session.unhold(&id, now_ms + self.options.retention.age_ms);
                session.lost = true;
                self.hub.schedule(&id, session, &self.options.retention);
            }
        }
        let mut nodes = self.hub.nodes.lock();
        *nodes = Arc::new(nodes.iter().filter(|other| !Arc::ptr_eq(other, node)).cloned().collect());
    }

    fn sweep_due(&self, now_ms: u64) -> bool {
        let mut batch = Vec::new();
        {
            let mut due = self.hub.due.lock();
            while batch.len() < SWEEP_BATCH && due.peek().is_some_and(|Reverse((at, _))| *at <= now_ms) {
                batch.extend(due.pop().map(|Reverse(entry)| entry));
            }
        }
        let more = batch.len() == SWEEP_BATCH;
        for (at, id) in batch {
            let mut shard = self.hub.shard(&id).lock();
            // An entry that a sooner one overtook is stale.
            let Some(session) = shard.get_mut(&id).filter(|session| session.scheduled_ms == at) else {
                continue;
            };
            session.scheduled_ms = u64::MAX;
            if self.expire(&id, session, now_ms) {
                shard.remove(&id);
                self.hub.registry.lock().forget_log(&id);
                if shard.capacity() > 64 && shard.len() * 4 < shard.capacity() {
                    shard.shrink_to_fit();
                }
            } else {
                self.hub.schedule(&id, session, &self.options.retention);
            }
        }
        more
    }
}

impl Backend for MemoryBackend {
    fn capability(&self) -> Capability {
        Capability {
            immediate: true,
            merged_order: true,
            processes: false,
            manual_clock: self.hub.manual.is_some(),
            pipelined: false,
        }
    }

    async fn join(&self, id: &NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Result<Joined> {
        self.reach("join")?;
        let now_ms = self.now_ms();
        let ttl_ms = lease.as_millis() as u64;
        let _ = self.me.set(id.clone());
        *self.outage.sink.lock() = Some(sink.clone());
        if let Some(old) = self.hub.node(id) {
            self.bury(&old, now_ms);
        }
        let node = Arc::new(Node {
            id: id.clone(),
            sink,
            outage: self.outage.clone(),
            ttl_ms,
            renewed_ms: AtomicU64::new(now_ms),
            lease_until_ms: AtomicU64::new(now_ms + ttl_ms),
            held: Mutex::default(),
        });
        // Both logs stand still meanwhile: each event is before the heads, or signalled to this node.
        let broadcasts = self.hub.topic(Topic::Broadcasts).log.lock();
        let notifications = self.hub.topic(Topic::Notifications).log.lock();
        let mut nodes = self.hub.nodes.lock();
        *nodes = Arc::new(nodes.iter().cloned().chain([node]).collect());
        Ok(Joined { broadcasts: vec![broadcasts.head()], notifications: notifications.head() })
    }

    async fn renew(&self, id: &NodeId) -> Result<Renewal> {
        self.reach("lease.renew")?;
        let now_ms = self.now_ms();
        let Some(node) = self.hub.node(id).filter(|node| node.alive(now_ms)) else {
            return Ok(Renewal::Lost);
        };
        node.renewed_ms.store(now_ms, Ordering::Release);
        node.lease_until_ms.store(now_ms + node.ttl_ms, Ordering::Release);
        Ok(Renewal::Kept)
    }

    async fn leave(&self, id: &NodeId) -> Result<()> {
        self.reach("shutdown")?;
        if let Some(node) = self.hub.node(id) {
            self.bury(&node, self.now_ms());
            node.lease_until_ms.store(0, Ordering::Release);
        }
        Ok(())
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        let now_ms = self.now_ms();
        let accept = |submission| self.reach("streams.send").map(|()| self.accept_one(submission, now_ms));
        batch.iter().map(accept).collect()
    }

    fn accept_now(&self, submission: &Submission) -> Option<Result<Acceptance>> {
        Some(self.reach("streams.send").map(|()| self.accept_one(submission, self.now_ms())))
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        self.reach("streams.open")?;
        let now_ms = self.now_ms();
        let id = &claim.session;
        let node = self.live_node(&claim.node, now_ms, "streams.open")?;
        let mut shard = self.hub.shard(id).lock();
        let session = self.known_or_new(&mut shard, id, now_ms);
        refuse_closed(session, id, "streams.open")?;
        if !claim.replace && session.live_holder(now_ms).is_some() {
            return Err(Error::new(
                ErrorKind::Conflict,
                "streams.open",
                format!("session {id} has a stream already; close it, or open with replace"),
            ));
        }
        self.trim(session, now_ms);
        let after = match claim.start {
            Start::Cursor(positions) | Start::Delivered(positions) => positions,
            Start::Fresh => self.fresh_start(session, now_ms),
        };
        self.end_holder(id, session, EndReason::Replaced, now_ms);
        let owner_epoch = self.hub.owner_epochs.fetch_add(1, Ordering::AcqRel) + 1;
        session.owner_epoch = owner_epoch;
        node.held.lock().insert(id.clone());
        session.holder = Some(node);
        let tail = self.tail(session, after);
        session.resume = tail.start;
        self.hub.schedule(id, session, &self.options.retention);
        Ok(Claimed { owner_epoch, tail })
    }

    async fn reclaim(&self, id: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        self.reach("streams.reclaim")?;
        let now_ms = self.now_ms();
        let node = self.live_node(id, now_ms, "streams.reclaim")?;
        Ok(held.iter().map(|held| self.reclaim_one(&node, held, now_ms)).collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<()> {
        self.reach("streams.release")?;
        let now_ms = self.now_ms();
        for release in releases {
            let mut shard = self.hub.shard(&release.session).lock();
            let Some(session) = shard.get_mut(&release.session) else { continue };
            if session.owner_epoch != release.owner_epoch {
                continue;
            }
            session.resume = release.delivered;
            session.lost = false;
            if session.holder.is_some() {
                session.unhold(&release.session, now_ms + self.options.retention.age_ms);
            }
            self.hub.schedule(&release.session, session, &self.options.retention);
        }
        Ok(())
    }

    async fn read(&self, id: &SessionId, after: Positions) -> Result<Tail> {
        self.reach("streams.read")?;
        let shard = self.hub.shard(id).lock();
        match shard.get(id) {
            Some(session) => Ok(self.tail(session, after)),
            None => Ok(Tail { start: after, gap: true, ..Tail::default() }),
        }
    }

    async fn read_held(&self, node: &NodeId, held: &Reclaim) -> Result<Option<Tail>> {
        self.reach("streams.read")?;
        let shard = self.hub.shard(&held.session).lock();
        let Some(session) = shard.get(&held.session) else {
            return Ok(Some(Tail { start: held.after, gap: true, ..Tail::default() }));
        };
        let is_its = session.owner_epoch == held.owner_epoch
            && session.holder.as_ref().is_some_and(|holder| holder.id == *node);
        let tail = self.tail(session, held.after);
        Ok((is_its || tail.gap).then_some(tail))
    }

    async fn read_topic(&self, topic: Topic, _: Lane, after: Position) -> Result<TopicTail> {
        self.reach("streams.read")?;
        let log = self.hub.topic(topic).log.lock();
        let found = log.after(after);
        Ok(TopicTail {
            start: found.start,
            gap: found.gap,
            entries: found
                .entries
                .into_iter()
                .map(|(offset, entry)| TopicEntry { offset, payload: entry.payload.clone() })
                .collect(),
        })
    }

    async fn holder(&self, id: &SessionId) -> Result<Option<NodeId>> {
        self.reach("streams.has")?;
        let now_ms = self.now_ms();
        let shard = self.hub.shard(id).lock();
        Ok(shard.get(id).and_then(|session| session.live_holder(now_ms)).map(|node| node.id.clone()))
    }

    async fn held(&self, node: &NodeId, id: &SessionId) -> Result<Option<Release>> {
        self.reach("streams.held")?;
        let shard = self.hub.shard(id).lock();
        let is_its = |session: &&Session| session.holder.as_ref().is_some_and(|holder| holder.id == *node);
        Ok(shard.get(id).filter(is_its).map(|session| Release {
            session: id.clone(),
            owner_epoch: session.owner_epoch,
            delivered: session.resume,
        }))
    }

    async fn known(&self, id: &SessionId) -> Result<bool> {
        self.reach("streams.known")?;
        let now_ms = self.now_ms();
        Ok(self.hub.shard(id).lock().get(id).is_some_and(|session| session.known(now_ms)))
    }

    async fn end(&self, id: &SessionId, reason: EndReason) -> Result<bool> {
        self.reach("streams.close")?;
        let now_ms = self.now_ms();
        let mut shard = self.hub.shard(id).lock();
        let Some(session) = shard.get_mut(id) else { return Ok(false) };
        let ended = self.end_holder(id, session, reason, now_ms);
        self.hub.schedule(id, session, &self.options.retention);
        Ok(ended)
    }

    async fn forget(&self, id: &SessionId) -> Result<bool> {
        self.reach("streams.forget")?;
        let now_ms = self.now_ms();
        let mut shard = self.hub.shard(id).lock();
        let Some(session) = shard.get_mut(id) else { return Ok(false) };
        let had_log = session.log.due_ms(&self.options.retention).is_some();
        let had_stream = session.holder.is_some() || session.remembered_until_ms > now_ms;
        self.end_holder(id, session, EndReason::Terminated, now_ms);
        let broadcast = self.hub.topic(Topic::Broadcasts).head();
        let (info, registered) = (session.info.take(), session.registered.take());
        if info.is_none() && registered.is_none() {
            shard.remove(id);
            return Ok(had_stream || had_log);
        }
        *session =
            Session { info, registered, scheduled_ms: session.scheduled_ms, ..Session::new(broadcast) };
        Ok(had_stream || had_log)
    }

    async fn info(&self, id: &SessionId) -> Result<Option<Arc<SessionInfo>>> {
        self.reach("info.get")?;
        let now_ms = self.now_ms();
        let ttl_ms = self.options.session_ttl_ms;
        let mut shard = self.hub.shard(id).lock();
        let record = shard.get_mut(id).and_then(|session| session.info.as_mut());
        let Some(record) = record.filter(|record| record.expires_ms > now_ms) else { return Ok(None) };
        if now_ms >= record.touched_ms + ttl_ms / 4 {
            record.touched_ms = now_ms;
            record.expires_ms = now_ms + ttl_ms;
        }
        Ok(Some(record.info.clone()))
    }

    async fn put_info(&self, id: &SessionId, patch: InfoPatch) -> Result<()> {
        self.reach("info.put")?;
        self.with_record(id, "info.put", |record| {
            Arc::make_mut(&mut record.info).apply(patch);
            Ok(())
        })?;
        self.hub.signal_others(self.me.get(), &Signal::InfoChanged { session: id.clone() });
        Ok(())
    }

    async fn forget_info(&self, id: &SessionId) -> Result<bool> {
        self.reach("info.delete")?;
        let now_ms = self.now_ms();
        let forgotten = {
            let mut shard = self.hub.shard(id).lock();
            let Some(session) = shard.get_mut(id) else { return Ok(false) };
            let forgotten = self.drop_info(id, session);
            if session.holder.is_none() && session.registered.is_none() && !session.known(now_ms) {
                shard.remove(id);
            }
            forgotten
        };
        self.hub.signal_others(self.me.get(), &Signal::InfoChanged { session: id.clone() });
        Ok(forgotten)
    }

    async fn subscribe(&self, id: &SessionId, uri: &str, max: usize) -> Result<bool> {
        self.reach("info.add_subscription")?;
        self.with_record(id, "info.add_subscription", |record| {
            if record.uris.contains(uri) {
                return Ok(false);
            }
            if record.uris.len() >= max {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    "info.add_subscription",
                    format!("session {id} has {max} resource subscriptions, which is the limit"),
                ));
            }
            let uri: Arc<str> = uri.into();
            record.uris.insert(uri.clone());
            self.hub.subscribers.lock().entry(uri).or_default().insert(id.clone());
            Ok(true)
        })
    }

    async fn unsubscribe(&self, id: &SessionId, uri: &str) -> Result<bool> {
        self.reach("info.remove_subscription")?;
        let mut shard = self.hub.shard(id).lock();
        let record = shard.get_mut(id).and_then(|session| session.info.as_mut());
        let removed = record.is_some_and(|record| record.uris.remove(uri));
        if removed {
            remove_subscriber(&mut self.hub.subscribers.lock(), uri, id);
        }
        Ok(removed)
    }

    async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        self.reach("info.subscribers")?;
        let subscribers = self.hub.subscribers.lock();
        Ok(subscribers.get(uri).map(|sessions| sessions.iter().cloned().collect()).unwrap_or_default())
    }

    async fn subscriptions(&self, id: &SessionId) -> Result<Vec<String>> {
        self.reach("info.subscriptions")?;
        let now_ms = self.now_ms();
        let shard = self.hub.shard(id).lock();
        let record = shard.get(id).and_then(|session| session.info.as_ref());
        Ok(record
            .filter(|record| record.expires_ms > now_ms)
            .map(|record| record.uris.iter().map(|uri| uri.to_string()).collect())
            .unwrap_or_default())
    }

    async fn sweep(&self) -> Result<bool> {
        self.reach("sweep")?;
        let now_ms = self.now_ms();
        self.bury_dead_nodes(now_ms);
        for topic in Topic::ALL {
            self.hub.topic(topic).log.lock().trim(now_ms, &self.options.broadcast_retention);
        }
        Ok(self.sweep_due(now_ms))
    }

    async fn caught_up(&self) -> Result<()> {
        self.reach("catch up")?;
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        self.reach("health")?;
        Ok(())
    }

    async fn registry_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        self.reach("registry")?;
        Ok(self.keep_key(candidate))
    }

    async fn registry_create(&self, id: &SessionId, new: NewSession) -> Result<bool> {
        self.reach("registry.create")?;
        Ok(self.create(id, new))
    }

    async fn registry_read(&self, ids: &[SessionId], touch: Touch) -> Result<Vec<Option<SessionRecord>>> {
        self.reach("registry.get")?;
        Ok(ids.iter().map(|id| self.read_record(id, touch)).collect())
    }

    async fn registry_report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        let take = |report| self.reach("registry.begin_request").map(|()| self.take_report(node, report));
        reports.iter().map(take).collect()
    }

    async fn registry_adopt(&self, id: &SessionId, node: &NodeId) -> Result<bool> {
        self.reach("registry.adopt")?;
        Ok(self.adopt(id, node))
    }

    async fn registry_close(&self, id: &SessionId, reason: &str) -> Result<CloseStart> {
        self.reach("registry.close")?;
        Ok(self.start_close(id, reason))
    }

    async fn registry_bury(&self, id: &SessionId) -> Result<()> {
        self.reach("registry.close")?;
        self.bury_session(id);
        Ok(())
    }

    async fn registry_owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        self.reach("registry.get_by_owner")?;
        Ok(self.owned(owner))
    }

    async fn registry_list(&self, query: ListQuery) -> Result<Listed> {
        self.reach("registry.list")?;
        self.list_sessions(query)
    }

    async fn registry_stats(&self) -> Result<RegistryStats> {
        self.reach("registry.stats")?;
        Ok(self.count_sessions())
    }

    async fn registry_sweep(&self) -> Result<Swept> {
        self.reach("registry.sweep")?;
        Ok(self.sweep_registry())
    }

    async fn append(&self, event: Append) -> Result<Position> {
        self.reach("events.append")?;
        Ok(self.append_event(event))
    }

    async fn logs(&self, scope: &SessionId) -> Result<Vec<SessionId>> {
        self.reach("events.forget")?;
        Ok(self.logs_of(scope))
    }

    async fn forget_logs(&self, _scope: &SessionId, logs: &[SessionId]) -> Result<()> {
        self.reach("events.forget")?;
        self.drop_logs(logs);
        Ok(())
    }
}
