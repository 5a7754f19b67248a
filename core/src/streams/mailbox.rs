//! One reader of many streams: a binding crosses its language's border once a batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::streams::event::{EndReason, Event, Payload};
use crate::subscriptions::SubscriptionEnd;
use crate::sync::{AtomicBool, Mutex};

/// What a mailbox hands over for one of its streams.
#[derive(Debug)]
pub enum MailItem {
    /// The stream's next event.
    Event(Event),
    /// The stream has ended; nothing follows.
    End(EndReason),
    /// The subscription's next notification.
    Notification(Payload),
    /// The subscription has ended; nothing follows.
    SubscriptionEnd(SubscriptionEnd),
}

/// What can be in a mailbox's ready list.
pub(crate) trait Drain: Send + Sync {
    /// Hands over up to `budget` items; returns how many.
    fn drain(self: Arc<Self>, budget: usize, take: &mut dyn FnMut(u32, MailItem)) -> usize;
}

/// Where streams opened with [`StreamManager::open_in`](crate::StreamManager::open_in) put
/// themselves when they have something to read.
///
/// The wake-up is called once when the mailbox goes from empty to not empty, from any thread; it
/// must return at once and must not call the engine.
///
/// ```
/// use mcp_sessions::{Mailbox, MailItem};
/// let mailbox = Mailbox::new(|| { /* schedule a drain on the reader's own thread */ });
/// mailbox.drain(10_000, &mut |token, item| match item {
///     MailItem::Event(event) => println!("{token}: {}", event.payload().as_str()),
///     MailItem::End(reason) => println!("{token} ended: {reason}"),
///     MailItem::Notification(json) => println!("{token}: {}", json.as_str()),
///     MailItem::SubscriptionEnd(reason) => println!("{token} ended: {reason}"),
/// });
/// ```
pub struct Mailbox {
    lines: Mutex<Lines>,
    woken: AtomicBool,
    pressed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

type Waiting = (u32, Arc<dyn Drain>);

#[derive(Default)]
struct Lines {
    /// What an earlier drain had no budget for: it comes first.
    left: VecDeque<Waiting>,
    ready: Vec<Waiting>,
}

impl Lines {
    fn take(&mut self) -> VecDeque<Waiting> {
        if !self.left.is_empty() {
            return std::mem::take(&mut self.left);
        }
        let mut ready = std::mem::take(&mut self.ready);
        // In the order they were opened: a fan-out reaches them in the order of a hash table, which
        // costs both sides of a binding a cache miss at each.
        ready.sort_unstable_by_key(|(token, _)| *token);
        ready.into()
    }

    fn is_empty(&self) -> bool {
        self.left.is_empty() && self.ready.is_empty()
    }
}

impl Mailbox {
    /// A mailbox that calls `wake` when there is something to drain.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Mailbox {
            lines: Mutex::default(),
            woken: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            wake: Box::new(wake),
        })
    }

    pub(crate) fn add(&self, token: u32, stream: Arc<dyn Drain>) {
        self.lines.lock().ready.push((token, stream));
        self.wake_once();
    }

    fn wake_once(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// A queue that is not paused is half full.
    pub(crate) fn press(&self) {
        self.pressed.store(true, Ordering::Relaxed);
    }

    /// Whether a queue is half full: a reader that sends many events itself drains before it goes on,
    /// so that its own burst does not look like a slow client.
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.lock().is_empty()
    }

    /// Hands over up to about `budget` items, stream by stream; a stream's own items are in order. Returns how many; when more is left, the wake-up is called
    /// again.
    pub fn drain(&self, budget: usize, take: &mut dyn FnMut(u32, MailItem)) -> usize {
        // From here on a new arrival wakes again; it may find nothing, which costs little.
        self.woken.swap(false, Ordering::AcqRel);
        self.pressed.store(false, Ordering::Relaxed);
        let mut streams = self.lines.lock().take();
        let mut taken = 0;
        while taken < budget {
            let Some((_, stream)) = streams.pop_front() else { break };
            taken += stream.drain(budget - taken, take);
        }
        if !streams.is_empty() {
            self.lines.lock().left = streams;
        }
        if !self.is_empty() {
            self.wake_once();
        }
        taken
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("empty", &self.is_empty()).finish()
    }
}
