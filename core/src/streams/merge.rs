//! The order of replay: a session's log and the broadcast log, merged by order of acceptance (G1).

use crate::backend::Tail;
use crate::streams::event::EventKind;
use crate::streams::queue::Queued;

/// Merges what both logs hold after `tail.start`. Each event of the session notes the broadcast it
/// came after; a broadcast stands before the first event that notes it.
pub(crate) fn merge(tail: Tail) -> Vec<Queued> {
    let mut merged = Vec::with_capacity(tail.own.len() + tail.broadcasts.len());
    let mut at = tail.start;
    let epoch = at.broadcast.epoch;
    let mut broadcasts = tail.broadcasts.into_iter().peekable();
    for entry in tail.own {
        let seen = entry.after_broadcast;
        while let Some(next) = broadcasts.next_if(|b| seen.epoch == epoch && b.offset <= seen.offset) {
            at.broadcast.offset = next.offset;
            merged.push(Queued { payload: next.payload, kind: EventKind::Broadcast, at });
        }
        at.session.offset = entry.offset;
        merged.push(Queued { payload: entry.payload, kind: EventKind::Directed, at });
    }
    for rest in broadcasts {
        at.broadcast.offset = rest.offset;
        merged.push(Queued { payload: rest.payload, kind: EventKind::Broadcast, at });
    }
    merged
}
