//! One stream held by this node: its order, its queue, its end.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::options::QueueLimits;
use crate::session::SessionId;
use crate::streams::cursor::{Cursor, CursorKey};
use crate::streams::event::{EndReason, Event, EventKind, Payload, Position, Positions};
use crate::streams::mailbox::{Drain, MailItem, Mailbox};
use crate::streams::queue::{Queue, Queued};
use crate::sync::{Mutex, MutexGuard};

/// The most signals a stream keeps while it opens or reads a gap from the log; what is beyond is
/// read from the log, too.
const MAX_HELD: usize = 256;

/// Who reads a stream.
pub(crate) enum Reader {
    /// A task that polls it.
    Task,
    /// A binding that takes the events of many streams at once.
    Mailbox(Arc<Mailbox>, u32),
}

/// What the hub has to do after it handed a stream something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Fine,
    /// Read the log after these positions, then call [`LocalStream::repaired`].
    Repair(Positions),
    /// The stream can't go on: end it with this reason.
    End(EndReason),
}

/// What is left to tell the backend after an end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) owner_epoch: u64,
    /// What the reader got, or will get from the queue.
    pub(crate) delivered: Positions,
}

/// A live event as the hub got it.
#[derive(Clone)]
pub(crate) struct Incoming {
    pub(crate) payload: Payload,
    pub(crate) kind: EventKind,
    pub(crate) position: Position,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Live,
    Repairing,
}

struct State {
    phase: Phase,
    owner_epoch: u64,
    /// The last positions queued.
    last: Positions,
    /// The last positions read.
    read: Positions,
    gap: bool,
    end: Option<EndReason>,
    end_told: bool,
    queue: Queue,
    held: Vec<Incoming>,
    /// An end that arrived while opening: it counts if it is for the epoch we were about to get.
    early_end: Option<(u64, EndReason)>,
    wakers: Vec<Waker>,
    /// In the mailbox's ready list.
    ready: bool,
    paused: bool,
    /// A newer stream is about to take over from what was read so far.
    frozen: bool,
}

/// A stream of this node.
pub(crate) struct LocalStream {
    session: SessionId,
    key: CursorKey,
    limits: QueueLimits,
    reader: Reader,
    state: Mutex<State>,
}

impl LocalStream {
    pub(crate) fn new(session: SessionId, limits: QueueLimits, reader: Reader) -> Arc<Self> {
        Arc::new(LocalStream {
            key: CursorKey::of(&session),
            session,
            limits,
            reader,
            state: Mutex::new(State {
                phase: Phase::Opening,
                owner_epoch: 0,
                last: Positions::default(),
                read: Positions::default(),
                gap: false,
                end: None,
                end_told: false,
                queue: Queue::default(),
                held: Vec::new(),
                early_end: None,
                wakers: Vec::new(),
                ready: false,
                paused: false,
                frozen: false,
            }),
        })
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// The backend gave us the session: replay first, then what arrived meanwhile.
    pub(crate) fn opened(
        self: &Arc<Self>,
        owner_epoch: u64,
        start: Positions,
        gap: bool,
        replay: Vec<Queued>,
    ) -> Outcome {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Outcome::Fine;
        }
        state.owner_epoch = owner_epoch;
        state.gap = gap;
        state.last = start;
        state.read = start;
        if let Some((epoch, reason)) = state.early_end.take()
            && epoch == owner_epoch
        {
            return Outcome::End(reason);
        }
        self.replay(state, replay)
    }

    /// The log was read after the positions of an [`Outcome::Repair`].
    pub(crate) fn repaired(self: &Arc<Self>, replay: Vec<Queued>) -> Outcome {
        let state = self.state.lock();
        match state.end {
            Some(_) => Outcome::Fine,
            None => self.replay(state, replay),
        }
    }

    fn replay(self: &Arc<Self>, mut state: MutexGuard<'_, State>, replay: Vec<Queued>) -> Outcome {
        state.phase = Phase::Live;
        for item in replay {
            state.last = item.at;
            state.queue.push_replayed(item);
        }
        let mut outcome = Outcome::Fine;
        for incoming in std::mem::take(&mut state.held) {
            outcome = self.take(&mut state, incoming);
            if outcome != Outcome::Fine {
                break;
            }
        }
        self.announce(state);
        outcome
    }

    /// A live event for this stream.
    pub(crate) fn offer(self: &Arc<Self>, incoming: Incoming) -> Outcome {
        let mut state = self.state.lock();
        let outcome = self.take(&mut state, incoming);
        self.announce(state);
        outcome
    }

    fn take(&self, state: &mut State, incoming: Incoming) -> Outcome {
        if state.end.is_some() {
            return Outcome::Fine;
        }
        if state.phase != Phase::Live {
            // Held ones beyond the bound are found missing by their offsets, and read from the log.
            if state.held.len() < MAX_HELD {
                state.held.push(incoming);
            }
            return Outcome::Fine;
        }
        let last = match incoming.kind {
            EventKind::Directed => state.last.session,
            EventKind::Broadcast => state.last.broadcast,
        };
        if incoming.position.epoch != last.epoch {
            return Outcome::End(EndReason::Gap);
        }
        if incoming.position.offset <= last.offset {
            return Outcome::Fine;
        }
        if incoming.position.offset > last.offset + 1 {
            state.phase = Phase::Repairing;
            state.held.push(incoming);
            return Outcome::Repair(state.last);
        }
        let mut at = state.last;
        match incoming.kind {
            EventKind::Directed => at.session = incoming.position,
            EventKind::Broadcast => at.broadcast = incoming.position,
        }
        let item = Queued { payload: incoming.payload, kind: incoming.kind, at };
        match state.queue.push_live(item, &self.limits) {
            Ok(()) => {
                state.last = at;
                self.press(state);
                Outcome::Fine
            }
            Err(_) => Outcome::End(EndReason::Overflow),
        }
    }

    /// Signals may have been missed: the log is read in any case.
    pub(crate) fn doubt(&self) -> Outcome {
        let mut state = self.state.lock();
        if state.end.is_some() || state.phase != Phase::Live {
            return Outcome::Fine;
        }
        state.phase = Phase::Repairing;
        Outcome::Repair(state.last)
    }

    /// Lets a mailbox's reader know that its own burst is about to fill the queue.
    fn press(&self, state: &State) {
        if let Reader::Mailbox(mailbox, _) = &self.reader
            && !state.paused
            && state.queue.is_half_full(&self.limits)
        {
            mailbox.press();
        }
    }

    /// The log has events up to here: when they have not come, they are read from it.
    pub(crate) fn behind(&self, session: Option<Position>, broadcast: Option<Position>) -> Outcome {
        let mut state = self.state.lock();
        if state.end.is_some() || state.phase != Phase::Live {
            return Outcome::Fine;
        }
        let other_epoch = session.is_some_and(|p| p.epoch != state.last.session.epoch)
            || broadcast.is_some_and(|p| p.epoch != state.last.broadcast.epoch);
        if other_epoch {
            return Outcome::End(EndReason::Gap);
        }
        let behind = session.is_some_and(|p| p.offset > state.last.session.offset)
            || broadcast.is_some_and(|p| p.offset > state.last.broadcast.offset);
        if behind {
            state.phase = Phase::Repairing;
            return Outcome::Repair(state.last);
        }
        Outcome::Fine
    }

    /// Ends the stream; `None` when it had ended before.
    pub(crate) fn end(self: &Arc<Self>, reason: EndReason) -> Option<Ended> {
        self.finish(self.state.lock(), reason, reason.drops_queue())
    }

    /// Ends the stream because its reader is gone: what is queued was not delivered.
    pub(crate) fn abandon(self: &Arc<Self>) -> Option<Ended> {
        self.finish(self.state.lock(), EndReason::Closed, true)
    }

    fn finish(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        reason: EndReason,
        drop_queue: bool,
    ) -> Option<Ended> {
        if state.end.is_some() {
            return None;
        }
        state.end = Some(reason);
        state.frozen = false;
        state.held = Vec::new();
        if drop_queue {
            state.queue.clear();
            state.last = state.read;
        }
        let ended = Ended { owner_epoch: state.owner_epoch, delivered: state.last };
        self.announce(state);
        Some(ended)
    }

    /// Ends it if it is the stream of this owner epoch (an opening one remembers).
    pub(crate) fn end_if_owner(self: &Arc<Self>, owner_epoch: u64, reason: EndReason) -> Option<Ended> {
        let mut state = self.state.lock();
        if state.phase == Phase::Opening {
            state.early_end = Some((owner_epoch, reason));
            return None;
        }
        if state.owner_epoch != owner_epoch {
            return None;
        }
        self.finish(state, reason, reason.drops_queue())
    }

    /// Wakes whoever reads; the lock is given up first.
    fn announce(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let something = !state.queue.is_empty() || state.end.is_some();
        if !something {
            return;
        }
        match &self.reader {
            Reader::Task => {
                let wakers = std::mem::take(&mut state.wakers);
                drop(state);
                wakers.into_iter().for_each(Waker::wake);
            }
            Reader::Mailbox(mailbox, _) => {
                let wakers = if state.end.is_some() { std::mem::take(&mut state.wakers) } else { Vec::new() };
                let add = !state.ready && (!state.paused || state.end.is_some());
                state.ready |= add;
                drop(state);
                if add {
                    mailbox.add(self.clone());
                }
                wakers.into_iter().for_each(Waker::wake);
            }
        }
    }

    fn read(&self, state: &mut State) -> Option<Event> {
        if state.frozen {
            return None;
        }
        let item = state.queue.pop()?;
        state.read = item.at;
        Some(Event::new(item.payload, item.kind, item.at, self.key))
    }

    pub(crate) fn try_next(&self) -> Option<Event> {
        let mut state = self.state.lock();
        self.read(&mut state)
    }

    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.state.lock();
        if let Some(event) = self.read(&mut state) {
            return Poll::Ready(Some(event));
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        // A frozen stream is woken by its end or its thaw.
        remember(&mut state.wakers, cx.waker());
        Poll::Pending
    }

    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let mut state = self.state.lock();
        match state.end {
            Some(reason) => Poll::Ready(reason),
            None => {
                remember(&mut state.wakers, cx.waker());
                Poll::Pending
            }
        }
    }

    /// Stops or starts handing over events through the mailbox; the queue stays bounded meanwhile.
    pub(crate) fn set_paused(self: &Arc<Self>, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        if !paused {
            self.announce(state);
        }
    }

    pub(crate) fn gap(&self) -> bool {
        self.state.lock().gap
    }

    pub(crate) fn ended(&self) -> Option<EndReason> {
        self.state.lock().end
    }

    /// The cursor after the last event read.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor::encode(self.state.lock().read, self.key)
    }

    /// Stops reading, and says what its reader got: the next stream of this node starts there.
    pub(crate) fn freeze(&self) -> Option<Positions> {
        let mut state = self.state.lock();
        if state.phase == Phase::Opening || state.end.is_some() {
            return None;
        }
        state.frozen = true;
        Some(state.read)
    }

    /// Reading goes on: nobody took over after all.
    pub(crate) fn thaw(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.frozen = false;
        self.announce(state);
    }
}

impl Drain for LocalStream {
    fn drain(self: Arc<Self>, budget: usize, take: &mut dyn FnMut(u32, MailItem)) -> usize {
        let Reader::Mailbox(mailbox, token) = &self.reader else { return 0 };
        let mut taken = 0;
        let mut state = self.state.lock();
        state.ready = false;
        while taken < budget && !state.paused {
            let Some(event) = self.read(&mut state) else { break };
            take(*token, MailItem::Event(event));
            taken += 1;
        }
        let tell_end = state.end.filter(|reason| {
            // A paused reader is told at once what it will not get over by waiting.
            !state.end_told && (state.queue.is_empty() || (state.paused && *reason != EndReason::Closed))
        });
        if let Some(reason) = tell_end {
            state.end_told = true;
            take(*token, MailItem::End(reason));
            taken += 1;
        } else if !state.queue.is_empty() && !state.paused {
            state.ready = true;
            drop(state);
            mailbox.add(self.clone());
        }
        taken
    }
}

fn remember(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}
