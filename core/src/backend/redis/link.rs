//! One connection that is made again whenever it is lost.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisResult};
use tokio::sync::{Notify, oneshot};

use super::fault;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// Commands that wait to be written.
const WAITING: usize = 1_024;
/// A try that hangs must not outlast the return of the server by much (G9).
const TRY: Duration = Duration::from_millis(1_500);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Takes what the server pushes; called on the connection's own task, so it returns at once.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// How a link is kept.
#[derive(Clone)]
pub(super) struct Keeping {
    pub(super) client: Client,
    pub(super) runtime: Runtime,
    /// The first connection has to be there in this time.
    pub(super) first: Duration,
    /// Between two heartbeats.
    pub(super) heartbeat: Duration,
    /// A heartbeat without an answer for so long ends the connection.
    pub(super) patience: Duration,
    pub(super) on_push: Option<OnPush>,
    /// Subscribed as soon as the connection is there.
    pub(super) channels: Vec<Vec<u8>>,
    /// Called once each connection but the first is subscribed, before anything it is pushed: what
    /// was missed has to be read before what comes.
    pub(super) on_return: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// A connection in use; it says when it is dead.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
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
    }
}

/// Resolves when the connection is dead, or the link closed.
async fn watch(shared: &Shared, keeping: &Keeping, live: &Live) {
    while !shared.closed.load(Ordering::Acquire) && !live.end.dead.load(Ordering::Acquire) {
        let ended = select(Box::pin(live.end.told.notified()), Box::pin(shared.wake.notified()));
        if let Either::Left(_) = select(ended, keeping.runtime.sleep(keeping.heartbeat)).await {
            continue;
        }
        let mut connection = live.connection.clone();
        let ping = within(keeping, keeping.patience, async move {
            redis::cmd("PING").query_async::<redis::Value>(&mut connection).await
        });
        // A server that answers at all (even with an error, as while loading) is there.
        if ping.await.is_none_or(|answer| answer.is_err_and(|error| error.is_io_error())) {
            return;
        }
    }
}

/// Connects again: at once, then with growing pauses; `None` once the link is closed.
async fn again(shared: &Shared, keeping: &Keeping) -> Option<Live> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        if shared.closed.load(Ordering::Acquire) {
            return None;
        }
        match connect(keeping, TRY, false).await {
            Ok(live) => return Some(live),
            Err(error) => tracing::debug!(%error, "Redis can't be reached; trying again"),
        }
        // So that a fleet does not come back in step.
        let [dice] = crate::runtime::random::<1>();
        let jittered = pause.mul_f64(0.5 + f64::from(dice) / 512.0);
        let woken = Box::pin(shared.wake.notified());
        select(woken, keeping.runtime.sleep(jittered)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(keeping: &Keeping, limit: Duration, first: bool) -> RedisResult<Live> {
    let end = Arc::<End>::default();
    let (told, on_push) = (end.clone(), keeping.on_push.clone());
    let on_return = keeping.on_return.clone().filter(|_| !first);
    let channels = keeping.channels.len();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WAITING)
        .set_push_sender(move |push: PushInfo| {
            match (&push.kind, &on_push, &on_return) {
                (PushKind::Disconnection, ..) => told.set(),
                (PushKind::Message, Some(on_push), _) => on_push(push),
                (PushKind::Subscribe, _, Some(on_return)) if is_last(&push, channels) => on_return(),
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        });
    let mut connection = keeping.client.get_multiplexed_async_connection_with_config(&config).await?;
    if !keeping.channels.is_empty() {
        let subscribed = within(keeping, limit, connection.subscribe(&keeping.channels)).await;
        subscribed.unwrap_or_else(|| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
    }
    Ok(Live { connection, end })
}

/// Whether this confirms the last of so many channels.
fn is_last(push: &PushInfo, channels: usize) -> bool {
    matches!(push.data.last(), Some(redis::Value::Int(n)) if usize::try_from(*n) == Ok(channels))
}

async fn within<T: Send>(
    keeping: &Keeping,
    limit: Duration,
    work: impl Future<Output = T> + Send,
) -> Option<T> {
    match select(Box::pin(work), keeping.runtime.sleep(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
