//! The hub: one an engine. It takes the backend's signals, keeps each stream in order, repairs gaps
//! from the log, fans broadcasts out, and ends what can't go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, select};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify};
use tracing::Instrument as _;

use crate::backend::{Capability, DynBackend, Lane, Reclaim, Release, Renewal, Signal, SignalSink, Topic};
use crate::error::{Error, Result};
use crate::events::Notes;
use crate::info::InfoCache;
use crate::metrics::{Gauge, Stopwatch};
use crate::options::Options;
use crate::registry::{self, LocalRegistry};
use crate::runtime::{BoxFuture, Runtime, Upkeep};
use crate::session::{NodeId, SessionId};
use crate::stats::Counters;
use crate::streams::event::{EndReason, EventKind, Payload, Position, Positions};
use crate::streams::gate::{Gate, Lease};
use crate::streams::lanes::Lanes;
use crate::streams::local::{Ended, Incoming, LocalStream, Outcome};
use crate::streams::merge::merge;
use crate::streams::table::StreamTable;
use crate::streams::topic::TopicFeed;
use crate::subscriptions::SubscriptionTable;
use crate::sync::Mutex;

/// Between two tries to read a log from a backend that does not answer.
const REPAIR_RETRY: Duration = Duration::from_millis(100);
/// Between two tries to renew a lease that could not be renewed.
const RENEWAL_RETRY_MS: u64 = 200;
/// The most sessions that are looked at in one upkeep for a claim whose answer was lost.
const SUSPECTS_BATCH: usize = 64;
/// The most streams that are reclaimed in one go.
const RECLAIM_BATCH: usize = 1_024;

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
    pub(crate) registry: LocalRegistry,
    pub(crate) event_notes: Notes,
    lanes: Lanes,
    notifications: TopicFeed,
    /// While it lasts this node may deliver.
    pub(crate) lease: Arc<Lease>,
    /// Whoever waits to try again need not wait any longer.
    renewed: Notify,
    /// The last renewal failed, so the next comes sooner.
    renewal_failed: AtomicBool,
    /// One renewal at a time.
    renewing: AsyncMutex<()>,
    /// Deliveries left out for want of a lease, until a doubt makes up for them.
    left_out: AtomicU64,
    /// Doubts that are not settled yet; whoever raises the first one starts settling.
    doubts: AtomicU64,
    /// As after `kill -9`: no signal is taken, nothing is renewed or released.
    cut: AtomicBool,
    closed: AtomicBool,
    joined: AtomicBool,
    /// Streams that wait until the broadcasts are read.
    waiting: Mutex<Vec<Arc<LocalStream>>>,
    releases: Mutex<Vec<Release>>,
    /// Sessions this node may hold without a stream, as the answer to a claim was lost, and until when
    /// that claim may still be on its way.
    suspects: Mutex<HashMap<SessionId, u64>>,
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
        let history = options.retention.events > 0;
        let lease = Arc::new(Lease::new(runtime.clock().clone()));
        Arc::new_cyclic(|me| Hub {
            node: NodeId::random(),
            capability: backend.capability(),
            backend,
            lanes: Lanes::new(lease.clone(), history),
            notifications: TopicFeed::new(None),
            lease,
            runtime,
            info_cache: InfoCache::new(options.session_ttl_ms / 4),
            counters: Counters::new(options.recorder.as_ref()),
            options,
            streams: StreamTable::new(),
            subscriptions: SubscriptionTable::new(),
            registry: LocalRegistry::default(),
            event_notes: Notes::default(),
            renewed: Notify::new(),
            renewal_failed: AtomicBool::new(false),
            renewing: AsyncMutex::new(()),
            left_out: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            waiting: Mutex::default(),
            releases: Mutex::default(),
            suspects: Mutex::default(),
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

    /// Runs a backend's operation in a span of its own: with a deadline, or, where it is immediate,
    /// without one.
    pub(crate) async fn run<T>(&self, operation: &'static str, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        self.check_open(operation)?;
        let watch = Stopwatch::start(self.options.recorder.as_ref(), &self.runtime);
        let span = tracing::debug_span!("operation", operation, node = %self.node);
        let done = async {
            match self.capability.immediate {
                true => work.await,
                false => self.runtime.deadline(operation, self.options.operation_timeout(), work).await,
            }
        };
        let done = done.instrument(span).await;
        watch.stop(operation, done.as_ref().err().map(Error::kind));
        done
    }

    /// Tells the recorder, if there is one, where everything stands.
    pub(crate) fn report_gauges(&self) {
        let Some(recorder) = &self.options.recorder else { return };
        recorder.gauge(Gauge::Streams, self.streams.len() as f64);
        recorder.gauge(Gauge::Subscriptions, self.subscriptions.len() as f64);
        recorder.gauge(Gauge::LeaseLeft, self.lease_left_ms() as f64 / 1e3);
    }

    /// Joins the backend, or joins it again.
    pub(crate) async fn join(&self) -> Result<()> {
        let started_ms = self.runtime.now_ms();
        let lease = Duration::from_millis(self.options.lease.ttl_ms);
        let sink = Arc::new(WeakSink(self.me.clone()));
        let joined = self.backend.join(&self.node, lease, sink).await?;
        if self.joined.swap(true, Ordering::AcqRel) {
            self.renewed_at(started_ms);
            self.recheck_registry();
            return Ok(());
        }
        for (lane, head) in (0..=u8::MAX).zip(joined.broadcasts) {
            if let Some(feed) = self.feed(Topic::Broadcasts, Lane(lane)) {
                feed.start(head);
            }
        }
        self.notifications.start(joined.notifications);
        self.lease.extend(started_ms + self.options.lease.ttl_ms);
        Ok(())
    }

    fn renewed_at(&self, started_ms: u64) {
        self.renewal_failed.store(false, Ordering::Release);
        if self.lease.extend(started_ms + self.options.lease.ttl_ms) {
            return;
        }
        // Nothing was read since it ran out here; whether the backend saw that, too, shows now.
        self.doubt();
        self.streams.for_each(LocalStream::wake);
        self.renewed.notify_one();
    }

    /// Milliseconds this node's lease is good for.
    pub(crate) fn lease_left_ms(&self) -> u64 {
        self.lease.left_ms()
    }

    fn take(&self, signal: Signal) {
        if self.is_cut() {
            return;
        }
        if signal.is_delivery() {
            // Others may not tell this node everything now; once its lease is back, the logs do (G1).
            if !self.lease.is_valid() {
                self.left_out.fetch_add(1, Ordering::AcqRel);
                return;
            }
            // Whoever has just renewed it may not have come to raise the doubt.
            if self.left_out.load(Ordering::Acquire) > 0 {
                self.doubt();
            }
        }
        match signal {
            Signal::Event { session, position, payload } => {
                let incoming = Incoming { payload, kind: EventKind::Directed, position };
                self.each_of(&session, |stream| stream.offer(incoming.clone()));
            }
            Signal::Topic { topic, lane, position, payload } => {
                self.take_topic(topic, lane, position, payload)
            }
            Signal::Doorbell { session, head } => {
                self.each_of(&session, |stream| stream.behind(Some(head), None));
            }
            Signal::TopicDoorbell { topic, lane, head } => {
                let after = self.feed(topic, lane).and_then(|feed| feed.behind(head));
                self.repair_topic(topic, lane, after);
            }
            Signal::Ended { session, owner_epoch, reason } => {
                for stream in self.streams.get(&session).into_iter().flatten() {
                    if let Some(ended) = stream.end_if_owner(owner_epoch, reason) {
                        self.after_end(&stream, ended, reason);
                    }
                }
            }
            Signal::SessionClosing { session, reason } => self.registry.closing(&session, &reason),
            Signal::Doubtful { session } => self.each_of(&session, |stream| stream.recheck()),
            Signal::InfoChanged { session } => self.info_cache.invalidate(&session),
            Signal::InfoDoubtful => self.info_cache.clear(),
            Signal::Notification { payload } => {
                let overflows = self.subscriptions.deliver(&payload);
                self.counters.subscription_overflows.add(overflows);
            }
            Signal::Doubt => {
                self.info_cache.clear();
                self.doubt();
                self.reachable();
            }
            Signal::Reachable => self.reachable(),
        }
    }

    /// The lease may be gone; the sooner it is known, the sooner this node is back. What ended
    /// meanwhile can be given back, too.
    fn reachable(&self) {
        let Some(hub) = self.me.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            if let Err(error) = hub.renew().await {
                tracing::debug!(%error, "the lease could not be renewed yet");
            }
            hub.check_suspects().await;
            hub.flush_releases().await;
        }));
    }

    /// Nothing that was followed can be trusted, the sessions themselves included: every log is read
    /// from where this node stands, and every stream is reclaimed.
    fn doubt(&self) {
        let left_out = self.left_out.load(Ordering::Acquire);
        self.recheck_registry();
        for (feed, ..) in self.feeds() {
            feed.doubt();
        }
        self.streams.for_each(|stream| stream.doubt(false));
        // What was left out meanwhile needs another one.
        let _ = self.left_out.compare_exchange(left_out, 0, Ordering::AcqRel, Ordering::Acquire);
        self.settle_doubts();
    }

    fn settle_doubts(&self) {
        let first = self.doubts.fetch_add(1, Ordering::AcqRel) == 0;
        let (true, Some(hub)) = (first, self.me.upgrade()) else { return };
        self.runtime.spawn(Box::pin(async move {
            loop {
                let raised = hub.doubts.load(Ordering::Acquire);
                if hub.recover().await.is_none() {
                    return;
                }
                // Those raised meanwhile may have come too late for what was read.
                let settled = hub.doubts.compare_exchange(raised, 0, Ordering::AcqRel, Ordering::Acquire);
                if settled.is_ok() {
                    return;
                }
            }
        }));
    }

    /// What was closed while nothing came is found out.
    fn recheck_registry(&self) {
        self.event_notes.clear();
        if let Some(hub) = self.me.upgrade() {
            self.runtime.spawn(registry::recheck(&hub));
        }
    }

    /// The last broadcast this node knows of in a session's lane.
    pub(crate) fn broadcast_position(&self, session: &SessionId) -> Position {
        let feed = self.feed(Topic::Broadcasts, self.backend.lane(session));
        feed.map(TopicFeed::position).unwrap_or_default()
    }

    /// What a session's stream asks; `None` for a lane that the backend does not have.
    pub(crate) fn gate(&self, session: &SessionId) -> Option<Arc<Gate>> {
        let lane = self.lanes.get(self.backend.lane(session), || self.backend.lanes());
        lane.map(|lane| lane.gate.clone())
    }

    /// Settles the doubts of all streams; `None` once the engine is gone.
    async fn recover(&self) -> Option<()> {
        // A server that took over may lack the last renewals: then others take this node for dead, and tell
        // it of broadcasts only (G1).
        self.until_answered(|| Box::pin(self.renew_now())).await?;
        // Broadcasts wait while they are read, so until then every stream has to: a directed event
        // would overtake them (G1).
        let reads = self.feeds().map(|(feed, topic, lane)| self.read_topic(topic, lane, feed.doubt()));
        for read in join_all(reads).await {
            read?;
        }
        let mut doubtful = Vec::new();
        self.streams.for_each(|stream| {
            doubtful.extend(stream.doubted().map(|doubted| (stream.clone(), doubted)));
        });
        for batch in doubtful.chunks(RECLAIM_BATCH) {
            let claims: Vec<_> = batch
                .iter()
                .map(|(stream, doubted)| Reclaim {
                    session: stream.session().clone(),
                    owner_epoch: doubted.owner_epoch,
                    after: doubted.last,
                })
                .collect();
            let answers = self.until_answered(|| self.backend.reclaim(&self.node, &claims)).await?;
            for ((stream, doubted), answer) in batch.iter().zip(answers) {
                let outcome = match answer {
                    Some(tail) => {
                        let lacks = stream.lacks(&tail, doubted.last);
                        stream.reclaimed(*doubted, tail.start, lacks, merge(tail))
                    }
                    None => Outcome::End(EndReason::Fenced),
                };
                self.settle(stream, outcome);
            }
        }
        Some(())
    }

    fn each_of(&self, session: &SessionId, act: impl Fn(&Arc<LocalStream>) -> Outcome) {
        for stream in self.streams.get(session).into_iter().flatten() {
            let outcome = act(&stream);
            self.settle(&stream, outcome);
        }
    }

    /// Notifications have no lanes: every node gets each once.
    fn feed(&self, topic: Topic, lane: Lane) -> Option<&TopicFeed> {
        match topic {
            Topic::Broadcasts => self.lanes.get(lane, || self.backend.lanes()).map(|lane| &lane.feed),
            Topic::Notifications => Some(&self.notifications),
        }
    }

    /// All that is followed.
    fn feeds(&self) -> impl Iterator<Item = (&TopicFeed, Topic, Lane)> {
        let broadcasts = self.lanes.iter().map(|lane| (&lane.feed, Topic::Broadcasts, lane.gate.lane()));
        broadcasts.chain([(&self.notifications, Topic::Notifications, Lane::default())])
    }

    fn take_topic(&self, topic: Topic, lane: Lane, position: Position, payload: Payload) {
        let Some(feed) = self.feed(topic, lane) else { return };
        let after = feed.take(position, payload, |position, payload| {
            self.fan_out(topic, lane, position, payload);
        });
        self.repair_topic(topic, lane, after);
    }

    /// One event of a topic to everybody here who wants it.
    fn fan_out(&self, topic: Topic, lane: Lane, position: Position, payload: &Payload) {
        if topic == Topic::Notifications {
            let overflows = self.subscriptions.deliver(payload);
            self.counters.subscription_overflows.add(overflows);
            return;
        }
        let mut unsettled = Vec::new();
        self.streams.for_each(|stream| {
            if stream.lane() != lane {
                return;
            }
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

    fn repair_topic(&self, topic: Topic, lane: Lane, after: Option<Position>) {
        let (Some(after), Some(hub)) = (after, self.me.upgrade()) else { return };
        self.runtime.spawn(Box::pin(async move {
            hub.read_topic(topic, lane, after).await;
        }));
    }

    /// Reads a topic's log and delivers it, until nothing is missing; `None` once the engine is gone.
    async fn read_topic(&self, topic: Topic, lane: Lane, mut after: Position) -> Option<()> {
        let feed = self.feed(topic, lane)?;
        loop {
            self.counters.repairs.add(1);
            let tail = self.until_answered(|| self.backend.read_topic(topic, lane, after)).await?;
            let next = feed.repaired(tail, |position, payload| {
                self.fan_out(topic, lane, position, payload);
            });
            match next {
                Some(next) => after = next,
                None => {
                    self.settle_waiting();
                    return Some(());
                }
            }
        }
    }

    /// Lets those go on that got a directed event while broadcasts were read: their place among these
    /// shows when both logs are read together.
    fn settle_waiting(&self) {
        let ready: Vec<_> = self.waiting.lock().extract_if(.., |stream| !stream.is_behind()).collect();
        for stream in ready {
            let Some(after) = stream.waits_after() else { continue };
            let outcome = match self.options.retention.events {
                // There is no log to read.
                0 => stream.repaired(after, after, false, Vec::new()),
                _ => Outcome::Repair(after),
            };
            self.settle(&stream, outcome);
        }
    }

    /// Reads until the backend answers; `None` once the engine is gone.
    pub(crate) async fn until_answered<'a, T>(
        &self,
        read: impl Fn() -> BoxFuture<'a, Result<T>>,
    ) -> Option<T> {
        loop {
            if self.is_closed() || self.is_cut() {
                return None;
            }
            match self.run("streams.repair", read()).await {
                Ok(read) => return Some(read),
                Err(error) => tracing::debug!(%error, "a log could not be read; trying again"),
            }
            select(Box::pin(self.renewed.notified()), self.runtime.sleep(REPAIR_RETRY)).await;
        }
    }

    /// Does what a stream asked for.
    pub(crate) fn settle(&self, stream: &Arc<LocalStream>, outcome: Outcome) {
        match outcome {
            Outcome::Fine => {}
            Outcome::Repair(after) => self.repair(stream.clone(), after),
            Outcome::Wait => {
                self.waiting.lock().push(stream.clone());
                self.settle_waiting();
            }
            Outcome::Reclaim => self.settle_doubts(),
            Outcome::End(reason) => self.end_stream(stream, reason),
        }
    }

    fn repair(&self, stream: Arc<LocalStream>, mut after: Positions) {
        let Some(hub) = self.me.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            loop {
                hub.counters.repairs.add(1);
                let held =
                    Reclaim { session: stream.session().clone(), owner_epoch: stream.owner_epoch(), after };
                let read = hub.until_answered(|| hub.backend.read_held(&hub.node, &held)).await;
                let Some(read) = read else { return };
                let Some(tail) = read else {
                    // Its end is on its way; if that was missed, reclaiming shows it.
                    stream.doubt(false);
                    return hub.settle_doubts();
                };
                let lacks = stream.lacks(&tail, after);
                match stream.repaired(after, tail.start, lacks, merge(tail)) {
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
        match reason {
            EndReason::Replaced => self.counters.replaced.add(1),
            EndReason::Overflow => self.counters.overflows.add(1),
            EndReason::Fenced => self.counters.fenced.add(1),
            _ => {}
        }
        if reason.is_taken() || ended.owner_epoch == 0 || self.is_cut() {
            return self.streams.remove(stream);
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
        // Not before: whoever opens the next one finds where it starts in the one or the other.
        self.streams.remove(stream);
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
        let release = self.backend.release(&releases);
        if let Err(error) = self.in_time("streams.release", release).await {
            // Told again at the next upkeep: this node lives on, so no lease would end for them.
            tracing::debug!(%error, "streams could not be given back yet");
            self.releases.lock().splice(0..0, releases);
        }
    }

    /// Gives a session back before it is claimed anew; what else waits to be given back may wait on.
    pub(crate) async fn release_before_claim(&self, session: &SessionId) -> Result<()> {
        self.flush_releases().await;
        let is_it = |release: &&Release| release.session == *session;
        let left: Vec<_> = self.releases.lock().iter().filter(is_it).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        self.run("streams.open", self.backend.release(&left)).await
    }

    /// A claim of this session may have happened, or may happen yet, though nobody waits for it.
    pub(crate) fn suspect(&self, session: &SessionId) {
        let options = &self.options;
        let patience_ms = 2 * options.lease.ttl_ms + options.operation_timeout_ms;
        self.suspects.lock().insert(session.clone(), self.runtime.now_ms() + patience_ms);
        // A stream that was to be replaced may be.
        for stream in self.streams.get(session).into_iter().flatten() {
            stream.doubt(false);
        }
        self.settle_doubts();
    }

    /// Gives back what is held without a stream.
    async fn check_suspects(&self) {
        let now_ms = self.runtime.now_ms();
        let suspects: Vec<_> = {
            let mut suspects = self.suspects.lock();
            suspects.retain(|_, until_ms| *until_ms > now_ms);
            suspects.keys().take(SUSPECTS_BATCH).cloned().collect()
        };
        for session in suspects {
            let held = self.backend.held(&self.node, &session);
            let Ok(held) = self.in_time("streams.held", held).await else { return };
            // One that opens has its place in the table before its claim: this one is of another claim.
            let (Some(release), [None, None]) = (held, self.streams.get(&session)) else { continue };
            tracing::debug!(%session, "given back: the answer to its claim was lost");
            self.releases.lock().push(release);
        }
    }

    /// Renews the lease and sweeps; run every `lease.renew_ms`.
    pub(crate) async fn upkeep(&self) {
        if self.is_closed() || self.is_cut() {
            return;
        }
        let started_ms = self.runtime.now_ms();
        if let Err(error) = self.renew().await {
            tracing::warn!(%error, "the lease of this node could not be renewed");
            return self.report_gauges();
        }
        self.report_gauges();
        self.check_suspects().await;
        self.flush_releases().await;
        if let Some(hub) = self.me.upgrade() {
            registry::upkeep(&hub).await;
        }
        // For a bounded time, so that the lease is renewed in time whatever is due.
        let until_ms = started_ms + self.options.lease.renew_ms / 2;
        loop {
            match self.in_time("sweep", self.backend.sweep()).await {
                Ok(true) if self.runtime.now_ms() < until_ms => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "sweeping failed; the next node or the next turn goes on");
                    break;
                }
            }
        }
    }

    /// Renews the lease, unless that is under way.
    async fn renew(&self) -> Result<()> {
        match self.renewing.try_lock() {
            Ok(turn) => self.renew_in(turn).await,
            Err(_) => Ok(()),
        }
    }

    /// Renews the lease with what is asked from here on.
    async fn renew_now(&self) -> Result<()> {
        self.renew_in(self.renewing.lock().await).await
    }

    async fn renew_in(&self, _turn: AsyncMutexGuard<'_, ()>) -> Result<()> {
        let renewed = self.renew_or_join().await;
        self.renewal_failed.store(renewed.is_err(), Ordering::Release);
        renewed
    }

    async fn renew_or_join(&self) -> Result<()> {
        let started_ms = self.runtime.now_ms();
        match self.in_time("lease.renew", self.backend.renew(&self.node)).await? {
            Renewal::Kept => self.renewed_at(started_ms),
            Renewal::Lost => {
                // Others may have its sessions by now: nothing is read until each was reclaimed.
                self.streams.for_each(|stream| stream.doubt(true));
                self.lease.revoke();
                self.in_time("join", Box::pin(self.join())).await?;
            }
        }
        Ok(())
    }

    /// Within a lease's time, where operations take time at all.
    async fn in_time<T>(&self, operation: &'static str, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        match self.capability.immediate {
            true => work.await,
            false => {
                let limit = Duration::from_millis(self.options.lease.ttl_ms);
                self.runtime.deadline(operation, limit, work).await
            }
        }
    }
}

impl Upkeep for Hub {
    fn period(&self) -> Duration {
        let renew_ms = self.options.lease.renew_ms;
        match self.renewal_failed.load(Ordering::Acquire) {
            true => Duration::from_millis(renew_ms.min(RENEWAL_RETRY_MS)),
            false => Duration::from_millis(renew_ms),
        }
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
