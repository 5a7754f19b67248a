//! The engine: connect, health, statistics, shutdown.

use std::sync::Arc;
use std::time::Duration;

use mcp_sessions as core;
use mcp_sessions::{Options, SessionId};

use crate::error::Result;
use crate::events::EventLog;
use crate::info::InfoManager;
use crate::metrics::{Forward, MetricsSink};
use crate::registry::SessionRegistry;
use crate::runtime::{handle, on_runtime};
use crate::streams::StreamManager;
use crate::subscriptions::SubscriptionManager;

/// One node of a session engine.
#[derive(uniffi::Object)]
pub struct Engine {
    inner: core::Engine,
}

/// How an engine is.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
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

/// What an engine counted since it was made, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct Stats {
    /// Streams this node holds.
    pub streams: u64,
    /// Subscriptions (modern era) this node serves.
    pub subscriptions: u64,
    /// Events accepted, counted in sessions; a broadcast counts once.
    pub accepted: u64,
    /// Events dropped because their session is unknown.
    pub dropped: u64,
    /// Events that an idempotency key showed to be accepted before.
    pub duplicates: u64,
    /// Streams opened.
    pub opened: u64,
    /// Streams opened with a gap.
    pub gaps: u64,
    /// Streams ended because a newer one took over.
    pub replaced: u64,
    /// Streams ended because their reader was too slow.
    pub overflows: u64,
    /// Streams ended because this node's lease ran out.
    pub fenced: u64,
    /// Times a missed signal was read from a log.
    pub repairs: u64,
    /// Subscriptions ended because their reader was too slow.
    pub subscription_overflows: u64,
}

#[uniffi::export]
impl Engine {
    /// Connects to a backend as a node of its own: `memory://name`, and what this build has beside it:
    /// `redis://`, `postgresql://` (servers), `cloudflare://host/path?token=…` (a fleet behind a Worker).
    ///
    /// `options` is JSON, the same in every language: `{"retention": {"events": 1000}}`.
    ///
    /// `metrics` hears of what this engine counts and measures.
    ///
    /// Fails with `config` for a URL or option that makes no sense, `unauthorized`, `unavailable` or
    /// `timeout`.
    #[uniffi::constructor(default(options = None, metrics = None))]
    pub async fn connect(
        url: String,
        options: Option<String>,
        metrics: Option<Arc<dyn MetricsSink>>,
    ) -> Result<Arc<Self>> {
        let mut options = parse(options)?;
        if let Some(sink) = metrics {
            options = options.with_recorder(Forward(sink));
        }
        let inner = on_runtime(core::Engine::connect(&url, options)).await?;
        Ok(Arc::new(Engine { inner }))
    }

    /// An engine on a private embedded hub, at once.
    ///
    /// Fails with `config` for an option that makes no sense.
    #[uniffi::constructor(default(options = None))]
    pub fn memory(options: Option<String>) -> Result<Arc<Self>> {
        let options = parse(options)?;
        let _entered = handle().enter();
        Ok(Arc::new(Engine { inner: core::Engine::memory_with("memory://", options)? }))
    }

    /// This node's name, new with each engine.
    pub fn node_id(&self) -> String {
        self.inner.node_id().to_string()
    }

    /// Streams: open, send, has, close.
    pub fn streams(&self) -> Arc<StreamManager> {
        StreamManager::new(self.inner.streams().clone())
    }

    /// Session info.
    pub fn info(&self) -> Arc<InfoManager> {
        InfoManager::new(self.inner.info().clone())
    }

    /// Subscriptions of the modern era.
    pub fn subscriptions(&self) -> Arc<SubscriptionManager> {
        SubscriptionManager::new(self.inner.subscriptions().clone())
    }

    /// The registry: a session's life.
    pub fn registry(&self) -> Arc<SessionRegistry> {
        SessionRegistry::new(self.inner.registry().clone())
    }

    /// The events of one session's streams, for an event store.
    pub fn events(&self, scope: String) -> Result<Arc<EventLog>> {
        Ok(EventLog::new(self.inner.events(&SessionId::new(scope)?)))
    }

    /// How this engine is; asks the backend.
    pub async fn health(&self) -> Health {
        let health = on_runtime(self.inner.health()).await;
        Health {
            ready: health.ready,
            open: health.open,
            backend: health.backend,
            problem: health.problem,
            node: health.node,
            lease_left_ms: health.lease_left_ms,
        }
    }

    /// What this engine counted, and what it holds now.
    pub fn stats(&self) -> Stats {
        let stats = self.inner.stats();
        Stats {
            streams: stats.streams,
            subscriptions: stats.subscriptions,
            accepted: stats.accepted,
            dropped: stats.dropped,
            duplicates: stats.duplicates,
            opened: stats.opened,
            gaps: stats.gaps,
            replaced: stats.replaced,
            overflows: stats.overflows,
            fenced: stats.fenced,
            repairs: stats.repairs,
            subscription_overflows: stats.subscription_overflows,
        }
    }

    /// What the backend can do: the names of its capabilities.
    pub fn capabilities(&self) -> Vec<String> {
        let capability = self.inner.capability();
        core::backend::Capability::NAMES
            .into_iter()
            .filter(|name| capability.has(name) == Some(true))
            .map(str::to_owned)
            .collect()
    }

    /// Whether the engine was shut down.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Ends every stream and subscription with `shutdown`, gives the sessions back and leaves. All
    /// later calls fail with `closed`. Shutting down twice is fine.
    ///
    /// Fails with `timeout` when the backend could not be told within `deadline`; it finds out when the
    /// lease ends.
    #[uniffi::method(default(deadline = None))]
    pub async fn shutdown(&self, deadline: Option<Duration>) -> Result<()> {
        let deadline = deadline.unwrap_or(Duration::from_secs(5));
        Ok(on_runtime(self.inner.shutdown(deadline)).await?)
    }

    /// Stops as `kill -9` would: nothing is given back; the other nodes notice when the lease ends. For
    /// tests of what happens then.
    pub fn abandon(&self) {
        self.inner.abandon();
    }

    /// Takes the embedded hub away from this node, or gives it back, as an outage of a server would. For
    /// tests of what happens then. Fails with `config` on other backends.
    pub fn set_outage(&self, on: bool) -> Result<()> {
        Ok(self.inner.set_outage(on)?)
    }

    /// Moves the time of a `memory://name?clock=manual` hub. Fails with `config` on another clock.
    pub async fn advance_clock(&self, by: Duration) -> Result<()> {
        Ok(on_runtime(self.inner.advance_clock(by)).await?)
    }
}

fn parse(options: Option<String>) -> Result<Options> {
    Ok(options.map(|json| Options::from_json(&json)).transpose()?.unwrap_or_default())
}
