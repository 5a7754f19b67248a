//! Where scenarios run: the backend of `MCP_SESSIONS_TEST_URL`, a fresh hub or prefix for each.

use std::time::Duration;

use mcp_sessions::backend::Capability;
use mcp_sessions::{Engine, Options};

use crate::postgres_server::PostgresServer;
use crate::redis_server::{RedisCluster, RedisServer};
use crate::scenario::Step;
#[cfg(feature = "cloudflare")]
use crate::workerd::Workerd;

const VARIABLE: &str = "MCP_SESSIONS_TEST_URL";

/// A server of the tests' own.
pub enum Server {
    Redis(RedisServer),
    RedisCluster(RedisCluster),
    Postgres(PostgresServer),
    #[cfg(feature = "cloudflare")]
    Cloudflare(Workerd),
}

impl Server {
    fn url(&self) -> String {
        match self {
            Server::Redis(server) => server.url(),
            Server::RedisCluster(cluster) => cluster.url(),
            Server::Postgres(server) => server.url(),
            #[cfg(feature = "cloudflare")]
            Server::Cloudflare(server) => server.url(),
        }
    }
}

/// The server that a URL without a host asks for; a query may follow.
pub fn server_from_env() -> Result<Option<Server>, String> {
    let url = std::env::var(VARIABLE).unwrap_or_default();
    match url.split('?').next() {
        Some("redis://") => RedisServer::start().map(|server| Some(Server::Redis(server))),
        Some("redis+cluster://") => RedisCluster::start(0).map(|cluster| Some(Server::RedisCluster(cluster))),
        Some("postgresql://") => PostgresServer::start().map(|server| Some(Server::Postgres(server))),
        #[cfg(feature = "cloudflare")]
        Some("cloudflare://") => Workerd::start().map(|server| Some(Server::Cloudflare(server))),
        _ => Ok(None),
    }
}

/// The backend under test.
#[derive(Clone)]
pub struct Backend {
    base: String,
    pub capability: Capability,
}

/// Where one scenario runs.
pub struct Place {
    base: String,
    name: String,
    pub manual_clock: bool,
}

impl Backend {
    /// The backend of the environment, if it answers.
    pub async fn from_env(server: Option<&Server>) -> Result<Self, String> {
        let asked = std::env::var(VARIABLE).unwrap_or_else(|_| "memory://".into());
        let base = match (server, asked.split_once('?')) {
            (Some(server), Some((_, query))) => format!("{}?{query}", server.url()),
            (Some(server), None) => server.url(),
            (None, _) => asked,
        };
        let probe = url_of(&base, "probe");
        let fail =
            |error: &dyn std::fmt::Display| format!("the backend under test cannot be reached: {error}");
        let engine = Engine::connect(&probe, Options::default()).await.map_err(|error| fail(&error))?;
        let health = engine.health().await;
        if !health.ready {
            return Err(fail(&health.problem.unwrap_or_else(|| "it is not ready".into())));
        }
        let capability = engine.capability();
        engine.shutdown(Duration::from_secs(5)).await.map_err(|error| fail(&error))?;
        Ok(Backend { base, capability })
    }

    /// A place nobody else uses.
    pub fn place(&self, name: &str) -> Place {
        let name = format!("{name}-{:x}", std::process::id());
        Place { base: self.base.clone(), name, manual_clock: self.capability.manual_clock }
    }
}

impl Place {
    pub fn url(&self) -> String {
        url_of(&self.base, &self.name)
    }

    /// The port of its server on this machine, if it has one.
    pub fn port(&self) -> Option<u16> {
        let address = self.base.split_once("://")?.1.split(['/', '?']).next()?;
        address.rsplit_once(':')?.1.parse().ok()
    }

    /// Whether a node can be cut off from it: the servers of a cluster tell where the others are, past
    /// any proxy.
    pub fn can_be_cut_off(&self) -> bool {
        !self.base.contains("+cluster://")
    }

    /// The URL with another port.
    pub fn url_through(&self, port: u16) -> String {
        let own = self.port().map(|own| format!(":{own}")).unwrap_or_default();
        self.url().replacen(&own, &format!(":{port}"), 1)
    }

    /// Another deployment, which knows nothing of the scenario.
    pub fn foreign_url(&self) -> String {
        url_of(&self.base, &format!("{}-foreign", self.name))
    }

    /// How long a step really waits.
    pub fn waits_for(&self, step: &Step) -> Duration {
        match step {
            Step::Advance { ms } if !self.manual_clock => Duration::from_millis(*ms),
            _ => Duration::ZERO,
        }
    }
}

fn url_of(base: &str, name: &str) -> String {
    let (address, query) = base.split_once('?').unwrap_or((base, ""));
    match address.strip_prefix("memory://") {
        Some(hub) if query.is_empty() => format!("memory://{hub}{name}?clock=manual"),
        Some(hub) => format!("memory://{hub}{name}?{query}"),
        None if address.starts_with("postgres") => {
            let and = if query.is_empty() { "" } else { "&" };
            format!("{address}?{query}{and}schema={}", schema(name))
        }
        None if query.is_empty() => format!("{address}?prefix={name}:"),
        None => format!("{address}?{query}&prefix={name}:"),
    }
}

/// A name of at most 63 bytes that is as unique.
fn schema(name: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let short: String = name.chars().take(40).collect();
    format!("{short}-{:016x}", hasher.finish())
}
