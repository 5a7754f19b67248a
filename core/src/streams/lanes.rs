//! A node's place in the broadcasts of each lane.

use std::sync::{Arc, OnceLock};

use crate::backend::Lane;
use crate::streams::gate::{Gate, Lease};
use crate::streams::topic::TopicFeed;

/// The broadcasts of one lane: how far this node is, and what its streams ask.
pub(crate) struct Broadcasts {
    pub(crate) gate: Arc<Gate>,
    pub(crate) feed: TopicFeed,
}

impl Broadcasts {
    fn new(lease: &Arc<Lease>, lane: Lane, history: bool) -> Self {
        let gate = Arc::new(Gate::new(lease.clone(), lane, history));
        Broadcasts { feed: TopicFeed::new(Some(gate.clone())), gate }
    }
}

/// The lanes of a backend. How many there are is known once it has been joined.
pub(crate) struct Lanes {
    lease: Arc<Lease>,
    history: bool,
    first: Broadcasts,
    others: OnceLock<Box<[Broadcasts]>>,
}

impl Lanes {
    pub(crate) fn new(lease: Arc<Lease>, history: bool) -> Self {
        let first = Broadcasts::new(&lease, Lane::default(), history);
        Lanes { lease, history, first, others: OnceLock::new() }
    }

    /// A lane of a backend with so many; `None` when it has no such lane.
    pub(crate) fn get(&self, lane: Lane, count: impl FnOnce() -> usize) -> Option<&Broadcasts> {
        match usize::from(lane.0).checked_sub(1) {
            None => Some(&self.first),
            Some(at) => self.others.get_or_init(|| self.make_others(count())).get(at),
        }
    }

    fn make_others(&self, count: usize) -> Box<[Broadcasts]> {
        let others = (0..=u8::MAX).take(count).skip(1);
        others.map(|lane| Broadcasts::new(&self.lease, Lane(lane), self.history)).collect()
    }

    /// Those that are in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Broadcasts> {
        std::iter::once(&self.first).chain(self.others.get().into_iter().flatten())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::runtime::SharedManualClock;

    #[test]
    fn there_are_as_many_as_the_backend_says() {
        let lanes = Lanes::new(Arc::new(Lease::new(Arc::new(SharedManualClock::default()))), true);
        assert_eq!(lanes.iter().count(), 1);
        assert_eq!(lanes.get(Lane(0), || panic!("the first is always there")).unwrap().gate.lane(), Lane(0));
        assert_eq!(lanes.get(Lane(2), || 3).unwrap().gate.lane(), Lane(2));
        assert!(lanes.get(Lane(3), || 4).is_none());
        assert_eq!(lanes.iter().map(|it| it.gate.lane().0).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
