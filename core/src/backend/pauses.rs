//! The pauses between tries to reach a server again.

use std::time::Duration;

use futures_util::future::select;
use tokio::sync::Notify;

use crate::runtime::{Runtime, random};

const SHORTEST: Duration = Duration::from_millis(20);
/// Within 2 s of a server's return its nodes are back (G9), with room for the rest.
const LONGEST: Duration = Duration::from_millis(400);

/// Each about twice as long as the one before.
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Pauses(SHORTEST)
    }

    /// Waits for the next pause to pass, or to be woken.
    pub(super) async fn wait(&mut self, runtime: &Runtime, wake: &Notify) {
        // So that a fleet does not come back in step.
        let [dice] = random::<1>();
        let jittered = self.0.mul_f64(0.5 + f64::from(dice) / 512.0);
        select(Box::pin(wake.notified()), runtime.sleep(jittered)).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
