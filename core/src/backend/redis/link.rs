//! One connection that is made again whenever it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisResult};
use tokio::sync::{Notify, oneshot};

use super::cluster::Cluster;
use super::fault;
use super::run::Run;
use super::sentinel::Sentinels;
use super::tracking::Tracking;
use crate::backend::pauses::Pauses;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// Commands that wait to be written.
const WAITING: usize = 1_024;
/// A try that hangs must not outlast the return of the server by much (G9).
const TRY: Duration = Duration::from_millis(1_500);
/// Channels in one command.
const SUBSCRIBED_AT_ONCE: usize = 1_024;

/// Takes what the server pushes; called on the connection's own task, so it returns at once.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Where a link leads; looked up at each try.
#[derive(Clone)]
pub(super) enum Way {
    /// To one server.
    Fixed(Box<Client>),
    /// To the master that sentinels name.
    Master(Arc<Sentinels>),
    /// To whatever server of a cluster has this slot.
    Slot(Arc<Cluster>, u16),
}

impl Way {
    /// The server, and a mark by which it is known whether it still is the one.
    async fn find(&self, limit: Duration) -> RedisResult<(Client, u64)> {
        match self {
            Way::Fixed(client) => Ok(((**client).clone(), 0)),
            Way::Master(sentinels) => sentinels.master(limit).await,
            Way::Slot(cluster, slot) => cluster.server_of(*slot).await,
        }
    }

    fn leads_to(&self, mark: u64) -> bool {
        match self {
            Way::Fixed(_) => true,
            Way::Master(sentinels) => sentinels.is_last(mark),
            Way::Slot(cluster, slot) => cluster.is_last(*slot, mark),
        }
    }
}

/// How a link is kept.
#[derive(Clone)]
pub(super) struct Keeping {
    pub(super) way: Way,
    pub(super) runtime: Runtime,
    /// The first connection has to be there in this time.
    pub(super) first: Duration,
    /// Between two heartbeats.
    pub(super) heartbeat: Duration,
    /// A heartbeat without an answer for so long ends the connection.
    pub(super) patience: Duration,
    pub(super) on_push: Option<OnPush>,
    /// Starts on each connection before anything else.
    pub(super) tracking: Option<Arc<Tracking>>,
    /// Subscribed as soon as the connection is there.
    pub(super) channels: Vec<Vec<u8>>,
    /// The same for what matches.
    pub(super) pattern: Option<Vec<u8>>,
    /// Subscribed behind those, and asked for with each connection.
    pub(super) more_channels: Option<Arc<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>>,
    /// The channel is one of a slot, and so is known to the servers of that slot alone.
    pub(super) sharded: bool,
    /// Called once each connection but the first can be used, and is subscribed, before anything it is
    /// pushed: what was missed has to be read before what comes.
    pub(super) on_return: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Keeping {
    fn is_for_commands(&self) -> bool {
        self.channels.is_empty()
    }
}

/// A connection in use; it says when it is dead.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    /// Of the server, on a connection for commands.
    run: Run,
    mark: u64,
    end: Arc<End>,
}

#[derive(Default)]
struct End {
    dead: AtomicBool,
    told: Notify,
}

impl End {
    fn set(&self) {
        self.dead.store(true, Ordering::Release);
        self.told.notify_one();
    }
}

impl Live {
    /// A server that turned into a replica will not take a write again: another connection may find
    /// the new primary.
    pub(super) fn heed(&self, error: &redis::ServerError) {
        if error.kind() == Some(redis::ServerErrorKind::ReadOnly) {
            self.give_up();
        }
    }

    /// Not to be used any more: the link makes another one.
    pub(super) fn give_up(&self) {
        self.end.set();
    }
}

struct Shared {
    current: Mutex<Option<Live>>,
    closed: AtomicBool,
    wake: Notify,
}

impl Live {
    /// Sends a command; a lost connection is given up.
    pub(super) async fn send(&mut self, mut cmd: redis::Cmd) -> RedisResult<redis::Value> {
        self.run.tell(&mut cmd);
        let answer = self.connection.send_packed_command(&cmd).await;
        if answer.is_err() {
            self.give_up();
        }
        answer
    }

    /// Sends several commands in one go; each has its own answer.
    pub(super) async fn send_all(&mut self, commands: Vec<redis::Cmd>) -> RedisResult<Vec<redis::Value>> {
        let count = commands.len();
        let mut pipeline = redis::Pipeline::with_capacity(count);
        for mut cmd in commands {
            self.run.tell(&mut cmd);
            pipeline.add_command(cmd);
        }
        let answers = self.connection.send_packed_commands(&pipeline, 0, count).await;
        if answers.is_err() {
            self.give_up();
        }
        answers
    }
}

/// A connection that comes back; closed when dropped.
pub(super) struct Link(Arc<Shared>);

impl Link {
    /// Connects, and keeps the connection from then on. Fails when the first try does.
    pub(super) async fn open(keeping: Keeping) -> Result<Self> {
        let shared = Arc::new(Shared {
            current: Mutex::new(None),
            closed: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let link = Link(shared.clone());
        let (done, first) = oneshot::channel();
        // The caller may be on no runtime of its own.
        let runtime = keeping.runtime.clone();
        runtime.spawn(Box::pin(async move { run(shared, keeping, done).await }));
        first.await.unwrap_or_else(|_| Err(Error::closed("connect")))?;
        Ok(link)
    }

    /// The connection, if there is one just now.
    pub(super) fn live(&self) -> Option<Live> {
        self.0.current.lock().clone().filter(|live| !live.end.dead.load(Ordering::Acquire))
    }

    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.current.lock().take();
        self.0.wake.notify_one();
    }
}

/// A link that somebody else keeps.
#[derive(Clone)]
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    /// The connection, if there is one just now.
    pub(super) fn live(&self) -> Option<Live> {
        self.0.current.lock().clone().filter(|live| !live.end.dead.load(Ordering::Acquire))
    }
}

impl Link {
    pub(super) fn handle(&self) -> Handle {
        Handle(self.0.clone())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

async fn run(shared: Arc<Shared>, keeping: Keeping, done: oneshot::Sender<Result<()>>) {
    let mut live = match connect(&keeping, keeping.first, true).await {
        Ok(live) => live,
        Err(error) => return drop(done.send(Err(fault::not_connected(&error)))),
    };
    *shared.current.lock() = Some(live.clone());
    let _ = done.send(Ok(()));
    loop {
        watch(&shared, &keeping, &live).await;
        // Dropping all handles closes the socket, so that there are never two of one kind.
        shared.current.lock().take();
        drop(live);
        live = match again(&shared, &keeping).await {
            Some(live) => live,
            None => return,
        };
        {
            let mut current = shared.current.lock();
            if shared.closed.load(Ordering::Acquire) {
                return;
            }
            *current = Some(live.clone());
        }
        if let (true, Some(on_return)) = (keeping.is_for_commands(), &keeping.on_return) {
            on_return();
        }
    }
}

/// Resolves when the connection is dead, or the link closed.
async fn watch(shared: &Shared, keeping: &Keeping, live: &Live) {
    while !shared.closed.load(Ordering::Acquire)
        && !live.end.dead.load(Ordering::Acquire)
        && keeping.way.leads_to(live.mark)
    {
        let ended = select(Box::pin(live.end.told.notified()), Box::pin(shared.wake.notified()));
        if let Either::Left(_) = select(ended, keeping.runtime.sleep(keeping.heartbeat)).await {
            continue;
        }
        if !is_alive(keeping, live).await {
            return;
        }
    }
}

/// Whether the server is there, and is what it was. One that answers at all (even with an error, as
/// while loading) is there.
async fn is_alive(keeping: &Keeping, live: &Live) -> bool {
    let mut connection = live.connection.clone();
    let ask = async move {
        if keeping.is_for_commands() {
            return Run::of(&mut connection).await;
        }
        redis::cmd("PING").query_async::<redis::Value>(&mut connection).await.map(|_| Run::UNKNOWN)
    };
    match keeping.runtime.within(keeping.patience, ask).await {
        Some(Ok(run)) => !live.run.is_over(run),
        Some(Err(error)) => !error.is_io_error(),
        None => false,
    }
}

/// Connects again: at once, then with growing pauses; `None` once the link is closed.
async fn again(shared: &Shared, keeping: &Keeping) -> Option<Live> {
    let mut pauses = Pauses::new();
    loop {
        if shared.closed.load(Ordering::Acquire) {
            return None;
        }
        match connect(keeping, TRY, false).await {
            Ok(live) => return Some(live),
            Err(error) => tracing::debug!(%error, "Redis can't be reached; trying again"),
        }
        pauses.wait(&keeping.runtime, &shared.wake).await;
    }
}

async fn connect(keeping: &Keeping, limit: Duration, first: bool) -> RedisResult<Live> {
    let end = Arc::<End>::default();
    let (told, on_push) = (end.clone(), keeping.on_push.clone());
    let on_return = keeping.on_return.clone().filter(|_| !first);
    let channels = keeping.channels.len() + keeping.pattern.iter().len();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WAITING)
        .set_push_sender(move |push: PushInfo| {
            match (&push.kind, &on_push, &on_return) {
                // A slot that moves away takes its channels along.
                (PushKind::Disconnection | PushKind::SUnsubscribe, ..) => told.set(),
                (
                    PushKind::Message | PushKind::PMessage | PushKind::SMessage | PushKind::Invalidate,
                    Some(on_push),
                    _,
                ) => on_push(push),
                (PushKind::Subscribe | PushKind::SSubscribe, _, Some(on_return))
                    if is_last(&push, channels) =>
                {
                    on_return();
                }
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        });
    let (client, mark) = keeping.way.find(limit).await?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    if let Way::Master(_) = keeping.way {
        let role = keeping.runtime.within(limit, super::sentinel::is_master(&mut connection)).await;
        role.unwrap_or_else(|| Err(timed_out()))?;
    }
    let mut run = Run::UNKNOWN;
    if keeping.is_for_commands() {
        let asked = keeping.runtime.within(limit, Run::of(&mut connection)).await;
        run = asked.unwrap_or_else(|| Err(timed_out()))?;
    }
    if let Some((tracking, cmd)) = keeping.tracking.as_ref().and_then(|t| Some((t, t.command()?))) {
        let answer = keeping.runtime.within(limit, connection.send_packed_command(&cmd)).await;
        tracking.answered(&answer.unwrap_or_else(|| Err(timed_out()))?)?;
    }
    if keeping.sharded {
        for channel in &keeping.channels {
            let mut subscribe = redis::cmd("SSUBSCRIBE");
            subscribe.arg(channel);
            let subscribed = keeping.runtime.within(limit, connection.send_packed_command(&subscribe)).await;
            subscribed.unwrap_or_else(|| Err(timed_out()))?.extract_error()?;
        }
    } else if !keeping.channels.is_empty() {
        if let Some(pattern) = &keeping.pattern {
            let subscribed = keeping.runtime.within(limit, connection.psubscribe(pattern)).await;
            subscribed.unwrap_or_else(|| Err(timed_out()))?;
        }
        let subscribed = keeping.runtime.within(limit, connection.subscribe(&keeping.channels)).await;
        subscribed.unwrap_or_else(|| Err(timed_out()))?;
        let more = keeping.more_channels.as_ref().map_or(Vec::new(), |more| more());
        for some in more.chunks(SUBSCRIBED_AT_ONCE) {
            let subscribed = keeping.runtime.within(limit, connection.subscribe(some)).await;
            subscribed.unwrap_or_else(|| Err(timed_out()))?;
        }
    }
    Ok(Live { connection, run, mark, end })
}

fn timed_out() -> redis::RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Whether this confirms the last of so many channels.
fn is_last(push: &PushInfo, channels: usize) -> bool {
    matches!(push.data.last(), Some(redis::Value::Int(n)) if usize::try_from(*n) == Ok(channels))
}
