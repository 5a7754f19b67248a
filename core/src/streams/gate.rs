//! What every stream of a node asks: may it deliver now, and must it wait (G1, G6, G9)?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::backend::Lane;
use crate::runtime::Clock;

/// A node's lease as this node measures it: from before each renewal was sent, so that it ends here
/// no later than in the backend. While it lasts this node may deliver.
pub(crate) struct Lease {
    clock: Arc<dyn Clock>,
    until_ms: AtomicU64,
}

impl Lease {
    /// One that has run out.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Lease { clock, until_ms: AtomicU64::new(0) }
    }

    /// Milliseconds it is good for.
    pub(crate) fn left_ms(&self) -> u64 {
        self.until_ms.load(Ordering::Acquire).saturating_sub(self.clock.now_ms())
    }

    /// Whether it lasts.
    pub(crate) fn is_valid(&self) -> bool {
        self.left_ms() > 0
    }

    /// Lets it go on; false when it had run out before, so that readers wait to be woken.
    pub(crate) fn extend(&self, until_ms: u64) -> bool {
        let before = self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
        before > self.clock.now_ms()
    }

    /// The backend says that it has run out.
    pub(crate) fn revoke(&self) {
        self.until_ms.store(0, Ordering::Release);
    }
}

/// The node's lease, and whether broadcasts of a lane are being read, which a directed event that comes
/// meanwhile must not overtake.
pub(crate) struct Gate {
    lease: Arc<Lease>,
    lane: Lane,
    behind: AtomicBool,
    /// Sessions have logs, from which what a stream left out can be read.
    history: bool,
}

impl Gate {
    pub(crate) fn new(lease: Arc<Lease>, lane: Lane, history: bool) -> Self {
        Gate { lease, lane, behind: AtomicBool::new(false), history }
    }

    /// Whose broadcasts.
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether there is a lease.
    pub(crate) fn is_open(&self) -> bool {
        self.lease.is_valid()
    }

    /// Whether broadcasts are being read.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Whether a directed event that comes now has its place among broadcasts that were not delivered
    /// yet, and can be read from the log with them.
    pub(crate) fn is_read_later(&self) -> bool {
        self.history && self.is_behind()
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }
}
