//! What a node does for the registry by itself: it sweeps, finishes closings, and finds out what it
//! missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::try_join3;
use tokio::sync::oneshot;

use super::closings::Locals;
use super::owner::agree_on_key;
use super::record::SessionState;
use super::requests::{Requests, report};
use crate::backend::{CloseStart, Reason, Touch};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;
use crate::session::SessionId;
use crate::streams::hub::Hub;
use crate::sync::Mutex;

const OPERATION: &str = "registry.close";
/// Records read at once.
const READ_BATCH: usize = 256;

/// What the hub keeps for the registry.
#[derive(Default)]
pub(crate) struct LocalRegistry {
    pub(super) owner_key: Mutex<Option<[u8; 32]>>,
    pub(super) requests: Requests,
    pub(super) locals: Locals,
    /// This node takes no more sessions and requests.
    pub(super) draining: AtomicBool,
    /// A sweep is due then, on the engine's clock; 0 before the first upkeep.
    next_sweep_ms: AtomicU64,
}

impl LocalRegistry {
    pub(crate) fn closing(&self, session: &SessionId, reason: &Reason) {
        self.locals.closing(session, reason);
    }

    /// No more closings will come.
    pub(crate) fn end(&self) {
        self.locals.end();
    }
}

/// Run with the hub's upkeep.
pub(crate) async fn upkeep(hub: &Arc<Hub>) {
    if hub.registry.requests.repeat(false) {
        report(hub);
    }
    let (now_ms, every_ms) = (hub.runtime.now_ms(), hub.options.registry.sweep_ms);
    let next = &hub.registry.next_sweep_ms;
    match next.load(Ordering::Acquire) {
        0 => next.store(now_ms + every_ms, Ordering::Release),
        due if due <= now_ms => {
            next.store(now_ms + every_ms, Ordering::Release);
            sweep_apart(hub).await;
        }
        _ => {}
    }
}

/// A sweep takes as long as it takes; the lease does not wait for it.
async fn sweep_apart(hub: &Arc<Hub>) {
    let own = hub.clone();
    let work = async move {
        if let Err(error) = sweep(&own).await {
            tracing::debug!(%error, "stale sessions could not be swept; the next node or turn goes on");
        }
    };
    match hub.capability.immediate {
        true => work.await,
        false => hub.runtime.spawn(Box::pin(work)),
    }
}

/// Closes what is stale and finishes what was left; how many were stale.
pub(super) async fn sweep(hub: &Arc<Hub>) -> Result<u64> {
    agree_on_key(hub).await?;
    let mut closed = 0;
    loop {
        if hub.is_closed() || hub.is_cut() {
            return Ok(closed);
        }
        let swept = hub.run("registry.sweep", hub.backend.registry_sweep()).await?;
        closed += swept.stale.len() as u64;
        for session in swept.stale.iter().chain(&swept.unfinished) {
            finish(hub, session).await?;
        }
        if !swept.more {
            return Ok(closed);
        }
    }
}

/// Closes a session to the end, also when whoever asked goes away.
pub(super) async fn close(hub: &Arc<Hub>, session: &SessionId, reason: &Reason) -> Result<bool> {
    hub.check_open(OPERATION)?;
    let (hub, session, reason) = (hub.clone(), session.clone(), reason.clone());
    apart(&hub.clone(), async move {
        let start = hub.run(OPERATION, hub.backend.registry_close(&session, &reason)).await?;
        if start != CloseStart::Gone {
            // What somebody else began is finished here, too: it is gone when this returns.
            finish(&hub, &session).await.map_err(Error::with_unknown_outcome)?;
        }
        Ok(start == CloseStart::Begun)
    })
    .await
}

async fn apart<T: Send + 'static>(
    hub: &Arc<Hub>,
    work: impl Future<Output = Result<T>> + crate::runtime::MaybeSend + 'static,
) -> Result<T> {
    if hub.capability.immediate {
        return work.await;
    }
    let (done, outcome) = oneshot::channel();
    hub.runtime.spawn(Box::pin(async move {
        let _ = done.send(work.await);
    }));
    outcome.await.unwrap_or_else(|_| Err(Error::closed(OPERATION)))
}

/// Ends the stream, removes everything of the session, then leaves a tombstone. Doing it twice is fine.
async fn finish(hub: &Hub, session: &SessionId) -> Result<()> {
    let stream = hub.run(OPERATION, hub.backend.forget(session));
    let writing = hub.info_cache.write(session);
    let info = hub.run(OPERATION, hub.backend.forget_info(session));
    try_join3(stream, info, crate::events::forget_scope(hub, session)).await?;
    drop(writing);
    hub.run(OPERATION, hub.backend.registry_bury(session)).await
}

/// Signals may have been missed: what closed meanwhile is told now. The backend may have lost what it
/// was told of requests, too.
pub(crate) fn recheck(hub: &Arc<Hub>) -> BoxFuture<'static, ()> {
    let hub = hub.clone();
    Box::pin(async move {
        if hub.registry.requests.repeat(true) {
            report(&hub);
        }
        for sessions in hub.registry.locals.all().chunks(READ_BATCH) {
            let read = hub.until_answered(|| hub.backend.registry_read(sessions, Touch::No)).await;
            let Some(records) = read else { return };
            for (session, record) in sessions.iter().zip(records) {
                match record {
                    Some(record) if record.state == SessionState::Active => {}
                    Some(record) => {
                        let reason = record.reason.unwrap_or_else(|| "closed".into());
                        hub.registry.closing(session, &reason);
                    }
                    None => hub.registry.closing(session, &"lost".into()),
                }
            }
        }
    })
}

/// Takes no more requests, and waits for those under way; how many are left.
pub(super) async fn drain(hub: &Arc<Hub>, deadline: std::time::Duration) -> u64 {
    hub.registry.draining.store(true, Ordering::Release);
    hub.registry.requests.drained(hub, deadline).await;
    hub.registry.requests.total()
}

/// Reads one record, and its info.
pub(super) async fn read_with_info(
    hub: &Arc<Hub>,
    mut record: super::SessionRecord,
) -> Result<super::SessionRecord> {
    record.info = crate::info::InfoManager::new(hub.clone()).get(&record.id).await?;
    Ok(record)
}
