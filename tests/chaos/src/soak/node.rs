//! One node of a soak: its share of the sessions, and the traffic that it makes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_sessions::{
    Engine, Error, EventStream, OpenOptions, Options, RequestId, SendOptions, SessionId, SubscriptionFilter,
    SubscriptionKey, Target,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::dice::Dice;

/// Opens at once while the sessions are made.
const AT_ONCE: usize = 64;
/// Resources that sessions subscribe to.
const RESOURCES: usize = 100;
const REPORT: Duration = Duration::from_secs(5);

/// What a node has to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    pub url: String,
    pub options: String,
    /// Which of the nodes it is, and how many there are.
    pub share: u64,
    pub shares: u64,
    /// Sessions that it holds at any time.
    pub sessions: u64,
    /// Sessions that end, and begin, in a second.
    pub churn: u64,
    /// Sends in a second.
    pub sends: u64,
    pub seconds: u64,
}

/// What it has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub streams: u64,
    pub opened: u64,
    pub ended: u64,
    pub sent: u64,
    pub received: u64,
    /// Ends of streams that nobody asked for.
    pub lost: u64,
    pub failed: u64,
}

#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    ended: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    lost: AtomicU64,
    failed: AtomicU64,
}

struct Held {
    id: SessionId,
    stream: Arc<EventStream>,
    reader: JoinHandle<()>,
}

struct Node {
    task: Task,
    engine: Engine,
    /// The oldest first.
    held: Mutex<VecDeque<Held>>,
    next: AtomicU64,
    counts: Arc<Counts>,
    dice: Dice,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Runs to its end; each report is a line.
pub async fn run(task: &str) -> Result<(), String> {
    let task: Task = serde_json::from_str(task).map_err(|error| error.to_string())?;
    let options = Options::from_json(&task.options).map_err(|error| error.to_string())?;
    let engine = Engine::connect(&task.url, options).await.map_err(|error| error.to_string())?;
    let dice = Dice::new(task.share + 1);
    let node = Arc::new(Node {
        task,
        engine,
        held: Mutex::default(),
        next: AtomicU64::new(0),
        counts: Arc::default(),
        dice,
    });
    let reports = tokio::spawn(reports(node.clone()));
    node.clone().fill().await;
    let until = Instant::now() + Duration::from_secs(node.task.seconds);
    let mut work = JoinSet::new();
    work.spawn(churn(node.clone(), until));
    work.spawn(traffic(node.clone(), until));
    work.spawn(notifications(node.clone(), until));
    while work.join_next().await.is_some() {}
    node.end_all().await;
    node.print();
    reports.abort();
    node.engine.shutdown(Duration::from_secs(30)).await.map_err(|error| error.to_string())
}

async fn reports(node: Arc<Node>) {
    loop {
        node.print();
        sleep(REPORT).await;
    }
}

impl Node {
    fn held(&self) -> std::sync::MutexGuard<'_, VecDeque<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let report = Report {
            streams: self.engine.stats().streams,
            opened: read(&self.counts.opened),
            ended: read(&self.counts.ended),
            sent: read(&self.counts.sent),
            received: read(&self.counts.received),
            lost: read(&self.counts.lost),
            failed: read(&self.counts.failed),
        };
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    }

    fn fails(&self, error: &Error) {
        // The first say why; the rest are counted.
        if self.counts.failed.fetch_add(1, Ordering::Relaxed) < 20 {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            eprintln!("node {}: {error} {cause}", self.task.share);
        }
    }

    fn id(&self, share: u64, n: u64) -> SessionId {
        SessionId::new(format!("soak-{share}-{n}")).expect("it is one")
    }

    /// A session that is, or a moment ago was, somewhere.
    fn any(&self) -> SessionId {
        let next = self.next.load(Ordering::Relaxed);
        let oldest = next.saturating_sub(self.task.sessions);
        let n = self.dice.between(oldest, next.saturating_sub(1).max(oldest));
        self.id(self.dice.below(self.task.shares as usize) as u64, n)
    }

    async fn fill(self: Arc<Self>) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = JoinSet::new();
        for _ in 0..self.task.sessions {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let node = self.clone();
            opening.spawn(async move {
                node.begin().await;
                drop(place);
            });
        }
        while opening.join_next().await.is_some() {}
    }

    /// A session as a client begins it: what it said at `initialize`, maybe a resource, its stream.
    async fn begin(&self) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let id = self.id(self.task.share, n);
        match self.try_begin(&id, n).await {
            Ok(stream) => {
                add(&self.counts.opened);
                let stream = Arc::new(stream);
                let reader = tokio::spawn(read(stream.clone(), self.counts.clone()));
                self.held().push_back(Held { id, stream, reader });
            }
            Err(error) => self.fails(&error),
        }
    }

    async fn try_begin(&self, id: &SessionId, n: u64) -> Result<EventStream, Error> {
        self.engine.info().set_client_info(id, r#"{"name":"soak","version":"1.0.0"}"#).await?;
        if n.is_multiple_of(4) {
            self.engine.info().add_subscription(id, &resource(n as usize)).await?;
        }
        self.engine.streams().open(id, OpenOptions::default()).await
    }

    /// A session's end: in order, without a word, or its stream alone.
    async fn end(&self, held: Held, how: u64) {
        held.reader.abort();
        add(&self.counts.ended);
        let ended = match how % 3 {
            0 => self.terminate(&held.id).await,
            1 => {
                drop(held.stream);
                return;
            }
            _ => self.engine.streams().close(&held.id).await.map(drop),
        };
        if let Err(error) = ended {
            self.fails(&error);
        }
    }

    async fn terminate(&self, id: &SessionId) -> Result<(), Error> {
        self.engine.streams().forget(id).await?;
        self.engine.info().delete(id).await?;
        Ok(())
    }

    async fn end_all(&self) {
        let all: Vec<_> = self.held().drain(..).collect();
        for (held, how) in all.into_iter().zip(0..) {
            self.end(held, how).await;
        }
    }

    async fn send(&self, n: u64) {
        let options = match n % 5 {
            0 => SendOptions::default().idempotency_key(format!("{}-{n}", self.task.share)),
            _ => SendOptions::default(),
        };
        let payload = "x".repeat(self.dice.between(20, 900) as usize);
        let target = match self.dice.below(100) {
            0..=9 => Target::Sessions((0..20).map(|_| self.any()).collect()),
            10..=12 => match self.engine.info().subscribers(&resource(n as usize)).await {
                Ok(subscribers) => Target::Sessions(subscribers),
                Err(error) => return self.fails(&error),
            },
            13..=27 => match self.engine.info().get(&self.any()).await {
                Ok(_) => return,
                Err(error) => return self.fails(&error),
            },
            _ => Target::Session(self.any()),
        };
        match self.engine.streams().send(target, payload, options).await {
            Ok(_) => add(&self.counts.sent),
            Err(error) => self.fails(&error),
        }
    }
}

fn resource(n: usize) -> String {
    format!("soak://{}", n % RESOURCES)
}

async fn read(stream: Arc<EventStream>, counts: Arc<Counts>) {
    while stream.next().await.is_some() {
        add(&counts.received);
    }
    // Whoever ends a session stops reading first.
    add(&counts.lost);
}

/// So many times a second, as long as there is time; what is under way is bounded.
async fn paced<F: Future<Output = ()> + Send + 'static>(
    until: Instant,
    a_second: u64,
    mut work: impl FnMut(u64) -> F,
) {
    let mut ticks = interval(Duration::from_micros(1_000_000 / a_second.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let room = Arc::new(Semaphore::new(4 * AT_ONCE));
    let mut under_way = JoinSet::new();
    for n in 0.. {
        ticks.tick().await;
        if Instant::now() >= until {
            break;
        }
        let Ok(place) = room.clone().acquire_owned().await else { break };
        let work = work(n);
        under_way.spawn(async move {
            work.await;
            drop(place);
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn churn(node: Arc<Node>, until: Instant) {
    let churn = node.task.churn;
    paced(until, churn, |n| {
        let node = node.clone();
        async move {
            let oldest = node.held().pop_front();
            if let Some(oldest) = oldest {
                node.end(oldest, n).await;
            }
            node.begin().await;
        }
    })
    .await;
}

async fn traffic(node: Arc<Node>, until: Instant) {
    let sends = node.task.sends;
    let to_all = tokio::spawn({
        let node = node.clone();
        async move {
            while Instant::now() < until {
                let sent = node.engine.streams().send(Target::all(), "to all", SendOptions::default()).await;
                if let Err(error) = sent {
                    node.fails(&error);
                }
                sleep_until(until.min(Instant::now() + Duration::from_secs(10))).await;
            }
        }
    });
    paced(until, sends, |n| {
        let node = node.clone();
        async move { node.send(n).await }
    })
    .await;
    let _ = to_all.await;
}

/// Subscriptions of the modern era, some of which end and begin all the time.
async fn notifications(node: Arc<Node>, until: Instant) {
    const LIST_CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    const AT_A_TIME: usize = 100;
    let mut subscriptions = VecDeque::new();
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged":true}"#).expect("it is one");
        let key = SubscriptionKey::new(RequestId::number(n), "soak");
        if let Ok(Some(subscription)) = node.engine.subscriptions().create(key, filter) {
            subscription.acknowledge();
            let counts = node.counts.clone();
            let reader = tokio::spawn(async move {
                while subscription.next().await.is_some() {
                    add(&counts.received);
                }
            });
            subscriptions.push_back(reader);
        }
        if subscriptions.len() > AT_A_TIME
            && let Some(oldest) = subscriptions.pop_front()
        {
            oldest.abort();
        }
        if n % 10 == 0
            && let Err(error) = node.engine.subscriptions().send(LIST_CHANGED).await
        {
            node.fails(&error);
        }
        sleep(Duration::from_millis(100)).await;
    }
    subscriptions.iter().for_each(JoinHandle::abort);
}
