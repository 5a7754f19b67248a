//! A fleet with `@tmcp/session-manager-redis` in it: `?interop=tmcp`.
//!
//! Each reaches the other's sessions as tmcp's manager knows how to: a stream is announced by the key
//! `available:session:{id}`, sent to on the channel `session:{id}` and closed on `delete:session:{id}`;
//! notifications are on `tmcp:subscriptions`. A node subscribes to `session:{id}` for each stream it
//! holds, and once to the pattern of the closing channels, so that whoever listens to one of those by
//! name is tmcp's manager. What comes for a stream of this node is accepted like any other event, and so
//! has its place in the log; which of two nodes accepts it while a session moves is settled by the order
//! in which the claim and the message are pushed. What goes to a stream of tmcp's manager is live only.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::link::Link;
use super::mixed;
use super::{RedisBackend, Sink, fault, signal, wire};
use crate::backend::{Address, Backend as _, Reclaim, Release, Signal, Submission, Tail};
use crate::error::Result;
use crate::runtime::Runtime;
use crate::session::SessionId;
use crate::streams::{EndReason, Payload};
use crate::sync::Mutex;

/// tmcp's channel for notifications.
const NOTIFICATIONS: &str = "tmcp:subscriptions";
const CLOSING: &str = "delete:session:";
/// What is announced of held sessions is renewed this often.
const KEEP_MS: u64 = 3_000;
/// Sessions that one script call announces.
const KEEP_BATCH: usize = 256;
/// Events that are accepted in one go.
const FORWARD_BATCH: usize = 256;
const RETRY: Duration = Duration::from_millis(50);
/// When a session is announced again that tmcp's manager has just lost: it takes its key away late.
const ANNOUNCE_AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(900)];

/// A session that this node holds, or is about to.
#[derive(Default)]
struct Held {
    /// Claims under way.
    opening: usize,
    /// The owner epoch of the last claim.
    epoch: u64,
    /// The last owner epoch that was told to end.
    ended: u64,
    /// The last owner epoch that was given back; the push that says so may be on its way.
    given_back: u64,
    /// Between the push of the claim and that of the end.
    active: bool,
}

#[derive(Default)]
struct State {
    held: HashMap<SessionId, Held>,
    /// What tmcp's managers sent, to be accepted in this order.
    heard: VecDeque<(SessionId, Payload)>,
    heard_bytes: usize,
}

/// What a node keeps for a mixed fleet.
pub(super) struct Interop {
    runtime: Runtime,
    sink: Sink,
    max_bytes: usize,
    state: Mutex<State>,
    more: Notify,
    closed: AtomicBool,
    backend: OnceLock<Weak<RedisBackend>>,
    /// Channels are subscribed and given up one at a time.
    channels: AsyncMutex<()>,
    /// How often the connection came back.
    doubts: AtomicU64,
    /// On the engine's clock: others may have taken over what this node holds after this.
    valid_until_ms: AtomicU64,
    kept_ms: AtomicU64,
}

/// Ends what runs for a backend when that goes away.
pub(super) struct Attached(pub(super) Arc<Interop>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn channel(session: &SessionId) -> String {
    format!("session:{session}")
}

/// An owner epoch of twenty digits, and the session.
fn owned(message: &[u8]) -> Option<(u64, SessionId)> {
    let (epoch, id) = message.split_at_checked(20)?;
    let epoch = std::str::from_utf8(epoch).ok()?.parse().ok()?;
    Some((epoch, SessionId::new(std::str::from_utf8(id).ok()?).ok()?))
}

impl Interop {
    pub(super) fn new(runtime: Runtime, sink: Sink, max_bytes: usize) -> Arc<Self> {
        Arc::new(Interop {
            runtime,
            sink,
            max_bytes,
            state: Mutex::default(),
            more: Notify::new(),
            closed: AtomicBool::new(false),
            backend: OnceLock::new(),
            channels: AsyncMutex::default(),
            doubts: AtomicU64::new(0),
            valid_until_ms: AtomicU64::new(0),
            kept_ms: AtomicU64::new(0),
        })
    }

    /// Starts to accept what is heard.
    pub(super) fn start(self: &Arc<Self>, backend: &Arc<RedisBackend>) {
        if self.backend.set(Arc::downgrade(backend)).is_ok() {
            let interop = self.clone();
            self.runtime.spawn(Box::pin(async move { interop.forward().await }));
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.more.notify_one();
    }

    fn backend(&self) -> Option<Arc<RedisBackend>> {
        self.backend.get()?.upgrade().filter(|_| !self.closed.load(Ordering::Acquire))
    }

    /// Subscribed with each connection.
    pub(super) fn fixed_channels() -> Vec<Vec<u8>> {
        vec![NOTIFICATIONS.into()]
    }

    pub(super) fn pattern() -> Vec<u8> {
        format!("{CLOSING}*").into_bytes()
    }

    /// The channels of held sessions, for a connection that comes back.
    pub(super) fn channels(&self) -> Vec<Vec<u8>> {
        self.state.lock().held.keys().map(|session| channel(session).into_bytes()).collect()
    }

    /// A connection is back: what was told meanwhile is not known, so nothing heard is this node's
    /// until its sessions were reclaimed.
    pub(super) fn doubt(self: &Arc<Self>) {
        let mut over = Vec::new();
        let mut state = self.state.lock();
        self.doubts.fetch_add(1, Ordering::AcqRel);
        for (session, held) in &mut state.held {
            held.active = false;
            if held.given_back > held.ended {
                held.ended = held.given_back;
                over.push(session.clone());
            }
        }
        drop(state);
        over.iter().for_each(|session| self.tidy(session));
    }

    /// What they held ends with the push of the release: what comes before that was sent before it, too.
    /// Where a connection came back since the release began, that push may have been lost with the last.
    fn given_back(self: &Arc<Self>, releases: &[Release], doubts: u64) {
        let mut state = self.state.lock();
        if self.doubts.load(Ordering::Acquire) != doubts {
            drop(state);
            return releases.iter().for_each(|release| self.ended(&release.session, release.owner_epoch));
        }
        for release in releases {
            if let Some(held) = state.held.get_mut(&release.session) {
                held.given_back = held.given_back.max(release.owner_epoch);
            }
        }
    }

    pub(super) fn renewed(&self, until_ms: u64) {
        self.valid_until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// Takes a pushed message if it is about a mixed fleet. Runs on the connection's own task.
    pub(super) fn take(self: &Arc<Self>, push: &PushInfo) -> bool {
        let text = |value: Option<&Value>| value.and_then(wire::string).map(ToOwned::to_owned);
        match push.data.as_slice() {
            [_, channel, message] if push.kind == PushKind::PMessage => {
                let session = text(Some(channel)).and_then(|c| SessionId::new(c.strip_prefix(CLOSING)?).ok());
                let by_tmcp = wire::bytes(message).is_some_and(<[u8]>::is_empty);
                session.filter(|_| by_tmcp).into_iter().for_each(|session| self.closed_by_tmcp(session));
                true
            }
            [from, message] if wire::string(from) == Some(NOTIFICATIONS) => {
                // This library's own end in a space.
                if let Some(text) = text(Some(message)).filter(|text| !text.ends_with(' ')) {
                    signal(&self.sink, Signal::Notification { payload: text.into() });
                }
                true
            }
            [from, message] => {
                let session = wire::string(from).and_then(|c| c.strip_prefix("session:"));
                if let Some(session) = session.and_then(|id| SessionId::new(id).ok()) {
                    if let Some(text) = text(Some(message)) {
                        self.hear(session, text.into());
                    }
                    return true;
                }
                match wire::bytes(message).and_then(<[u8]>::split_first) {
                    Some((b'O', rest)) => self.opened(rest).is_some(),
                    Some((b'R', rest)) => self.released(rest).is_some(),
                    _ => false,
                }
            }
            _ => false,
        }
    }

    /// A stream of this node is told to end: what comes from here on is another's.
    pub(super) fn ended(self: &Arc<Self>, session: &SessionId, owner_epoch: u64) {
        if let Some(held) = self.state.lock().held.get_mut(session) {
            held.ended = held.ended.max(owner_epoch);
            held.active &= held.epoch > owner_epoch;
        }
        self.tidy(session);
    }

    fn hear(&self, session: SessionId, payload: Payload) {
        let mut state = self.state.lock();
        let lease_is_good = self.runtime.now_ms() < self.valid_until_ms.load(Ordering::Acquire);
        if !lease_is_good || !state.held.get(&session).is_some_and(|held| held.active) {
            return;
        }
        if state.heard_bytes + payload.len() > self.max_bytes {
            tracing::warn!(%session, "tmcp's managers send more than Redis takes: an event is dropped");
            return;
        }
        state.heard_bytes += payload.len();
        state.heard.push_back((session, payload));
        drop(state);
        self.more.notify_one();
    }

    /// What a claim published: whether tmcp's manager lost the session, the owner epoch, the session.
    fn opened(self: &Arc<Self>, message: &[u8]) -> Option<()> {
        let (taken, rest) = message.split_first()?;
        let (epoch, session) = owned(rest)?;
        self.activate(&session, epoch);
        if *taken == b'1' {
            self.announce_again(session);
        }
        Some(())
    }

    /// What a release published: the owner epoch, the session.
    fn released(self: &Arc<Self>, message: &[u8]) -> Option<()> {
        let (epoch, session) = owned(message)?;
        self.ended(&session, epoch);
        Some(())
    }

    fn activate(&self, session: &SessionId, epoch: u64) {
        if let Some(held) = self.state.lock().held.get_mut(session)
            && epoch >= held.epoch
        {
            held.epoch = epoch;
            held.active = epoch > held.ended;
        }
    }

    fn announce_again(self: &Arc<Self>, session: SessionId) {
        let interop = self.clone();
        self.runtime.spawn(Box::pin(async move {
            for pause in ANNOUNCE_AGAIN {
                interop.runtime.sleep(pause).await;
                let Some(backend) = interop.backend() else { return };
                backend.mixed_announce(std::slice::from_ref(&session)).await;
            }
        }));
    }

    /// tmcp's manager closes a stream wherever it is: so it does here.
    fn closed_by_tmcp(self: &Arc<Self>, session: SessionId) {
        let is_held = self.state.lock().held.contains_key(&session);
        let Some(backend) = self.backend() else { return };
        self.runtime.spawn(Box::pin(async move {
            let closed = backend.note_closed(&session).await;
            let ended = match is_held {
                true => backend.end(&session, EndReason::Closed).await.map(drop),
                false => Ok(()),
            };
            if let Err(error) = closed.and(ended) {
                tracing::warn!(%error, %session, "a stream that tmcp's manager closed could not be ended");
            }
        }));
    }

    /// Forgets a session that is neither held nor about to be, and gives its channel up.
    fn tidy(self: &Arc<Self>, session: &SessionId) {
        let gone = {
            let mut state = self.state.lock();
            let is_over = |held: &Held| held.opening == 0 && held.epoch <= held.ended;
            state.held.get(session).is_some_and(is_over) && state.held.remove(session).is_some()
        };
        let Some(backend) = self.backend().filter(|_| gone) else { return };
        let (interop, session) = (self.clone(), session.clone());
        self.runtime.spawn(Box::pin(async move {
            // A connection that is lost has no channels any more.
            let _ = interop.settle(&backend, &session).await;
        }));
    }

    /// Subscribes to the channel of a session, or gives it up, as things are now.
    async fn settle(&self, backend: &RedisBackend, session: &SessionId) -> Result<()> {
        const OPERATION: &str = "streams.open";
        let _one_at_a_time = self.channels.lock().await;
        let live = backend.push.lock().await.as_ref().and_then(Link::live);
        let mut live = live.ok_or_else(|| fault::down(OPERATION))?;
        let wanted = self.state.lock().held.contains_key(session);
        let done = match wanted {
            true => live.connection.subscribe(channel(session)).await,
            false => live.connection.unsubscribe(channel(session)).await,
        };
        done.map_err(|error| fault::lost(OPERATION, error))
    }

    /// Accepts what was heard, in order; nothing is tried again that may have happened.
    async fn forward(self: Arc<Self>) {
        loop {
            self.more.notified().await;
            loop {
                let Some(backend) = self.backend() else { return };
                let batch = self.next_batch();
                if batch.is_empty() {
                    break;
                }
                self.accept(&backend, batch).await;
            }
        }
    }

    fn next_batch(&self) -> Vec<Submission> {
        let mut state = self.state.lock();
        let count = state.heard.len().min(FORWARD_BATCH);
        let batch: Vec<_> = state.heard.drain(..count).collect();
        state.heard_bytes -= batch.iter().map(|(_, payload)| payload.len()).sum::<usize>();
        let to =
            |(session, payload)| Submission { to: Address::Session(session), payload, idempotency_key: None };
        batch.into_iter().map(to).collect()
    }

    async fn accept(&self, backend: &RedisBackend, mut batch: Vec<Submission>) {
        loop {
            let outcomes = backend.accept_here(&batch).await;
            let again = |error: &crate::Error| error.retryable() && !error.outcome_unknown();
            let mut outcomes = outcomes.iter();
            batch.retain(|_| outcomes.next().is_some_and(|outcome| outcome.as_ref().is_err_and(again)));
            if batch.is_empty() || self.closed.load(Ordering::Acquire) {
                return;
            }
            self.runtime.sleep(RETRY).await;
        }
    }
}

/// A claim under way; over when dropped.
pub(super) struct Opening {
    interop: Arc<Interop>,
    session: SessionId,
}

impl Opening {
    /// The node holds the session; the push that says so may be on its way.
    pub(super) fn claimed(&self, owner_epoch: u64) {
        if let Some(held) = self.interop.state.lock().held.get_mut(&self.session) {
            held.epoch = held.epoch.max(owner_epoch);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(held) = self.interop.state.lock().held.get_mut(&self.session) {
            held.opening -= 1;
        }
        self.interop.tidy(&self.session);
    }
}

impl RedisBackend {
    /// Hears what tmcp's managers send to the session from here on.
    pub(super) async fn opening(&self, session: &SessionId) -> Result<Option<Opening>> {
        let Some(Attached(interop)) = &self.interop else { return Ok(None) };
        interop.state.lock().held.entry(session.clone()).or_default().opening += 1;
        let opening = Opening { interop: interop.clone(), session: session.clone() };
        interop.settle(self, session).await?;
        Ok(Some(opening))
    }

    /// Gives sessions back.
    pub(super) async fn mixed_release(&self, releases: &[Release]) -> Result<()> {
        let Some(Attached(interop)) = &self.interop else { return self.release_batch(releases).await };
        let doubts = interop.doubts.load(Ordering::Acquire);
        self.release_batch(releases).await?;
        interop.given_back(releases, doubts);
        Ok(())
    }

    pub(super) fn mixed_reclaimed(&self, held: &[Reclaim], answers: &[Option<Tail>]) {
        let Some(Attached(interop)) = &self.interop else { return };
        for (one, answer) in held.iter().zip(answers) {
            match answer {
                Some(_) => interop.activate(&one.session, one.owner_epoch),
                None => interop.ended(&one.session, one.owner_epoch),
            }
        }
    }

    /// The lease is good until then: announces what is held, every few renewals.
    pub(super) async fn mixed_renewed(&self, started_ms: u64) {
        let Some(Attached(interop)) = &self.interop else { return };
        interop.renewed(started_ms + self.options.lease.ttl_ms);
        if started_ms < interop.kept_ms.load(Ordering::Acquire) + KEEP_MS {
            return;
        }
        interop.kept_ms.store(started_ms, Ordering::Release);
        let held: Vec<_> = {
            let state = interop.state.lock();
            state.held.iter().filter(|(_, held)| held.active).map(|(session, _)| session.clone()).collect()
        };
        for some in held.chunks(KEEP_BATCH) {
            self.mixed_announce(some).await;
        }
    }

    async fn mixed_announce(&self, sessions: &[SessionId]) {
        const OPERATION: &str = "lease.renew";
        let own = self.mixed_arguments("", b"");
        let ids = sessions.iter().map(|session| session.as_str().as_bytes());
        let arguments: Vec<&[u8]> = ids.chain(own.iter().map(Vec::as_slice)).collect();
        match self.call(OPERATION, &mixed::KEEP, &[], &arguments).await {
            Ok(taken) => {
                for session in wire::sessions(&taken) {
                    // Its client has a stream of tmcp's manager by now.
                    if let Err(error) = self.end(&session, EndReason::Replaced).await {
                        tracing::debug!(%error, %session, "a stream that was taken over could not be ended yet");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "held sessions could not be announced to tmcp's managers"),
        }
    }

    async fn note_closed(&self, session: &SessionId) -> Result<()> {
        let own = self.mixed_arguments(session.as_str(), b"");
        let arguments: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        self.call("streams.close", &mixed::CLOSED, &[], &arguments).await.map(drop)
    }

    /// Those of this library and of tmcp's manager.
    pub(super) async fn mixed_subscribers(&self, operation: &'static str, uri: &str) -> Result<Value> {
        let own = self.mixed_arguments("", uri.as_bytes());
        let arguments: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
        let keys = [format!("{}subscriptions:{uri}", self.prefix())];
        self.call(operation, &mixed::SUBSCRIBERS, &keys, &arguments).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Positions;

    #[test]
    fn a_release_whose_push_was_lost_with_the_connection_gives_the_channel_up() {
        for (lost_before_the_answer, lost_after) in [(true, false), (false, true)] {
            let interop = Interop::new(Runtime::native(), Sink::default(), 1_000);
            let session = SessionId::new("s1").unwrap();
            let held = Held { epoch: 7, active: true, ..Held::default() };
            interop.state.lock().held.insert(session.clone(), held);
            let doubts = interop.doubts.load(Ordering::Acquire);
            if lost_before_the_answer {
                interop.doubt();
            }
            let release = Release { session, owner_epoch: 7, delivered: Positions::default() };
            interop.given_back(&[release], doubts);
            assert_eq!(interop.channels().len(), usize::from(!lost_before_the_answer));
            if lost_after {
                interop.doubt();
            }
            assert!(interop.channels().is_empty());
        }
    }
}
