//! How close the engine comes to a bare client on the same Redis server, and what an idle session takes
//! there, in one run:
//! `cargo run --release --features redis --example redis_ratio [redis://host]`.
//!
//! The bare loop is one connection that does the least a log with live delivery needs (number, append,
//! trim, publish in one script), and one that is pushed to; with history off it only publishes. Its
//! second figure has many events of a session in one command.

mod ratio;

use std::sync::Arc;
use std::time::Instant;

use mcp_sessions::{OpenOptions, SessionId};
use ratio::{Ours, Raw, SESSIONS, Work, compare, in_flight};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const WORK: Work = Work { idle: 5_000, busy: 200_000, in_flight: 512 };
/// Events in one command of the second figure.
const BATCH: usize = 32;

const RAW: &str = "local n = redis.call('HINCRBY', KEYS[1], 'n', #ARGV) \
    redis.call('RPUSH', KEYS[2], unpack(ARGV)) \
    redis.call('LTRIM', KEYS[2], -256, -1) \
    redis.call('PUBLISH', KEYS[3], n .. table.concat(ARGV)) \
    return n";

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    for history in [true, false] {
        let raw = Bare::new(&url, history).await;
        let ours = Ours::new(&url, history, WORK).await;
        let name = if history { "with history" } else { "live only" };
        compare(name, &raw, &ours).await;
        let (keys, bytes) = idle_session(&ours, &url).await;
        println!("{name}: an idle session: {keys:.2} keys, {bytes:.0} bytes");
    }
}

#[derive(Clone)]
struct Bare {
    commands: MultiplexedConnection,
    _pushes: MultiplexedConnection,
    messages: Arc<Mutex<UnboundedReceiver<PushInfo>>>,
    hash: String,
    history: bool,
}

impl Bare {
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
        Bare { commands, _pushes: pushes, messages: Arc::new(Mutex::new(messages)), hash, history }
    }

    async fn send(&self, n: usize, payloads: &[&str]) {
        let mut commands = self.commands.clone();
        let mut cmd = redis::cmd(if self.history { "EVALSHA" } else { "PUBLISH" });
        if self.history {
            let session = n % SESSIONS;
            cmd.arg(&self.hash).arg(3).arg(format!("bench:s:{session}")).arg(format!("bench:l:{session}"));
            cmd.arg("bench:raw").arg(payloads);
        } else {
            cmd.arg("bench:raw").arg(payloads.concat());
        }
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

    /// Messages of so many payloads each; messages a second.
    async fn rate(&self, messages: usize, most: usize, payloads: &[&str]) -> f64 {
        let started = Instant::now();
        let receiver = self.clone();
        let received = tokio::spawn(async move { receiver.received(messages).await });
        in_flight(messages, most, async |n| self.send(n, payloads).await).await;
        received.await.expect("received");
        messages as f64 / started.elapsed().as_secs_f64()
    }
}

impl Raw for Bare {
    async fn one(&self, n: usize, payload: &str) {
        let payloads = [payload];
        tokio::join!(self.send(n, &payloads), self.received(1));
    }

    async fn many(&self, work: Work, payload: &str) -> f64 {
        self.rate(work.busy, work.in_flight, &[payload]).await
    }

    async fn batched(&self, work: Work, payload: &str) -> Option<f64> {
        let payloads = [payload; BATCH];
        Some(self.rate(work.busy / BATCH, work.in_flight / BATCH, &payloads).await * BATCH as f64)
    }
}

/// Keys and bytes of a session with a stream to which nothing was sent; its part of what the node
/// holds is among the bytes.
async fn idle_session(ours: &Ours, url: &str) -> (f64, f64) {
    let client = redis::Client::open(url).expect("a Redis URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a Redis server");
    let usage = async |connection: &mut MultiplexedConnection, key: &str| -> f64 {
        let mut cmd = redis::cmd("MEMORY");
        let bytes: Option<usize> = cmd.arg("USAGE").arg(key).query_async(connection).await.expect("asked");
        bytes.unwrap_or(0) as f64
    };
    let held = format!("tmcp:held:{}", ours.holder.node_id());
    let held = usage(&mut connection, &held).await / ours.ids.len() as f64;
    let (mut keys, mut bytes) = (0, 0.0);
    let mut streams = Vec::new();
    for _ in 0..SESSIONS {
        let id = SessionId::random();
        streams.push(ours.holder.streams().open(&id, OpenOptions::default()).await.expect("open"));
        let pattern = format!("*{id}*");
        let own: Vec<String> =
            redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("asked");
        keys += own.len();
        for key in own {
            bytes += usage(&mut connection, &key).await;
        }
    }
    (keys as f64 / SESSIONS as f64, bytes / SESSIONS as f64 + held)
}
