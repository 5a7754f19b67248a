//! A node's place in a topic's log: order and gap repair once a node, not once a stream.

use std::sync::Arc;

use crate::backend::{TopicEntry, TopicTail};
use crate::streams::event::{Payload, Position};
use crate::streams::gate::Gate;
use crate::sync::Mutex;

/// Events kept while a gap is read; those beyond are read from the log, too.
const MAX_HELD: usize = 1_024;

/// Follows one topic.
pub(crate) struct TopicFeed {
    state: Mutex<State>,
    /// Told whether this node is behind; only what has an order among other events has one.
    gate: Option<Arc<Gate>>,
}

struct State {
    last: Position,
    /// The last this node was told of, which it may not have got yet.
    known: Position,
    repairing: bool,
    held: Vec<(Position, Payload)>,
    /// There was no room to hold something, or the log has moved on since it was last asked.
    missed: bool,
}

impl State {
    fn at(last: Position) -> Mutex<Self> {
        Mutex::new(State { last, known: last, repairing: false, held: Vec::new(), missed: false })
    }

    fn told_of(&mut self, head: Position) {
        if head.epoch != self.known.epoch || head.offset > self.known.offset {
            self.known = head;
        }
    }
}

impl TopicFeed {
    pub(crate) fn new(gate: Option<Arc<Gate>>) -> Self {
        TopicFeed { state: State::at(Position::default()), gate }
    }

    /// What the lock holds is what the gate says.
    fn tell(&self, state: &State) {
        if let Some(gate) = &self.gate {
            gate.set_behind(state.repairing);
        }
    }

    /// Starts over at a head, as at joining.
    pub(crate) fn start(&self, head: Position) {
        let mut state = self.state.lock();
        (state.last, state.known) = (head, head);
    }

    /// The last position delivered.
    pub(crate) fn position(&self) -> Position {
        self.state.lock().last
    }

    /// Takes a live event and delivers what is in order. Returns where to read from if one is missing.
    pub(crate) fn take(
        &self,
        position: Position,
        payload: Payload,
        mut deliver: impl FnMut(Position, &Payload),
    ) -> Option<Position> {
        // Delivered under the lock: this is what keeps the order of broadcasts.
        let mut state = self.state.lock();
        state.told_of(position);
        let after = step(&mut state, position, payload, &mut deliver);
        if after.is_some() {
            self.tell(&state);
        }
        after
    }

    /// The topic's head is here. Returns where to read from if this node is behind.
    pub(crate) fn behind(&self, head: Position) -> Option<Position> {
        let mut state = self.state.lock();
        if head.epoch == state.last.epoch && head.offset <= state.last.offset {
            return None;
        }
        state.told_of(head);
        if state.repairing {
            state.missed = true;
            return None;
        }
        state.repairing = true;
        self.tell(&state);
        Some(state.last)
    }

    /// Signals may have been missed: what comes is held until the log was read from here.
    pub(crate) fn doubt(&self) -> Position {
        let mut state = self.state.lock();
        state.repairing = true;
        self.tell(&state);
        state.last
    }

    /// Delivers what was read, then what was held. A gap shows to each stream in its own offsets.
    ///
    /// A log may be ahead of what this node was told. An event with an order among others is not
    /// delivered before its signal has come, or it would overtake a directed event whose signal is
    /// still on its way (G1); streams in doubt read both logs together.
    pub(crate) fn repaired(
        &self,
        tail: TopicTail,
        mut deliver: impl FnMut(Position, &Payload),
    ) -> Option<Position> {
        let mut state = self.state.lock();
        state.repairing = false;
        // Another reading may have come first.
        if tail.start.epoch != state.last.epoch || tail.start.offset > state.last.offset {
            state.last = tail.start;
        }
        let (from, known) = (state.last.offset, state.known);
        let until = match &self.gate {
            None => u64::MAX,
            Some(_) if known.epoch == state.last.epoch => known.offset,
            Some(_) => from,
        };
        let due = |entry: &TopicEntry| entry.offset > from && entry.offset <= until;
        for entry in tail.entries.into_iter().filter(due) {
            state.last.offset = entry.offset;
            deliver(state.last, &entry.payload);
        }
        let missed = std::mem::take(&mut state.missed);
        for (position, payload) in std::mem::take(&mut state.held) {
            if let Some(after) = step(&mut state, position, payload, &mut deliver) {
                return Some(after);
            }
        }
        if missed {
            state.repairing = true;
            return Some(state.last);
        }
        self.tell(&state);
        None
    }
}

fn step(
    state: &mut State,
    position: Position,
    payload: Payload,
    deliver: &mut impl FnMut(Position, &Payload),
) -> Option<Position> {
    let follows = position.epoch == state.last.epoch && position.offset == state.last.offset + 1;
    if !state.repairing && follows {
        state.last = position;
        deliver(position, &payload);
        return None;
    }
    if position.epoch == state.last.epoch && position.offset <= state.last.offset {
        return None;
    }
    match state.held.len() < MAX_HELD {
        true => state.held.push((position, payload)),
        false => state.missed = true,
    }
    if state.repairing {
        return None;
    }
    state.repairing = true;
    Some(state.last)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::backend::Lane;
    use crate::runtime::SharedManualClock;
    use crate::streams::gate::Lease;

    fn at(offset: u64) -> Position {
        Position { epoch: 7, offset }
    }

    fn payload(offset: u64) -> Payload {
        offset.to_string().into()
    }

    fn log(after: u64, head: u64) -> TopicTail {
        let entries = (after + 1..=head).map(|offset| TopicEntry { offset, payload: payload(offset) });
        TopicTail { start: at(after), gap: false, entries: entries.collect() }
    }

    fn feed(ordered: bool) -> (TopicFeed, Arc<Gate>) {
        let lease = Arc::new(Lease::new(Arc::new(SharedManualClock::default())));
        let gate = Arc::new(Gate::new(lease, Lane::default(), true));
        let feed = TopicFeed::new(ordered.then(|| gate.clone()));
        feed.start(at(1));
        (feed, gate)
    }

    fn repaired(feed: &TopicFeed, tail: TopicTail) -> (Vec<u64>, Option<Position>) {
        let mut got = Vec::new();
        let after = feed.repaired(tail, |position, _| got.push(position.offset));
        (got, after)
    }

    #[test]
    fn a_log_that_is_ahead_of_the_signals_is_delivered_as_far_as_they_came() {
        let (feed, gate) = feed(true);
        assert_eq!(feed.take(at(3), payload(3), |_, _| panic!("2 is missing")), Some(at(1)));
        assert!(gate.is_behind());
        assert_eq!(repaired(&feed, log(1, 5)), (vec![2, 3], None), "4 and 5 come with their signals");
        assert!(!gate.is_behind());
        let mut got = Vec::new();
        feed.take(at(4), payload(4), |position, _| got.push(position.offset));
        assert_eq!(got, [4]);
    }

    #[test]
    fn a_doorbell_is_a_signal() {
        let (feed, _) = feed(true);
        assert_eq!(feed.behind(at(3)), Some(at(1)));
        assert_eq!(repaired(&feed, log(1, 4)), (vec![2, 3], None));
    }

    #[test]
    fn what_a_doubt_reads_is_left_to_the_streams_in_doubt() {
        let (feed, gate) = feed(true);
        assert_eq!(feed.doubt(), at(1));
        assert!(gate.is_behind());
        assert_eq!(repaired(&feed, log(1, 3)), (vec![], None));
        assert!(!gate.is_behind());
        // Whoever opened meanwhile may lack what was read.
        assert_eq!(feed.take(at(4), payload(4), |_, _| {}), Some(at(1)));
        assert_eq!(repaired(&feed, log(1, 4)), (vec![2, 3, 4], None));
    }

    #[test]
    fn what_has_no_order_among_others_is_delivered_as_soon_as_it_is_read() {
        let (feed, _) = feed(false);
        feed.doubt();
        assert_eq!(repaired(&feed, log(1, 3)), (vec![2, 3], None));
    }

    #[test]
    fn another_log_is_followed_from_what_was_told_of_it() {
        let (feed, _) = feed(true);
        let other = |offset| Position { epoch: 8, offset };
        assert_eq!(feed.take(other(2), payload(2), |_, _| {}), Some(at(1)));
        let tail = TopicTail { start: other(0), gap: true, ..log(0, 3) };
        assert_eq!(repaired(&feed, tail), (vec![1, 2], None));
        assert_eq!(feed.position(), other(2));
    }
}
