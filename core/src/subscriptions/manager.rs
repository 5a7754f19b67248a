//! The subscription manager: create, acknowledge, send, close.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Mutex as AsyncMutex;

use crate::backend::{Address, Submission, Topic};
use crate::error::{Error, Result};
use crate::streams::Payload;
use crate::streams::hub::Hub;
use crate::streams::mailbox::Mailbox;
use crate::streams::writer::Writer;
use crate::subscriptions::filter::{SubscriptionFilter, subject};
use crate::subscriptions::local::{LocalSubscription, SubscriptionEnd};
use crate::wakers::Wait;

const MAX_ID_BYTES: usize = 1_024;

/// A JSON-RPC request id with its type kept: 1 is not "1".
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A string id.
    pub fn string(id: &str) -> Self {
        RequestId(serde_json::Value::from(id).to_string().into())
    }

    /// A number id.
    pub fn number(id: i64) -> Self {
        RequestId(id.to_string().into())
    }

    /// An id as it stands in JSON: a string or a number, at most 1,024 bytes. Fails with `invalid_input`.
    pub fn from_json(json: &str) -> Result<Self> {
        let value: Option<serde_json::Value> =
            (json.len() <= MAX_ID_BYTES).then(|| serde_json::from_str(json).ok()).flatten();
        match value {
            Some(id @ (serde_json::Value::String(_) | serde_json::Value::Number(_))) => {
                Ok(RequestId(id.to_string().into()))
            }
            _ => Err(Error::invalid(
                "subscriptions",
                format!("a JSON-RPC id is a string or a number of at most {MAX_ID_BYTES} bytes"),
            )),
        }
    }

    /// The id as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

/// What names a subscription: the client's request id, unique only within its origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    id: RequestId,
    origin: Arc<str>,
}

impl SubscriptionKey {
    /// The key of a request of one origin (a transport's name for a connection or session).
    pub fn new(id: RequestId, origin: impl Into<Arc<str>>) -> Self {
        SubscriptionKey { id, origin: origin.into() }
    }

    /// The client's request id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Serves `subscriptions/listen` streams: registrations are local, notifications reach every node.
///
/// ```
/// use mcp_sessions::{Engine, RequestId, SubscriptionFilter, SubscriptionKey};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::memory();
/// let key = SubscriptionKey::new(RequestId::number(1), "connection-1");
/// let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged": true}"#)?;
/// let subscription = engine.subscriptions().create(key, filter)?.expect("the key is free");
/// engine.subscriptions().send(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await?;
/// subscription.acknowledge(); // once the acknowledgement is written
/// assert!(subscription.next().await.is_some());
/// # Ok::<(), mcp_sessions::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct SubscriptionManager {
    hub: Arc<Hub>,
    writer: Arc<Writer>,
}

impl SubscriptionManager {
    pub(crate) fn new(hub: Arc<Hub>, writer: Arc<Writer>) -> Self {
        SubscriptionManager { hub, writer }
    }

    /// Registers a subscription. From here on matching notifications wait, in order, until
    /// [`Subscription::acknowledge`]. `None` when the key is taken.
    ///
    /// Fails with `too_large` for too many or too long URIs.
    pub fn create(&self, key: SubscriptionKey, filter: SubscriptionFilter) -> Result<Option<Subscription>> {
        self.register(key, filter, None)
    }

    /// [`create`](Self::create) for a reader of many subscriptions at once.
    pub fn create_in(
        &self,
        key: SubscriptionKey,
        filter: SubscriptionFilter,
        mailbox: &Arc<Mailbox>,
        token: u32,
    ) -> Result<Option<Subscription>> {
        self.register(key, filter, Some((mailbox.clone(), token)))
    }

    fn register(
        &self,
        key: SubscriptionKey,
        filter: SubscriptionFilter,
        mailbox: Option<(Arc<Mailbox>, u32)>,
    ) -> Result<Option<Subscription>> {
        const OPERATION: &str = "subscriptions.create";
        let hub = &self.hub;
        hub.check_open(OPERATION)?;
        let options = &hub.options;
        let uris = &filter.resource_subscriptions;
        if uris.len() > options.max_subscriptions {
            return Err(Error::new(
                crate::ErrorKind::TooLarge,
                OPERATION,
                format!(
                    "{} URIs in one subscription, the limit is {}",
                    uris.len(),
                    options.max_subscriptions
                ),
            ));
        }
        if let Some(long) = uris.iter().find(|uri| uri.len() > options.max_uri_bytes) {
            return Err(Error::too_large(OPERATION, "a URI", long.len(), options.max_uri_bytes));
        }
        let local = LocalSubscription::new(options.queue.clone(), mailbox);
        let registered = hub.subscriptions.insert(&key, filter, &local);
        Ok(registered.then(|| Subscription {
            hub: hub.clone(),
            key,
            local,
            turn: AsyncMutex::default(),
            place: None,
        }))
    }

    /// Sends a JSON-RPC notification to the matching subscriptions of every node; resolves once the
    /// backend has accepted it.
    ///
    /// Fails with `invalid_input` when it is not a notification, `too_large`, `timeout` or `unavailable`.
    pub async fn send(&self, notification: &str) -> Result<()> {
        let submission = self.submission(notification)?;
        if self.hub.capability.immediate {
            return self.accept_now(&submission);
        }
        self.writer.submit(submission).await?;
        self.catch_up().await;
        Ok(())
    }

    /// [`send`](Self::send) for many notifications, in this order: they leave as one batch, and an
    /// outcome each comes back once all have one.
    pub async fn send_all(
        &self,
        notifications: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Vec<Result<()>> {
        let mut submitted = Vec::new();
        let mut results: Vec<Option<Result<()>>> = Vec::new();
        for notification in notifications {
            results.push(match self.submission(notification.as_ref()) {
                Ok(submission) => {
                    submitted.push(submission);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        let accepted: Vec<_> = match self.hub.capability.immediate {
            true => submitted.iter().map(|submission| self.accept_now(submission)).collect(),
            false => {
                let accepted = self.writer.submit_all(submitted).await;
                if accepted.iter().any(Result::is_ok) {
                    self.catch_up().await;
                }
                accepted.into_iter().map(|one| one.map(drop)).collect()
            }
        };
        let mut accepted = accepted.into_iter();
        results.into_iter().filter_map(|result| result.or_else(|| accepted.next())).collect()
    }

    /// What was accepted comes back to this node in its own time: a subscription made from here on must
    /// not see it. It was accepted in any case.
    async fn catch_up(&self) {
        let _ = self.hub.run("subscriptions.send", self.hub.backend.caught_up()).await;
    }

    /// [`send`](Self::send) without waiting, on a backend whose capability is `immediate`; `config`
    /// on others.
    pub fn send_now(&self, notification: &str) -> Result<()> {
        self.accept_now(&self.submission(notification)?)
    }

    fn submission(&self, notification: &str) -> Result<Submission> {
        const OPERATION: &str = "subscriptions.send";
        self.hub.check_open(OPERATION)?;
        let limit = self.hub.options.max_payload_bytes;
        if notification.len() > limit {
            return Err(Error::too_large(OPERATION, "the notification", notification.len(), limit));
        }
        if subject(notification).is_none() {
            return Err(Error::invalid(OPERATION, "a notification is a JSON object with a method"));
        }
        Ok(Submission {
            to: Address::Topic(Topic::Notifications),
            payload: Payload::from(notification),
            idempotency_key: None,
        })
    }

    fn accept_now(&self, submission: &Submission) -> Result<()> {
        match self.hub.backend.accept_now(submission) {
            Some(accepted) => accepted.map(drop),
            None => Err(Error::new(
                crate::ErrorKind::Config,
                "subscriptions.send",
                "this backend needs to be waited for; use the asynchronous call",
            )),
        }
    }

    /// Ends one subscription of this node at once, whatever its reader does. False when there is none.
    pub fn close(&self, key: &SubscriptionKey, reason: SubscriptionEnd) -> bool {
        let Some(local) = self.hub.subscriptions.get(key) else { return false };
        self.hub.subscriptions.remove(key, &local);
        local.end(reason)
    }

    /// Ends every subscription of this node, or those of one origin; returns how many.
    pub fn close_all(&self, origin: Option<&str>, reason: SubscriptionEnd) -> usize {
        let all = self.hub.subscriptions.of_origin(origin);
        all.iter()
            .filter(|(key, local)| {
                self.hub.subscriptions.remove(key, local);
                local.end(reason)
            })
            .count()
    }
}

impl fmt::Debug for SubscriptionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionManager").field("node", &self.hub.node).finish_non_exhaustive()
    }
}

/// One subscription; dropping it cancels it.
pub struct Subscription {
    hub: Arc<Hub>,
    key: SubscriptionKey,
    local: Arc<LocalSubscription>,
    /// Held by the one that reads; the others wait in line.
    turn: AsyncMutex<()>,
    /// Where the one that polls it waits.
    place: Option<u64>,
}

impl Subscription {
    /// What names it.
    pub fn key(&self) -> &SubscriptionKey {
        &self.key
    }

    /// The acknowledgement was written: notifications may follow.
    pub fn acknowledge(&self) {
        self.local.acknowledge();
    }

    /// Stops (or starts again) handing notifications to the mailbox; the queue stays bounded
    /// meanwhile (G10).
    pub fn set_paused(&self, paused: bool) {
        self.local.set_paused(paused);
    }

    /// The next notification, as JSON; `None` once the subscription has ended. Cancel-safe; calls are
    /// served in the order in which they were first polled.
    pub async fn next(&self) -> Option<Payload> {
        let _turn = self.turn.lock().await;
        let mut wait = Wait::on(&*self.local);
        std::future::poll_fn(|cx| self.local.poll_next(cx, &mut wait.place)).await
    }

    /// Why it ended, if it has.
    pub fn end(&self) -> Option<SubscriptionEnd> {
        self.local.ended()
    }

    /// Resolves when it ends.
    pub async fn ended(&self) -> SubscriptionEnd {
        let mut wait = Wait::on(&*self.local);
        std::future::poll_fn(|cx| self.local.poll_ended(cx, &mut wait.place)).await
    }

    /// [`ended`](Self::ended) for the task that also polls the subscription: woken by whatever comes first.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<SubscriptionEnd> {
        self.local.poll_ended(cx, &mut self.place)
    }

    /// Cancels it, as dropping it does. One that has ended stays as it is.
    pub fn close(&self) {
        self.hub.subscriptions.remove(&self.key, &self.local);
        self.local.end(SubscriptionEnd::Cancelled);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close();
    }
}

impl futures_util::Stream for Subscription {
    type Item = Payload;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        let this = self.get_mut();
        this.local.poll_next(cx, &mut this.place)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("key", &self.key).field("end", &self.end()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_keeps_its_type() {
        assert_ne!(RequestId::number(1), RequestId::string("1"));
        assert_eq!(RequestId::from_json("1").unwrap(), RequestId::number(1));
        assert_eq!(RequestId::from_json(r#""1""#).unwrap(), RequestId::string("1"));
        for json in ["null", "true", "[1]", "{}", "", "1 2"] {
            assert!(RequestId::from_json(json).is_err(), "{json}");
        }
    }

    #[cfg(feature = "native")]
    #[tokio::test]
    async fn a_bus_gets_all_that_can_be_subscribed_to_once() {
        let engine = crate::Engine::memory();
        let key = SubscriptionKey::new(RequestId::number(1), "bus");
        let mut filter = SubscriptionFilter::everything();
        filter.tools_list_changed = true;
        let bus = engine.subscriptions().create(key.clone(), filter).unwrap().unwrap();
        bus.acknowledge();
        let sent = [
            r#"{"method":"notifications/tools/list_changed"}"#,
            r#"{"method":"notifications/prompts/list_changed"}"#,
            r#"{"method":"notifications/resources/list_changed"}"#,
            r#"{"method":"notifications/resources/updated","params":{"uri":"a:b"}}"#,
        ];
        engine.subscriptions().send(r#"{"method":"notifications/other"}"#).await.unwrap();
        for json in sent {
            engine.subscriptions().send(json).await.unwrap();
        }
        for json in sent {
            assert_eq!(bus.next().await.unwrap(), *json);
        }
        drop(bus);
        assert!(engine.subscriptions().create(key, SubscriptionFilter::everything()).unwrap().is_some());
    }

    #[test]
    fn a_number_beyond_64_bits_reads_as_itself() {
        let id = RequestId::from_json("944194644444444444444444").unwrap();
        assert_eq!(RequestId::from_json(id.as_json()).unwrap(), id);
    }

    proptest! {
        #[test]
        fn any_id_reads_as_itself(number in any::<f64>(), text in ".{0,40}") {
            // JSON has no NaN and no infinity: those are no ids.
            let number = RequestId::from_json(&serde_json::json!(number).to_string()).ok();
            for id in number.into_iter().chain([RequestId::string(&text)]) {
                prop_assert_eq!(RequestId::from_json(id.as_json()).unwrap(), id);
            }
        }
    }
}
