//! A node's place in a topic's log: order and gap repair once a node, not once a stream.

use crate::backend::TopicTail;
use crate::streams::event::{Payload, Position};
use crate::sync::Mutex;

/// Events kept while a gap is read; those beyond are read from the log, too.
const MAX_HELD: usize = 1_024;

/// Follows one topic.
pub(crate) struct TopicFeed(Mutex<State>);

struct State {
    last: Position,
    repairing: bool,
    held: Vec<(Position, Payload)>,
}

impl TopicFeed {
    pub(crate) fn new() -> Self {
        TopicFeed(Mutex::new(State { last: Position::default(), repairing: false, held: Vec::new() }))
    }

    /// Starts over at a head, as at joining.
    pub(crate) fn start(&self, head: Position) {
        *self.0.lock() = State { last: head, repairing: false, held: Vec::new() };
    }

    /// Takes a live event and delivers what is in order. Returns where to read from if one is missing.
    pub(crate) fn take(
        &self,
        position: Position,
        payload: Payload,
        mut deliver: impl FnMut(Position, &Payload),
    ) -> Option<Position> {
        // Delivered under the lock: this is what keeps the order of broadcasts.
        let mut state = self.0.lock();
        step(&mut state, position, payload, &mut deliver)
    }

    /// The topic's head is here, or unknown. Returns where to read from if this node is behind.
    pub(crate) fn behind(&self, head: Option<Position>) -> Option<Position> {
        let mut state = self.0.lock();
        if state.repairing
            || head.is_some_and(|head| head.epoch == state.last.epoch && head.offset <= state.last.offset)
        {
            return None;
        }
        state.repairing = true;
        Some(state.last)
    }

    /// Delivers what was read, then what was held. A gap shows to each stream in its own offsets.
    pub(crate) fn repaired(
        &self,
        tail: TopicTail,
        mut deliver: impl FnMut(Position, &Payload),
    ) -> Option<Position> {
        let mut state = self.0.lock();
        state.repairing = false;
        state.last = tail.start;
        for entry in tail.entries {
            state.last.offset = entry.offset;
            deliver(state.last, &entry.payload);
        }
        for (position, payload) in std::mem::take(&mut state.held) {
            if let Some(after) = step(&mut state, position, payload, &mut deliver) {
                return Some(after);
            }
        }
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
    if state.held.len() < MAX_HELD {
        state.held.push((position, payload));
    }
    if state.repairing {
        return None;
    }
    state.repairing = true;
    Some(state.last)
}
