//! The info manager: what a stateless request needs to know of its session.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::error::{Error, ErrorKind, Result};
use crate::info::document::{InfoPatch, Json, LogLevel, SessionInfo};
use crate::session::SessionId;
use crate::streams::hub::Hub;

/// Keeps what a client said at `initialize` and since, for every node to read.
///
/// ```
/// use mcp_sessions::{Engine, LogLevel, SessionId};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::memory();
/// let id = SessionId::random();
/// engine.info().set_client_info(&id, r#"{"name":"inspector","version":"1"}"#).await?;
/// engine.info().set_log_level(&id, LogLevel::Warning).await?;
/// assert_eq!(engine.info().log_level(&id).await?, LogLevel::Warning);
/// engine.info().add_subscription(&id, "file:///notes.md").await?;
/// assert_eq!(engine.info().subscribers("file:///notes.md").await?, [id]);
/// # Ok::<(), mcp_sessions::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct InfoManager {
    hub: Arc<Hub>,
}

impl InfoManager {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        InfoManager { hub }
    }

    /// All info of a session in one read, from the local cache where that is sure to be true.
    pub async fn get(&self, session: &SessionId) -> Result<Option<Arc<SessionInfo>>> {
        let hub = &self.hub;
        if hub.capability.immediate {
            return hub.run("info.get", hub.backend.info(session)).await;
        }
        if let Some(known) = hub.info_cache.get(session, hub.runtime.now_ms()) {
            hub.check_open("info.get")?;
            return Ok(known);
        }
        let ticket = hub.info_cache.begin(session);
        let started_ms = hub.runtime.now_ms();
        let info = hub.run("info.get", hub.backend.info(session)).await?;
        hub.info_cache.store(session, ticket, info.clone(), started_ms);
        Ok(info)
    }

    /// All info of a session, if it can be had without waiting.
    pub fn cached(&self, session: &SessionId) -> Option<Arc<SessionInfo>> {
        let hub = &self.hub;
        if hub.capability.immediate {
            return hub.backend.info(session).now_or_never()?.ok().flatten();
        }
        hub.info_cache.get(session, hub.runtime.now_ms()).flatten()
    }

    /// Calls `watcher` with each session whose info another node changed; `None` stands for any
    /// session. It must return at once and not call the engine.
    pub fn watch(&self, watcher: impl Fn(Option<&SessionId>) + Send + Sync + 'static) {
        self.hub.info_cache.watch(Arc::new(watcher));
    }

    /// Changes some fields; the session is known from here on.
    ///
    /// Fails with `too_large` when a field is over its limit; nothing is changed then.
    pub async fn put(&self, session: &SessionId, patch: InfoPatch) -> Result<()> {
        let hub = &self.hub;
        let limit = hub.options.max_info_bytes;
        let sizes = [
            ("client info", patch.client_info.as_ref().map(|json| json.as_str().len())),
            ("client capabilities", patch.client_capabilities.as_ref().map(|json| json.as_str().len())),
            ("protocol version", patch.protocol_version.as_ref().map(String::len)),
            ("initialize params", patch.initialize_params.as_ref().map(|json| json.as_str().len())),
        ];
        for (what, size) in sizes {
            if let Some(size) = size.filter(|size| *size > limit) {
                return Err(Error::too_large("info.put", what, size, limit));
            }
        }
        if hub.capability.immediate {
            return hub.run("info.put", hub.backend.put_info(session, patch)).await;
        }
        // Given up or failed, it may have happened all the same.
        let writing = hub.info_cache.write(session);
        hub.run("info.put", hub.backend.put_info(session, patch.clone())).await?;
        writing.done(patch);
        Ok(())
    }

    /// Sets `clientInfo` from JSON text. Fails with `invalid_input` when it is not JSON.
    pub async fn set_client_info(&self, session: &SessionId, json: &str) -> Result<()> {
        let client_info = Some(Json::parse(json)?);
        self.put(session, InfoPatch { client_info, ..InfoPatch::default() }).await
    }

    /// `clientInfo`; `not_found` when it was never set.
    pub async fn client_info(&self, session: &SessionId) -> Result<Json> {
        let info = self.get(session).await?;
        info.and_then(|info| info.client_info.clone()).ok_or_else(|| missing("Client info", session))
    }

    /// Sets `capabilities` from JSON text. Fails with `invalid_input` when it is not JSON.
    pub async fn set_client_capabilities(&self, session: &SessionId, json: &str) -> Result<()> {
        let client_capabilities = Some(Json::parse(json)?);
        self.put(session, InfoPatch { client_capabilities, ..InfoPatch::default() }).await
    }

    /// `capabilities`; `not_found` when they were never set.
    pub async fn client_capabilities(&self, session: &SessionId) -> Result<Json> {
        let info = self.get(session).await?;
        info.and_then(|info| info.client_capabilities.clone())
            .ok_or_else(|| missing("Client capabilities", session))
    }

    /// Sets the log level.
    pub async fn set_log_level(&self, session: &SessionId, level: LogLevel) -> Result<()> {
        self.put(session, InfoPatch { log_level: Some(level), ..InfoPatch::default() }).await
    }

    /// The log level; `not_found` when it was never set.
    pub async fn log_level(&self, session: &SessionId) -> Result<LogLevel> {
        let info = self.get(session).await?;
        info.and_then(|info| info.log_level).ok_or_else(|| missing("Log Level", session))
    }

    /// Sets the negotiated protocol version.
    pub async fn set_protocol_version(&self, session: &SessionId, version: &str) -> Result<()> {
        let protocol_version = Some(version.to_owned());
        self.put(session, InfoPatch { protocol_version, ..InfoPatch::default() }).await
    }

    /// The protocol version; `not_found` when it was never set.
    pub async fn protocol_version(&self, session: &SessionId) -> Result<String> {
        let info = self.get(session).await?;
        info.and_then(|info| info.protocol_version.clone())
            .ok_or_else(|| missing("Protocol version", session))
    }

    /// Sets all `params` of `initialize` from JSON text. Fails with `invalid_input` when it is not JSON.
    pub async fn set_initialize_params(&self, session: &SessionId, json: &str) -> Result<()> {
        let initialize_params = Some(Json::parse(json)?);
        self.put(session, InfoPatch { initialize_params, ..InfoPatch::default() }).await
    }

    /// All `params` of `initialize`; `not_found` when they were never set.
    pub async fn initialize_params(&self, session: &SessionId) -> Result<Json> {
        let info = self.get(session).await?;
        info.and_then(|info| info.initialize_params.clone())
            .ok_or_else(|| missing("Initialize params", session))
    }

    /// Subscribes a session to a resource (`resources/subscribe`). False when it was already.
    ///
    /// Fails with `invalid_input` for an empty URI, `too_large` for one over its limit or for one
    /// subscription too many.
    pub async fn add_subscription(&self, session: &SessionId, uri: &str) -> Result<bool> {
        self.check_uri("info.add_subscription", uri)?;
        let hub = &self.hub;
        let max = hub.options.max_subscriptions;
        hub.run("info.add_subscription", hub.backend.subscribe(session, uri, max)).await
    }

    /// Ends a subscription. False when there was none.
    pub async fn remove_subscription(&self, session: &SessionId, uri: &str) -> Result<bool> {
        self.check_uri("info.remove_subscription", uri)?;
        let hub = &self.hub;
        hub.run("info.remove_subscription", hub.backend.unsubscribe(session, uri)).await
    }

    /// The sessions subscribed to a resource, in no particular order.
    pub async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        self.check_uri("info.subscribers", uri)?;
        let hub = &self.hub;
        hub.run("info.subscribers", hub.backend.subscribers(uri)).await
    }

    /// The resources a session is subscribed to, sorted.
    pub async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        let hub = &self.hub;
        hub.run("info.subscriptions", hub.backend.subscriptions(session)).await
    }

    /// Deletes a session's info and its resource subscriptions, in O(own subscriptions) (G11). False
    /// when there was none. Its stream and log are ended by
    /// [`StreamManager::forget`](crate::StreamManager::forget).
    pub async fn delete(&self, session: &SessionId) -> Result<bool> {
        let hub = &self.hub;
        let _writing = hub.info_cache.write(session);
        hub.run("info.delete", hub.backend.forget_info(session)).await
    }

    fn check_uri(&self, operation: &'static str, uri: &str) -> Result<()> {
        let limit = self.hub.options.max_uri_bytes;
        if uri.is_empty() {
            return Err(Error::invalid(operation, "a resource URI is not empty"));
        }
        if uri.len() > limit {
            return Err(Error::too_large(operation, "the URI", uri.len(), limit));
        }
        Ok(())
    }
}

/// The text tmcp's managers use for what was never set.
fn missing(what: &str, session: &SessionId) -> Error {
    Error::new(ErrorKind::NotFound, "info.get", format!("{what} not found for session {session}"))
}

impl fmt::Debug for InfoManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfoManager").field("node", &self.hub.node).finish_non_exhaustive()
    }
}
