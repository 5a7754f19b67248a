//! A backend whose operations wait through an outage (G9), up to a time, before they fail.
//!
//! Only what is sure not to have happened is tried again. One batch of events is under way at a time, so
//! that those that wait stay in order (G1). What keeps the node itself alive, and what asks how the
//! backend is, does not wait.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::runtime::Runtime;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A backend, and how long its operations wait for it to come back.
pub(crate) struct Waiting {
    inner: Arc<dyn DynBackend>,
    runtime: Runtime,
    wait_ms: u64,
}

fn may_wait(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.retryable() && !error.outcome_unknown()
}

impl Waiting {
    pub(crate) fn new(inner: Arc<dyn DynBackend>, runtime: Runtime, wait_ms: u64) -> Self {
        Waiting { inner, runtime, wait_ms }
    }

    /// Waits for another try; false once the time is up.
    async fn pause(&self, until_ms: u64) -> bool {
        if self.runtime.now_ms() >= until_ms {
            return false;
        }
        self.runtime.sleep(PAUSE).await;
        true
    }

    async fn insist<'a, T>(&'a self, ask: impl Fn() -> BoxFuture<'a, Result<T>> + MaybeSend) -> Result<T> {
        let until_ms = self.runtime.now_ms() + self.wait_ms;
        loop {
            match ask().await {
                Err(error) if may_wait(&error) && self.pause(until_ms).await => {}
                answer => return answer,
            }
        }
    }
}

macro_rules! at_once {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(async fn $name(&self, $($arg: $ty),*) -> Result<$out> {
            self.inner.$name($($arg),*).await
        })*
    };
}

macro_rules! waiting {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(async fn $name(&self, $($arg: $ty),*) -> Result<$out> {
            self.insist(|| self.inner.$name($(Clone::clone(&$arg)),*)).await
        })*
    };
}

impl Backend for Waiting {
    fn capability(&self) -> Capability {
        Capability { pipelined: false, ..self.inner.capability() }
    }

    fn lanes(&self) -> usize {
        self.inner.lanes()
    }

    fn lane(&self, session: &SessionId) -> Lane {
        self.inner.lane(session)
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        let until_ms = self.runtime.now_ms() + self.wait_ms;
        let mut outcomes = self.inner.accept(batch).await;
        loop {
            let left: Vec<usize> = (0..outcomes.len().min(batch.len()))
                .filter(|n| outcomes[*n].as_ref().is_err_and(may_wait))
                .collect();
            if left.is_empty() || !self.pause(until_ms).await {
                return outcomes;
            }
            let again: Vec<_> = left.iter().map(|n| batch[*n].clone()).collect();
            for (n, outcome) in left.into_iter().zip(self.inner.accept(&again).await) {
                outcomes[n] = outcome;
            }
        }
    }

    async fn registry_report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        self.inner.registry_report(node, reports).await
    }

    at_once! {
        join(node: &NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Joined;
        renew(node: &NodeId) -> Renewal;
        leave(node: &NodeId) -> ();
        reclaim(node: &NodeId, held: &[Reclaim]) -> Vec<Option<Tail>>;
        release(releases: &[Release]) -> ();
        read_held(node: &NodeId, held: &Reclaim) -> Option<Tail>;
        read_topic(topic: Topic, lane: Lane, after: Position) -> TopicTail;
        held(node: &NodeId, session: &SessionId) -> Option<Release>;
        sweep() -> bool;
        caught_up() -> ();
        ping() -> ();
        registry_sweep() -> Swept;
    }

    waiting! {
        claim(claim: Claim) -> Claimed;
        read(session: &SessionId, after: Positions) -> Tail;
        holder(session: &SessionId) -> Option<NodeId>;
        known(session: &SessionId) -> bool;
        end(session: &SessionId, reason: EndReason) -> bool;
        forget(session: &SessionId) -> bool;
        info(session: &SessionId) -> Option<Arc<SessionInfo>>;
        put_info(session: &SessionId, patch: InfoPatch) -> ();
        forget_info(session: &SessionId) -> bool;
        subscribe(session: &SessionId, uri: &str, max: usize) -> bool;
        unsubscribe(session: &SessionId, uri: &str) -> bool;
        subscribers(uri: &str) -> Vec<SessionId>;
        subscriptions(session: &SessionId) -> Vec<String>;
        registry_key(candidate: [u8; 32]) -> [u8; 32];
        registry_create(session: &SessionId, new: NewSession) -> bool;
        registry_read(sessions: &[SessionId], touch: Touch) -> Vec<Option<SessionRecord>>;
        registry_adopt(session: &SessionId, node: &NodeId) -> bool;
        registry_close(session: &SessionId, reason: &str) -> CloseStart;
        registry_bury(session: &SessionId) -> ();
        registry_owned(owner: &OwnerHash) -> Vec<SessionId>;
        registry_list(query: ListQuery) -> Listed;
        registry_stats() -> RegistryStats;
        append(event: Append) -> Position;
        logs(scope: &SessionId) -> Vec<SessionId>;
        forget_logs(scope: &SessionId, logs: &[SessionId]) -> ();
    }
}
