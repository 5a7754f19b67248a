//! One stream held by this node: its order, its queue, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crate::backend::{Lane, Tail};
use crate::options::QueueLimits;
use crate::session::SessionId;
use crate::streams::cursor::{Cursor, CursorKey};
use crate::streams::event::{EndReason, Event, EventKind, Payload, Position, Positions};
use crate::streams::gate::Gate;
use crate::streams::mailbox::{Drain, MailItem, Mailbox};
use crate::streams::queue::{Queue, Queued};
use crate::sync::{Mutex, MutexGuard};
use crate::wakers::{Waited, Wakers};

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
    /// Read the log after these positions, then call [`LocalStream::repaired`] with them.
    Repair(Positions),
    /// Wait until the broadcasts are read, then read the log after [`LocalStream::waits_after`].
    Wait,
    /// Reclaim the session, as [`LocalStream::doubted`] says how.
    Reclaim,
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

/// What a stream in doubt needs to be reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubted {
    pub(crate) owner_epoch: u64,
    /// What is queued or read.
    pub(crate) last: Positions,
    /// Which doubt it is: a later one is not settled by an earlier answer.
    doubt: u64,
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
    /// There was no room to hold something: the log has it.
    missed: bool,
    /// Counts doubts; nothing more is queued until the last one is settled.
    doubts: u64,
    doubtful: bool,
    /// Another node may have the session: not even what is queued is read until it is reclaimed.
    suspended: bool,
    /// An end that arrived while opening: it counts if it is for the epoch we were about to get.
    early_end: Option<(u64, EndReason)>,
    wakers: Wakers,
    /// In the mailbox's ready list.
    ready: bool,
    paused: bool,
    /// A newer stream is about to take over from what was read so far.
    frozen: bool,
}

/// A stream of this node.
pub(crate) struct LocalStream {
    /// Which one of this process it is.
    number: u64,
    session: SessionId,
    key: CursorKey,
    /// A log of its own, not a session's stream: broadcasts are none of its events.
    own_only: bool,
    limits: QueueLimits,
    gate: Arc<Gate>,
    reader: Reader,
    state: Mutex<State>,
}

impl LocalStream {
    pub(crate) fn new(session: SessionId, limits: QueueLimits, gate: Arc<Gate>, reader: Reader) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(LocalStream {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            key: CursorKey::of(&session),
            own_only: session.as_log().is_some(),
            session,
            limits,
            gate,
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
                missed: false,
                doubts: 0,
                doubtful: false,
                suspended: false,
                early_end: None,
                wakers: Wakers::default(),
                ready: false,
                paused: false,
                frozen: false,
            }),
        })
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Whether what was read after these positions lacks something of this stream.
    pub(crate) fn lacks(&self, tail: &Tail, asked: Positions) -> bool {
        if self.own_only { tail.lost_own(asked) } else { tail.gap }
    }

    /// Of its claim; 0 while it opens.
    pub(crate) fn owner_epoch(&self) -> u64 {
        self.state.lock().owner_epoch
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whose broadcasts are its events.
    pub(crate) fn lane(&self) -> Lane {
        self.gate.lane()
    }

    /// Whether broadcasts of its lane are being read.
    pub(crate) fn is_behind(&self) -> bool {
        self.gate.is_behind()
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
        state.read = start;
        if let Some((epoch, reason)) = state.early_end.take()
            && epoch >= owner_epoch
        {
            return Outcome::End(reason);
        }
        self.replay(state, start, replay)
    }

    /// The log was read after the positions of an [`Outcome::Repair`].
    pub(crate) fn repaired(
        self: &Arc<Self>,
        after: Positions,
        start: Positions,
        gap: bool,
        replay: Vec<Queued>,
    ) -> Outcome {
        let state = self.state.lock();
        // What was reclaimed meanwhile has all of this already.
        if state.end.is_some() || state.phase != Phase::Repairing || state.last != after {
            return Outcome::Fine;
        }
        if gap {
            return Outcome::End(EndReason::Gap);
        }
        self.replay(state, start, replay)
    }

    /// The logs may go on in other epochs: then `start` is what this stream had, in those.
    fn replay(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        start: Positions,
        replay: Vec<Queued>,
    ) -> Outcome {
        state.phase = Phase::Live;
        state.last = start;
        for item in replay {
            state.last = item.at;
            if self.own_only && item.kind == EventKind::Broadcast {
                continue;
            }
            state.queue.push_replayed(item);
        }
        let outcome = if state.doubtful { Outcome::Reclaim } else { self.take_held(&mut state) };
        self.announce(state);
        outcome
    }

    fn take_held(&self, state: &mut State) -> Outcome {
        let missed = std::mem::take(&mut state.missed);
        for incoming in std::mem::take(&mut state.held) {
            let outcome = self.take(state, incoming);
            if outcome != Outcome::Fine {
                return outcome;
            }
        }
        if !missed || state.phase != Phase::Live || state.doubtful {
            return Outcome::Fine;
        }
        state.phase = Phase::Repairing;
        Outcome::Repair(state.last)
    }

    /// A live event for this stream.
    pub(crate) fn offer(self: &Arc<Self>, incoming: Incoming) -> Outcome {
        let mut state = self.state.lock();
        let outcome = self.take(&mut state, incoming);
        self.announce(state);
        outcome
    }

    fn take(&self, state: &mut State, incoming: Incoming) -> Outcome {
        if state.end.is_some() || (self.own_only && incoming.kind == EventKind::Broadcast) {
            return Outcome::Fine;
        }
        if state.phase != Phase::Live || state.doubtful {
            // What there is no room for is read from the log, and what would overtake a broadcast.
            let overtakes = incoming.kind == EventKind::Directed && self.gate.is_read_later();
            match !overtakes && state.held.len() < MAX_HELD {
                true => state.held.push(incoming),
                false => state.missed = true,
            }
            return Outcome::Fine;
        }
        if incoming.kind == EventKind::Directed && self.gate.is_behind() {
            state.phase = Phase::Repairing;
            state.held.push(incoming);
            return Outcome::Wait;
        }
        let last = match incoming.kind {
            EventKind::Directed => state.last.session,
            EventKind::Broadcast => state.last.broadcast,
        };
        if incoming.position.epoch != last.epoch {
            // The log goes on in another epoch; what is lost of the last one shows when it is read.
            state.doubts += 1;
            state.doubtful = true;
            return Outcome::Reclaim;
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

    /// What to read after, now that the broadcasts are read.
    pub(crate) fn waits_after(&self) -> Option<Positions> {
        let state = self.state.lock();
        let waits = state.end.is_none() && state.phase == Phase::Repairing;
        waits.then_some(state.last)
    }

    /// Signals may have been missed, the end of this stream among them: it has to be reclaimed. With
    /// `lost`, the node's lease has run out, and another may deliver by now.
    pub(crate) fn doubt(&self, lost: bool) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        state.doubts += 1;
        state.doubtful = true;
        state.suspended |= lost;
    }

    /// The log may be gone although nothing was missed: it is read, and says.
    pub(crate) fn recheck(&self) -> Outcome {
        let mut state = self.state.lock();
        if state.end.is_some() || state.phase != Phase::Live {
            return Outcome::Fine;
        }
        state.phase = Phase::Repairing;
        Outcome::Repair(state.last)
    }

    /// What to reclaim, while there is a doubt. One that opens asks for it once it is open.
    pub(crate) fn doubted(&self) -> Option<Doubted> {
        let state = self.state.lock();
        let open = state.end.is_none() && state.phase != Phase::Opening;
        (open && state.doubtful).then_some(Doubted {
            owner_epoch: state.owner_epoch,
            last: state.last,
            doubt: state.doubts,
        })
    }

    /// The session is still this stream's, and this is what the log has after what was queued.
    pub(crate) fn reclaimed(
        self: &Arc<Self>,
        as_of: Doubted,
        start: Positions,
        gap: bool,
        replay: Vec<Queued>,
    ) -> Outcome {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Outcome::Fine;
        }
        if state.doubts != as_of.doubt || state.last != as_of.last {
            return Outcome::Reclaim;
        }
        state.doubtful = false;
        state.suspended = false;
        if gap {
            return Outcome::End(EndReason::Gap);
        }
        self.replay(state, start, replay)
    }

    /// The lease is valid again: whoever waits for that may read.
    pub(crate) fn wake(self: &Arc<Self>) {
        self.announce(self.state.lock());
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
        if state.end.is_some() || state.doubtful {
            return Outcome::Fine;
        }
        if state.phase != Phase::Live {
            // What is being read may be older than this.
            state.missed = true;
            return Outcome::Fine;
        }
        let other_epoch = session.is_some_and(|p| p.epoch != state.last.session.epoch)
            || broadcast.is_some_and(|p| p.epoch != state.last.broadcast.epoch);
        if other_epoch {
            state.doubts += 1;
            state.doubtful = true;
            return Outcome::Reclaim;
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
        let may_read = !state.suspended && self.gate.is_open();
        state.end = Some(reason);
        state.frozen = false;
        state.held = Vec::new();
        if drop_queue || !may_read {
            state.queue.clear();
            state.last = state.read;
        }
        let ended = Ended { owner_epoch: state.owner_epoch, delivered: state.last };
        self.announce(state);
        Some(ended)
    }

    /// Ends it if it is the stream of this owner epoch (an opening one remembers), or of an older one: a
    /// claim whose answer was lost came in between.
    pub(crate) fn end_if_owner(self: &Arc<Self>, owner_epoch: u64, reason: EndReason) -> Option<Ended> {
        let mut state = self.state.lock();
        if state.phase == Phase::Opening {
            // Ends of older epochs may come later.
            if state.early_end.is_none_or(|(known, _)| known < owner_epoch) {
                state.early_end = Some((owner_epoch, reason));
            }
            return None;
        }
        if state.owner_epoch > owner_epoch {
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
                let wakers = state.wakers.take();
                drop(state);
                wakers.wake();
            }
            Reader::Mailbox(mailbox, token) => {
                let wakers = if state.end.is_some() { state.wakers.take() } else { Wakers::default() };
                let add = !state.ready && (!state.paused || state.end.is_some());
                state.ready |= add;
                drop(state);
                if add {
                    mailbox.add(*token, self.clone());
                }
                wakers.wake();
            }
        }
    }

    fn may_read(&self, state: &State) -> bool {
        // What an end left in the queue was counted as delivered when it came.
        !state.frozen && (state.end.is_some() || (!state.suspended && self.gate.is_open()))
    }

    fn read(&self, state: &mut State) -> Option<Event> {
        // The lease is asked only when there is something it could forbid.
        if state.queue.is_empty() || !self.may_read(state) {
            return None;
        }
        self.pop(state)
    }

    fn pop(&self, state: &mut State) -> Option<Event> {
        let item = state.queue.pop()?;
        state.read = item.at;
        Some(Event::new(item.payload, item.kind, item.at, self.key))
    }

    /// The place behind which it reads the session's events, unless some wait already.
    pub(crate) fn idle_at(&self) -> Option<Position> {
        let state = self.state.lock();
        state.queue.is_empty().then_some(state.read.session)
    }

    pub(crate) fn try_next(&self) -> Option<Event> {
        let mut state = self.state.lock();
        self.read(&mut state)
    }

    /// `place` is where the caller waits, if it has to.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>, place: &mut Option<u64>) -> Poll<Option<Event>> {
        let mut state = self.state.lock();
        if let Some(event) = self.read(&mut state) {
            return Poll::Ready(Some(event));
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        // One that may not be read now is woken by its end, its thaw, or the lease's return.
        state.wakers.wait(place, cx.waker());
        Poll::Pending
    }

    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>, place: &mut Option<u64>) -> Poll<EndReason> {
        let mut state = self.state.lock();
        match state.end {
            Some(reason) => Poll::Ready(reason),
            None => {
                state.wakers.wait(place, cx.waker());
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

    /// Stops reading, and says what its reader got: the next stream of this node starts there. One that
    /// has ended, and that the backend is about to be told of, says the same.
    pub(crate) fn freeze(&self) -> Option<Positions> {
        let mut state = self.state.lock();
        if let Some(reason) = state.end {
            return (state.owner_epoch > 0 && !reason.is_taken()).then_some(state.last);
        }
        if state.phase == Phase::Opening {
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

impl Waited for LocalStream {
    fn leave(&self, place: u64) {
        self.state.lock().wakers.leave(place);
    }
}

impl Drain for LocalStream {
    fn drain(self: Arc<Self>, budget: usize, take: &mut dyn FnMut(u32, MailItem)) -> usize {
        let Reader::Mailbox(mailbox, token) = &self.reader else { return 0 };
        let mut taken = 0;
        let mut state = self.state.lock();
        state.ready = false;
        let may_read = self.may_read(&state);
        while taken < budget && may_read && !state.paused {
            let Some(event) = self.pop(&mut state) else { break };
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
        } else if may_read && !state.queue.is_empty() && !state.paused {
            state.ready = true;
            drop(state);
            mailbox.add(*token, self.clone());
        }
        taken
    }
}
