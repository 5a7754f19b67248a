//! Streams: opened, sent to, read by asking or by a listener.

use std::sync::Arc;

use mcp_sessions as core;
use mcp_sessions::{SendOptions, SessionId, Target};
use tokio::sync::watch;

use crate::cancel::{Cancellation, unless};
use crate::error::Result;
use crate::runtime::{handle, on_runtime};

/// The most events a listener is told at once.
const BATCH: usize = 256;

/// What a new stream does when a live node holds one of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Conflict {
    /// Takes over; the old one ends with `replaced`.
    Replace,
    /// Fails with `conflict`; the old one goes on.
    Reject,
}

/// How a stream is opened.
#[derive(Debug, Clone, uniffi::Record)]
pub struct OpenOptions {
    /// The client's last cursor, as it came (`Last-Event-ID`): everything after it is delivered.
    #[uniffi(default = None)]
    pub after: Option<String>,
    /// What to do when a live node holds a stream of the session; it is replaced unless this says
    /// otherwise.
    #[uniffi(default = None)]
    pub conflict: Option<Conflict>,
}

impl From<OpenOptions> for core::OpenOptions {
    fn from(options: OpenOptions) -> Self {
        let conflict = match options.conflict {
            Some(Conflict::Reject) => core::Conflict::Reject,
            Some(Conflict::Replace) | None => core::Conflict::Replace,
        };
        let opening = core::OpenOptions::default().conflict(conflict);
        match options.after {
            Some(cursor) => opening.after(cursor),
            None => opening,
        }
    }
}

/// What became of an event, counted in sessions (a broadcast counts once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct Receipt {
    /// Accepted: it will be delivered, now or when the session's stream opens.
    pub accepted: u64,
    /// Dropped, because the session is unknown, or has no stream and history is off.
    pub dropped: u64,
    /// Accepted before, under the same idempotency key.
    pub duplicates: u64,
}

/// Whether an event was sent to its session or to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum EventKind {
    /// Sent to this session (or to a list with it).
    Directed,
    /// Sent to all sessions.
    Broadcast,
}

/// One event as a stream hands it over.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Event {
    /// The payload as it was sent.
    pub payload: String,
    /// The cursor to resume after this event.
    pub cursor: String,
    /// Whether it was sent to this session or to all.
    pub kind: EventKind,
}

impl From<core::Event> for Event {
    fn from(event: core::Event) -> Self {
        Event {
            payload: event.payload().as_str().to_owned(),
            cursor: event.cursor().as_str().to_owned(),
            kind: match event.kind() {
                core::EventKind::Directed => EventKind::Directed,
                core::EventKind::Broadcast => EventKind::Broadcast,
            },
        }
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum EndReason {
    /// Somebody closed it, here or on another node; its session can be resumed.
    Closed,
    /// A newer stream of the session took over.
    Replaced,
    /// Its reader was too slow; resume with the cursor.
    Overflow,
    /// An event was lost before it could be delivered; reopen with the cursor to be told.
    Gap,
    /// This node's lease ran out, and the session went elsewhere.
    Fenced,
    /// The session was terminated.
    Terminated,
    /// The engine was shut down.
    Shutdown,
}

impl From<core::EndReason> for EndReason {
    fn from(reason: core::EndReason) -> Self {
        match reason {
            core::EndReason::Replaced => EndReason::Replaced,
            core::EndReason::Overflow => EndReason::Overflow,
            core::EndReason::Gap => EndReason::Gap,
            core::EndReason::Fenced => EndReason::Fenced,
            core::EndReason::Terminated => EndReason::Terminated,
            core::EndReason::Shutdown => EndReason::Shutdown,
            // One that is newer than this binding: the stream is over, and can be resumed.
            _ => EndReason::Closed,
        }
    }
}

/// Is told what a stream brings. Its methods are called one at a time, in order, on a thread of this
/// library; the next events are read when `on_events` has returned.
#[uniffi::export(with_foreign)]
pub trait StreamListener: Send + Sync {
    /// Events, in order.
    fn on_events(&self, events: Vec<Event>);

    /// The stream is over, and everything that was queued was told.
    fn on_end(&self, reason: EndReason);
}

/// Opens streams, and sends events to them wherever they are held.
#[derive(uniffi::Object)]
pub struct StreamManager {
    inner: core::StreamManager,
}

impl StreamManager {
    pub(crate) fn new(inner: core::StreamManager) -> Arc<Self> {
        Arc::new(StreamManager { inner })
    }
}

#[uniffi::export]
impl StreamManager {
    /// Opens the stream of a session on this node, and takes it over from any other.
    ///
    /// With a cursor it delivers everything after it exactly once; without one, what was accepted since
    /// the session's last stream, or since the session became known. What can't be replayed is told by
    /// `gap`.
    ///
    /// Fails with `invalid_input` for a cursor that is not this session's, `conflict`, `unavailable` or
    /// `timeout`; the old stream then goes on.
    #[uniffi::method(default(options = None))]
    pub async fn open(&self, session: String, options: Option<OpenOptions>) -> Result<Arc<EventStream>> {
        let id = SessionId::new(session)?;
        let options = options.map(core::OpenOptions::from).unwrap_or_default();
        let inner = on_runtime(self.inner.open(&id, options)).await?;
        Ok(Arc::new(EventStream { inner: Arc::new(inner) }))
    }

    /// Sends an event to one session; resolves once the backend has accepted it. A retry with the same
    /// key (1 to 128 bytes) is not delivered twice.
    ///
    /// An event for a known session without a stream waits for its next one; one for an unknown session
    /// is dropped and counted in the receipt.
    ///
    /// Fails with `too_large` or `invalid_input` (nothing happened), `timeout` or `unavailable`.
    #[uniffi::method(default(idempotency_key = None))]
    pub async fn send(
        &self,
        session: String,
        payload: String,
        idempotency_key: Option<String>,
    ) -> Result<Receipt> {
        self.send_to(Target::Session(SessionId::new(session)?), payload, idempotency_key).await
    }

    /// Sends an event to a list of sessions, in one batch; one that is named twice gets it once.
    #[uniffi::method(default(idempotency_key = None))]
    pub async fn send_to_each(
        &self,
        sessions: Vec<String>,
        payload: String,
        idempotency_key: Option<String>,
    ) -> Result<Receipt> {
        let ids = sessions.into_iter().map(SessionId::new).collect::<core::Result<_>>()?;
        self.send_to(Target::Sessions(ids), payload, idempotency_key).await
    }

    /// Sends an event to all known sessions.
    #[uniffi::method(default(idempotency_key = None))]
    pub async fn broadcast(&self, payload: String, idempotency_key: Option<String>) -> Result<Receipt> {
        self.send_to(Target::All, payload, idempotency_key).await
    }

    /// Whether a live node holds a stream of the session.
    pub async fn has(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.has(&id)).await?)
    }

    /// Whether the session is known: it has info, or a stream, or had one within retention.
    pub async fn known(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.known(&id)).await?)
    }

    /// Ends the session's stream, wherever it is held; what is sent later waits for the next one. False
    /// when there was no stream.
    pub async fn end(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.close(&id)).await?)
    }

    /// Terminates the session: its stream ends with `terminated` and its log is gone. Its info is
    /// deleted by `InfoManager.delete`. False when there was neither stream nor log.
    pub async fn forget(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.forget(&id)).await?)
    }
}

impl StreamManager {
    async fn send_to(&self, target: Target, payload: String, key: Option<String>) -> Result<Receipt> {
        let mut options = SendOptions::default();
        options.idempotency_key = key;
        let receipt = on_runtime(self.inner.send(target, payload, options)).await?;
        Ok(Receipt { accepted: receipt.accepted, dropped: receipt.dropped, duplicates: receipt.duplicates })
    }
}

/// The one stream of a session, held by this node until it ends, is stopped, or is dropped.
#[derive(uniffi::Object)]
pub struct EventStream {
    inner: Arc<core::EventStream>,
}

#[uniffi::export]
impl EventStream {
    /// The session.
    pub fn session(&self) -> String {
        self.inner.session().to_string()
    }

    /// Whether something between the cursor (or the last stream) and the first event is lost.
    pub fn gap(&self) -> bool {
        self.inner.gap()
    }

    /// The cursor after the last event read, or of the start.
    pub fn cursor(&self) -> String {
        self.inner.cursor().as_str().to_owned()
    }

    /// The next event, in order; nothing once the stream has ended and what was queued is read, or when
    /// `until` was cancelled. Cancelling the call loses no event.
    #[uniffi::method(default(until = None))]
    pub async fn next(&self, until: Option<Arc<Cancellation>>) -> Option<Event> {
        unless(until, on_runtime(self.inner.next())).await.map(Event::from)
    }

    /// The next events, as many as there are but no more than `limit`, in one call across the border;
    /// waits for the first. Empty once the stream has ended and what was queued is read, or when `until`
    /// was cancelled. Cancelling the call loses no event.
    #[uniffi::method(default(until = None))]
    pub async fn next_batch(&self, limit: u32, until: Option<Arc<Cancellation>>) -> Vec<Event> {
        next_batch(&self.inner, limit as usize, until).await
    }

    /// The next event if there is one already.
    pub fn try_next(&self) -> Option<Event> {
        self.inner.try_next().map(Event::from)
    }

    /// Resolves when the stream ends.
    pub async fn ended(&self) -> EndReason {
        on_runtime(self.inner.ended()).await.into()
    }

    /// Why the stream ended, if it has; events that were queued can still be read then.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.inner.end().map(EndReason::from)
    }

    /// Tells a listener everything this stream brings, until it ends or the listening is cancelled, also
    /// when nobody keeps the stream or what this returns.
    pub fn listen(&self, listener: Arc<dyn StreamListener>) -> Arc<Listening> {
        let (cancel, mut cancelled) = watch::channel(false);
        let stream = self.inner.clone();
        handle().spawn(async move {
            loop {
                let events = tokio::select! {
                    biased;
                    () = said(&mut cancelled) => return,
                    events = next_batch(&stream, BATCH, None) => events,
                };
                match (events.is_empty(), stream.end()) {
                    (false, _) => listener.on_events(events),
                    (true, Some(reason)) => return listener.on_end(reason.into()),
                    (true, None) => return listener.on_end(EndReason::Closed),
                }
            }
        });
        Arc::new(Listening { cancel })
    }

    /// Ends the stream and gives the session back; what was not read waits for the next stream.
    /// Stopping it twice is fine.
    pub async fn stop(&self) {
        on_runtime(self.inner.close()).await;
    }
}

/// Resolves when the listening is cancelled. That nobody keeps its handle does not cancel it.
async fn said(cancelled: &mut watch::Receiver<bool>) {
    if cancelled.wait_for(|is| *is).await.is_err() {
        std::future::pending().await
    }
}

async fn next_batch(
    stream: &core::EventStream,
    limit: usize,
    until: Option<Arc<Cancellation>>,
) -> Vec<Event> {
    let batch = unless(until, on_runtime(async { Some(stream.next_batch(limit).await) })).await;
    batch.into_iter().flatten().map(Event::from).collect()
}

/// A listener at work, and the way to stop it; dropping this does not.
#[derive(uniffi::Object)]
pub struct Listening {
    cancel: watch::Sender<bool>,
}

#[uniffi::export]
impl Listening {
    /// The listener is told nothing more, once what it is being told is done; the stream stays open.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}
