//! What is known of a session: client info, capabilities, log level, resource subscriptions.

mod cache;
mod document;
mod manager;

pub(crate) use cache::InfoCache;
pub use document::{InfoPatch, Json, LogLevel, SessionInfo};
pub use manager::InfoManager;
