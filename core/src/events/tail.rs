//! A live tail: what a stream holds after an id, then what is appended, on whatever node.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex as AsyncMutex;

use super::id::EventId;
use super::log::{Kind, LoggedEvent};
use crate::session::SessionId;
use crate::streams::{EndReason, Event, EventKind, EventStream};

/// Reads a stream as it grows. It ends when the stream does; dropping it leaves the stream as it is.
pub struct EventTail {
    scope: SessionId,
    stream: String,
    held: EventStream,
    /// The end of the stream was read.
    finished: AtomicBool,
    /// Held by the one that reads: it may pass over entries that are no messages.
    turn: AsyncMutex<()>,
}

impl EventTail {
    /// With `over` it has nothing to read.
    pub(super) fn new(scope: SessionId, stream: String, held: EventStream, over: bool) -> Self {
        let finished = AtomicBool::new(over);
        if over {
            held.close_now();
        }
        EventTail { scope, stream, held, finished, turn: AsyncMutex::default() }
    }

    /// The stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether something between the id and the first event is lost, or may be (G3).
    pub fn gap(&self) -> bool {
        self.held.gap()
    }

    /// The next event, in order; `None` once the tail has ended. Cancel-safe; calls are served in the order
    /// in which they were first polled.
    pub async fn next(&self) -> Option<LoggedEvent> {
        let _turn = self.turn.lock().await;
        while !self.finished.load(Ordering::Acquire) {
            let event = self.held.next().await?;
            if let Some(event) = self.take(event) {
                return Some(event);
            }
        }
        None
    }

    /// The next event if there is one already, and nobody waits for it.
    pub fn try_next(&self) -> Option<LoggedEvent> {
        let _turn = self.turn.try_lock().ok()?;
        while !self.finished.load(Ordering::Acquire) {
            let event = self.held.try_next()?;
            if let Some(event) = self.take(event) {
                return Some(event);
            }
        }
        None
    }

    fn take(&self, event: Event) -> Option<LoggedEvent> {
        if event.kind() != EventKind::Directed {
            return None;
        }
        match Kind::of(event.payload())? {
            Kind::Message => {
                let id = EventId::encode(&self.scope, &self.stream, event.positions().session);
                Some(LoggedEvent::new(id, event.payload().clone()))
            }
            Kind::Priming => None,
            Kind::End => {
                self.finished.store(true, Ordering::Release);
                self.held.close_now();
                None
            }
        }
    }

    /// Why the tail ended, if it has: `closed` at the end of its stream, `terminated` if that was
    /// forgotten, `replaced` by a newer tail, else as a stream does.
    pub fn end(&self) -> Option<EndReason> {
        self.held.end()
    }

    /// Resolves when the tail ends; at the end of its stream, only while somebody reads.
    pub async fn ended(&self) -> EndReason {
        self.held.ended().await
    }

    /// Ends the tail. The stream stays as it is.
    pub async fn close(&self) {
        self.held.close().await;
    }
}

impl fmt::Debug for EventTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTail").field("stream", &self.stream).field("end", &self.end()).finish()
    }
}
