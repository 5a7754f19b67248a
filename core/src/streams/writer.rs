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
use tracing::Instrument as _;

use crate::backend::{Acceptance, DynBackend, Submission};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{SharedRecorder, Stopwatch};
use crate::runtime::{BoxFuture, Runtime};
use crate::streams::answers::{Answer, Answers};
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
    answer: Answer,
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
    recorder: Option<SharedRecorder>,
}

impl Writer {
    pub(crate) fn new(
        backend: Arc<dyn DynBackend>,
        runtime: Runtime,
        timeout: Duration,
        max_bytes: usize,
        pipelined: bool,
        recorder: Option<SharedRecorder>,
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
            recorder,
        })
    }

    /// Submits one event and waits until the backend has accepted it.
    pub(crate) async fn submit(self: &Arc<Self>, submission: Submission) -> Result<Acceptance> {
        let bytes = self.size(&submission);
        self.wait_for_room(bytes).await?;
        let (answer, mut answered) = oneshot::channel();
        let mut drive = self.enqueue([Waiting { submission, bytes, answer: Answer::One(answer) }]);
        let answer = poll_fn(|cx| {
            if let Some(drive) = &mut drive {
                drive.go_on(cx);
            }
            Pin::new(&mut answered).poll(cx)
        });
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Submits events that leave together, in this order; an answer each, once all have one.
    pub(crate) async fn submit_all(self: &Arc<Self>, all: Vec<Submission>) -> Vec<Result<Acceptance>> {
        if all.is_empty() {
            return Vec::new();
        }
        let sizes: Vec<u32> = all.iter().map(|one| self.size(one)).collect();
        let answers = Answers::new(all.len());
        let total: u64 = sizes.iter().map(|bytes| u64::from(*bytes)).sum();
        let room = u32::try_from(total).ok().and_then(|total| self.room.try_acquire_many(total).ok());
        let mut drive = None;
        if let Some(permit) = room {
            permit.forget();
            let waiting = all.into_iter().zip(sizes).enumerate();
            let waiting: Vec<_> = waiting
                .map(|(at, (submission, bytes))| Waiting { submission, bytes, answer: answers.part(at) })
                .collect();
            let many = waiting.len() >= WORTH_A_BATCH;
            // Many are packed elsewhere meanwhile; for few, no task has to wake up.
            drive = self.enqueue(waiting).filter(|_| !many);
        } else {
            // One after the other, or those that find room first would overtake.
            for (at, (submission, bytes)) in all.into_iter().zip(sizes).enumerate() {
                let answer = answers.part(at);
                match self.wait_for_room(bytes).await {
                    Ok(()) => drop(self.enqueue([Waiting { submission, bytes, answer }])),
                    Err(error) => answer.give(Err(error)),
                }
            }
        }
        let all = poll_fn(|cx| {
            if let Some(drive) = &mut drive {
                drive.go_on(cx);
            }
            answers.poll(cx)
        });
        all.await.into_iter().map(|answer| answer.unwrap_or_else(|| Err(stopped()))).collect()
    }

    /// What an event takes of the room. One may be larger than the room: it then takes all of it.
    fn size(&self, submission: &Submission) -> u32 {
        (submission.payload.len().max(1) as u64).min(u64::from(self.capacity)) as u32
    }

    /// Puts events into the line; what sends them, if nobody does so yet.
    fn enqueue(self: &Arc<Self>, waiting: impl IntoIterator<Item = Waiting>) -> Option<Drive> {
        let (start, full, lonely) = {
            let mut line = self.line.lock();
            let before = line.waiting.len();
            line.waiting.extend(waiting);
            let full = before < WORTH_A_BATCH && line.waiting.len() >= WORTH_A_BATCH;
            let start = !std::mem::replace(&mut line.running, true);
            line.shared = !start;
            (start, full, line.run.take())
        };
        // Whoever drives it may not be polled again before these are answered.
        if let Some(run) = lonely {
            self.runtime.spawn(run);
        }
        if !start && full {
            self.more.notify_one();
        }
        start.then(|| Drive::new(self.clone()))
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
        let watch = Stopwatch::start(self.recorder.as_ref(), &self.runtime);
        let span = tracing::debug_span!("operation", operation = "streams.send", events = submissions.len());
        let accept = Box::pin(async { Ok(self.backend.accept(&submissions).await) });
        let accepted = self.runtime.deadline("streams.send", self.timeout, accept).instrument(span).await;
        let results = match accepted {
            Ok(results) => results,
            Err(error) => answers.iter().map(|_| Err(error.duplicate())).collect(),
        };
        // One that a sender got wrong is not the batch's failure.
        let failed = results.iter().all(Result::is_err).then(|| results.first()?.as_ref().err());
        watch.stop("streams.send", failed.flatten().map(Error::kind));
        let mut results = results.into_iter();
        for (bytes, answer) in answers {
            self.room.add_permits(bytes as usize);
            answer.give(results.next().unwrap_or_else(missing));
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

fn stopped() -> Error {
    Error::new(ErrorKind::Closed, "streams.send", "the engine stopped before the backend answered")
        .with_unknown_outcome()
}

fn missing() -> Result<Acceptance> {
    Err(Error::new(ErrorKind::Corrupt, "streams.send", "the backend gave no answer for this event")
        .with_unknown_outcome())
}
