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
    /// Ends of streams are not told.
    lose_ends: AtomicBool,
    down: AtomicBool,
    /// Operations wait while it is closed.
    gate: watch::Sender<bool>,
    /// Readings of topics wait while it is closed.
    topics: watch::Sender<bool>,
    /// Answers wait while it is closed: what was asked for has happened.
    answers: watch::Sender<bool>,
    /// Answers that wait.
    waiting: AtomicUsize,
    batches: AtomicUsize,
    renewals_fail: AtomicBool,
    releases_fail: AtomicBool,
}

impl Faults {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Faults {
            dice: Dice::new(seed),
            lose: AtomicUsize::new(0),
            lose_ends: AtomicBool::new(false),
            down: AtomicBool::new(false),
            gate: watch::Sender::new(true),
            topics: watch::Sender::new(true),
            answers: watch::Sender::new(true),
            waiting: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            renewals_fail: AtomicBool::new(false),
            releases_fail: AtomicBool::new(false),
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

impl Faults {
    async fn answered(&self) {
        let mut answers = self.answers.subscribe();
        if *answers.borrow_and_update() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _ = answers.wait_for(|open| *open).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
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
        let end = matches!(signal, Signal::Ended { .. }) && self.faults.lose_ends.load(Ordering::SeqCst);
        if self.faults.down.load(Ordering::SeqCst) || (event && lost) || end {
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
            let answer = Backend::$name(&self.inner, $($arg),*).await;
            self.faults.answered().await;
            answer
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

    async fn release(&self, releases: &[Release]) -> Result<()> {
        self.faults.pass().await?;
        if self.faults.releases_fail.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "test", "a lock is held"));
        }
        let answer = Backend::release(&self.inner, releases).await;
        self.faults.answered().await;
        answer
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        if let Err(error) = self.faults.pass().await {
            return batch.iter().map(|_| Err(error.duplicate())).collect();
        }
        self.faults.batches.fetch_add(1, Ordering::SeqCst);
        Backend::accept(&self.inner, batch).await
    }

    async fn read_topic(&self, topic: Topic, lane: Lane, after: Position) -> Result<TopicTail> {
        self.faults.pass().await?;
        let _ = self.faults.topics.subscribe().wait_for(|open| *open).await;
        let answer = Backend::read_topic(&self.inner, topic, lane, after).await;
        self.faults.answered().await;
        answer
    }

    async fn registry_report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        if let Err(error) = self.faults.pass().await {
            return reports.iter().map(|_| Err(error.duplicate())).collect();
        }
        Backend::registry_report(&self.inner, node, reports).await
    }

    faulty! {
        leave(node: &NodeId) -> ();
        claim(claim: Claim) -> Claimed;
        reclaim(node: &NodeId, held: &[Reclaim]) -> Vec<Option<Tail>>;
        read(session: &SessionId, after: Positions) -> Tail;
        read_held(node: &NodeId, held: &Reclaim) -> Option<Tail>;
        holder(session: &SessionId) -> Option<NodeId>;
        held(node: &NodeId, session: &SessionId) -> Option<Release>;
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
        registry_key(candidate: [u8; 32]) -> [u8; 32];
        registry_create(session: &SessionId, new: NewSession) -> bool;
        registry_read(sessions: &[SessionId], touch: Touch) -> Vec<Option<SessionRecord>>;
        registry_adopt(session: &SessionId, node: &NodeId) -> bool;
        registry_close(session: &SessionId, reason: &str) -> CloseStart;
        registry_bury(session: &SessionId) -> ();
        registry_owned(owner: &OwnerHash) -> Vec<SessionId>;
        registry_list(query: ListQuery) -> Listed;
        registry_stats() -> RegistryStats;
        registry_sweep() -> Swept;
        append(event: Append) -> Position;
        logs(scope: &SessionId) -> Vec<SessionId>;
        forget_logs(scope: &SessionId, logs: &[SessionId]) -> ();
    }
}

pub(crate) struct TestNode {
    pub(crate) engine: Engine,
    backend: Arc<Faulty>,
    faults: Arc<Faults>,
}

impl TestNode {
    pub(crate) fn memory(&self) -> &MemoryBackend {
        &self.backend.inner
    }

    pub(crate) fn close_gate(&self) {
        self.faults.gate.send_replace(false);
    }

    pub(crate) fn open_gate(&self) {
        self.faults.gate.send_replace(true);
    }

    pub(crate) fn forget_owner_key(&self) {
        self.backend.inner.hub().forget_owner_key();
    }

    pub(crate) fn owner_key(&self) -> Option<[u8; 32]> {
        self.backend.inner.hub().owner_key()
    }
}

pub(crate) async fn nodes<const N: usize>(seed: u64, options: Options) -> [TestNode; N] {
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

pub(crate) fn id(name: &str) -> SessionId {
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

/// What is sent together, and what comes of it, as payload and what the receipt or error says.
async fn send_all(node: &TestNode, events: Vec<(Target, String)>) -> Vec<String> {
    let outgoing = events.into_iter().map(|(target, payload)| Outgoing {
        target,
        payload: payload.into(),
        options: SendOptions::default(),
    });
    let outcomes = node.engine.streams().send_all(outgoing.collect::<Vec<_>>()).await;
    let said = outcomes.into_iter().map(|outcome| match outcome {
        Ok(receipt) => format!("{}/{}", receipt.accepted, receipt.dropped),
        Err(error) => error.kind().code().to_owned(),
    });
    said.collect()
}

#[tokio::test]
async fn g1_g5_what_is_sent_together_is_one_batch_in_order() {
    let options = Options { max_payload_bytes: 100, ..Options::default() };
    let [a, b] = nodes(1, options).await;
    let [s1, s2] = ["s1", "s2"].map(id);
    let [one, two] = [&s1, &s2].map(|id| b.engine.streams().open(id, OpenOptions::default()));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let own = |name: &str| Target::session(&id(name));
    let events = [
        (own("s1"), "1"),
        (Target::all(), "2"),
        (own("nobody"), "x"),
        (own("s2"), "3"),
        (Target::sessions([]), "x"),
        (own("s1"), &*"x".repeat(101)),
        (Target::sessions([&s2, &s1]), "4"),
        (Target::all(), "5"),
        (own("s1"), "6"),
    ];
    let events = events.map(|(target, payload)| (target, payload.to_owned()));
    let said = send_all(&a, events.to_vec()).await;
    assert_eq!(said, ["1/0", "1/0", "0/1", "1/0", "0/0", "too_large", "2/0", "1/0", "1/0"]);
    assert_eq!(a.faults.batches.load(Ordering::SeqCst), 1);
    assert_eq!(read(&one, 5).await, ["1", "2", "4", "5", "6"]);
    assert_eq!(read(&two, 4).await, ["2", "3", "4", "5"]);
    assert!(send_all(&a, Vec::new()).await.is_empty());
}

#[tokio::test]
async fn g1_g10_what_has_no_room_together_is_sent_in_order_all_the_same() {
    let options = Options { max_pending_bytes: 64, ..Options::default() };
    let [a] = nodes(1, options).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    let payloads: Vec<_> = (0..200).map(|n| format!("m{n}")).collect();
    let events = payloads.iter().map(|payload| (Target::session(&s1), payload.clone())).collect();
    assert_eq!(send_all(&a, events).await, vec!["1/0"; 200]);
    assert_eq!(read(&stream, 200).await, payloads);
}

#[tokio::test]
async fn g1_batches_and_single_sends_keep_their_order_through_a_slow_round_trip() {
    let [a] = nodes(1, Options::default()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.close_gate();
    let mut sends: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    let mut sent = Vec::new();
    for batch in 0..6 {
        // Few, which their sender drives itself, many, which a task does, and one alone.
        let count = [3, 100, 1][batch % 3];
        let payloads: Vec<_> = (0..count).map(|n| format!("b{batch}m{n}")).collect();
        sent.extend(payloads.clone());
        let target = Target::session(&s1);
        let (a, events) = (&a, payloads.into_iter().map(move |payload| (target.clone(), payload)));
        let events: Vec<_> = events.collect();
        sends.push(Box::pin(async move { assert_eq!(send_all(a, events).await, vec!["1/0"; count]) }));
        assert!(poll_once(sends.last_mut().unwrap()).await.is_pending());
    }
    a.open_gate();
    futures_util::future::join_all(sends).await;
    assert_eq!(read(&stream, sent.len()).await, sent);
}

#[tokio::test]
async fn notifications_sent_together_are_one_batch_and_fail_alone() {
    let [a] = nodes(1, Options::default()).await;
    let key = crate::SubscriptionKey::new(crate::RequestId::number(1), "test");
    let filter = crate::SubscriptionFilter::from_json(r#"{"toolsListChanged": true}"#).unwrap();
    let subscription = a.engine.subscriptions().create(key, filter).unwrap().unwrap();
    subscription.acknowledge();
    let sent: Vec<_> = (0..50)
        .map(|n| format!(r#"{{"method":"notifications/tools/list_changed","params":{{"n":{n}}}}}"#))
        .collect();
    let mut all = sent.clone();
    all.insert(20, "no notification".into());
    let outcomes = a.engine.subscriptions().send_all(&all).await;
    let failed: Vec<_> = (0..all.len()).filter(|at| outcomes[*at].is_err()).collect();
    assert_eq!(failed, [20]);
    assert_eq!(a.faults.batches.load(Ordering::SeqCst), 1);
    for notification in sent {
        assert_eq!(subscription.next().await.unwrap(), *notification);
    }
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
async fn g9_operations_wait_through_an_outage_in_order_or_until_their_time_is_up() {
    let options = |wait: u64| Options::from_json(&format!(r#"{{"outageWaitMs": {wait}}}"#)).unwrap();
    let [a] = nodes(19, options(9_000)).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    let payloads: Vec<_> = (0..200).map(|n| format!("m{n}")).collect();
    let sends = payloads.iter().map(|payload| send(&a, Target::session(&s1), payload));
    let mut sends = Box::pin(futures_util::future::join_all(sends));
    let mut asks = Box::pin(a.engine.info().set_log_level(&s1, LogLevel::Error));
    assert!(poll_once(&mut sends).await.is_pending() && poll_once(&mut asks).await.is_pending());
    assert!(!a.engine.health().await.ready, "who asks how it is does not wait");
    a.faults.down.store(false, Ordering::SeqCst);
    for sent in sends.await {
        assert_eq!(sent.unwrap().accepted, 1);
    }
    asks.await.unwrap();
    assert_eq!(read(&stream, 200).await, payloads);
    let [b] = nodes(20, options(60)).await;
    b.faults.down.store(true, Ordering::SeqCst);
    let refused = send(&b, Target::session(&s1), "never").await.unwrap_err();
    assert_eq!((refused.kind(), refused.outcome_unknown()), (ErrorKind::Unavailable, false));
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

fn short_lease() -> Options {
    Options::from_json(r#"{"lease": {"ttlMs": 80, "renewMs": 20}}"#).unwrap()
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = tokio::time::timeout(Duration::from_secs(10), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Its lease can't be renewed, and has run out.
async fn loses_its_lease(node: &TestNode) {
    node.faults.renewals_fail.store(true, Ordering::SeqCst);
    eventually("the lease runs out", async || node.engine.health().await.lease_left_ms == 0).await;
}

fn gets_it_back(node: &TestNode) {
    node.faults.renewals_fail.store(false, Ordering::SeqCst);
}

#[tokio::test]
async fn g9_a_stream_without_a_lease_stays_open_silent_and_goes_on_where_it_was() {
    let [a, b] = nodes(4, short_lease()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    send(&b, Target::session(&s1), "m1").await.unwrap();
    send(&b, Target::session(&s1), "m2").await.unwrap();
    assert_eq!(read(&stream, 1).await, ["m1"]);
    loses_its_lease(&a).await;
    eventually("the others notice", async || !b.engine.streams().has(&s1).await.unwrap()).await;
    send(&b, Target::session(&s1), "m3").await.unwrap();
    send(&b, Target::all(), "m4").await.unwrap();
    assert!(stream.try_next().is_none(), "m2 is there, but another node might deliver it, too");
    assert_eq!(stream.end(), None);
    gets_it_back(&a);
    assert_eq!(read(&stream, 3).await, ["m2", "m3", "m4"]);
    assert!(b.engine.streams().has(&s1).await.unwrap());
    send(&b, Target::session(&s1), "m5").await.unwrap();
    assert_eq!(read(&stream, 1).await, ["m5"]);
    assert_eq!((stream.end(), a.engine.stats().fenced), (None, 0));
}

#[tokio::test]
async fn g6_g9_a_session_that_was_taken_ended_or_forgotten_meanwhile_is_fenced() {
    for what in ["taken", "taken and released", "ended", "forgotten"] {
        let [a, b] = nodes(12, short_lease()).await;
        let s1 = id("s1");
        let old = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
        let kept = a.engine.streams().open(&id("s2"), OpenOptions::default()).await.unwrap();
        send(&b, Target::session(&s1), "m1").await.unwrap();
        let start = old.cursor();
        loses_its_lease(&a).await;
        eventually("the others notice", async || !b.engine.streams().has(&s1).await.unwrap()).await;
        let mut new = None;
        match what {
            "ended" => drop(b.engine.streams().close(&s1).await.unwrap()),
            "forgotten" => drop(b.engine.streams().forget(&s1).await.unwrap()),
            _ => {
                let options = OpenOptions::default().after(start);
                let stream = b.engine.streams().open(&s1, options).await.unwrap();
                assert_eq!(read(&stream, 1).await, ["m1"]);
                new = (what == "taken").then_some(stream);
            }
        }
        gets_it_back(&a);
        assert_eq!(old.ended().await, EndReason::Fenced, "{what}");
        assert!(old.try_next().is_none(), "{what}: somebody else delivers m1");
        assert_eq!((kept.end(), a.engine.stats().fenced), (None, 1), "{what}");
        send(&a, Target::session(&s1), "m2").await.unwrap();
        if let Some(new) = new {
            assert_eq!(read(&new, 1).await, ["m2"]);
        }
    }
}

#[tokio::test]
async fn g6_a_take_over_that_was_not_told_shows_when_signals_come_again() {
    let [a, b] = nodes(13, Options::default()).await;
    let s1 = id("s1");
    let old = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    let new = b.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.down.store(false, Ordering::SeqCst);
    send(&b, Target::all(), "m1").await.unwrap();
    a.backend.doubt();
    assert_eq!(old.ended().await, EndReason::Fenced);
    assert_eq!(read(&new, 1).await, ["m1"]);
}

/// A standby that took over may know of a lease that ends sooner than the node was promised.
#[tokio::test]
async fn g1_nothing_is_delivered_until_a_server_that_is_back_knows_the_lease() {
    for opened_before in [true, false] {
        let [a, b] = nodes(21, Options::default()).await;
        let s1 = id("s1");
        let open = || a.engine.streams().open(&s1, OpenOptions::default());
        let mut stream = if opened_before { Some(open().await.unwrap()) } else { None };
        a.faults.renewals_fail.store(true, Ordering::SeqCst);
        a.backend.doubt();
        // Time for everything that can be done without a lease.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        if !opened_before {
            stream = Some(open().await.unwrap());
        }
        a.backend.inner.hub().forget_renewals(a.engine.node_id());
        for (target, payload) in [(Target::session(&s1), "m1"), (Target::all(), "m2")] {
            send(&b, target, payload).await.unwrap();
        }
        gets_it_back(&a);
        assert_eq!(read(&stream.unwrap(), 2).await, ["m1", "m2"]);
    }
}

#[tokio::test]
async fn g1_what_was_left_out_for_want_of_a_lease_comes_before_what_comes_with_it() {
    let [a, b] = nodes(22, Options::default()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.engine.hub().lease.revoke();
    send(&b, Target::session(&s1), "m1").await.unwrap();
    // As when it is renewed, and nothing more was done yet.
    a.engine.hub().lease.extend(u64::MAX);
    send(&b, Target::all(), "m2").await.unwrap();
    assert_eq!(read(&stream, 2).await, ["m1", "m2"]);
}

/// A holder that reads what it missed, and was replaced meanwhile without hearing of it.
#[tokio::test]
async fn g6_what_is_accepted_after_a_take_over_is_not_read_by_the_old_stream() {
    let [a, b] = nodes(13, Options::default()).await;
    let s1 = id("s1");
    let old = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.lose.store(100, Ordering::SeqCst);
    send(&b, Target::session(&s1), "m1").await.unwrap();
    a.faults.lose.store(0, Ordering::SeqCst);
    a.faults.gate.send_replace(false);
    send(&b, Target::session(&s1), "m2").await.unwrap();
    a.faults.lose_ends.store(true, Ordering::SeqCst);
    let options = OpenOptions::default().after(old.cursor());
    let new = b.engine.streams().open(&s1, options).await.unwrap();
    send(&b, Target::session(&s1), "m3").await.unwrap();
    assert_eq!(read(&new, 3).await, ["m1", "m2", "m3"]);
    a.faults.gate.send_replace(true);
    let next = tokio::time::timeout(Duration::from_secs(10), old.next()).await.unwrap();
    assert!(next.is_none(), "another stream delivers it");
    assert_eq!(old.end(), Some(EndReason::Fenced));
}

#[tokio::test]
async fn g9_what_comes_while_a_log_is_read_is_not_forgotten() {
    // More than is held, on both logs, and nothing after it that would show the loss.
    const N: usize = 3_000;
    let options = Options::from_json(
        r#"{"retention": {"events": 9000, "bytes": 9000000}, "broadcastRetention": {"events": 9000}}"#,
    )
    .unwrap();
    for to_all in [false, true] {
        let [a, b] = nodes(14, options.clone()).await;
        let s1 = id("s1");
        let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
        a.faults.answers.send_replace(false);
        a.backend.doubt();
        let target = if to_all { Target::all() } else { Target::session(&s1) };
        eventually("the log is being read", async || a.faults.waiting.load(Ordering::SeqCst) > 0).await;
        for n in 0..N {
            send(&b, target.clone(), &format!("m{n}")).await.unwrap();
        }
        a.faults.answers.send_replace(true);
        assert_eq!(read(&stream, N).await, (0..N).map(|n| format!("m{n}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn g1_a_directed_event_does_not_overtake_broadcasts_that_are_being_read() {
    for opened_before in [true, false] {
        let [a, b] = nodes(19, Options::default()).await;
        let s1 = id("s1");
        let open = || a.engine.streams().open(&s1, OpenOptions::default());
        let mut stream = if opened_before { Some(open().await.unwrap()) } else { None };
        b.engine.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
        a.faults.lose.store(100, Ordering::SeqCst);
        send(&b, Target::all(), "b1").await.unwrap();
        a.faults.lose.store(0, Ordering::SeqCst);
        a.faults.topics.send_replace(false);
        send(&b, Target::all(), "b2").await.unwrap();
        if !opened_before {
            stream = Some(open().await.unwrap());
        }
        for (target, payload) in
            [(Target::session(&s1), "m1"), (Target::all(), "b3"), (Target::session(&s1), "m2")]
        {
            send(&b, target, payload).await.unwrap();
        }
        let stream = stream.unwrap();
        if opened_before {
            assert!(stream.try_next().is_none(), "b1 comes first");
        }
        a.faults.topics.send_replace(true);
        assert_eq!(read(&stream, 5).await, ["b1", "b2", "m1", "b3", "m2"]);
    }
}

#[tokio::test]
async fn g9_a_stream_that_opens_while_signals_are_lost_misses_nothing() {
    let [a, b] = nodes(15, Options::default()).await;
    let s1 = id("s1");
    a.faults.answers.send_replace(false);
    let streams = a.engine.streams().clone();
    let session = s1.clone();
    let opening = tokio::spawn(async move { streams.open(&session, OpenOptions::default()).await });
    eventually("it is claimed", async || b.engine.streams().has(&s1).await.unwrap()).await;
    a.faults.lose.store(100, Ordering::SeqCst);
    send(&b, Target::session(&s1), "m1").await.unwrap();
    a.faults.lose.store(0, Ordering::SeqCst);
    a.backend.doubt();
    a.faults.answers.send_replace(true);
    let stream = opening.await.unwrap().unwrap();
    assert_eq!(read(&stream, 1).await, ["m1"]);
}

/// An open whose claim happens and whose answer does not come.
async fn open_unanswered(node: &TestNode, session: &SessionId) {
    node.faults.answers.send_replace(false);
    let lost = node.engine.streams().open(session, OpenOptions::default()).await.unwrap_err();
    assert!(lost.outcome_unknown());
    node.faults.answers.send_replace(true);
}

#[tokio::test]
async fn g7_a_claim_whose_answer_was_lost_is_given_back() {
    let options =
        Options::from_json(r#"{"operationTimeoutMs": 50, "lease": {"ttlMs": 5000, "renewMs": 20}}"#).unwrap();
    let [a, b] = nodes(17, options).await;
    let s1 = id("s1");
    open_unanswered(&a, &s1).await;
    eventually("it is given back", async || !b.engine.streams().has(&s1).await.unwrap()).await;
    send(&b, Target::session(&s1), "m1").await.unwrap();
    let stream = b.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    assert_eq!((read(&stream, 1).await, stream.gap()), (vec!["m1".to_owned()], false));
}

#[tokio::test]
async fn g6_a_claim_whose_answer_was_lost_leaves_no_second_holder() {
    let options =
        Options::from_json(r#"{"operationTimeoutMs": 50, "lease": {"ttlMs": 5000, "renewMs": 20}}"#).unwrap();
    let [a, b] = nodes(18, options).await;
    let s1 = id("s1");
    let old = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.lose_ends.store(true, Ordering::SeqCst);
    open_unanswered(&a, &s1).await;
    a.faults.lose_ends.store(false, Ordering::SeqCst);
    let new = b.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    old.ended().await;
    send(&a, Target::all(), "m1").await.unwrap();
    assert_eq!(read(&new, 1).await, ["m1"]);
    assert!(old.try_next().is_none());
    assert_eq!(a.engine.stats().streams, 0);
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
async fn g7_a_stream_closed_in_an_outage_is_given_back_with_the_first_sign_of_life() {
    // No upkeep comes in the time of this test.
    let options = Options::from_json(r#"{"lease": {"ttlMs": 500000, "renewMs": 200000}}"#).unwrap();
    let [a, b] = nodes(16, options).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.down.store(true, Ordering::SeqCst);
    stream.close().await;
    a.faults.down.store(false, Ordering::SeqCst);
    a.backend.doubt();
    eventually("it is given back", async || !b.engine.streams().has(&s1).await.unwrap()).await;
}

/// Whoever sees the end of a stream may come back before the backend is told where it ended.
#[tokio::test]
async fn g4_a_stream_opened_while_the_last_one_ends_starts_where_that_ended() {
    let [a, b] = nodes(17, Options::default()).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    for payload in ["m1", "m2"] {
        send(&b, Target::session(&s1), payload).await.unwrap();
    }
    assert_eq!(read(&stream, 1).await, ["m1"]);
    let tell = stream.end_untold(EndReason::Overflow);
    send(&b, Target::session(&s1), "m3").await.unwrap();
    let again = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    assert_eq!(read(&stream, 1).await, ["m2"], "what was queued when it ended");
    assert_eq!(read(&again, 1).await, ["m3"]);
    tell();
    send(&b, Target::session(&s1), "m4").await.unwrap();
    assert_eq!(read(&again, 1).await, ["m4"], "the release of the old one changes nothing");
}

#[tokio::test]
async fn g3_a_stream_that_could_not_be_given_back_is_before_the_next_one_opens() {
    let options = Options::from_json(r#"{"lease": {"ttlMs": 500000, "renewMs": 200000}}"#).unwrap();
    let [a, b] = nodes(18, options).await;
    let s1 = id("s1");
    let stream = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    a.faults.releases_fail.store(true, Ordering::SeqCst);
    drop(stream);
    send(&b, Target::session(&s1), "m1").await.unwrap();
    let refused = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    a.faults.releases_fail.store(false, Ordering::SeqCst);
    let again = a.engine.streams().open(&s1, OpenOptions::default()).await.unwrap();
    assert_eq!(read(&again, 1).await, ["m1"]);
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
