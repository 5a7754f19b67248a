//! How close the engine comes to a bare client on the same Redis server, in one run:
//! `cargo run --release --features redis --example redis_ratio [redis://host]`.
//!
//! Sender and holder are two engines; the bare loop is one connection that does the least a log with
//! live delivery needs (number, append, trim, publish in one script), and one that is pushed to.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mcp_sessions::{Engine, EventStream, OpenOptions, Options, SendOptions, SessionId, Target};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const PAYLOAD: usize = 512;
const IDLE: usize = 5_000;
const BUSY: usize = 200_000;
const SESSIONS: usize = 100;
const IN_FLIGHT: usize = 512;

const RAW: &str = "local n = redis.call('HINCRBY', KEYS[1], 'n', 1) \
    redis.call('RPUSH', KEYS[2], ARGV[1]) \
    redis.call('LTRIM', KEYS[2], -256, -1) \
    redis.call('PUBLISH', KEYS[3], n .. ARGV[1]) \
    return n";

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let payload = "x".repeat(PAYLOAD);
    for history in [true, false] {
        let raw = Raw::new(&url, history).await;
        let ours = Ours::new(&url, history).await;
        let name = if history { "with history" } else { "live only" };
        // Turn about, so that a busy neighbour costs both the same.
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            idle.push((raw.clone().idle(&payload).await, ours.idle(&payload).await));
            busy.push((raw.clone().busy(&payload).await, ours.busy(&payload).await));
        }
        let (raw_idle, our_idle) = median(idle, |(raw, ours)| ours / raw);
        let (raw_busy, our_busy) = median(busy, |(raw, ours)| ours / raw);
        println!(
            "{name}: idle p50 {our_idle:.0} us, raw {raw_idle:.0} us, ratio {:.2}; busy {:.0}k/s, raw {:.0}k/s, ratio {:.2}",
            our_idle / raw_idle,
            our_busy / 1e3,
            raw_busy / 1e3,
            our_busy / raw_busy
        );
    }
}

fn median(mut pairs: Vec<(f64, f64)>, by: impl Fn((f64, f64)) -> f64) -> (f64, f64) {
    pairs.sort_by(|a, b| by(*a).total_cmp(&by(*b)));
    pairs[pairs.len() / 2]
}

fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[derive(Clone)]
struct Raw {
    commands: MultiplexedConnection,
    _pushes: MultiplexedConnection,
    messages: std::sync::Arc<tokio::sync::Mutex<UnboundedReceiver<PushInfo>>>,
    hash: String,
    history: bool,
}

impl Raw {
    async fn new(url: &str, history: bool) -> Self {
        let client = redis::Client::open(format!("{url}/?protocol=resp3")).expect("a Redis URL");
        let (push, messages) = unbounded_channel();
        let config =
            || AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1_024);
        let connect = async |config| {
            client.get_multiplexed_async_connection_with_config(&config).await.expect("a Redis server")
        };
        let mut commands = connect(config()).await;
        let mut pushes = connect(config().set_push_sender(push)).await;
        pushes.subscribe("bench:raw").await.expect("subscribed");
        let mut load = redis::cmd("SCRIPT");
        let hash = load.arg("LOAD").arg(RAW).query_async(&mut commands).await.expect("loaded");
        let messages = std::sync::Arc::new(tokio::sync::Mutex::new(messages));
        Raw { commands, _pushes: pushes, messages, hash, history }
    }

    async fn send(&self, n: usize, payload: &str) {
        let mut commands = self.commands.clone();
        let mut cmd = redis::cmd(if self.history { "EVALSHA" } else { "PUBLISH" });
        if self.history {
            let session = n % SESSIONS;
            cmd.arg(&self.hash).arg(3).arg(format!("bench:s:{session}")).arg(format!("bench:l:{session}"));
        }
        cmd.arg("bench:raw").arg(payload);
        cmd.query_async::<redis::Value>(&mut commands).await.expect("sent");
    }

    async fn received(&self, n: usize) {
        let mut messages = self.messages.lock().await;
        let mut got = 0;
        while got < n {
            let push = messages.recv().await.expect("connected");
            got += usize::from(push.kind == PushKind::Message);
        }
    }

    async fn idle(self, payload: &str) -> f64 {
        let mut times = Vec::with_capacity(IDLE);
        for n in 0..IDLE {
            let started = Instant::now();
            tokio::join!(self.send(n, payload), self.received(1));
            times.push(started.elapsed());
        }
        p50(times)
    }

    async fn busy(self, payload: &str) -> f64 {
        let started = Instant::now();
        let receiver = self.clone();
        let received = tokio::spawn(async move { receiver.received(BUSY).await });
        let mut sends = FuturesUnordered::new();
        for n in 0..BUSY {
            sends.push(self.send(n, payload));
            if sends.len() == IN_FLIGHT {
                sends.next().await;
            }
        }
        while sends.next().await.is_some() {}
        received.await.expect("received");
        BUSY as f64 / started.elapsed().as_secs_f64()
    }
}

struct Ours {
    sender: Engine,
    _holder: Engine,
    ids: Vec<SessionId>,
    streams: std::sync::Arc<Vec<EventStream>>,
}

impl Ours {
    async fn new(url: &str, history: bool) -> Self {
        let events = if history { 256 } else { 0 };
        let options = format!(
            r#"{{"retention": {{"events": {events}}}, "queue": {{"events": {BUSY}, "bytes": 1000000000}}}}"#
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
        Ours { sender, _holder: holder, ids, streams: streams.into() }
    }

    async fn send(&self, n: usize, payload: &str) {
        let to = Target::session(&self.ids[n % SESSIONS]);
        let sent = self.sender.streams().send(to, payload, SendOptions::default()).await;
        assert_eq!(sent.expect("sent").accepted, 1);
    }

    async fn idle(&self, payload: &str) -> f64 {
        let mut times = Vec::with_capacity(IDLE);
        for n in 0..IDLE {
            let started = Instant::now();
            let (_, event) = tokio::join!(self.send(n, payload), self.streams[n % SESSIONS].next());
            assert!(event.is_some());
            times.push(started.elapsed());
        }
        p50(times)
    }

    async fn busy(&self, payload: &str) -> f64 {
        let started = Instant::now();
        let streams = self.streams.clone();
        let received = tokio::spawn(async move {
            for stream in streams.iter() {
                for _ in 0..BUSY / SESSIONS {
                    assert!(stream.next().await.is_some(), "{:?}", stream.end());
                }
            }
        });
        let mut sends = FuturesUnordered::new();
        for n in 0..BUSY {
            sends.push(self.send(n, payload));
            if sends.len() == IN_FLIGHT {
                sends.next().await;
            }
        }
        while sends.next().await.is_some() {}
        received.await.expect("received");
        BUSY as f64 / started.elapsed().as_secs_f64()
    }
}
