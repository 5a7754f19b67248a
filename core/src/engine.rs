//! The engine: connect, health, shutdown.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Serialize;

#[cfg(feature = "cloudflare")]
use crate::backend::cloudflare::CloudflareBackend;
use crate::backend::memory::{MemoryBackend, MemoryHub, OutageSwitch};
#[cfg(feature = "postgres")]
use crate::backend::postgres::PostgresBackend;
#[cfg(feature = "redis")]
use crate::backend::redis::RedisBackend;
use crate::backend::url::{BackendUrl, parse};
use crate::backend::waiting::Waiting;
use crate::backend::{Capability, DynBackend};
use crate::error::{Error, ErrorKind, Result};
use crate::events::EventLog;
use crate::info::InfoManager;
use crate::options::Options;
use crate::registry::SessionRegistry;
use crate::runtime::{Runtime, SharedManualClock, Upkeep};
use crate::session::{NodeId, SessionId};
use crate::stats::Stats;
use crate::streams::hub::Hub;
use crate::streams::{EndReason, StreamManager};
use crate::subscriptions::{SubscriptionEnd, SubscriptionManager};

/// One node of a session engine. Cloning is cheap and shares it.
///
/// ```
/// use mcp_sessions::{Engine, Options};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::connect("memory://hub", Options::default()).await?;
/// assert!(engine.health().await.ready);
/// engine.shutdown(std::time::Duration::from_secs(5)).await?;
/// # Ok::<(), mcp_sessions::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    hub: Arc<Hub>,
    streams: StreamManager,
    info: InfoManager,
    subscriptions: SubscriptionManager,
    registry: SessionRegistry,
    manual_clock: Option<SharedManualClock>,
    outage: Option<Arc<OutageSwitch>>,
}

/// How an engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Open, with a valid lease and a backend that answers.
    pub ready: bool,
    /// Not shut down.
    pub open: bool,
    /// The backend answers.
    pub backend: bool,
    /// What the backend said instead, if it does not.
    pub problem: Option<String>,
    /// This node's name.
    pub node: String,
    /// Milliseconds this node's lease is good for.
    pub lease_left_ms: u64,
}

impl Engine {
    /// Connects to a backend as a node of its own.
    ///
    /// `memory://name` is the embedded backend: engines in one process that name the same hub are
    /// separate nodes of it; without a name the hub is private. `memory://name?clock=manual` lets
    /// tests move time with [`advance_clock`](Engine::advance_clock).
    ///
    /// With the feature `redis`, `redis://user:password@host:6379/0?prefix=app:` (`rediss://` with TLS,
    /// `redis+unix:///path` for a socket) is Redis 6.2 or later, or Valkey. Its other parameters are
    /// `ca`, `cert` and `key` (paths of PEM files), and `connectTimeoutMs` for the first connection.
    ///
    /// `interop=tmcp` is for a fleet in which processes with `@tmcp/session-manager-redis` are left: each
    /// reaches the other's sessions. An event for a stream that tmcp's manager holds is handed over and
    /// not kept, so there the receipt's `accepted` says only that its process was listening.
    ///
    /// With the feature `postgres`, `postgresql://user:password@host:5432/database` (`postgres://` too) is
    /// PostgreSQL 14 or later, with libpq's parameters. Those of this library: `schema`, `table` and
    /// `client_info_table`, `client_capabilities_table`, `log_level_table`, `subscriptions_table` name
    /// where the data is; `create=false` makes nothing; `durability=relaxed` lets a crash of the server
    /// lose the last events accepted, and tells who missed them (`gap`); `listen_url` is where LISTEN
    /// works if the URL names a pooler; `listen=off` does without, looking every `poll` milliseconds.
    /// With neither, statements are parsed once a connection; `prepare=off` is for a pooler that passes
    /// LISTEN on and still gives each transaction another connection.
    /// Notifications of subscriptions wait for no disk: a crash may lose those a node has not heard yet.
    ///
    /// Both take `operationTimeoutMs` and `outageWaitMs`, which go before the options of these names.
    ///
    /// With the feature `cloudflare`, `cloudflare://host/path?token=secret&prefix=app:` is the gateway of a
    /// Worker, over TLS; `tls=off` is for a Worker on this machine.
    ///
    /// Fails with `config` for a URL or option that makes no sense, `unauthorized`, `unavailable` or
    /// `timeout`.
    #[cfg(feature = "native")]
    pub async fn connect(url: &str, options: Options) -> Result<Self> {
        Self::connect_on(Runtime::native(), url, options).await
    }

    /// [`connect`](Engine::connect) on a runtime of the caller's own.
    pub async fn connect_on(runtime: Runtime, url: &str, options: Options) -> Result<Self> {
        match parse(url)? {
            BackendUrl::Memory { .. } => Self::memory_on(runtime, url, options),
            #[cfg(feature = "redis")]
            BackendUrl::Redis(address) => {
                let options = address.limits.apply(options)?;
                let shared = Arc::new(options.clone());
                let backend = RedisBackend::connect(*address, runtime.clone(), shared).await?;
                let backend = Arc::new(backend);
                backend.start();
                Self::with_backend(url, backend, runtime, options).await
            }
            #[cfg(feature = "postgres")]
            BackendUrl::Postgres(address) => {
                let options = address.limits.apply(options)?;
                let shared = Arc::new(options.clone());
                let backend = PostgresBackend::connect(*address, runtime.clone(), shared).await?;
                Self::with_backend(url, Arc::new(backend), runtime, options).await
            }
            #[cfg(feature = "cloudflare")]
            BackendUrl::Cloudflare(address) => {
                let options = options.checked()?;
                let backend = CloudflareBackend::new(*address, runtime.clone(), Arc::new(options.clone()));
                Self::with_backend(url, Arc::new(backend), runtime, options).await
            }
        }
    }

    /// An engine on a private embedded hub, with default options.
    #[cfg(feature = "native")]
    pub fn memory() -> Self {
        Self::memory_with("memory://", Options::default()).expect("the defaults make sense")
    }

    /// An engine on the embedded backend, without waiting: a `memory://` URL and options.
    ///
    /// Fails with `config`, also for the URL of another backend.
    #[cfg(feature = "native")]
    pub fn memory_with(url: &str, options: Options) -> Result<Self> {
        Self::memory_on(Runtime::native(), url, options)
    }

    fn memory_on(mut runtime: Runtime, url: &str, options: Options) -> Result<Self> {
        let (hub, manual_clock) = match parse(url)? {
            BackendUrl::Memory { hub, manual_clock } => (hub, manual_clock),
            #[cfg(any(feature = "redis", feature = "postgres", feature = "cloudflare"))]
            _ => {
                return Err(Error::new(ErrorKind::Config, "connect", "this URL needs to be connected to"));
            }
        };
        let options = Arc::new(options.checked()?);
        let hub = MemoryHub::named(hub.as_deref(), manual_clock, runtime.clock())?;
        let manual_clock = hub.manual_clock().cloned();
        if let Some(clock) = &manual_clock {
            runtime = runtime.with_clock(Arc::new(clock.clone()));
        }
        let backend = Arc::new(MemoryBackend::new(hub, options.clone()));
        let outage = Some(backend.outage().clone());
        let engine = Self::assemble(url, backend, runtime, options, manual_clock, outage);
        engine.inner.hub.join().now_or_never().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Unavailable, "connect", "the embedded hub is busy"))
        })?;
        engine.start_upkeep();
        Ok(engine)
    }

    /// An engine on a backend and a runtime of the caller's own; what a Worker uses.
    ///
    /// Fails as joining the backend fails, or with `config`.
    pub async fn with_backend(
        url: &str,
        backend: Arc<dyn DynBackend>,
        runtime: Runtime,
        options: Options,
    ) -> Result<Self> {
        let options = Arc::new(options.checked()?);
        let waits = options.outage_wait_ms > 0 && !backend.capability().immediate;
        let backend = match waits {
            true => Arc::new(Waiting::new(backend, runtime.clone(), options.outage_wait_ms)),
            false => backend,
        };
        let engine = Self::assemble(url, backend, runtime, options, None, None);
        engine.inner.hub.join().await?;
        engine.start_upkeep();
        Ok(engine)
    }

    fn assemble(
        url: &str,
        backend: Arc<dyn DynBackend>,
        runtime: Runtime,
        options: Arc<Options>,
        manual_clock: Option<SharedManualClock>,
        outage: Option<Arc<OutageSwitch>>,
    ) -> Self {
        let hub = Hub::new(backend, runtime, options);
        let streams = StreamManager::new(hub.clone());
        let subscriptions = SubscriptionManager::new(hub.clone(), streams.writer().clone());
        Engine {
            inner: Arc::new(Inner {
                url: url.to_owned(),
                info: InfoManager::new(hub.clone()),
                registry: SessionRegistry::new(hub.clone()),
                streams,
                subscriptions,
                hub,
                manual_clock,
                outage,
            }),
        }
    }

    /// The one timer of an engine: it renews the node's lease, not the sessions (G7).
    fn start_upkeep(&self) {
        let hub: Weak<Hub> = Arc::downgrade(&self.inner.hub);
        if let Some(clock) = &self.inner.manual_clock {
            return clock.follow(hub);
        }
        let runtime = self.inner.hub.runtime.clone();
        let mut period = self.inner.hub.period();
        self.inner.hub.runtime.spawn(Box::pin(async move {
            loop {
                runtime.sleep(period).await;
                let Some(hub) = hub.upgrade().filter(|hub| !hub.is_closed() && !hub.is_cut()) else { return };
                let started_ms = runtime.now_ms();
                hub.upkeep().await;
                // What it took does not put off the next renewal.
                let took = Duration::from_millis(runtime.now_ms() - started_ms);
                period = hub.period().saturating_sub(took);
            }
        }));
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    /// This node's name, new with each engine.
    pub fn node_id(&self) -> &NodeId {
        &self.inner.hub.node
    }

    /// What the backend can do.
    pub fn capability(&self) -> Capability {
        self.inner.hub.capability
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.inner.hub.options
    }

    /// Streams: open, send, has, close.
    pub fn streams(&self) -> &StreamManager {
        &self.inner.streams
    }

    /// Session info.
    pub fn info(&self) -> &InfoManager {
        &self.inner.info
    }

    /// Subscriptions of the modern era.
    pub fn subscriptions(&self) -> &SubscriptionManager {
        &self.inner.subscriptions
    }

    /// The registry: a session's life.
    pub fn registry(&self) -> &SessionRegistry {
        &self.inner.registry
    }

    /// The events of one session's streams, for an SDK's event store.
    pub fn events(&self, scope: &SessionId) -> EventLog {
        EventLog::new(self.inner.hub.clone(), self.inner.streams.clone(), scope)
    }

    /// How this engine is; asks the backend.
    pub async fn health(&self) -> Health {
        let hub = &self.inner.hub;
        let answer = hub.run("health", hub.backend.ping()).await;
        let (open, lease_left_ms) = (!hub.is_closed(), hub.lease_left_ms());
        Health {
            ready: open && answer.is_ok() && lease_left_ms > 0,
            open,
            backend: answer.is_ok(),
            problem: answer.err().map(|error| error.to_string()),
            node: hub.node.to_string(),
            lease_left_ms,
        }
    }

    /// What this engine counted, and what it holds now.
    pub fn stats(&self) -> Stats {
        let hub = &self.inner.hub;
        Stats {
            streams: hub.streams.len() as u64,
            subscriptions: hub.subscriptions.len() as u64,
            ..hub.counters.read()
        }
    }

    /// Whether the engine was shut down.
    pub fn is_closed(&self) -> bool {
        self.inner.hub.is_closed()
    }

    /// Ends every stream and subscription with `shutdown`, gives the sessions back and leaves. All
    /// later calls fail with `closed`. Shutting down twice is fine.
    ///
    /// Fails with `timeout` when the backend could not be told within `deadline`; it finds out when
    /// the lease ends.
    pub async fn shutdown(&self, deadline: Duration) -> Result<()> {
        let hub = &self.inner.hub;
        if !hub.mark_closed() {
            return Ok(());
        }
        if !hub.capability.immediate {
            // What was accepted before is still read, then the streams end.
            let caught_up = hub.backend.caught_up();
            if let Err(error) = hub.runtime.deadline("shutdown", deadline / 2, caught_up).await {
                tracing::debug!(%error, "shutting down without what is still on its way");
            }
        }
        for stream in hub.streams.all() {
            hub.end_stream(&stream, EndReason::Shutdown);
        }
        self.inner.subscriptions.close_all(None, SubscriptionEnd::Shutdown);
        hub.registry.end();
        hub.report_gauges();
        let leave = async {
            hub.flush_releases().await;
            hub.backend.leave(&hub.node).await
        };
        if hub.capability.immediate {
            return leave.await;
        }
        hub.runtime.deadline("shutdown", deadline, Box::pin(leave)).await
    }

    /// Stops as `kill -9` would: nothing is given back, no signal is taken; the other nodes notice
    /// when the lease ends. For tests of what happens then.
    pub fn abandon(&self) {
        self.inner.hub.cut();
    }

    /// Takes the embedded hub away from this node, or gives it back, as an outage of a server would:
    /// calls fail with `unavailable`, no signal comes, the lease runs out. For tests of what happens
    /// then. Fails with `config` on other backends, which have real outages.
    pub fn set_outage(&self, on: bool) -> Result<()> {
        match &self.inner.outage {
            Some(outage) => {
                outage.set(on);
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::Config,
                "set_outage",
                "only the hub of memory://name can be taken away; stop the server of another backend",
            )),
        }
    }

    /// Moves the time of a `memory://name?clock=manual` hub, and runs the upkeep of all its engines
    /// on the way. Fails with `config` on another clock.
    pub async fn advance_clock(&self, by: Duration) -> Result<()> {
        match &self.inner.manual_clock {
            Some(clock) => {
                clock.advance(by).await;
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::Config,
                "advance_clock",
                "time can be moved on memory://name?clock=manual only",
            )),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password, so only its scheme is shown.
        let scheme = self.inner.url.split(':').next().unwrap_or_default();
        f.debug_struct("Engine")
            .field("backend", &scheme)
            .field("node", self.node_id())
            .finish_non_exhaustive()
    }
}
