//! The registry: a session's life, from its creation to its tombstone, on every node.

mod closings;
mod life;
mod manager;
mod owner;
mod record;
mod requests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use closings::{Closing, Closings};
pub use manager::{SessionRegistry, ShutdownReport};
pub use owner::{Caller, OwnerHash};
pub use record::{PageRequest, SessionFilter, SessionPage, SessionRecord, SessionState};
pub use requests::RequestGuard;

pub(crate) use life::{LocalRegistry, recheck, upkeep};
