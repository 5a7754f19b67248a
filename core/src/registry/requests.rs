//! The requests this node serves. The backend is told how many there are, not of each change; what
//! changed while it was being told leaves as one batch.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select;
use tokio::sync::{Notify, oneshot};

use crate::backend::ActiveRequests;
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionId;
use crate::streams::hub::Hub;
use crate::sync::Mutex;

const OPERATION: &str = "registry.begin_request";
/// The most sessions in one report.
const MAX_BATCH: usize = 1_024;

type Answer = oneshot::Sender<Result<bool>>;

#[derive(Default)]
pub(super) struct Requests {
    state: Mutex<State>,
    /// A request ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    counts: HashMap<SessionId, u32>,
    /// What the backend does not know yet, and who waits until it does.
    changed: HashMap<SessionId, Vec<Answer>>,
    /// What it could not be told.
    failed: Vec<SessionId>,
    running: bool,
}

impl State {
    fn count(&self, session: &SessionId) -> u32 {
        self.counts.get(session).copied().unwrap_or(0)
    }
}

impl Requests {
    /// How many run now, of all sessions.
    pub(super) fn total(&self) -> u64 {
        self.state.lock().counts.values().map(|count| u64::from(*count)).sum()
    }

    /// Waits until none runs, or the time is over.
    pub(super) async fn drained(&self, hub: &Hub, deadline: Duration) {
        let mut over = hub.runtime.sleep(deadline);
        while self.total() > 0 {
            let ended = self.ended.notified();
            if self.total() == 0 {
                return;
            }
            if let futures_util::future::Either::Right(_) = select(Box::pin(ended), &mut over).await {
                return;
            }
        }
    }

    fn add(&self, session: &SessionId) -> oneshot::Receiver<Result<bool>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state.lock();
        *state.counts.entry(session.clone()).or_default() += 1;
        state.changed.entry(session.clone()).or_default().push(answer);
        answered
    }

    fn remove(&self, session: &SessionId, answer: Option<Answer>) {
        let mut state = self.state.lock();
        if let Some(count) = state.counts.get_mut(session) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(session);
            }
        }
        state.changed.entry(session.clone()).or_default().extend(answer);
        drop(state);
        self.ended.notify_waiters();
    }

    /// Has the backend told again what it may have forgotten, or could not be told.
    pub(super) fn repeat(&self, all: bool) -> bool {
        let mut state = self.state.lock();
        let mut again = std::mem::take(&mut state.failed);
        if all {
            again.extend(state.counts.keys().cloned());
        }
        for session in again {
            state.changed.entry(session).or_default();
        }
        !state.changed.is_empty()
    }

    fn next_batch(&self) -> Vec<(ActiveRequests, Vec<Answer>)> {
        let mut state = self.state.lock();
        let sessions: Vec<_> = state.changed.keys().take(MAX_BATCH).cloned().collect();
        state.running = !sessions.is_empty();
        sessions
            .into_iter()
            .map(|session| {
                let answers = state.changed.remove(&session).unwrap_or_default();
                (ActiveRequests { count: state.count(&session), session }, answers)
            })
            .collect()
    }
}

/// Tells the backend what changed, unless that is under way.
pub(super) fn report(hub: &Arc<Hub>) {
    if std::mem::replace(&mut hub.registry.requests.state.lock().running, true) {
        return;
    }
    let report = run(hub.clone());
    match hub.capability.immediate {
        true => drop(report.now_or_never()),
        false => hub.runtime.spawn(Box::pin(report)),
    }
}

async fn run(hub: Arc<Hub>) {
    let requests = &hub.registry.requests;
    loop {
        let (reports, answers): (Vec<_>, Vec<_>) = requests.next_batch().into_iter().unzip();
        if reports.is_empty() {
            return;
        }
        let tell = async { Ok(hub.backend.registry_report(&hub.node, &reports).await) };
        let told = hub.run(OPERATION, Box::pin(tell)).await;
        let failure = told.as_ref().err().map(Error::duplicate);
        let mut outcomes = told.unwrap_or_default().into_iter();
        for (report, answers) in reports.into_iter().zip(answers) {
            let outcome = outcomes.next().unwrap_or_else(|| Err(missing(failure.as_ref())));
            if outcome.is_err() {
                requests.state.lock().failed.push(report.session);
            }
            for answer in answers {
                // Who went away does not need it.
                let _ = answer.send(outcome.as_ref().copied().map_err(Error::duplicate));
            }
        }
    }
}

fn missing(failure: Option<&Error>) -> Error {
    failure.map_or_else(
        || Error::new(ErrorKind::Corrupt, OPERATION, "the backend gave no answer for this session"),
        Error::duplicate,
    )
}

pub(super) async fn begin(hub: &Arc<Hub>, session: &SessionId) -> Result<RequestGuard> {
    hub.check_open(OPERATION)?;
    let answered = hub.registry.requests.add(session);
    // From here on, going away ends it.
    let guard = RequestGuard { hub: hub.clone(), session: session.clone(), ended: false };
    report(hub);
    match answered.await {
        Ok(Ok(true)) => Ok(guard),
        Ok(Ok(false)) => Err(Error::new(
            ErrorKind::NotFound,
            OPERATION,
            format!("session {session} is not registered, or has been closed; answer 404"),
        )),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::closed(OPERATION)),
    }
}

/// A request under way; its session is not stale until it ends. Dropping the guard ends it.
#[must_use = "dropping the guard ends the request"]
pub struct RequestGuard {
    hub: Arc<Hub>,
    session: SessionId,
    ended: bool,
}

impl RequestGuard {
    /// The session it belongs to.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// Ends the request; resolves when the other nodes can know. Dropping the guard needs no waiting.
    ///
    /// Fails as the backend does; the request has ended all the same, and the backend is told later.
    pub async fn end(mut self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.finish(Some(answer));
        answered.await.unwrap_or_else(|_| Err(Error::closed("registry.end_request"))).map(drop)
    }

    fn finish(&mut self, answer: Option<Answer>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.hub.registry.requests.remove(&self.session, answer);
            report(&self.hub);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.finish(None);
    }
}

impl fmt::Debug for RequestGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestGuard").field("session", &self.session).finish_non_exhaustive()
    }
}
