//! The answers to events that were submitted together: whoever waits is woken once, with all of them.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use crate::backend::Acceptance;
use crate::error::Result;
use crate::sync::Mutex;

/// Where the answer to one event goes.
pub(crate) enum Answer {
    /// To its own sender.
    One(oneshot::Sender<Result<Acceptance>>),
    /// To those of its batch.
    Part(Part),
}

impl Answer {
    /// A sender that went away does not need its answer.
    pub(crate) fn give(self, result: Result<Acceptance>) {
        match self {
            Answer::One(sender) => drop(sender.send(result)),
            Answer::Part(part) => part.of.lock().results[part.at] = Some(result),
        }
    }
}

/// The place of one event among the answers; dropping it settles it, answered or not.
pub(crate) struct Part {
    of: Arc<Mutex<State>>,
    at: usize,
}

impl Drop for Part {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.of.lock();
            state.left -= 1;
            if state.left > 0 { None } else { state.waker.take() }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct State {
    results: Vec<Option<Result<Acceptance>>>,
    left: usize,
    waker: Option<Waker>,
}

/// The answers to a batch.
pub(crate) struct Answers(Arc<Mutex<State>>);

impl Answers {
    /// Of `count` events, each with a [`part`](Self::part).
    pub(crate) fn new(count: usize) -> Self {
        let results = (0..count).map(|_| None).collect();
        Answers(Arc::new(Mutex::new(State { results, left: count, waker: None })))
    }

    /// Where the answer to this event goes; once each.
    pub(crate) fn part(&self, at: usize) -> Answer {
        Answer::Part(Part { of: self.0.clone(), at })
    }

    /// All answers once none is missing; `None` in place of one that will not come any more.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Vec<Option<Result<Acceptance>>>> {
        let mut state = self.0.lock();
        if state.left == 0 {
            return Poll::Ready(std::mem::take(&mut state.results));
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::future::poll_fn;

    #[test]
    fn they_come_when_the_last_one_is_there_or_will_not_come() {
        let answers = Answers::new(2);
        let (first, second) = (answers.part(0), answers.part(1));
        let mut all = poll_fn(|cx| answers.poll(cx)).boxed();
        second.give(Ok(Acceptance { accepted: 1, ..Acceptance::default() }));
        assert!(all.as_mut().now_or_never().is_none());
        drop(first);
        let all = all.now_or_never().expect("nothing is missing");
        assert!(all[0].is_none());
        assert!(matches!(&all[1], Some(Ok(one)) if one.accepted == 1));
    }
}
