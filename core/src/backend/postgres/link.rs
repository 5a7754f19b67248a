//! One connection that is made again whenever it is lost.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{Notify, oneshot};
use tokio_postgres::{AsyncMessage, Client, Connection, Notification, Row};

use super::address::Server;
use super::prepared::{Direct, Prepared};
use super::{Parameter, fault};
use crate::backend::pauses::Pauses;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// A try that hangs must not outlast the return of the server by much (G9).
const TRY: Duration = Duration::from_millis(1_500);

/// Takes what is notified; called on the connection's own task, so it returns at once.
pub(super) type OnNotice = Arc<dyn Fn(&str) + Send + Sync>;

/// How a link is kept.
#[derive(Clone)]
pub(super) struct Keeping {
    pub(super) server: Server,
    pub(super) runtime: Runtime,
    /// The first connection has to be there in this time.
    pub(super) first: Duration,
    /// Between two heartbeats.
    pub(super) heartbeat: Duration,
    /// A heartbeat without an answer for so long ends the connection.
    pub(super) patience: Duration,
    pub(super) on_notice: Option<OnNotice>,
    /// Said as soon as the connection is there.
    pub(super) greeting: String,
    /// Called once each connection but the first can be used, before anything it is notified of: what
    /// was missed has to be read before what comes.
    pub(super) on_return: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Where connections are the server's own, each has a statement parsed once.
    pub(super) direct: Direct,
}

/// A connection in use; it says when it is dead.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) client: Arc<Client>,
    end: Arc<End>,
    prepared: Arc<Prepared>,
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
    /// Sends a statement at the first poll, and waits for its answer.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.prepared.query(statement, parameters).await
    }

    /// A server that is on its way down, or turned into a standby, will not take a write again:
    /// another connection may find the new primary.
    pub(super) fn heed(&self, error: &tokio_postgres::Error) {
        if fault::ends_connection(error) {
            self.end.set();
        }
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
        let live = self.0.current.lock().clone();
        live.filter(|live| !live.end.dead.load(Ordering::Acquire) && !live.client.is_closed())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
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

/// Why there is no connection.
enum Refusal {
    Postgres(tokio_postgres::Error),
    TooLong,
}

impl Refusal {
    fn into_error(self) -> Error {
        match self {
            Refusal::Postgres(error) => fault::not_connected(&error),
            Refusal::TooLong => fault::down("connect").with_source("no answer in time"),
        }
    }
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Refusal::Postgres(error)
    }
}

async fn run(shared: Arc<Shared>, keeping: Keeping, done: oneshot::Sender<Result<()>>) {
    let mut live = match connect(&keeping, keeping.first, true).await {
        Ok(live) => live,
        Err(refusal) => return drop(done.send(Err(refusal.into_error()))),
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
        if let (true, Some(on_return)) = (keeping.on_notice.is_none(), &keeping.on_return) {
            on_return();
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
        // An empty statement is the least there is.
        let answer = keeping.runtime.within(keeping.patience, live.client.batch_execute("")).await;
        match answer {
            Some(Ok(())) => {}
            Some(Err(error)) if !fault::ends_connection(&error) => {}
            _ => return,
        }
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
            Err(refusal) => {
                tracing::debug!(error = %refusal.into_error(), "Postgres can't be reached; trying again");
            }
        }
        pauses.wait(&keeping.runtime, &shared.wake).await;
    }
}

async fn connect(keeping: &Keeping, limit: Duration, first: bool) -> Result<Live, Refusal> {
    let end = Arc::<End>::default();
    let work = async {
        let server = &keeping.server;
        let (client, mut connection) = server.config.connect(server.tls.clone()).await?;
        let early = greet(&client, &mut connection, &keeping.greeting).await?;
        Ok::<_, tokio_postgres::Error>((client, connection, early))
    };
    let connected = keeping.runtime.within(limit, work).await.ok_or(Refusal::TooLong)?;
    let (client, mut connection, early) = connected?;
    if let (false, Some(on_return), true) = (first, &keeping.on_return, keeping.on_notice.is_some()) {
        on_return();
    }
    let on_notice = keeping.on_notice.clone();
    let take = move |notice: &Notification| {
        if let Some(on_notice) = &on_notice {
            on_notice(notice.payload());
        }
    };
    early.iter().for_each(&take);
    let told = end.clone();
    keeping.runtime.spawn(Box::pin(async move {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(notice))) => take(&notice),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection to Postgres was lost");
                    break;
                }
                None => break,
            }
        }
        told.set();
    }));
    let client = Arc::new(client);
    let prepared = Prepared::new(client.clone(), keeping.direct.clone(), keeping.runtime.clone());
    Ok(Live { client, end, prepared })
}

/// Says the greeting on a connection that nobody drives yet; returns what was notified meanwhile.
async fn greet<S, T>(
    client: &Client,
    connection: &mut Connection<S, T>,
    greeting: &str,
) -> Result<Vec<Notification>, tokio_postgres::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut early = Vec::new();
    if greeting.is_empty() {
        return Ok(early);
    }
    let mut said = pin!(client.batch_execute(greeting));
    let done = poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = said.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            match connection.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notification(notice)))) => early.push(notice),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        // Driving the connection may have brought the answer.
        said.as_mut().poll(cx)
    });
    done.await?;
    Ok(early)
}
