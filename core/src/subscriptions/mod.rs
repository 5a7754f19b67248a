//! Subscriptions of the modern era (MCP 2026-07-28, `subscriptions/listen`): registered locally,
//! notified from every node.

mod filter;
mod local;
mod manager;
mod table;

pub use filter::SubscriptionFilter;
#[cfg(feature = "sync-layer")]
pub(crate) use filter::{Subject, subject};
pub use local::SubscriptionEnd;
pub use manager::{RequestId, Subscription, SubscriptionKey, SubscriptionManager};
pub(crate) use table::SubscriptionTable;
