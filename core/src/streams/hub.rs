//! The hub: one an engine. It takes the backend's signals, keeps each stream in order, repairs gaps
//! from the log, fans broadcasts out, and ends what can't go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Mutex as AsyncMutex;

use crate::backend::{Capability, DynBackend, Release, Renewal, Signal, SignalSink, Topic};
use crate::error::{Error, Result};
use crate::info::InfoCache;
use crate::options::Options;
use crate::runtime::{BoxFuture, Runtime, Upkeep};
use crate::session::{NodeId, SessionId};
use crate::stats::Counters;
use crate::streams::event::{EndReason, EventKind, Payload, Position, Positions};
use crate::streams::local::{Ended, Incoming, LocalStream, Outcome};
use crate::streams::merge::merge;
use crate::streams::table::StreamTable;
use crate::streams::topic::TopicFeed;
use crate::subscriptions::SubscriptionTable;
use crate::sync::Mutex;

/// Between two tries to read a log from a backend that does not answer.
const REPAIR_RETRY: Duration = Duration::from_millis(100);

/// What the managers of one engine share.
pub(crate) struct Hub {
    pub(crate) node: NodeId,
    pub(crate) backend: Arc<dyn DynBackend>,
    pub(crate) capability: Capability,
    pub(crate) runtime: Runtime,
    pub(crate) options: Arc<Options>,
    pub(crate) counters: Counters,
    pub(crate) streams: StreamTable,
    pub(crate) subscriptions: SubscriptionTable,
    pub(crate) info_cache: InfoCache,
    broadcasts: TopicFeed,
    notifications: TopicFeed,
    /// Until then (on the engine's clock) this node may deliver.
    valid_until_ms: AtomicU64,
    /// As after `kill -9`: no signal is taken, nothing is renewed or released.
    cut: AtomicBool,
    closed: AtomicBool,
    joined: AtomicBool,
    releases: Mutex<Vec<Release>>,
    /// One flush at a time, so that a flush that finds nothing left knows that the backend was told.
    flushing: AsyncMutex<()>,
    /// The same for backends whose operations complete at once: held over a poll, never over an await.
    flushing_now: Mutex<()>,
    me: Weak<Hub>,
}

/// What the backend holds of a hub; it must not keep it alive.
struct WeakSink(Weak<Hub>);

impl SignalSink for WeakSink {
    fn signal(&self, signal: Signal) {
        if let Some(hub) = self.0.upgrade() {
            hub.take(signal);
        }
    }
}

impl Hub {
    pub(crate) fn new(backend: Arc<dyn DynBackend>, runtime: Runtime, options: Arc<Options>) -> Arc<Self> {
        Arc::new_cyclic(|me| Hub {
            node: NodeId::random(),
            capability: backend.capability(),
            backend,
            runtime,
            info_cache: InfoCache::new(options.session_ttl_ms / 4),
            options,
            counters: Counters::default(),
            streams: StreamTable::new(),
            subscriptions: SubscriptionTable::new(),
            broadcasts: TopicFeed::new(),
            notifications: TopicFeed::new(),
            valid_until_ms: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            releases: Mutex::default(),
            flushing: AsyncMutex::new(()),
            flushing_now: Mutex::default(),
            me: me.clone(),
        })
    }

    /// Fails with `closed` once the engine was shut down.
    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::closed(operation)),
            false => Ok(()),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Marks the engine closed; false when it was.
    pub(crate) fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Runs a backend's operation: with a deadline, or, where it is immediate, without one.
    pub(crate) async fn run<T>(&self, operation: &'static str, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        self.check_open(operation)?;
        if self.capability.immediate {
            return work.await;
        }
        self.runtime.deadline(operation, self.options.operation_timeout(), work).await
    }

    /// Joins the backend, or joins it again.
    pub(crate) async fn join(&self) -> Result<()> {
        let started_ms = self.runtime.now_ms();
        let lease = Duration::from_millis(self.options.lease.ttl_ms);
        let sink = Arc::new(WeakSink(self.me.clone()));
        let joined = self.backend.join(&self.node, lease, sink).await?;
        if self.joined.swap(true, Ordering::AcqRel) {
            // What came while this node was out is read: its subscriptions go on.
            self.renewed_at(started_ms);
            for (topic, head) in Topic::ALL.into_iter().zip([joined.broadcasts, joined.notifications]) {
                let after = self.feed(topic).behind(Some(head));
                self.repair_topic(topic, after);
            }
            return Ok(());
        }
        self.broadcasts.start(joined.broadcasts);
        self.notifications.start(joined.notifications);
        self.renewed_at(started_ms);
        Ok(())
    }

    fn renewed_at(&self, started_ms: u64) {
        self.valid_until_ms.store(started_ms + self.options.lease.ttl_ms, Ordering::Release);
    }

    /// Milliseconds this node's lease is good for.
    pub(crate) fn lease_left_ms(&self) -> u64 {
        self.valid_until_ms.load(Ordering::Acquire).saturating_sub(self.runtime.now_ms())
    }

    /// A node whose lease ran out must not deliver: another may hold its sessions (G6).
    fn may_deliver(&self) -> bool {
        if self.lease_left_ms() > 0 {
            return true;
        }
        self.fence();
        false
    }

    fn fence(&self) {
        for stream in self.streams.all() {
            self.end_stream(&stream, EndReason::Fenced);
        }
    }

    fn take(&self, signal: Signal) {
        if self.is_cut() {
            return;
        }
        if matches!(signal, Signal::Doubt) {
            self.renew_now();
        }
        if !self.may_deliver() {
            return;
        }
        match signal {
            Signal::Event { session, position, payload } => {
                let incoming = Incoming { payload, kind: EventKind::Directed, position };
                self.each_of(&session, |stream| stream.offer(incoming.clone()));
            }
            Signal::Topic { topic, position, payload } => self.take_topic(topic, position, payload),
            Signal::Doorbell { session, head } => {
                self.each_of(&session, |stream| stream.behind(Some(head), None));
            }
            Signal::TopicDoorbell { topic, head } => {
                let after = self.feed(topic).behind(Some(head));
                self.repair_topic(topic, after);
            }
            Signal::Ended { session, owner_epoch, reason } => {
                for stream in self.streams.get(&session).into_iter().flatten() {
                    if let Some(ended) = stream.end_if_owner(owner_epoch, reason) {
                        self.after_end(&stream, ended, reason);
                    }
                }
            }
            Signal::InfoChanged { session } => self.info_cache.invalidate(&session),
            Signal::Doubt => self.doubt(),
        }
    }

    /// The lease may be gone, too; the sooner it is known, the sooner this node is back.
    fn renew_now(&self) {
        let Some(hub) = self.me.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            if let Err(error) = hub.renew().await {
                tracing::debug!(%error, "the lease could not be renewed yet");
            }
        }));
    }

    /// Nothing that was followed can be trusted: every log is read from where this node stands.
    fn doubt(&self) {
        self.info_cache.clear();
        let notifications = self.notifications.behind(None);
        self.repair_topic(Topic::Notifications, notifications);
        let broadcasts = self.broadcasts.behind(None);
        let doubtful: Vec<_> =
            self.streams.all().into_iter().map(|stream| (stream.doubt(), stream)).collect();
        let Some(hub) = self.me.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            // Broadcasts wait while they are read, so until then every stream has to: a directed event
            // would overtake them (G1).
            if let Some(after) = broadcasts {
                hub.read_topic(Topic::Broadcasts, after).await;
            }
            for (outcome, stream) in doubtful {
                hub.settle(&stream, outcome);
            }
        }));
    }

    fn each_of(&self, session: &SessionId, act: impl Fn(&Arc<LocalStream>) -> Outcome) {
        for stream in self.streams.get(session).into_iter().flatten() {
            let outcome = act(&stream);
            self.settle(&stream, outcome);
        }
    }

    fn feed(&self, topic: Topic) -> &TopicFeed {
        match topic {
            Topic::Broadcasts => &self.broadcasts,
            Topic::Notifications => &self.notifications,
        }
    }

    fn take_topic(&self, topic: Topic, position: Position, payload: Payload) {
        let after = self.feed(topic).take(position, payload, |position, payload| {
            self.fan_out(topic, position, payload);
        });
        self.repair_topic(topic, after);
    }

    /// One event of a topic to everybody here who wants it.
    fn fan_out(&self, topic: Topic, position: Position, payload: &Payload) {
        if topic == Topic::Notifications {
            let overflows = self.subscriptions.deliver(payload);
            Counters::add(&self.counters.subscription_overflows, overflows);
            return;
        }
        let mut unsettled = Vec::new();
        self.streams.for_each(|stream| {
            let incoming = Incoming { payload: payload.clone(), kind: EventKind::Broadcast, position };
            match stream.offer(incoming) {
                Outcome::Fine => {}
                outcome => unsettled.push((stream.clone(), outcome)),
            }
        });
        for (stream, outcome) in unsettled {
            self.settle(&stream, outcome);
        }
    }

    fn repair_topic(&self, topic: Topic, after: Option<Position>) {
        let (Some(after), Some(hub)) = (after, self.me.upgrade()) else { return };
        self.runtime.spawn(Box::pin(async move { hub.read_topic(topic, after).await }));
    }

    /// Reads a topic's log and delivers it, until nothing is missing.
    async fn read_topic(&self, topic: Topic, mut after: Position) {
        loop {
            Counters::add(&self.counters.repairs, 1);
            let Some(tail) = self.until_answered(|| self.backend.read_topic(topic, after)).await else {
                return;
            };
            let next = self.feed(topic).repaired(tail, |position, payload| {
                self.fan_out(topic, position, payload);
            });
            match next {
                Some(next) => after = next,
                None => return,
            }
        }
    }

    /// Reads until the backend answers; `None` once the engine is gone.
    async fn until_answered<'a, T>(&self, read: impl Fn() -> BoxFuture<'a, Result<T>>) -> Option<T> {
        loop {
            if self.is_closed() || self.is_cut() {
                return None;
            }
            match self.run("streams.repair", read()).await {
                Ok(read) => return Some(read),
                Err(error) => tracing::debug!(%error, "a log could not be read; trying again"),
            }
            self.runtime.sleep(REPAIR_RETRY).await;
        }
    }

    /// Does what a stream asked for.
    pub(crate) fn settle(&self, stream: &Arc<LocalStream>, outcome: Outcome) {
        match outcome {
            Outcome::Fine => {}
            Outcome::Repair(after) => self.repair(stream.clone(), after),
            Outcome::End(reason) => self.end_stream(stream, reason),
        }
    }

    fn repair(&self, stream: Arc<LocalStream>, mut after: Positions) {
        let Some(hub) = self.me.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            loop {
                Counters::add(&hub.counters.repairs, 1);
                let session = stream.session();
                let Some(tail) = hub.until_answered(|| hub.backend.read(session, after)).await else {
                    return;
                };
                if tail.gap {
                    return hub.end_stream(&stream, EndReason::Gap);
                }
                match stream.repaired(merge(tail)) {
                    Outcome::Repair(next) => after = next,
                    other => return hub.settle(&stream, other),
                }
            }
        }));
    }

    /// Ends a stream of this node, and lets the backend know.
    pub(crate) fn end_stream(&self, stream: &Arc<LocalStream>, reason: EndReason) {
        if let Some(ended) = stream.end(reason) {
            self.after_end(stream, ended, reason);
        }
    }

    pub(crate) fn after_end(&self, stream: &Arc<LocalStream>, ended: Ended, reason: EndReason) {
        self.streams.remove(stream);
        match reason {
            EndReason::Replaced => Counters::add(&self.counters.replaced, 1),
            EndReason::Overflow => Counters::add(&self.counters.overflows, 1),
            EndReason::Fenced => Counters::add(&self.counters.fenced, 1),
            _ => {}
        }
        // A newer owner epoch holds the session, or nobody does: there is nothing to give back.
        let given_back = !matches!(reason, EndReason::Replaced | EndReason::Terminated);
        if !given_back || ended.owner_epoch == 0 || self.is_cut() {
            return;
        }
        let first = {
            let mut releases = self.releases.lock();
            releases.push(Release {
                session: stream.session().clone(),
                owner_epoch: ended.owner_epoch,
                delivered: ended.delivered,
            });
            releases.len() == 1
        };
        // This may run inside a signal, which must not call the backend.
        if let (true, Some(hub)) = (first, self.me.upgrade()) {
            self.runtime.spawn(Box::pin(async move { hub.flush_releases().await }));
        }
    }

    /// Tells the backend of streams that ended; resolves when it knows.
    pub(crate) async fn flush_releases(&self) {
        if self.capability.immediate {
            let _one_at_a_time = self.flushing_now.lock();
            self.give_back().now_or_never();
            return;
        }
        let _one_at_a_time = self.flushing.lock().await;
        self.give_back().await;
    }

    async fn give_back(&self) {
        let releases = std::mem::take(&mut *self.releases.lock());
        if releases.is_empty() || self.is_cut() {
            return;
        }
        if let Err(error) = self.backend.release(&releases).await {
            // Told again at the next upkeep: this node lives on, so no lease would end for them.
            tracing::debug!(%error, "streams could not be given back yet");
            self.releases.lock().splice(0..0, releases);
        }
    }

    /// Renews the lease and sweeps; run every `lease.renew_ms`.
    pub(crate) async fn upkeep(&self) {
        if self.is_closed() || self.is_cut() {
            return;
        }
        if let Err(error) = self.renew().await {
            tracing::warn!(%error, "the lease of this node could not be renewed");
        }
        self.may_deliver();
        self.flush_releases().await;
        // A bounded number of batches, so that the lease is renewed in time whatever is due.
        for _ in 0..64 {
            match self.backend.sweep().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "sweeping failed; the next node or the next turn goes on");
                    break;
                }
            }
        }
    }

    async fn renew(&self) -> Result<()> {
        let started_ms = self.runtime.now_ms();
        let limit = Duration::from_millis(self.options.lease.ttl_ms);
        let renew = self.backend.renew(&self.node);
        let renewal = match self.capability.immediate {
            true => renew.await?,
            false => self.runtime.deadline("lease.renew", limit, renew).await?,
        };
        match renewal {
            Renewal::Kept => {
                self.renewed_at(started_ms);
                Ok(())
            }
            Renewal::Lost => {
                self.fence();
                self.join().await
            }
        }
    }
}

impl Upkeep for Hub {
    fn period(&self) -> Duration {
        Duration::from_millis(self.options.lease.renew_ms)
    }

    fn tick(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.upkeep().await })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.is_closed() || self.is_cut() {
            return;
        }
        let (backend, node) = (self.backend.clone(), self.node.clone());
        let leave = Box::pin(async move {
            // A backend that can't be told will see the lease end.
            let _ = backend.leave(&node).await;
        });
        match self.capability.immediate {
            true => drop(leave.now_or_never()),
            false => self.runtime.spawn(leave),
        }
    }
}
