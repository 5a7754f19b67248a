//! The way to the backend: whatever waits behind an outstanding round trip leaves as one batch.
//!
//! No timers: an idle engine adds no latency, a busy one coalesces. One batch is under way at a
//! time, so that one sender's events are accepted in the order they were sent (G1); where the
//! backend keeps the order of batches, full ones follow without waiting.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::backend::{Acceptance, DynBackend, Submission};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{BoxFuture, Runtime};
use crate::sync::Mutex;

/// The most events in one batch.
const MAX_BATCH: usize = 1_024;
/// The most payload bytes in one batch (one event may be more).
const MAX_BATCH_BYTES: u64 = 4 << 20;
/// The most batches under way where the backend keeps their order.
const MAX_UNDER_WAY: usize = 4;
/// Fewer events than this wait for the batch under way rather than follow it.
const WORTH_A_BATCH: usize = 64;

struct Waiting {
    submission: Submission,
    bytes: u32,
    answer: oneshot::Sender<Result<Acceptance>>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    running: bool,
    /// What sends the batches, while only the first to submit waits for it.
    run: Option<BoxFuture<'static, ()>>,
    /// Somebody else waits, too.
    shared: bool,
}

/// Queues submissions of all senders of an engine.
pub(crate) struct Writer {
    backend: Arc<dyn DynBackend>,
    runtime: Runtime,
    timeout: Duration,
    /// One permit a pending byte (G10).
    room: Arc<Semaphore>,
    capacity: u32,
    /// The most batches under way.
    most: usize,
    line: Mutex<Line>,
    /// Enough waits for a batch of its own.
    more: Notify,
}

impl Writer {
    pub(crate) fn new(
        backend: Arc<dyn DynBackend>,
        runtime: Runtime,
        timeout: Duration,
        max_bytes: usize,
        pipelined: bool,
    ) -> Arc<Self> {
        let capacity = max_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize) as u32;
        Arc::new(Writer {
            backend,
            runtime,
            timeout,
            room: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            most: if pipelined { MAX_UNDER_WAY } else { 1 },
            line: Mutex::default(),
            more: Notify::new(),
        })
    }

    /// Submits one event and waits until the backend has accepted it.
    pub(crate) async fn submit(self: &Arc<Self>, submission: Submission) -> Result<Acceptance> {
        // One event may be larger than the room: it then takes all of it.
        let bytes = (submission.payload.len().max(1) as u64).min(u64::from(self.capacity)) as u32;
        self.wait_for_room(bytes).await?;
        let (answer, answered) = oneshot::channel();
        let (start, waiting, lonely) = {
            let mut line = self.line.lock();
            line.waiting.push_back(Waiting { submission, bytes, answer });
            let start = !std::mem::replace(&mut line.running, true);
            line.shared = !start;
            (start, line.waiting.len(), line.run.take())
        };
        // Whoever drives it may not be polled again before this one is answered.
        if let Some(run) = lonely {
            self.runtime.spawn(run);
        }
        if !start && waiting == WORTH_A_BATCH {
            self.more.notify_one();
        }
        let mut drive = start.then(|| Drive::new(self.clone()));
        let mut answered = answered;
        let answer = poll_fn(|cx| {
            if let Some(drive) = &mut drive {
                drive.go_on(cx);
            }
            Pin::new(&mut answered).poll(cx)
        });
        match answer.await {
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
        // Where there is room, the first poll takes it: that is the order of one sender's events.
        if let Ok(permit) = self.room.try_acquire_many(bytes) {
            permit.forget();
            return Ok(());
        }
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

    fn next_batch(&self, under_way: usize) -> Vec<Waiting> {
        let mut line = self.line.lock();
        if under_way > 0 && line.waiting.len() < WORTH_A_BATCH {
            return Vec::new();
        }
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            bytes += u64::from(waiting.bytes);
            bytes <= MAX_BATCH_BYTES
        };
        let count = line.waiting.iter().take(MAX_BATCH).take_while(fits).count();
        // One event always fits, however large.
        let count = count.max(1).min(line.waiting.len());
        line.running = under_way + count > 0;
        line.waiting.drain(..count).collect()
    }

    async fn run(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.most {
                let batch = self.next_batch(under_way.len());
                if batch.is_empty() {
                    break;
                }
                let mut accept = Box::pin(self.accept(batch));
                // The first poll settles its place in the order.
                if poll_fn(|cx| Poll::Ready(accept.as_mut().poll(cx).is_pending())).await {
                    under_way.push(accept);
                }
            }
            if under_way.is_empty() {
                return;
            }
            select(under_way.next(), Box::pin(self.more.notified())).await;
        }
    }

    async fn accept(&self, batch: Vec<Waiting>) {
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

/// The first to submit sends the batch itself: no task has to wake up for it. A task of its own does
/// the rest as soon as somebody else submits, or the first has its answer or goes away.
struct Drive(Arc<Writer>);

impl Drive {
    fn new(writer: Arc<Writer>) -> Self {
        let own = writer.clone();
        writer.line.lock().run = Some(Box::pin(async move { own.run().await }));
        Drive(writer)
    }

    fn go_on(&self, cx: &mut Context<'_>) {
        let Some(mut run) = self.0.line.lock().run.take() else { return };
        if run.as_mut().poll(cx).is_ready() {
            return;
        }
        let mut line = self.0.line.lock();
        if line.shared {
            drop(line);
            self.0.runtime.spawn(run);
        } else {
            line.run = Some(run);
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if let Some(run) = self.0.line.lock().run.take() {
            self.0.runtime.spawn(run);
        }
    }
}

fn missing() -> Result<Acceptance> {
    Err(Error::new(ErrorKind::Corrupt, "streams.send", "the backend gave no answer for this event")
        .with_unknown_outcome())
}
