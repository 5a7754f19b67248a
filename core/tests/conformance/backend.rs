//! Where scenarios run: the backend of `MCP_SESSIONS_TEST_URL`, a fresh hub or prefix for each.

use std::time::Duration;

use mcp_sessions::backend::Capability;
use mcp_sessions::{Engine, Options};

use crate::redis_server::RedisServer;
use crate::scenario::Step;

const VARIABLE: &str = "MCP_SESSIONS_TEST_URL";

/// The server that `redis://` without a host asks for.
pub fn server_from_env() -> Result<Option<RedisServer>, String> {
    match std::env::var(VARIABLE).as_deref() {
        Ok("redis://") => RedisServer::start().map(Some),
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
    pub async fn from_env(server: Option<&RedisServer>) -> Result<Self, String> {
        let base = match server {
            Some(server) => server.url(),
            None => std::env::var(VARIABLE).unwrap_or_else(|_| "memory://".into()),
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
        None if query.is_empty() => format!("{address}?prefix={name}:"),
        None => format!("{address}?{query}&prefix={name}:"),
    }
}
