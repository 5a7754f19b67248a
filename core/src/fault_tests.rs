//! The hub, the writer and the cache over a backend that is slow, loses signals, or goes away. The
//! state behind is the real embedded backend; a layer around it adds the faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::sync::watch;

use crate::backend::memory::{MemoryBackend, MemoryHub};
use crate::backend::*;
use crate::*;

/// A seeded source of faults.
struct Dice(sync::Mutex<TestRng>);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Dice(sync::Mutex::new(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)))
    }

    fn below(&self, n: u64) -> u64 {
        self.0.lock().next_u64() % n
    }
}

/// What one node's connection to the hub does wrong.
struct Faults {
    dice: Dice,
    /// Of 100 event signals, how many are lost.
    lose: AtomicUsize,
    down: AtomicBool,
    /// Operations wait while it is closed.
    gate: watch::Sender<bool>,
    batches: AtomicUsize,
    renewals_fail: AtomicBool,
}

impl Faults {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Faults {
            dice: Dice::new(seed),
            lose: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            gate: watch::Sender::new(true),
            batches: AtomicUsize::new(0),
            renewals_fail: AtomicBool::new(false),
        })
    }

    async fn pass(&self) -> Result<()> {
        tokio::task::yield_now().await;
        let mut gate = self.gate.subscribe();
        let _ = gate.wait_for(|open| *open).await;
        match self.down.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "test", "the backend is down")),
            false => Ok(()),
        }
    }
}

struct LossySink {
    to: Arc<dyn SignalSink>,
    faults: Arc<Faults>,
}

impl SignalSink for LossySink {
    fn signal(&self, signal: Signal) {
        let event = matches!(signal, Signal::Event { .. } | Signal::Topic { .. });
        let lost = (self.faults.dice.below(100) as usize) < self.faults.lose.load(Ordering::SeqCst);
        if self.faults.down.load(Ordering::SeqCst) || (event && lost) {
            return;
        }
        self.to.signal(signal);
    }
}

struct Faulty {
    inner: MemoryBackend,
    faults: Arc<Faults>,
    sink: sync::Mutex<Option<Arc<dyn SignalSink>>>,
}

impl Faulty {
    fn doubt(&self) {
        if let Some(sink) = &*self.sink.lock() {
            sink.signal(Signal::Doubt);
        }
    }
}

macro_rules! faulty {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(async fn $name(&self, $($arg: $ty),*) -> Result<$out> {
            self.faults.pass().await?;
            Backend::$name(&self.inner, $($arg),*).await
        })*
    };
}

impl Backend for Faulty {
    fn capability(&self) -> Capability {
        Capability { immediate: false, ..Backend::capability(&self.inner) }
    }

    async fn join(&self, node: &NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Result<Joined> {
        *self.sink.lock() = Some(sink.clone());
        let sink = Arc::new(LossySink { to: sink, faults: self.faults.clone() });
        Backend::join(&self.inner, node, lease, sink).await
    }

    async fn renew(&self, node: &NodeId) -> Result<Renewal> {
        if self.faults.renewals_fail.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "test", "paused"));
        }
        Backend::renew(&self.inner, node).await
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        if let Err(error) = self.faults.pass().await {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        self.faults.batches.fetch_add(1, Ordering::SeqCst);
        Backend::accept(&self.inner, batch).await
    }

    faulty! {
        leave(node: &NodeId) -> ();
        claim(claim: Claim) -> Claimed;
        release(releases: &[Release]) -> ();
        read(session: &SessionId, after: Positions) -> Tail;
        read_topic(topic: Topic, after: Position) -> TopicTail;
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
        sweep() -> bool;
        caught_up() -> ();
        ping() -> ();
    }
}

struct TestNode {
    engine: Engine,
    backend: Arc<Faulty>,
    faults: Arc<Faults>,
}

async fn nodes<const N: usize>(seed: u64, options: Options) -> [TestNode; N] {
    let runtime = Runtime::native();
    let hub = MemoryHub::named(None, false, runtime.clock()).unwrap();
    let mut nodes = Vec::new();
    for n in 0..N {
        let faults = Faults::new(seed + n as u64);
        let backend = Arc::new(Faulty {
            inner: MemoryBackend::new(hub.clone(), Arc::new(options.clone())),
            faults: faults.clone(),
            sink: sync::Mutex::new(None),
        });
        let engine =
            Engine::with_backend("test://", backend.clone(), runtime.clone(), options.clone()).await.unwrap();
        nodes.push(TestNode { engine, backend, faults });
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!("N nodes were made"))
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

async fn send(node: &TestNode, target: Target, payload: &str) -> Result<Receipt> {
    node.engine.streams().send(target, payload, SendOptions::default()).await
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

async fn read(stream: &EventStream, n: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < n {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let event = next.unwrap_or_else(|_| panic!("only {read:?} of {n} arrived"));
        read.push(event.unwrap_or_else(|| panic!("{:?} after {read:?}", stream.end())).payload().to_string());
    }
    read
}

#[tokio::test]
async fn g1_g2_lost_signals_are_read_from_the_log() {
    for seed in 0..20 {
        let [a, b] = nodes(seed, Options::default()).await;
        let s1 = id("s1");
        let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
        a.faults.lose.store(40, Ordering::SeqCst);
        let mut own = Vec::new();
        let mut all = Vec::new();
        for n in 0..200 {
            let (target, sent) =
                if n % 3 == 0 { (Target::all(), &mut all) } else { (Target::session(&s1), &mut own) };
            sent.push(format!("m{n}"));
            send(&b, target, &format!("m{n}")).await.unwrap();
        }
        // The last ones may be among the lost: a reconnect tells the node to look.
        a.faults.lose.store(0, Ordering::SeqCst);
        a.backend.doubt();
        let got = read(&stream, 200).await;
        // Between the two logs a repair may catch up one before the other; within each, order holds.
        let is_own = |m: &&String| own.contains(m);
        assert_eq!(got.iter().filter(is_own).cloned().collect::<Vec<_>>(), own, "seed {seed}");
        assert_eq!(got.iter().filter(|m| !is_own(m)).cloned().collect::<Vec<_>>(), all, "seed {seed}");
        assert!(a.engine.stats().repairs > 0);
        assert!(stream.try_next().is_none());
    }
}

#[tokio::test]
async fn g5_what_waits_behind_a_round_trip_leaves_as_one_batch() {
    let [a] = nodes(1, Options::default()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.gate.send_replace(false);
    let sends: Vec<_> = (0..500)
        .map(|n| {
            let streams = a.engine.streams().clone();
            let target = Target::session(&s1);
            tokio::spawn(async move { streams.send(target, format!("m{n}"), SendOptions::default()).await })
        })
        .collect();
    // All have queued up once the first has been polled by the writer and the rest stand behind it.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    a.faults.gate.send_replace(true);
    for send in sends {
        assert_eq!(send.await.unwrap().unwrap().accepted, 1);
    }
    assert_eq!(read(&stream, 500).await, (0..500).map(|n| format!("m{n}")).collect::<Vec<_>>());
    let batches = a.faults.batches.load(Ordering::SeqCst);
    assert!(batches <= 3, "500 events took {batches} round trips");
}

#[tokio::test]
async fn g9_an_outage_fails_fast_and_is_repaired_after() {
    let [a, b] = nodes(2, Options::default()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    send(&b, Target::session(&s1), "before").await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    assert_eq!(send(&a, Target::session(&s1), "refused").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(stream.end(), None, "a local stream stays open through an outage");
    send(&b, Target::session(&s1), "meanwhile").await.unwrap();
    send(&b, Target::all(), "to all").await.unwrap();
    a.backend.doubt();
    a.faults.down.store(false, Ordering::SeqCst);
    send(&b, Target::session(&s1), "after").await.unwrap();
    assert_eq!(read(&stream, 1).await, ["before"]);
    let mut rest = read(&stream, 3).await;
    rest.sort();
    assert_eq!(rest, ["after", "meanwhile", "to all"]);
}

#[tokio::test]
async fn g3_what_was_trimmed_before_a_repair_ends_the_stream_with_a_gap() {
    let options = Options::from_json(r#"{"retention": {"events": 5}}"#).unwrap();
    let [a, b] = nodes(3, options).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    for n in 0..10 {
        send(&b, Target::session(&s1), &format!("m{n}")).await.unwrap();
    }
    a.faults.down.store(false, Ordering::SeqCst);
    a.backend.doubt();
    assert_eq!(stream.ended().await, EndReason::Gap);
    let again = b.engine.streams().open(&s1, OpenOptions::default().after(stream.cursor())).await.unwrap();
    assert!(again.gap());
    assert_eq!(read(&again, 5).await, ["m5", "m6", "m7", "m8", "m9"]);
}

#[tokio::test]
async fn g6_a_node_whose_lease_ran_out_delivers_nothing_more() {
    let options = Options::from_json(r#"{"lease": {"ttlMs": 80, "renewMs": 20}}"#).unwrap();
    let [a, b] = nodes(4, options).await;
    let s1 = id("s1");
    let old = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.renewals_fail.store(true, Ordering::SeqCst);
    assert_eq!(old.ended().await, EndReason::Fenced);
    assert!(!b.engine.streams().has(&s1).await.unwrap());
    let new = b.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    send(&b, Target::session(&s1), "m1").await.unwrap();
    assert_eq!(read(&new, 1).await, ["m1"]);
    assert!(old.try_next().is_none());
    // Back again, the node joins anew and can hold streams.
    a.faults.renewals_fail.store(false, Ordering::SeqCst);
    let back = tokio::time::timeout(Duration::from_secs(10), async {
        while a.engine.health().await.lease_left_ms == 0 {
            tokio::task::yield_now().await;
        }
    });
    back.await.unwrap();
    assert!(a.engine.streams().open(&s1, OpenOptions::default()).await.is_ok());
    assert_eq!(new.ended().await, EndReason::Replaced);
}

#[tokio::test]
async fn g7_an_open_whose_caller_went_away_gives_the_session_back() {
    let [a, b] = nodes(5, Options::default()).await;
    let s1 = id("s1");
    a.faults.gate.send_replace(false);
    let streams = a.engine.streams().clone();
    let session = s1.clone();
    let open = tokio::spawn(async move { streams.open(&session, OpenOptions::default()).await });
    tokio::task::yield_now().await;
    open.abort();
    assert!(open.await.unwrap_err().is_cancelled());
    a.faults.gate.send_replace(true);
    tokio::time::timeout(Duration::from_secs(10), async {
        while b.engine.streams().has(&s1).await.unwrap() || a.engine.stats().streams > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn g7_a_stream_closed_in_an_outage_is_given_back_after_it() {
    let options = Options::from_json(r#"{"lease": {"ttlMs": 5000, "renewMs": 20}}"#).unwrap();
    let [a, b] = nodes(10, options).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    stream.close().await;
    assert!(b.engine.streams().has(&s1).await.unwrap(), "nobody could be told yet");
    a.faults.down.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(4), async {
        while b.engine.streams().has(&s1).await.unwrap() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("given back before the lease could end");
}

#[tokio::test]
async fn a_failed_takeover_leaves_the_old_stream_as_it_was() {
    let [a] = nodes(6, Options::default()).await;
    let s1 = id("s1");
    let old = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    send(&a, Target::session(&s1), "m1").await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    let failed = a.engine.streams().open(&s1, OpenOptions::default()).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    a.faults.down.store(false, Ordering::SeqCst);
    assert_eq!(read(&old, 1).await, ["m1"]);
}

#[tokio::test]
async fn g10_the_sending_side_is_bounded() {
    let options = Options::from_json(r#"{"maxPendingBytes": 1000, "operationTimeoutMs": 100}"#).unwrap();
    let [a] = nodes(7, options).await;
    a.faults.gate.send_replace(false);
    let streams = a.engine.streams().clone();
    let first =
        tokio::spawn(
            async move { streams.send(Target::all(), "x".repeat(900), SendOptions::default()).await },
        );
    tokio::task::yield_now().await;
    let second = send(&a, Target::all(), &"y".repeat(200)).await.unwrap_err();
    assert_eq!((second.kind(), second.outcome_unknown()), (ErrorKind::Timeout, false));
    let first = first.await.unwrap().unwrap_err();
    assert_eq!((first.kind(), first.outcome_unknown()), (ErrorKind::Timeout, true));
    a.faults.gate.send_replace(true);
    assert_eq!(send(&a, Target::all(), "z").await.unwrap().accepted, 1);
}

#[tokio::test]
async fn g10_a_send_that_is_not_polled_again_holds_up_no_other() {
    let [a] = nodes(11, Options::default()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.gate.send_replace(false);
    let mut first = Box::pin(send(&a, Target::session(&s1), "m1"));
    assert!(poll_once(&mut first).await.is_pending());
    a.faults.gate.send_replace(true);
    send(&a, Target::session(&s1), "m2").await.unwrap();
    // One that goes away was submitted all the same.
    drop(first);
    a.faults.gate.send_replace(false);
    let mut gone = Box::pin(send(&a, Target::session(&s1), "m3"));
    assert!(poll_once(&mut gone).await.is_pending());
    drop(gone);
    a.faults.gate.send_replace(true);
    assert_eq!(read(&stream, 3).await, ["m1", "m2", "m3"]);
}

#[tokio::test]
async fn g5_an_ambiguous_failure_and_a_retry_deliver_once() {
    let options = Options::from_json(r#"{"operationTimeoutMs": 50}"#).unwrap();
    let [a] = nodes(8, options).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    let key = SendOptions::default().idempotency_key("once");
    a.engine.streams().send(Target::session(&s1), "m1", key.clone()).await.unwrap();
    // As if the answer to the first had been lost.
    let retry = a.engine.streams().send(Target::session(&s1), "m1", key).await.unwrap();
    assert_eq!((retry.accepted, retry.duplicates), (0, 1));
    send(&a, Target::session(&s1), "m2").await.unwrap();
    assert_eq!(read(&stream, 2).await, ["m1", "m2"]);
}

#[tokio::test]
async fn cached_info_is_as_new_as_the_last_change_anywhere() {
    let [a, b] = nodes(9, Options::default()).await;
    let s1 = id("s1");
    a.engine.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    assert_eq!(b.engine.info().log_level(&s1).await.unwrap(), LogLevel::Info);
    assert!(b.engine.info().cached(&s1).is_some());
    a.engine.info().set_log_level(&s1, LogLevel::Error).await.unwrap();
    assert!(b.engine.info().cached(&s1).is_none());
    assert_eq!(b.engine.info().log_level(&s1).await.unwrap(), LogLevel::Error);
    b.backend.doubt();
    assert!(b.engine.info().cached(&s1).is_none(), "after a reconnect nothing cached is trusted");
}

/// A client that reads, drops and resumes, with its cursor, on whatever node.
#[tokio::test]
async fn g2_random_interleavings_are_delivered_exactly_once_and_in_order() {
    for seed in 0..60 {
        let dice = Dice::new(seed);
        let engines = {
            let name = format!("memory://interleave-{seed}");
            [
                Engine::connect(&name, Options::default()).await.unwrap(),
                Engine::connect(&name, Options::default()).await.unwrap(),
            ]
        };
        let s1 = id("s1");
        let mut stream = engines[0].streams().open(&s1, OpenOptions::default()).await.unwrap();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for n in 0..200 {
            match dice.below(10) {
                0..=5 => {
                    let target = if dice.below(3) == 0 { Target::all() } else { Target::session(&s1) };
                    sent.push(format!("m{n}"));
                    let node = &engines[dice.below(2) as usize];
                    let receipt = node.streams().send(target, format!("m{n}"), SendOptions::default()).await;
                    assert_eq!(receipt.unwrap().accepted, 1);
                }
                6..=7 => got.extend(stream.try_next().map(|event| event.payload().to_string())),
                8 => {
                    // What is queued but was not read must come again.
                    let options = OpenOptions::default().after(stream.cursor());
                    let node = &engines[dice.below(2) as usize];
                    stream = node.streams().open(&s1, options).await.unwrap();
                    assert!(!stream.gap());
                }
                _ => {
                    // Without a cursor, what the last reader did not get comes next.
                    stream.close().await;
                    let node = &engines[dice.below(2) as usize];
                    stream = node.streams().open(&s1, OpenOptions::default()).await.unwrap();
                    assert!(!stream.gap());
                }
            }
        }
        while let Some(event) = stream.try_next() {
            got.push(event.payload().to_string());
        }
        assert_eq!(got, sent, "seed {seed}");
    }
}
