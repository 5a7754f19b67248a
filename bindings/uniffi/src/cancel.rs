//! Ending a wait by a handle, for languages whose tasks can't cancel a call across the border.

use std::future::{Future, pending};
use std::sync::Arc;

use tokio::sync::watch;

/// Ends waits from outside. A coroutine of Kotlin that is cancelled cancels its call by itself; a task of
/// Swift does not: its sequences cancel with one of these.
#[derive(uniffi::Object)]
pub struct Cancellation {
    cancelled: watch::Sender<bool>,
}

#[uniffi::export]
impl Cancellation {
    /// One that nobody has cancelled.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::new(Cancellation { cancelled: watch::channel(false).0 })
    }

    /// Every call that waits with this comes back empty-handed, and so does every later one. What it waited
    /// for is not lost: the next call without this gets it.
    pub fn cancel(&self) {
        self.cancelled.send_replace(true);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }
}

/// What `work` comes to, or nothing once it is cancelled; `work` must lose nothing when it is dropped.
pub(crate) async fn unless<T>(
    cancelled: Option<Arc<Cancellation>>,
    work: impl Future<Output = Option<T>>,
) -> Option<T> {
    let said = async {
        match cancelled {
            // The sender is this one's own, so it can't be gone.
            Some(cancellation) => drop(cancellation.cancelled.subscribe().wait_for(|is| *is).await),
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = said => None,
        done = work => done,
    }
}
