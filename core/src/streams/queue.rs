//! What waits for one reader, bounded in events and bytes (G10).

use std::collections::VecDeque;

use crate::options::QueueLimits;
use crate::streams::event::{EventKind, Payload, Positions};

/// One event on its way to a reader.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) payload: Payload,
    pub(crate) kind: EventKind,
    /// Where the reader stands once it has this event.
    pub(crate) at: Positions,
}

/// The queue has reached a bound; nothing was added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Events in order; the bounds hold for live ones, replayed ones are bounded by retention.
#[derive(Default)]
pub(crate) struct Queue {
    items: VecDeque<(Queued, bool)>,
    live_events: usize,
    live_bytes: usize,
}

impl Queue {
    pub(crate) fn push_live(&mut self, item: Queued, limits: &QueueLimits) -> Result<(), Full> {
        let bytes = self.live_bytes + item.payload.len();
        // One event always fits, however large, or it could never be delivered.
        let fits = self.live_events < limits.events && (bytes <= limits.bytes || self.live_events == 0);
        if !fits {
            return Err(Full);
        }
        self.live_events += 1;
        self.live_bytes = bytes;
        self.items.push_back((item, true));
        Ok(())
    }

    pub(crate) fn push_replayed(&mut self, item: Queued) {
        self.items.push_back((item, false));
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let (item, live) = self.items.pop_front()?;
        if live {
            self.live_events -= 1;
            self.live_bytes -= item.payload.len();
        }
        // A burst must not leave its memory behind on an idle session.
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    /// Whether half of what may wait waits.
    pub(crate) fn is_half_full(&self, limits: &QueueLimits) -> bool {
        self.live_events >= limits.events / 2 || self.live_bytes >= limits.bytes / 2
    }

    pub(crate) fn clear(&mut self) {
        *self = Queue::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
