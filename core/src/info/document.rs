//! A session's info as one document.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Checked JSON text; cloning shares it.
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
pub struct Json(Arc<str>);

impl Json {
    /// Checks and takes JSON text. Fails with `invalid_input`.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map_err(|cause| Error::invalid("json", format!("this is not JSON: {cause}")))?;
        Ok(Json(text.into()))
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value.
    pub fn value(&self) -> serde_json::Value {
        // What was checked at the door stays valid.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Json(value.to_string().into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

/// The severities of RFC 5424 as MCP names them (specification, "Logging").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
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

impl LogLevel {
    /// All levels, from the least severe.
    pub const ALL: [LogLevel; 8] = [
        LogLevel::Debug,
        LogLevel::Info,
        LogLevel::Notice,
        LogLevel::Warning,
        LogLevel::Error,
        LogLevel::Critical,
        LogLevel::Alert,
        LogLevel::Emergency,
    ];

    /// The name of the level in MCP.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Notice => "notice",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
            LogLevel::Alert => "alert",
            LogLevel::Emergency => "emergency",
        }
    }
}

impl FromStr for LogLevel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        LogLevel::ALL.into_iter().find(|level| level.as_str() == name).ok_or_else(|| {
            let names = LogLevel::ALL.map(LogLevel::as_str).join(", ");
            Error::invalid("log level", format!("a log level is one of {names}"))
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All info of one session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionInfo {
    /// `clientInfo` of `initialize`.
    pub client_info: Option<Json>,
    /// `capabilities` of `initialize`.
    pub client_capabilities: Option<Json>,
    /// The level set by `logging/setLevel`.
    pub log_level: Option<LogLevel>,
    /// The negotiated protocol version.
    pub protocol_version: Option<String>,
    /// All `params` of `initialize`.
    pub initialize_params: Option<Json>,
}

/// A change of some fields; those that are `None` stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct InfoPatch {
    /// A new `clientInfo`.
    pub client_info: Option<Json>,
    /// New `capabilities`.
    pub client_capabilities: Option<Json>,
    /// A new log level.
    pub log_level: Option<LogLevel>,
    /// A new protocol version.
    pub protocol_version: Option<String>,
    /// New `params` of `initialize`.
    pub initialize_params: Option<Json>,
}

impl SessionInfo {
    pub(crate) fn apply(&mut self, patch: InfoPatch) {
        fn set<T>(field: &mut Option<T>, value: Option<T>) {
            if value.is_some() {
                *field = value;
            }
        }
        set(&mut self.client_info, patch.client_info);
        set(&mut self.client_capabilities, patch.client_capabilities);
        set(&mut self.log_level, patch.log_level);
        set(&mut self.protocol_version, patch.protocol_version);
        set(&mut self.initialize_params, patch.initialize_params);
    }
}
