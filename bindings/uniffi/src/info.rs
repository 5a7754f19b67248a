//! What a client said at `initialize` and since.

use std::sync::Arc;

use mcp_sessions as core;
use mcp_sessions::{Json, SessionId};

use crate::error::Result;
use crate::runtime::on_runtime;

/// The severities of RFC 5424 as MCP names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// Detailed information for debugging.
    Debug,
    /// General information.
    Info,
    /// Normal but significant.
    Notice,
    /// A warning.
    Warning,
    /// An error.
    Error,
    /// A critical condition.
    Critical,
    /// Action must be taken at once.
    Alert,
    /// The system is unusable.
    Emergency,
}

impl From<core::LogLevel> for LogLevel {
    fn from(level: core::LogLevel) -> Self {
        match level {
            core::LogLevel::Debug => LogLevel::Debug,
            core::LogLevel::Info => LogLevel::Info,
            core::LogLevel::Notice => LogLevel::Notice,
            core::LogLevel::Warning => LogLevel::Warning,
            core::LogLevel::Error => LogLevel::Error,
            core::LogLevel::Critical => LogLevel::Critical,
            core::LogLevel::Alert => LogLevel::Alert,
            core::LogLevel::Emergency => LogLevel::Emergency,
        }
    }
}

impl From<LogLevel> for core::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => core::LogLevel::Debug,
            LogLevel::Info => core::LogLevel::Info,
            LogLevel::Notice => core::LogLevel::Notice,
            LogLevel::Warning => core::LogLevel::Warning,
            LogLevel::Error => core::LogLevel::Error,
            LogLevel::Critical => core::LogLevel::Critical,
            LogLevel::Alert => core::LogLevel::Alert,
            LogLevel::Emergency => core::LogLevel::Emergency,
        }
    }
}

/// What is known of a session; documents are JSON.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct SessionInfo {
    /// `clientInfo` of `initialize`.
    pub client_info: Option<String>,
    /// `capabilities` of `initialize`.
    pub client_capabilities: Option<String>,
    /// What `logging/setLevel` set.
    pub log_level: Option<LogLevel>,
    /// The negotiated protocol version.
    pub protocol_version: Option<String>,
    /// All `params` of `initialize`.
    pub initialize_params: Option<String>,
}

impl From<&core::SessionInfo> for SessionInfo {
    fn from(info: &core::SessionInfo) -> Self {
        let text = |json: &Option<Json>| json.as_ref().map(|json| json.as_str().to_owned());
        SessionInfo {
            client_info: text(&info.client_info),
            client_capabilities: text(&info.client_capabilities),
            log_level: info.log_level.map(Into::into),
            protocol_version: info.protocol_version.clone(),
            initialize_params: text(&info.initialize_params),
        }
    }
}

/// Changes of a session's info; what is left out stays as it is. Documents are JSON.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct InfoPatch {
    /// `clientInfo` of `initialize`.
    #[uniffi(default = None)]
    pub client_info: Option<String>,
    /// `capabilities` of `initialize`.
    #[uniffi(default = None)]
    pub client_capabilities: Option<String>,
    /// The log level.
    #[uniffi(default = None)]
    pub log_level: Option<LogLevel>,
    /// The negotiated protocol version.
    #[uniffi(default = None)]
    pub protocol_version: Option<String>,
    /// All `params` of `initialize`.
    #[uniffi(default = None)]
    pub initialize_params: Option<String>,
}

impl TryFrom<InfoPatch> for core::InfoPatch {
    type Error = core::Error;

    fn try_from(patch: InfoPatch) -> core::Result<Self> {
        let json = |text: Option<String>| text.map(|text| Json::parse(&text)).transpose();
        let mut checked = core::InfoPatch::default();
        checked.client_info = json(patch.client_info)?;
        checked.client_capabilities = json(patch.client_capabilities)?;
        checked.log_level = patch.log_level.map(Into::into);
        checked.protocol_version = patch.protocol_version;
        checked.initialize_params = json(patch.initialize_params)?;
        Ok(checked)
    }
}

/// Keeps what a client said at `initialize` and since, for every node to read.
#[derive(uniffi::Object)]
pub struct InfoManager {
    inner: core::InfoManager,
}

impl InfoManager {
    pub(crate) fn new(inner: core::InfoManager) -> Arc<Self> {
        Arc::new(InfoManager { inner })
    }
}

#[uniffi::export]
impl InfoManager {
    /// All info of a session in one read, from the local cache where that is sure to be true.
    pub async fn get(&self, session: String) -> Result<Option<SessionInfo>> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.get(&id)).await?.map(|info| SessionInfo::from(&*info)))
    }

    /// Changes some fields; the session is known from here on.
    ///
    /// Fails with `invalid_input` for what is not JSON, `too_large` for what is over its limit; nothing
    /// is changed then.
    pub async fn put(&self, session: String, patch: InfoPatch) -> Result<()> {
        let (id, patch) = (SessionId::new(session)?, patch.try_into()?);
        Ok(on_runtime(self.inner.put(&id, patch)).await?)
    }

    /// `clientInfo` as JSON; `not_found` when it was never set.
    pub async fn client_info(&self, session: String) -> Result<String> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.client_info(&id)).await?.as_str().to_owned())
    }

    /// `capabilities` as JSON; `not_found` when they were never set.
    pub async fn client_capabilities(&self, session: String) -> Result<String> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.client_capabilities(&id)).await?.as_str().to_owned())
    }

    /// The log level; `not_found` when it was never set.
    pub async fn log_level(&self, session: String) -> Result<LogLevel> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.log_level(&id)).await?.into())
    }

    /// The protocol version; `not_found` when it was never set.
    pub async fn protocol_version(&self, session: String) -> Result<String> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.protocol_version(&id)).await?)
    }

    /// All `params` of `initialize` as JSON; `not_found` when they were never set.
    pub async fn initialize_params(&self, session: String) -> Result<String> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.initialize_params(&id)).await?.as_str().to_owned())
    }

    /// Subscribes a session to a resource. False when it was already.
    ///
    /// Fails with `invalid_input` for an empty URI, `too_large` for one over its limit or for one
    /// subscription too many.
    pub async fn add_subscription(&self, session: String, uri: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.add_subscription(&id, &uri)).await?)
    }

    /// Ends a subscription. False when there was none.
    pub async fn remove_subscription(&self, session: String, uri: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.remove_subscription(&id, &uri)).await?)
    }

    /// The sessions subscribed to a resource, in no particular order.
    pub async fn subscribers(&self, uri: String) -> Result<Vec<String>> {
        let sessions = on_runtime(self.inner.subscribers(&uri)).await?;
        Ok(sessions.iter().map(SessionId::to_string).collect())
    }

    /// The resources a session is subscribed to, sorted.
    pub async fn subscriptions(&self, session: String) -> Result<Vec<String>> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.subscriptions(&id)).await?)
    }

    /// Deletes a session's info and its resource subscriptions. False when there was none.
    pub async fn delete(&self, session: String) -> Result<bool> {
        let id = SessionId::new(session)?;
        Ok(on_runtime(self.inner.delete(&id)).await?)
    }
}
