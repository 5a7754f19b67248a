//! One subscription served by this node: acknowledged first, then its notifications in order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::options::QueueLimits;
use crate::streams::Payload;
use crate::streams::mailbox::{Drain, MailItem, Mailbox};
use crate::sync::{Mutex, MutexGuard};
use crate::wakers::{Waited, Wakers};

/// Why a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// The server ended it gracefully.
    Closed,
    /// The client cancelled it or went away.
    Cancelled,
    /// Its reader was too slow (G10).
    Overflow,
    /// The engine was shut down.
    Shutdown,
}

impl SubscriptionEnd {
    /// The name of the reason, the same in every language.
    pub const fn as_str(self) -> &'static str {
        match self {
            SubscriptionEnd::Closed => "closed",
            SubscriptionEnd::Cancelled => "cancelled",
            SubscriptionEnd::Overflow => "overflow",
            SubscriptionEnd::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for SubscriptionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Default)]
struct State {
    /// Nothing is handed over before the acknowledgement was written.
    acknowledged: bool,
    queue: VecDeque<Payload>,
    bytes: usize,
    end: Option<SubscriptionEnd>,
    end_told: bool,
    wakers: Wakers,
    ready: bool,
    paused: bool,
}

impl State {
    fn may_hand_over(&self) -> bool {
        self.acknowledged && !self.paused && !self.queue.is_empty()
    }
}

pub(crate) struct LocalSubscription {
    limits: QueueLimits,
    mailbox: Option<(Arc<Mailbox>, u32)>,
    state: Mutex<State>,
}

impl LocalSubscription {
    pub(crate) fn new(limits: QueueLimits, mailbox: Option<(Arc<Mailbox>, u32)>) -> Arc<Self> {
        Arc::new(LocalSubscription { limits, mailbox, state: Mutex::default() })
    }

    /// Queues a notification; false when the queue is full.
    pub(crate) fn offer(self: &Arc<Self>, payload: &Payload) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return true;
        }
        let bytes = state.bytes + payload.len();
        let fits =
            state.queue.len() < self.limits.events && (bytes <= self.limits.bytes || state.queue.is_empty());
        if !fits {
            return false;
        }
        state.bytes = bytes;
        state.queue.push_back(payload.clone());
        if let Some((mailbox, _)) = &self.mailbox
            && state.may_hand_over()
            && state.queue.len() >= self.limits.events / 2
        {
            mailbox.press();
        }
        self.announce(state);
        true
    }

    pub(crate) fn acknowledge(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.acknowledged = true;
        self.announce(state);
    }

    /// Stops or starts handing over notifications through the mailbox; the queue stays bounded.
    pub(crate) fn set_paused(self: &Arc<Self>, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        self.announce(state);
    }

    /// Ends it; what is queued is dropped. False when it had ended.
    pub(crate) fn end(self: &Arc<Self>, reason: SubscriptionEnd) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        state.end = Some(reason);
        state.queue = VecDeque::new();
        state.bytes = 0;
        self.announce(state);
        true
    }

    fn announce(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let something = state.end.is_some() || state.may_hand_over();
        if !something {
            return;
        }
        let wakers = state.wakers.take();
        let add = self.mailbox.is_some() && !state.ready;
        state.ready |= add;
        drop(state);
        if let (true, Some((mailbox, token))) = (add, &self.mailbox) {
            mailbox.add(*token, self.clone());
        }
        wakers.wake();
    }

    fn read(state: &mut State) -> Option<Payload> {
        if !state.acknowledged {
            return None;
        }
        let payload = state.queue.pop_front()?;
        state.bytes -= payload.len();
        if state.queue.is_empty() && state.queue.capacity() > 64 {
            state.queue = VecDeque::new();
        }
        Some(payload)
    }

    /// `place` is where the caller waits, if it has to.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>, place: &mut Option<u64>) -> Poll<Option<Payload>> {
        let mut state = self.state.lock();
        if let Some(payload) = Self::read(&mut state) {
            return Poll::Ready(Some(payload));
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        state.wakers.wait(place, cx.waker());
        Poll::Pending
    }

    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>, place: &mut Option<u64>) -> Poll<SubscriptionEnd> {
        let mut state = self.state.lock();
        match state.end {
            Some(end) => Poll::Ready(end),
            None => {
                state.wakers.wait(place, cx.waker());
                Poll::Pending
            }
        }
    }

    pub(crate) fn ended(&self) -> Option<SubscriptionEnd> {
        self.state.lock().end
    }
}

impl Waited for LocalSubscription {
    fn leave(&self, place: u64) {
        self.state.lock().wakers.leave(place);
    }
}

impl Drain for LocalSubscription {
    fn drain(self: Arc<Self>, budget: usize, take: &mut dyn FnMut(u32, MailItem)) -> usize {
        let Some((mailbox, token)) = &self.mailbox else { return 0 };
        let mut taken = 0;
        let mut state = self.state.lock();
        state.ready = false;
        while taken < budget && !state.paused {
            let Some(payload) = Self::read(&mut state) else { break };
            take(*token, MailItem::Notification(payload));
            taken += 1;
        }
        if let (Some(end), false) = (state.end, state.end_told) {
            state.end_told = true;
            take(*token, MailItem::SubscriptionEnd(end));
            taken += 1;
        } else if state.may_hand_over() {
            state.ready = true;
            drop(state);
            mailbox.add(*token, self.clone());
        }
        taken
    }
}
