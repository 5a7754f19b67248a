//! What every stream of a node asks: may it deliver now, and must it wait (G1, G6, G9)?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::runtime::Clock;

/// A node's lease as this node measures it: from before each renewal was sent, so that it ends here
/// no later than in the backend. And whether broadcasts are being read, which a directed event that
/// comes meanwhile must not overtake.
pub(crate) struct Gate {
    clock: Arc<dyn Clock>,
    until_ms: AtomicU64,
    behind: AtomicBool,
    /// Sessions have logs, from which what a stream left out can be read.
    history: bool,
}

impl Gate {
    /// One without a lease.
    pub(crate) fn new(clock: Arc<dyn Clock>, history: bool) -> Self {
        Gate { clock, until_ms: AtomicU64::new(0), behind: AtomicBool::new(false), history }
    }

    /// Milliseconds the lease is good for.
    pub(crate) fn left_ms(&self) -> u64 {
        self.until_ms.load(Ordering::Acquire).saturating_sub(self.clock.now_ms())
    }

    /// Whether there is a lease.
    pub(crate) fn is_open(&self) -> bool {
        self.left_ms() > 0
    }

    /// Lets the lease go on; false when it had run out before, so that readers wait to be woken.
    pub(crate) fn extend(&self, until_ms: u64) -> bool {
        let before = self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
        before > self.clock.now_ms()
    }

    /// The backend says that the lease has run out.
    pub(crate) fn revoke(&self) {
        self.until_ms.store(0, Ordering::Release);
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
