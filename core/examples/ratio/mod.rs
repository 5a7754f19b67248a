//! The engine's side of a comparison with a bare client of the same server, and the loop around both.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mcp_sessions::{Engine, EventStream, OpenOptions, Options, SendOptions, SessionId, Target};

const PAYLOAD: usize = 512;
pub const SESSIONS: usize = 100;
/// How often both are measured, turn about, so that a busy neighbour costs both the same.
const ROUNDS: usize = 3;

/// How much is sent.
#[derive(Clone, Copy)]
pub struct Work {
    /// Events one after the other.
    pub idle: usize,
    /// Events as fast as they are taken.
    pub busy: usize,
    /// So many of these at a time.
    pub in_flight: usize,
}

/// The least a client of the server needs for the same.
pub trait Raw {
    /// Sends an event and waits until it has arrived.
    fn one(&self, n: usize, payload: &str) -> impl Future<Output = ()>;
    /// Sends many; events a second, once all have arrived.
    fn many(&self, work: Work, payload: &str) -> impl Future<Output = f64>;
    /// The same with many events a command, where that is something else.
    fn batched(&self, _work: Work, _payload: &str) -> impl Future<Output = Option<f64>> {
        async { None }
    }
}

/// Measures both and says how they compare: the round with the median ratio counts.
pub async fn compare(name: &str, raw: &impl Raw, ours: &Ours) {
    let payload = "x".repeat(PAYLOAD);
    let work = ours.work;
    assert_ne!(ours.sender.node_id(), ours.holder.node_id(), "a delivery crosses nodes");
    let (mut idle, mut busy, mut batched) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let raw_idle = p50(work.idle, async |n| raw.one(n, &payload).await).await;
        idle.push((raw_idle, p50(work.idle, async |n| ours.one(n, &payload).await).await));
        busy.push((raw.many(work, &payload).await, ours.many(&payload).await));
        batched.extend(raw.batched(work, &payload).await);
    }
    let (raw_idle, our_idle) = median(idle, |(raw, ours)| ours / raw);
    let (raw_busy, our_busy) = median(busy, |(raw, ours)| ours / raw);
    println!("{name}: idle p50 {our_idle:.0} us, raw {raw_idle:.0} us, ratio {:.2}", our_idle / raw_idle);
    println!(
        "{name}: busy {:.1}k/s, raw {:.1}k/s, ratio {:.2}",
        our_busy / 1e3,
        raw_busy / 1e3,
        our_busy / raw_busy
    );
    if !batched.is_empty() {
        let best = median(batched, |rate| rate);
        println!("{name}: raw with many events a command {:.1}k/s, ratio {:.2}", best / 1e3, our_busy / best);
    }
}

fn median<T: Copy>(mut all: Vec<T>, by: impl Fn(T) -> f64) -> T {
    all.sort_by(|a, b| by(*a).total_cmp(&by(*b)));
    all[all.len() / 2]
}

/// Half of the calls take no longer, in microseconds.
async fn p50(count: usize, one: impl AsyncFn(usize)) -> f64 {
    let mut times: Vec<Duration> = Vec::with_capacity(count);
    for n in 0..count {
        let started = Instant::now();
        one(n).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Does `count` things, so many of them at a time.
pub async fn in_flight(count: usize, most: usize, one: impl AsyncFn(usize)) {
    let mut under_way = FuturesUnordered::new();
    for n in 0..count {
        under_way.push(one(n));
        if under_way.len() == most {
            under_way.next().await;
        }
    }
    while under_way.next().await.is_some() {}
}

/// Two engines: one sends, the other holds the streams.
pub struct Ours {
    sender: Engine,
    pub holder: Engine,
    pub ids: Vec<SessionId>,
    streams: Arc<Vec<EventStream>>,
    work: Work,
}

impl Ours {
    pub async fn new(url: &str, history: bool, work: Work) -> Self {
        let events = if history { 256 } else { 0 };
        let options = format!(
            r#"{{"retention": {{"events": {events}}}, "queue": {{"events": {}, "bytes": 1000000000}}}}"#,
            work.busy
        );
        let connect = async || {
            Engine::connect(url, Options::from_json(&options).expect("options")).await.expect("connected")
        };
        let (sender, holder) = (connect().await, connect().await);
        let mut streams = Vec::new();
        let ids: Vec<_> = (0..SESSIONS).map(|_| SessionId::random()).collect();
        for id in &ids {
            streams.push(holder.streams().open(id, OpenOptions::default()).await.expect("open"));
        }
        Ours { sender, holder, ids, streams: streams.into(), work }
    }

    async fn send(&self, n: usize, payload: &str) {
        let to = Target::session(&self.ids[n % SESSIONS]);
        let sent = self.sender.streams().send(to, payload, SendOptions::default()).await;
        assert_eq!(sent.expect("sent").accepted, 1);
    }

    async fn one(&self, n: usize, payload: &str) {
        let (_, event) = tokio::join!(self.send(n, payload), self.streams[n % SESSIONS].next());
        assert!(event.is_some());
    }

    async fn many(&self, payload: &str) -> f64 {
        let started = Instant::now();
        let (streams, busy) = (self.streams.clone(), self.work.busy);
        let received = tokio::spawn(async move {
            for stream in streams.iter() {
                for _ in 0..busy / SESSIONS {
                    assert!(stream.next().await.is_some(), "{:?}", stream.end());
                }
            }
        });
        in_flight(busy, self.work.in_flight, async |n| self.send(n, payload).await).await;
        received.await.expect("received");
        busy as f64 / started.elapsed().as_secs_f64()
    }
}
