//! The way to the backend: whatever waits behind an outstanding round trip leaves as one batch.
//!
//! No timers: an idle engine adds no latency, a busy one coalesces. One batch is under way at a
//! time, so that one sender's events are accepted in the order they were sent (G1).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::backend::{Acceptance, DynBackend, Submission};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// The most events in one batch.
const MAX_BATCH: usize = 1_024;

struct Waiting {
    submission: Submission,
    bytes: u32,
    answer: oneshot::Sender<Result<Acceptance>>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    running: bool,
}

/// Queues submissions of all senders of an engine.
pub(crate) struct Writer {
    backend: Arc<dyn DynBackend>,
    runtime: Runtime,
    timeout: Duration,
    /// One permit a pending byte (G10).
    room: Arc<Semaphore>,
    capacity: u32,
    line: Mutex<Line>,
}

impl Writer {
    pub(crate) fn new(
        backend: Arc<dyn DynBackend>,
        runtime: Runtime,
        timeout: Duration,
        max_bytes: usize,
    ) -> Arc<Self> {
        let capacity = max_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize) as u32;
        Arc::new(Writer {
            backend,
            runtime,
            timeout,
            room: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            line: Mutex::default(),
        })
    }

    /// Submits one event and waits until the backend has accepted it.
    pub(crate) async fn submit(self: &Arc<Self>, submission: Submission) -> Result<Acceptance> {
        // One event may be larger than the room: it then takes all of it.
        let bytes = (submission.payload.len().max(1) as u64).min(u64::from(self.capacity)) as u32;
        self.wait_for_room(bytes).await?;
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut line = self.line.lock();
            line.waiting.push_back(Waiting { submission, bytes, answer });
            !std::mem::replace(&mut line.running, true)
        };
        if start {
            let writer = self.clone();
            self.runtime.spawn(Box::pin(async move { writer.run().await }));
        }
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorKind::Closed,
                "streams.send",
                "the engine stopped before the backend answered",
            )
            .with_unknown_outcome()),
        }
    }

    async fn wait_for_room(&self, bytes: u32) -> Result<()> {
        let acquire = Box::pin(async {
            let permit = self.room.acquire_many(bytes).await;
            permit.map(|permit| permit.forget()).map_err(|_| Error::closed("streams.send"))
        });
        self.runtime.deadline("streams.send", self.timeout, acquire).await.map_err(|error| {
            if error.kind() == ErrorKind::Timeout {
                // Nothing was submitted: the outcome is known.
                return Error::new(
                    ErrorKind::Timeout,
                    "streams.send",
                    "too much waits for the backend already; send less, or raise maxPendingBytes",
                );
            }
            error
        })
    }

    fn next_batch(&self) -> Vec<Waiting> {
        let mut line = self.line.lock();
        let count = line.waiting.len().min(MAX_BATCH);
        line.running = count > 0;
        line.waiting.drain(..count).collect()
    }

    async fn run(&self) {
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                return;
            }
            let (submissions, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|w| (w.submission, (w.bytes, w.answer))).unzip();
            let accept = Box::pin(async { Ok(self.backend.accept(&submissions).await) });
            let results = match self.runtime.deadline("streams.send", self.timeout, accept).await {
                Ok(results) => results,
                Err(error) => answers.iter().map(|_| Err(error.duplicate())).collect(),
            };
            let mut results = results.into_iter();
            for (bytes, answer) in answers {
                self.room.add_permits(bytes as usize);
                // A sender that went away does not need its answer.
                let _ = answer.send(results.next().unwrap_or_else(missing));
            }
        }
    }
}

fn missing() -> Result<Acceptance> {
    Err(Error::new(ErrorKind::Corrupt, "streams.send", "the backend gave no answer for this event")
        .with_unknown_outcome())
}
