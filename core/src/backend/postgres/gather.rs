//! Calls of one kind that wait behind an outstanding one leave together, as one statement.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// The most calls in one statement: a claim's answer may be large.
const MOST: usize = 128;

type Asked<Q, A> = (Q, oneshot::Sender<Result<A>>);
type Answers<A> = Pin<Box<dyn Future<Output = Vec<Result<A>>> + Send>>;

struct Line<Q, A> {
    waiting: Vec<Asked<Q, A>>,
    running: bool,
}

/// One kind of call.
pub(super) struct Gather<Q, A> {
    line: Mutex<Line<Q, A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Gather { line: Mutex::new(Line { waiting: Vec::new(), running: false }) })
    }

    /// Asks one; `answer` answers whatever waits by then, one result for each in turn.
    pub(super) async fn ask(
        self: &Arc<Self>,
        runtime: &Runtime,
        operation: &'static str,
        question: Q,
        answer: impl Fn(Vec<Q>) -> Answers<A> + Send + Sync + 'static,
    ) -> Result<A> {
        let (sender, answered) = oneshot::channel();
        let start = {
            let mut line = self.line.lock();
            line.waiting.push((question, sender));
            !std::mem::replace(&mut line.running, true)
        };
        if start {
            // Apart from the caller, who may go away.
            let line: Weak<Self> = Arc::downgrade(self);
            runtime.spawn(Box::pin(async move {
                while let Some((questions, senders)) = line.upgrade().and_then(|line| line.next()) {
                    let mut answers = answer(questions).await.into_iter();
                    for sender in senders {
                        let missing = || Err(super::fault::unreadable(operation));
                        let _ = sender.send(answers.next().unwrap_or_else(missing));
                    }
                }
            }));
        }
        answered.await.unwrap_or_else(|_| Err(Error::closed(operation).with_unknown_outcome()))
    }

    #[allow(clippy::type_complexity)]
    fn next(&self) -> Option<(Vec<Q>, Vec<oneshot::Sender<Result<A>>>)> {
        let mut line = self.line.lock();
        let count = line.waiting.len().min(MOST);
        line.running = count > 0;
        (count > 0).then(|| line.waiting.drain(..count).unzip())
    }
}
