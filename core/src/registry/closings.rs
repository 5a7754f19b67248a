//! What this process holds of sessions, and how it hears that they close.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::sync::Mutex as AsyncMutex;

use crate::backend::Reason;
use crate::session::SessionId;
use crate::sync::Mutex;
use crate::wakers::{Wait, Waited, Wakers};

/// A session of this process that is closing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closing {
    /// The session.
    pub session: SessionId,
    /// Why: what was given to `close`, else `stale`, `shutdown`, or `lost` if its record has gone.
    pub reason: Reason,
}

/// The closings of sessions this node created or adopted, whoever closes them and wherever.
///
/// A server ends its local objects (transport, server, timers) when it reads one. Each receiver gets
/// every closing from its making on, once; they wait for it, at most one a session.
pub struct Closings {
    line: Arc<Line>,
    /// Held by the one that reads; the others wait.
    turn: AsyncMutex<()>,
}

#[derive(Default)]
struct Line(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    closings: VecDeque<Closing>,
    ended: bool,
    wakers: Wakers,
}

impl Line {
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let wakers = {
            let mut waiting = self.0.lock();
            change(&mut waiting);
            waiting.wakers.take()
        };
        wakers.wake();
    }
}

impl Waited for Line {
    fn leave(&self, place: u64) {
        self.0.lock().wakers.leave(place);
    }
}

impl Closings {
    /// The next closing; `None` once the engine is shut down or gone and all were read. Cancel-safe; calls
    /// are served in the order in which they were first polled.
    pub async fn next(&self) -> Option<Closing> {
        let _turn = self.turn.lock().await;
        let mut wait = Wait::on(&*self.line);
        std::future::poll_fn(|cx| self.poll_next(cx, &mut wait.place)).await
    }

    /// The next closing if there is one already, and nobody waits for it.
    pub fn try_next(&self) -> Option<Closing> {
        let _turn = self.turn.try_lock().ok()?;
        self.line.0.lock().closings.pop_front()
    }

    fn poll_next(&self, cx: &mut Context<'_>, place: &mut Option<u64>) -> Poll<Option<Closing>> {
        let mut waiting = self.line.0.lock();
        match waiting.closings.pop_front() {
            Some(closing) => Poll::Ready(Some(closing)),
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.wakers.wait(place, cx.waker());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Closings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closings").field("waiting", &self.line.0.lock().closings.len()).finish()
    }
}

/// The sessions this node has local objects of.
#[derive(Default)]
pub(super) struct Locals {
    sessions: Mutex<HashSet<SessionId>>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    known: Vec<Weak<Line>>,
    ended: bool,
}

impl Locals {
    pub(super) fn follow(&self) -> Closings {
        let line = Arc::new(Line::default());
        let mut lines = self.lines.lock();
        lines.known.retain(|line| line.strong_count() > 0);
        lines.known.push(Arc::downgrade(&line));
        line.0.lock().ended = lines.ended;
        Closings { line, turn: AsyncMutex::default() }
    }

    /// False when it was tracked before.
    pub(super) fn track(&self, session: &SessionId) -> bool {
        self.sessions.lock().insert(session.clone())
    }

    pub(super) fn untrack(&self, session: &SessionId) {
        self.sessions.lock().remove(session);
    }

    pub(super) fn all(&self) -> Vec<SessionId> {
        self.sessions.lock().iter().cloned().collect()
    }

    /// Tells of a closing, if the session is one of this node's and was not told of before.
    pub(super) fn closing(&self, session: &SessionId, reason: &Reason) {
        if !self.sessions.lock().remove(session) {
            return;
        }
        let closing = Closing { session: session.clone(), reason: reason.clone() };
        self.each_line(|waiting| waiting.closings.push_back(closing.clone()));
    }

    /// No more closings will come.
    pub(super) fn end(&self) {
        self.lines.lock().ended = true;
        self.each_line(|waiting| waiting.ended = true);
    }

    fn each_line(&self, change: impl Fn(&mut Waiting)) {
        let lines: Vec<_> = self.lines.lock().known.iter().filter_map(Weak::upgrade).collect();
        lines.iter().for_each(|line| line.change(&change));
    }
}

impl Drop for Locals {
    fn drop(&mut self) {
        self.end();
    }
}
