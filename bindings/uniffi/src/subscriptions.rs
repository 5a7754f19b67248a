//! Subscriptions of the modern era (`subscriptions/listen`).

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mcp_sessions as core;
use mcp_sessions::SubscriptionKey;

use crate::cancel::{Cancellation, unless};
use crate::error::Result;
use crate::runtime::on_runtime;

/// A client's JSON-RPC id; its type counts: 1 is not "1".
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum RequestId {
    /// A number.
    Number {
        /// The number.
        value: i64,
    },
    /// A text.
    Text {
        /// The text.
        value: String,
    },
}

impl From<RequestId> for core::RequestId {
    fn from(id: RequestId) -> Self {
        match id {
            RequestId::Number { value } => core::RequestId::number(value),
            RequestId::Text { value } => core::RequestId::string(&value),
        }
    }
}

/// What a subscription asks for; only that is sent.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct SubscriptionFilter {
    /// `notifications/tools/list_changed`.
    #[uniffi(default = false)]
    pub tools_list_changed: bool,
    /// `notifications/prompts/list_changed`.
    #[uniffi(default = false)]
    pub prompts_list_changed: bool,
    /// `notifications/resources/list_changed`.
    #[uniffi(default = false)]
    pub resources_list_changed: bool,
    /// `notifications/resources/updated` of these URIs.
    #[uniffi(default = [])]
    pub resource_subscriptions: Vec<String>,
}

impl From<SubscriptionFilter> for core::SubscriptionFilter {
    fn from(filter: SubscriptionFilter) -> Self {
        let mut wanted = core::SubscriptionFilter::default();
        wanted.tools_list_changed = filter.tools_list_changed;
        wanted.prompts_list_changed = filter.prompts_list_changed;
        wanted.resources_list_changed = filter.resources_list_changed;
        wanted.resource_subscriptions = filter.resource_subscriptions;
        wanted
    }
}

/// Why a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum SubscriptionEnd {
    /// The server closed it.
    Closed,
    /// The client cancelled it, or went away.
    Cancelled,
    /// Its reader was too slow.
    Overflow,
    /// The engine was shut down.
    Shutdown,
}

impl From<core::SubscriptionEnd> for SubscriptionEnd {
    fn from(end: core::SubscriptionEnd) -> Self {
        match end {
            core::SubscriptionEnd::Cancelled => SubscriptionEnd::Cancelled,
            core::SubscriptionEnd::Overflow => SubscriptionEnd::Overflow,
            core::SubscriptionEnd::Shutdown => SubscriptionEnd::Shutdown,
            _ => SubscriptionEnd::Closed,
        }
    }
}

/// Registers subscriptions on this node, and sends notifications to those of every node.
#[derive(uniffi::Object)]
pub struct SubscriptionManager {
    inner: core::SubscriptionManager,
}

impl SubscriptionManager {
    pub(crate) fn new(inner: core::SubscriptionManager) -> Arc<Self> {
        Arc::new(SubscriptionManager { inner })
    }
}

#[uniffi::export]
impl SubscriptionManager {
    /// Registers a subscription. From here on matching notifications wait, in order, until it is
    /// acknowledged. Nothing when the id is taken within its origin.
    ///
    /// Fails with `too_large` for too many or too long URIs.
    pub fn create(
        &self,
        id: RequestId,
        origin: String,
        filter: SubscriptionFilter,
    ) -> Result<Option<Arc<Subscription>>> {
        let created = self.inner.create(SubscriptionKey::new(id.into(), origin), filter.into())?;
        Ok(created.map(|inner| Arc::new(Subscription { inner })))
    }

    /// Sends a JSON-RPC notification (JSON) to the matching subscriptions of every node; resolves once
    /// the backend has accepted it.
    ///
    /// Fails with `invalid_input` when it is not a notification, `too_large`, `timeout` or `unavailable`.
    pub async fn send(&self, notification: String) -> Result<()> {
        Ok(on_runtime(self.inner.send(&notification)).await?)
    }

    /// Ends one subscription of this node at once, whatever its reader does. False when there is none.
    pub fn end(&self, id: RequestId, origin: String, cancelled: bool) -> bool {
        self.inner.close(&SubscriptionKey::new(id.into(), origin), reason(cancelled))
    }

    /// Ends every subscription of this node, or those of one origin; returns how many.
    pub fn end_all(&self, origin: Option<String>, cancelled: bool) -> u64 {
        self.inner.close_all(origin.as_deref(), reason(cancelled)) as u64
    }
}

fn reason(cancelled: bool) -> core::SubscriptionEnd {
    match cancelled {
        true => core::SubscriptionEnd::Cancelled,
        false => core::SubscriptionEnd::Closed,
    }
}

/// One subscription; dropping it cancels it.
#[derive(uniffi::Object)]
pub struct Subscription {
    inner: core::Subscription,
}

#[uniffi::export]
impl Subscription {
    /// The acknowledgement was written: notifications may follow.
    pub fn acknowledge(&self) {
        self.inner.acknowledge();
    }

    /// The next notification, as JSON; nothing once the subscription has ended, or when `until` was
    /// cancelled. Cancelling the call loses nothing.
    #[uniffi::method(default(until = None))]
    pub async fn next(&self, until: Option<Arc<Cancellation>>) -> Option<String> {
        let next = unless(until, on_runtime(self.inner.next())).await;
        next.map(|notification| notification.as_str().to_owned())
    }

    /// The next notification, as JSON, if there is one already.
    pub fn try_next(&self) -> Option<String> {
        let mut next = pin!(self.inner.next());
        match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(notification) => notification.map(|notification| notification.as_str().to_owned()),
            Poll::Pending => None,
        }
    }

    /// Why it ended, if it has.
    pub fn end_reason(&self) -> Option<SubscriptionEnd> {
        self.inner.end().map(SubscriptionEnd::from)
    }

    /// Resolves when it ends.
    pub async fn ended(&self) -> SubscriptionEnd {
        on_runtime(self.inner.ended()).await.into()
    }
}
