//! The log under an event store.

use std::sync::Arc;

use mcp_sessions as core;

use crate::cancel::{Cancellation, unless};
use crate::error::Result;
use crate::runtime::on_runtime;
use crate::streams::EndReason;

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct LoggedEvent {
    /// Its id.
    pub id: String,
    /// What was appended.
    pub payload: String,
}

impl From<core::LoggedEvent> for LoggedEvent {
    fn from(event: core::LoggedEvent) -> Self {
        LoggedEvent { id: event.id().to_string(), payload: event.payload().to_owned() }
    }
}

/// What a stream holds after an id.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Replay {
    /// The stream.
    pub stream: String,
    /// The events, in order; after a gap, those that are left.
    pub events: Vec<LoggedEvent>,
    /// Something between the id and the first event is lost, or may be.
    pub gap: bool,
    /// The stream has ended: nothing comes after these.
    pub ended: bool,
}

impl From<core::Replay> for Replay {
    fn from(replay: core::Replay) -> Self {
        Replay {
            stream: replay.stream,
            events: replay.events.into_iter().map(LoggedEvent::from).collect(),
            gap: replay.gap,
            ended: replay.ended,
        }
    }
}

/// The events of one session's streams: what the SDKs' event stores need.
#[derive(uniffi::Object)]
pub struct EventLog {
    inner: core::EventLog,
}

impl EventLog {
    pub(crate) fn new(inner: core::EventLog) -> Arc<Self> {
        Arc::new(EventLog { inner })
    }
}

#[uniffi::export]
impl EventLog {
    /// Appends an event; it is committed when this returns its id. A stream's name has 1 to 128 bytes.
    ///
    /// Fails with `too_large`, `unavailable` or `timeout`.
    pub async fn append(&self, stream: String, payload: String) -> Result<String> {
        Ok(on_runtime(self.inner.append(&stream, &payload)).await?.to_string())
    }

    /// An id that stands before everything that is appended from now on, and has no payload, so that a
    /// client can resume a stream that gave it nothing.
    pub async fn prime(&self, stream: String) -> Result<String> {
        Ok(on_runtime(self.inner.prime(&stream)).await?.to_string())
    }

    /// Marks the end of a stream: its tails end once they have read it.
    pub async fn end(&self, stream: String) -> Result<String> {
        Ok(on_runtime(self.inner.end(&stream)).await?.to_string())
    }

    /// The stream an id belongs to. Fails with `invalid_input` for anything that is no event id of this
    /// session.
    pub fn stream_of(&self, id: String) -> Result<String> {
        Ok(self.inner.stream_of(&id)?)
    }

    /// The events of an id's stream after it: exactly those, or what is left and a gap.
    ///
    /// Fails with `invalid_input` for an id that is not of this session.
    pub async fn replay(&self, after: String) -> Result<Replay> {
        Ok(on_runtime(self.inner.replay(&after)).await?.into())
    }

    /// All events of a stream that are kept; `gap` when there were more.
    pub async fn read(&self, stream: String) -> Result<Replay> {
        Ok(on_runtime(self.inner.read(&stream)).await?.into())
    }

    /// Replays, and goes on live, whichever node appends. One tail a stream reads at a time: a newer one
    /// takes over from it.
    pub async fn tail(&self, after: String) -> Result<Arc<EventTail>> {
        let inner = on_runtime(self.inner.tail(&after)).await?;
        Ok(Arc::new(EventTail { inner }))
    }

    /// A tail that begins where the last one of the stream stopped reading, on whatever node; the first one
    /// begins with all that is kept.
    pub async fn follow(&self, stream: String) -> Result<Arc<EventTail>> {
        let inner = on_runtime(self.inner.follow(&stream)).await?;
        Ok(Arc::new(EventTail { inner }))
    }

    /// Forgets a stream; its tails end with `terminated`. False when there was nothing of it.
    pub async fn forget(&self, stream: String) -> Result<bool> {
        Ok(on_runtime(self.inner.forget(&stream)).await?)
    }

    /// Forgets all streams of the session; how many there were.
    pub async fn forget_all(&self) -> Result<u64> {
        Ok(on_runtime(self.inner.forget_all()).await?)
    }
}

/// A live tail of a stream; dropping it leaves the stream as it is.
#[derive(uniffi::Object)]
pub struct EventTail {
    inner: core::EventTail,
}

#[uniffi::export]
impl EventTail {
    /// The stream.
    pub fn stream(&self) -> String {
        self.inner.stream().to_owned()
    }

    /// Whether something between the id and the first event is lost, or may be.
    pub fn gap(&self) -> bool {
        self.inner.gap()
    }

    /// The next event, in order; nothing once the tail has ended, or when `until` was cancelled.
    /// Cancelling the call loses none.
    #[uniffi::method(default(until = None))]
    pub async fn next(&self, until: Option<Arc<Cancellation>>) -> Option<LoggedEvent> {
        unless(until, on_runtime(self.inner.next())).await.map(LoggedEvent::from)
    }

    /// The next event if there is one already.
    pub fn try_next(&self) -> Option<LoggedEvent> {
        self.inner.try_next().map(LoggedEvent::from)
    }

    /// Why the tail ended, if it has: `closed` at the end of its stream.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.inner.end().map(EndReason::from)
    }

    /// Ends the tail. The stream stays as it is.
    pub async fn stop(&self) {
        on_runtime(self.inner.close()).await;
    }
}
