//! Append, replay, forget.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::id::{EventId, MAX_STREAM_BYTES};
use super::tail::EventTail;
use crate::backend::{Append, Tail};
use crate::error::{Error, Result};
use crate::session::SessionId;
use crate::streams::hub::Hub;
use crate::streams::{EventStream, Payload, Position, Positions, StreamManager};
use crate::sync::Mutex;

/// Logs that are forgotten at once.
const AT_ONCE: usize = 64;
/// The most logs this node remembers to have noted.
const MAX_NOTES: usize = 16_384;

/// The first character of what is stored says what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    /// An id before any payload.
    Priming,
    /// Nothing comes after it.
    End,
}

impl Kind {
    const fn tag(self) -> char {
        match self {
            Kind::Message => 'm',
            Kind::Priming => 'p',
            Kind::End => 'e',
        }
    }

    pub(super) fn of(stored: &str) -> Option<Self> {
        [Kind::Message, Kind::Priming, Kind::End].into_iter().find(|kind| stored.starts_with(kind.tag()))
    }
}

/// The events of one session's streams, for the event stores of the SDKs: what is appended on one node
/// is replayed on any.
///
/// The streams are named by the application (the SDKs call a session's GET stream `_GET_stream`); names
/// are apart from those of every other session. Retention is that of the session's own events
/// ([`Options::retention`](crate::Options::retention)), for each stream by itself; a stream to which
/// nothing was appended for its age is gone.
///
/// ```
/// use mcp_sessions::{Engine, SessionId};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::memory();
/// let events = engine.events(&SessionId::random());
/// let first = events.append("_GET_stream", "one").await?;
/// events.append("_GET_stream", "two").await?;
/// let replay = events.replay(&first).await?;
/// assert_eq!((replay.stream.as_str(), replay.gap), ("_GET_stream", false));
/// assert_eq!(replay.events[0].payload(), "two");
/// # Ok::<(), mcp_sessions::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct EventLog {
    hub: Arc<Hub>,
    streams: StreamManager,
    scope: SessionId,
}

/// An event of a stream.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    id: EventId,
    stored: Payload,
}

impl LoggedEvent {
    pub(super) fn new(id: EventId, stored: Payload) -> Self {
        LoggedEvent { id, stored }
    }

    /// Its id.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// What was appended.
    pub fn payload(&self) -> &str {
        &self.stored.as_str()[1..]
    }
}

impl fmt::Debug for LoggedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedEvent").field("id", &self.id).field("payload", &self.payload()).finish()
    }
}

/// What a stream holds after an id.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replay {
    /// The stream.
    pub stream: String,
    /// The events, in order; after a gap, those that are left.
    pub events: Vec<LoggedEvent>,
    /// Something between the id and the first event is lost, or may be (G3).
    pub gap: bool,
    /// The stream has ended: nothing comes after these.
    pub ended: bool,
}

impl EventLog {
    pub(crate) fn new(hub: Arc<Hub>, streams: StreamManager, scope: &SessionId) -> Self {
        EventLog { hub, streams, scope: scope.clone() }
    }

    /// The session.
    pub fn scope(&self) -> &SessionId {
        &self.scope
    }

    /// Appends an event; it is committed when this returns its id. A stream's name has 1 to 128 bytes.
    ///
    /// Fails with `too_large` over `maxPayloadBytes`, `unavailable` or `timeout`
    /// ([`Error::outcome_unknown`] says whether it may be there all the same; then appending again may
    /// double it).
    pub async fn append(&self, stream: &str, payload: &str) -> Result<EventId> {
        self.store(stream, Kind::Message, payload).await
    }

    /// An id that stands before everything that is appended from now on, and has no payload: for the
    /// first event of a stream (MCP 2025-11-25), so that a client can resume one that gave it nothing.
    pub async fn prime(&self, stream: &str) -> Result<EventId> {
        self.store(stream, Kind::Priming, "").await
    }

    /// Marks the end of a stream: its tails end with `closed` once they have read it, replay says
    /// that it has ended, and what is kept stays for its retention.
    pub async fn end(&self, stream: &str) -> Result<EventId> {
        self.store(stream, Kind::End, "").await
    }

    async fn store(&self, stream: &str, kind: Kind, payload: &str) -> Result<EventId> {
        const OPERATION: &str = "events.append";
        let hub = &self.hub;
        let limit = hub.options.max_payload_bytes;
        if payload.len() > limit {
            return Err(Error::too_large(OPERATION, "the payload", payload.len(), limit));
        }
        let log = self.log(stream)?;
        let mut stored = String::with_capacity(payload.len() + 1);
        stored.push(kind.tag());
        stored.push_str(payload);
        let now_ms = hub.runtime.now_ms();
        let note = hub.event_notes.due(&log, now_ms, hub.options.retention.age_ms / 2);
        let event = Append { scope: self.scope.clone(), log: log.clone(), payload: stored.into(), note };
        let at = hub.run(OPERATION, hub.backend.append(event)).await?;
        if note {
            hub.event_notes.done(log, now_ms);
        }
        Ok(EventId::encode(&self.scope, stream, at))
    }

    /// The stream an id belongs to. Fails with `invalid_input` for anything that is no event id of
    /// this session; what it names may be gone all the same.
    pub fn stream_of(&self, id: &str) -> Result<String> {
        EventId::decode(id, &self.scope).map(|(stream, _)| stream)
    }

    /// The events of an id's stream after it: exactly those, or what is left and a gap (G2, G3).
    ///
    /// Fails with `invalid_input` for an id that is not of this session (G12).
    pub async fn replay(&self, after: &str) -> Result<Replay> {
        let (stream, at) = EventId::decode(after, &self.scope)?;
        let asked = self.asked(at);
        let tail = self.read_log(&stream, asked).await?;
        let gap = tail.lost_own(asked);
        Ok(self.replay_of(stream, tail, gap))
    }

    /// All events of a stream that are kept; `gap` when there were more. Empty for one that is not there.
    pub async fn read(&self, stream: &str) -> Result<Replay> {
        let tail = self.read_log(stream, self.asked(Position::default())).await?;
        let gap = tail.start.session.offset > 0;
        Ok(self.replay_of(stream.to_owned(), tail, gap))
    }

    /// [`replay`](Self::replay), and from there on live, whichever node appends. One tail a stream
    /// reads at a time: a newer one takes over from it, on any node (G6).
    pub async fn tail(&self, after: &str) -> Result<EventTail> {
        let (stream, at) = EventId::decode(after, &self.scope)?;
        let held = self.streams.open_log(&self.log(&stream)?, Some(self.asked(at))).await?;
        self.tail_of(stream, held).await
    }

    /// A [`tail`](Self::tail) that begins where the last one of the stream stopped reading, on whatever
    /// node; the first one begins with all that is kept.
    pub async fn follow(&self, stream: &str) -> Result<EventTail> {
        let held = self.streams.open_log(&self.log(stream)?, None).await?;
        self.tail_of(stream.to_owned(), held).await
    }

    /// One that begins behind the end of its stream, which somebody else has read, is over.
    async fn tail_of(&self, stream: String, held: EventStream) -> Result<EventTail> {
        let over = match held.idle_at() {
            Some(at) if at.offset > 0 => self.is_end(&stream, at).await?,
            _ => false,
        };
        Ok(EventTail::new(self.scope.clone(), stream, held, over))
    }

    async fn is_end(&self, stream: &str, at: Position) -> Result<bool> {
        let tail = self.read_log(stream, self.asked(Position { offset: at.offset - 1, ..at })).await?;
        let entry = tail.own.first().filter(|entry| entry.offset == at.offset);
        Ok(entry.is_some_and(|entry| Kind::of(&entry.payload) == Some(Kind::End)))
    }

    /// Forgets a stream; its tails end with `terminated`. False when there was nothing of it.
    pub async fn forget(&self, stream: &str) -> Result<bool> {
        let log = self.log(stream)?;
        forget_logs(&self.hub, &self.scope, vec![log]).await.map(|forgotten| forgotten > 0)
    }

    /// Forgets all streams of the session, in O(own); how many there were. Closing a registered
    /// session does this, too.
    pub async fn forget_all(&self) -> Result<u64> {
        forget_scope(&self.hub, &self.scope).await
    }

    /// The name of a stream's log, which no session id can be.
    fn log(&self, stream: &str) -> Result<SessionId> {
        match (1..=MAX_STREAM_BYTES).contains(&stream.len()) {
            true => Ok(SessionId::of_log(&self.scope, &URL_SAFE_NO_PAD.encode(stream))),
            false => Err(Error::invalid(
                "events.stream",
                format!("a stream's name has 1 to {MAX_STREAM_BYTES} bytes, this one has {}", stream.len()),
            )),
        }
    }

    /// Broadcasts are none of a log's events: they are asked for from where this node stands.
    fn asked(&self, at: Position) -> Positions {
        Positions { session: at, broadcast: self.hub.broadcast_position(&self.scope) }
    }

    async fn read_log(&self, stream: &str, asked: Positions) -> Result<Tail> {
        let log = self.log(stream)?;
        self.hub.run("events.replay", self.hub.backend.read(&log, asked)).await
    }

    fn replay_of(&self, stream: String, tail: Tail, gap: bool) -> Replay {
        let mut replay = Replay { stream, events: Vec::with_capacity(tail.own.len()), gap, ended: false };
        for entry in tail.own {
            let at = Position { epoch: tail.start.session.epoch, offset: entry.offset };
            match Kind::of(&entry.payload) {
                Some(Kind::Message) => {
                    let id = EventId::encode(&self.scope, &replay.stream, at);
                    replay.events.push(LoggedEvent::new(id, entry.payload));
                }
                Some(Kind::End) => replay.ended = true,
                _ => {}
            }
        }
        replay
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Forgets all logs of a scope; how many there were.
pub(crate) async fn forget_scope(hub: &Hub, scope: &SessionId) -> Result<u64> {
    let logs = hub.run("events.forget", hub.backend.logs(scope)).await?;
    match logs.is_empty() {
        true => Ok(0),
        false => forget_logs(hub, scope, logs).await,
    }
}

async fn forget_logs(hub: &Hub, scope: &SessionId, logs: Vec<SessionId>) -> Result<u64> {
    const OPERATION: &str = "events.forget";
    let forget = |log: SessionId| async move {
        hub.event_notes.drop(&log);
        hub.run(OPERATION, hub.backend.forget(&log)).await
    };
    let forgotten = stream::iter(logs.clone()).map(forget).buffer_unordered(AT_ONCE);
    let count = forgotten.try_fold(0, |sum, had| async move { Ok(sum + u64::from(had)) }).await?;
    hub.run(OPERATION, hub.backend.forget_logs(scope, &logs)).await?;
    Ok(count)
}

/// When this node last had a log noted in its scope.
#[derive(Default)]
pub(crate) struct Notes(Mutex<HashMap<SessionId, u64>>);

impl Notes {
    fn due(&self, log: &SessionId, now_ms: u64, every_ms: u64) -> bool {
        self.0.lock().get(log).is_none_or(|noted| now_ms >= noted + every_ms)
    }

    fn done(&self, log: SessionId, now_ms: u64) {
        let mut notes = self.0.lock();
        if notes.len() >= MAX_NOTES {
            // Whatever is forgotten here is only noted once more.
            notes.clear();
        }
        notes.insert(log, now_ms);
    }

    fn drop(&self, log: &SessionId) {
        self.0.lock().remove(log);
    }

    /// The backend may have lost them.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{EndReason, Engine, SessionId};

    #[tokio::test]
    async fn a_follower_goes_on_where_the_last_one_stopped() {
        let (one, other) = (
            Engine::connect("memory://followers", Default::default()),
            Engine::connect("memory://followers", Default::default()),
        );
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        let scope = SessionId::random();
        let (here, there) = (one.events(&scope), other.events(&scope));
        here.append("s", "early").await.unwrap();
        let first = there.follow("s").await.unwrap();
        assert_eq!(first.next().await.unwrap().payload(), "early");
        here.append("s", "live").await.unwrap();
        assert_eq!(first.next().await.unwrap().payload(), "live");
        first.close().await;
        here.append("s", "missed").await.unwrap();
        let second = here.follow("s").await.unwrap();
        assert!(!second.gap());
        assert_eq!(second.next().await.unwrap().payload(), "missed");
        there.append("s", "live again").await.unwrap();
        assert_eq!(second.next().await.unwrap().payload(), "live again");
    }

    #[tokio::test]
    async fn who_begins_behind_the_end_is_over() {
        let engine = Engine::memory();
        let log = engine.events(&SessionId::random());
        log.append("s", "m1").await.unwrap();
        let end = log.end("s").await.unwrap();
        let first = log.follow("s").await.unwrap();
        assert_eq!(first.next().await.unwrap().payload(), "m1");
        assert!(first.next().await.is_none());
        for late in [log.follow("s").await.unwrap(), log.tail(end.as_str()).await.unwrap()] {
            assert_eq!(late.ended().await, EndReason::Closed);
            assert!(late.next().await.is_none());
        }
    }
}
