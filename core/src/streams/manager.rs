//! The stream manager: open, send, has, close.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, iter};

use futures_util::FutureExt as _;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::backend::{Acceptance, Address, Claim, Claimed, Start, Submission, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionId;
use crate::streams::cursor::Cursor;
use crate::streams::event::{EndReason, Event, Payload, Position, Positions};
use crate::streams::hub::Hub;
use crate::streams::local::{LocalStream, Reader};
use crate::streams::mailbox::Mailbox;
use crate::streams::merge::merge;
use crate::streams::writer::Writer;
use crate::sync::Mutex;
use crate::wakers::Wait;

/// Opens of one session on one node wait for each other; sessions share this many locks.
const OPEN_LOCKS: usize = 256;
const MAX_KEY_BYTES: usize = 128;

/// What a new stream does when a live node holds one of the session (G6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Conflict {
    /// Takes over; the old one ends with `replaced`.
    #[default]
    Replace,
    /// Fails with `conflict`; the old one goes on.
    Reject,
}

/// How a stream is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The client's last cursor, as it came (`Last-Event-ID`).
    pub after: Option<String>,
    /// What to do when a live node holds a stream of the session.
    pub conflict: Conflict,
}

impl OpenOptions {
    /// Resumes after this cursor (G2).
    #[must_use]
    pub fn after(mut self, cursor: impl AsRef<str>) -> Self {
        self.after = Some(cursor.as_ref().to_owned());
        self
    }

    /// Says what to do on a conflict.
    #[must_use]
    pub fn conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }
}

/// To whom `send` sends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// One session.
    Session(SessionId),
    /// A list; a session named twice gets the event once.
    Sessions(Vec<SessionId>),
    /// All sessions that are known (G8).
    All,
}

impl Target {
    /// One session.
    pub fn session(id: &SessionId) -> Self {
        Target::Session(id.clone())
    }

    /// A list of sessions.
    pub fn sessions<'a>(ids: impl IntoIterator<Item = &'a SessionId>) -> Self {
        Target::Sessions(ids.into_iter().cloned().collect())
    }

    /// All sessions.
    pub fn all() -> Self {
        Target::All
    }

    fn address(self) -> Option<Address> {
        match self {
            Target::All => Some(Address::Topic(Topic::Broadcasts)),
            Target::Session(id) => Some(Address::Session(id)),
            Target::Sessions(mut ids) if ids.len() < 2 => ids.pop().map(Address::Session),
            Target::Sessions(mut ids) => {
                let mut seen = HashSet::with_capacity(ids.len());
                ids.retain(|id| seen.insert(id.clone()));
                Some(Address::Sessions(ids.into()))
            }
        }
    }
}

impl From<&SessionId> for Target {
    fn from(id: &SessionId) -> Self {
        Target::session(id)
    }
}

/// How an event is sent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// A retry with the same key is not delivered twice (G5); 1 to 128 bytes.
    pub idempotency_key: Option<String>,
}

impl SendOptions {
    /// Names the event, so that it can be retried.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

/// One event of [`StreamManager::send_all`].
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// To whom.
    pub target: Target,
    /// What.
    pub payload: Payload,
    /// How.
    pub options: SendOptions,
}

/// What became of an event, counted in sessions (a broadcast counts once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Accepted: it will be delivered, now or when the session's stream opens.
    pub accepted: u64,
    /// Dropped, because the session is unknown, or has no stream and history is off.
    pub dropped: u64,
    /// Accepted before, under the same idempotency key.
    pub duplicates: u64,
}

/// Opens streams, and sends events to them wherever they are held.
///
/// ```
/// use mcp_sessions::{Engine, OpenOptions, SendOptions, SessionId, Target};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let (a, b) = (Engine::connect("memory://doc", Default::default()).await?,
///               Engine::connect("memory://doc", Default::default()).await?);
/// let id = SessionId::random();
/// let stream = a.streams().open(&id, OpenOptions::default()).await?;
/// b.streams().send(Target::session(&id), "hello", SendOptions::default()).await?;
/// let event = stream.next().await.expect("the stream is open");
/// assert_eq!(event.payload().as_str(), "hello");
/// // Elsewhere, later: everything after this event, exactly once.
/// let resumed = b.streams().open(&id, OpenOptions::default().after(event.cursor())).await?;
/// assert!(!resumed.gap());
/// # Ok::<(), mcp_sessions::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct StreamManager {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    writer: Arc<Writer>,
    open_locks: Vec<AsyncMutex<()>>,
    /// For backends whose operations complete at once: held over a poll, never over an await.
    open_now: Mutex<()>,
}

impl StreamManager {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        let options = &hub.options;
        let writer = Writer::new(
            hub.backend.clone(),
            hub.runtime.clone(),
            options.operation_timeout(),
            options.max_pending_bytes,
            hub.capability.pipelined,
            options.recorder.clone(),
        );
        let locks = if hub.capability.immediate { 0 } else { OPEN_LOCKS };
        StreamManager {
            inner: Arc::new(Inner {
                hub,
                writer,
                open_locks: (0..locks).map(|_| AsyncMutex::new(())).collect(),
                open_now: Mutex::new(()),
            }),
        }
    }

    pub(crate) fn writer(&self) -> &Arc<Writer> {
        &self.inner.writer
    }

    /// Opens the stream of a session on this node, and takes it over from any other (G6).
    ///
    /// With a cursor it delivers everything after it exactly once (G2); without one, what was
    /// accepted since the session's last stream was given back, or since the session became known
    /// (G4); taking over from a live stream of another node, what is accepted from then on. What
    /// can't be replayed is told by [`EventStream::gap`] (G3).
    ///
    /// Fails with `invalid_input` for a cursor that is not this session's, `conflict` with
    /// [`Conflict::Reject`], `unavailable` or `timeout`; the old stream then goes on.
    pub async fn open(&self, session: &SessionId, options: OpenOptions) -> Result<EventStream> {
        self.open_for(session, options, Reader::Task).await
    }

    /// Opens a stream whose events are read through a mailbox, under `token`.
    ///
    /// The returned stream is the handle: it ends when dropped; `next` is not for it.
    pub async fn open_in(
        &self,
        session: &SessionId,
        options: OpenOptions,
        mailbox: &Arc<Mailbox>,
        token: u32,
    ) -> Result<EventStream> {
        self.open_for(session, options, Reader::Mailbox(mailbox.clone(), token)).await
    }

    /// [`open_in`](Self::open_in) without waiting, on a backend whose capability is `immediate`;
    /// `config` on others.
    pub fn open_in_now(
        &self,
        session: &SessionId,
        options: OpenOptions,
        mailbox: &Arc<Mailbox>,
        token: u32,
    ) -> Result<EventStream> {
        let reader = Reader::Mailbox(mailbox.clone(), token);
        let open = self.open_for(session, options, reader);
        open.now_or_never().unwrap_or_else(|| Err(not_immediate("streams.open")))
    }

    /// Opens a log of its own after a position.
    pub(crate) async fn open_log(&self, log: &SessionId, after: Option<Positions>) -> Result<EventStream> {
        self.open_at(log, after.map_or(Start::Fresh, Start::Cursor), Conflict::Replace, Reader::Task).await
    }

    async fn open_for(
        &self,
        session: &SessionId,
        options: OpenOptions,
        reader: Reader,
    ) -> Result<EventStream> {
        let cursor = options.after.as_deref().map(|text| Cursor::decode(text, session)).transpose()?;
        let start = cursor.map_or(Start::Fresh, Start::Cursor);
        self.open_at(session, start, options.conflict, reader).await
    }

    async fn open_at(
        &self,
        session: &SessionId,
        start: Start,
        conflict: Conflict,
        reader: Reader,
    ) -> Result<EventStream> {
        let hub = &self.inner.hub;
        hub.check_open("streams.open")?;
        let gate = hub.gate(session).ok_or_else(|| no_lane("streams.open"))?;
        let opening = Opening {
            hub: hub.clone(),
            stream: LocalStream::new(session.clone(), hub.options.queue.clone(), gate, reader),
            replace: conflict == Conflict::Replace,
            start,
        };
        if hub.capability.immediate {
            let _one_at_a_time = self.inner.open_now.lock();
            return opening.run().now_or_never().unwrap_or_else(|| Err(not_immediate("streams.open")));
        }
        self.open_apart(session, opening).await
    }

    /// Runs an open to its end even when the caller goes away, so that no claim is left without a stream.
    async fn open_apart(&self, session: &SessionId, opening: Opening) -> Result<EventStream> {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
        let lock = BuildHasherDefault::<DefaultHasher>::default().hash_one(session) as usize % OPEN_LOCKS;
        let (done, opened) = oneshot::channel();
        let inner = self.inner.clone();
        self.inner.hub.runtime.spawn(Box::pin(async move {
            let _one_at_a_time = inner.open_locks[lock].lock().await;
            // Nobody waits any more: dropping the stream gives it back.
            let _ = done.send(opening.run().await);
        }));
        opened.await.unwrap_or_else(|_| Err(Error::closed("streams.open")))
    }

    /// Sends an event to a session, a list, or all; resolves once the backend has accepted it (G5).
    ///
    /// An event for a known session without a stream waits for its next stream (G4); one for an
    /// unknown session is dropped and counted in the receipt.
    ///
    /// Fails with `too_large` or `invalid_input` (nothing happened), `timeout` or `unavailable`
    /// ([`Error::outcome_unknown`] says whether it may have happened; retry with the same key).
    pub async fn send(
        &self,
        target: impl Into<Target>,
        payload: impl Into<Payload>,
        options: SendOptions,
    ) -> Result<Receipt> {
        let Some(submission) = self.submission(target.into(), payload.into(), options)? else {
            return Ok(Receipt::default());
        };
        if self.inner.hub.capability.immediate {
            return self.accept_now(&submission);
        }
        self.inner.writer.submit(submission).await.map(|accepted| self.receipt(accepted))
    }

    /// [`send`](Self::send) for many events, in this order: they leave as one batch, and a receipt or
    /// error each comes back once all have one. An event that fails does not keep the others from it.
    pub async fn send_all(&self, events: impl IntoIterator<Item = Outgoing>) -> Vec<Result<Receipt>> {
        let mut submitted = Vec::new();
        let mut results: Vec<Option<Result<Receipt>>> = Vec::new();
        for Outgoing { target, payload, options } in events {
            results.push(match self.submission(target, payload, options) {
                Ok(Some(submission)) => {
                    submitted.push(submission);
                    None
                }
                Ok(None) => Some(Ok(Receipt::default())),
                Err(error) => Some(Err(error)),
            });
        }
        let accepted: Vec<_> = match self.inner.hub.capability.immediate {
            true => submitted.iter().map(|submission| self.accept_now(submission)).collect(),
            false => {
                let accepted = self.inner.writer.submit_all(submitted).await;
                accepted.into_iter().map(|one| one.map(|accepted| self.receipt(accepted))).collect()
            }
        };
        let mut accepted = accepted.into_iter();
        results.into_iter().filter_map(|result| result.or_else(|| accepted.next())).collect()
    }

    /// [`send`](Self::send) without waiting, on a backend whose capability is `immediate`; `config`
    /// on others.
    pub fn send_now(
        &self,
        target: impl Into<Target>,
        payload: impl Into<Payload>,
        options: SendOptions,
    ) -> Result<Receipt> {
        match self.submission(target.into(), payload.into(), options)? {
            Some(submission) => self.accept_now(&submission),
            None => Ok(Receipt::default()),
        }
    }

    fn submission(
        &self,
        target: Target,
        payload: Payload,
        options: SendOptions,
    ) -> Result<Option<Submission>> {
        let hub = &self.inner.hub;
        hub.check_open("streams.send")?;
        let limit = hub.options.max_payload_bytes;
        if payload.len() > limit {
            return Err(Error::too_large("streams.send", "the payload", payload.len(), limit));
        }
        let key = options.idempotency_key;
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
            return Err(Error::invalid(
                "streams.send",
                format!("an idempotency key has 1 to {MAX_KEY_BYTES} bytes"),
            ));
        }
        Ok(target.address().map(|to| Submission { to, payload, idempotency_key: key.map(Into::into) }))
    }

    fn accept_now(&self, submission: &Submission) -> Result<Receipt> {
        let accepted = self.inner.hub.backend.accept_now(submission);
        let accepted = accepted.unwrap_or_else(|| Err(not_immediate("streams.send")))?;
        Ok(self.receipt(accepted))
    }

    fn receipt(&self, accepted: Acceptance) -> Receipt {
        let counters = &self.inner.hub.counters;
        counters.accepted.add(accepted.accepted);
        counters.dropped.add(accepted.dropped);
        counters.duplicates.add(accepted.duplicates);
        Receipt { accepted: accepted.accepted, dropped: accepted.dropped, duplicates: accepted.duplicates }
    }

    /// Whether a live node holds a stream of the session (G7).
    pub async fn has(&self, session: &SessionId) -> Result<bool> {
        let hub = &self.inner.hub;
        hub.check_open("streams.has")?;
        hub.flush_releases().await;
        Ok(hub.run("streams.has", hub.backend.holder(session)).await?.is_some())
    }

    /// Whether the session is known: it has info, or a stream, or had one within retention.
    pub async fn known(&self, session: &SessionId) -> Result<bool> {
        let hub = &self.inner.hub;
        hub.run("streams.known", hub.backend.known(session)).await
    }

    /// Ends the session's stream, wherever it is held, with `closed`; what is sent later waits for
    /// the next one. False when there was no stream.
    pub async fn close(&self, session: &SessionId) -> Result<bool> {
        let hub = &self.inner.hub;
        let ended = hub.run("streams.close", hub.backend.end(session, EndReason::Closed)).await?;
        hub.flush_releases().await;
        Ok(ended)
    }

    /// Terminates the session: its stream ends with `terminated` and its log is gone (G11). Its info
    /// is deleted by [`InfoManager::delete`](crate::InfoManager::delete). False when there was neither
    /// stream nor log.
    pub async fn forget(&self, session: &SessionId) -> Result<bool> {
        let hub = &self.inner.hub;
        hub.run("streams.forget", hub.backend.forget(session)).await
    }
}

impl fmt::Debug for StreamManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamManager").field("node", &self.inner.hub.node).finish_non_exhaustive()
    }
}

fn not_immediate(operation: &'static str) -> Error {
    Error::new(ErrorKind::Config, operation, "this backend needs to be waited for; use the asynchronous call")
}

fn no_lane(operation: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, "the backend names a lane that it does not have")
}

/// A stream on its way to being open.
struct Opening {
    hub: Arc<Hub>,
    stream: Arc<LocalStream>,
    replace: bool,
    start: Start,
}

impl Opening {
    async fn run(self) -> Result<EventStream> {
        let Opening { hub, stream, replace, start } = self;
        // A stream of this node that has just ended says where the next one starts (G4): by way of the
        // backend, or by itself if it ends at this very moment.
        let ending = hub.streams.current(stream.session());
        let given_back = hub.release_before_claim(stream.session()).await;
        if matches!(start, Start::Fresh) {
            given_back?;
        }
        let old = if replace { hub.streams.current(stream.session()) } else { None };
        let ended = ending.filter(|ending| ending.ended().is_some());
        let start = match (start, old.as_ref().or(ended.as_ref()).and_then(|old| old.freeze())) {
            (Start::Fresh, Some(delivered)) => Start::Delivered(delivered),
            (start, _) => start,
        };
        hub.streams.insert_opening(&stream);
        let claim = Claim { session: stream.session().clone(), node: hub.node.clone(), start, replace };
        match hub.run("streams.open", hub.backend.claim(claim)).await {
            Ok(mut claimed) => {
                if let Start::Cursor(asked) | Start::Delivered(asked) = start {
                    claimed.tail.gap = stream.lacks(&claimed.tail, asked);
                }
                Ok(Self::settle(hub, stream, claimed))
            }
            Err(error) => {
                hub.streams.remove(&stream);
                if error.outcome_unknown() {
                    hub.suspect(stream.session());
                }
                if let Some(old) = old {
                    old.thaw();
                }
                Err(error)
            }
        }
    }

    fn settle(hub: Arc<Hub>, stream: Arc<LocalStream>, claimed: Claimed) -> EventStream {
        if let Some(old) = hub.streams.settle(&stream) {
            hub.end_stream(&old, EndReason::Replaced);
        }
        hub.counters.opened.add(1);
        hub.counters.gaps.add(u64::from(claimed.tail.gap));
        let (start, gap) = (claimed.tail.start, claimed.tail.gap);
        let outcome = stream.opened(claimed.owner_epoch, start, gap, merge(claimed.tail));
        hub.settle(&stream, outcome);
        if hub.is_closed() {
            hub.end_stream(&stream, EndReason::Shutdown);
        }
        EventStream { hub, stream, turn: AsyncMutex::default(), place: None }
    }
}

/// The one stream of a session, held by this node until it ends or is dropped.
///
/// Dropping it gives the session back: what was not read waits for the next stream.
pub struct EventStream {
    hub: Arc<Hub>,
    stream: Arc<LocalStream>,
    /// Held by the one that reads; the others wait in line.
    turn: AsyncMutex<()>,
    /// Where the one that polls it waits.
    place: Option<u64>,
}

impl EventStream {
    /// The session.
    pub fn session(&self) -> &SessionId {
        self.stream.session()
    }

    /// Whether something between the cursor (or the last stream) and the first event is lost (G3).
    pub fn gap(&self) -> bool {
        self.stream.gap()
    }

    /// The cursor after the last event read, or of the start.
    pub fn cursor(&self) -> Cursor {
        self.stream.cursor()
    }

    /// The next event, in order (G1); `None` once the stream has ended and what was queued is read.
    /// Cancel-safe: a dropped call loses nothing.
    ///
    /// Calls are served in the order in which they were first polled. One that was begun and is neither
    /// polled nor dropped keeps those behind it waiting.
    pub async fn next(&self) -> Option<Event> {
        let _turn = self.turn.lock().await;
        let mut wait = Wait::on(&*self.stream);
        poll_fn(|cx| self.stream.poll_next(cx, &mut wait.place)).await
    }

    /// The next events, as many as there are but no more than `limit` (at least 1); waits for the first,
    /// as [`next`](Self::next) does. Empty once the stream has ended and what was queued is read.
    pub async fn next_batch(&self, limit: usize) -> Vec<Event> {
        let _turn = self.turn.lock().await;
        let mut wait = Wait::on(&*self.stream);
        let first = poll_fn(|cx| self.stream.poll_next(cx, &mut wait.place)).await;
        let rest = iter::from_fn(|| self.stream.try_next()).take(limit.saturating_sub(1));
        first.into_iter().chain(rest).collect()
    }

    /// The next event if there is one already, and nobody waits for it.
    pub fn try_next(&self) -> Option<Event> {
        let _turn = self.turn.try_lock().ok()?;
        self.stream.try_next()
    }

    /// Why the stream ended, if it has.
    pub fn end(&self) -> Option<EndReason> {
        self.stream.ended()
    }

    /// Resolves when the stream ends; events that were queued can still be read then.
    pub async fn ended(&self) -> EndReason {
        let mut wait = Wait::on(&*self.stream);
        poll_fn(|cx| self.stream.poll_ended(cx, &mut wait.place)).await
    }

    /// [`ended`](Self::ended) for the task that also polls the stream: woken by whatever comes first.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        self.stream.poll_ended(cx, &mut self.place)
    }

    /// Stops (or starts again) handing events to the mailbox; the queue stays bounded meanwhile (G10).
    pub fn set_paused(&self, paused: bool) {
        self.stream.set_paused(paused);
    }

    /// Ends the stream; resolves once the other nodes can know. What was not read waits for the next
    /// stream. Ending it twice is fine.
    pub async fn close(&self) {
        self.end_unread();
        self.hub.flush_releases().await;
    }

    /// [`close`](Self::close) without waiting, on a backend whose capability is `immediate`; on
    /// others the release is under way when this returns.
    pub fn close_now(&self) {
        self.end_unread();
        if self.hub.capability.immediate {
            self.hub.flush_releases().now_or_never();
        }
    }

    /// The place behind which it reads the session's events, unless some wait already.
    pub(crate) fn idle_at(&self) -> Option<Position> {
        self.stream.idle_at()
    }

    /// Ends, and leaves what follows to the caller, as when a thread is held up right there.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn end_untold(&self, reason: EndReason) -> impl FnOnce() + use<> {
        let (hub, stream) = (self.hub.clone(), self.stream.clone());
        let ended = stream.end(reason).expect("it was open");
        move || hub.after_end(&stream, ended, reason)
    }

    fn end_unread(&self) {
        if let Some(ended) = self.stream.abandon() {
            self.hub.after_end(&self.stream, ended, EndReason::Closed);
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.end_unread();
    }
}

impl futures_util::Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        this.stream.poll_next(cx, &mut this.place)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("session", self.session()).field("end", &self.end()).finish()
    }
}

#[cfg(all(test, not(loom), feature = "native"))]
mod tests {
    use super::*;
    use crate::Engine;

    #[tokio::test]
    async fn readers_are_served_in_the_order_in_which_they_asked() {
        let engine = Engine::memory();
        let id = SessionId::random();
        let stream = engine.streams().open(&id, OpenOptions::default()).await.unwrap();
        let [mut gone, mut first, mut second] = [(); 3].map(|()| Box::pin(stream.next()));
        for reader in [&mut gone, &mut first, &mut second] {
            assert!(reader.now_or_never().is_none());
        }
        for payload in ["0", "1", "2"] {
            engine
                .streams()
                .send(Target::Session(id.clone()), payload, SendOptions::default())
                .await
                .unwrap();
        }
        assert!(stream.try_next().is_none(), "somebody waits for it");
        drop(gone);
        assert!((&mut second).now_or_never().is_none(), "it is the first one's turn");
        let text = |event: Event| event.payload().to_string();
        assert_eq!(first.await.map(text).as_deref(), Some("0"));
        assert_eq!(second.await.map(text).as_deref(), Some("1"));
        assert_eq!(stream.next_batch(9).await.into_iter().map(text).collect::<Vec<_>>(), ["2"]);
    }
}
