//! Calls that are not worth a packed layout: a request as JSON, an answer as JSON.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use mcp_sessions::{
    Conflict, InfoPatch, OpenOptions, RequestId, SessionId, SessionInfo, SubscriptionEnd, SubscriptionFilter,
    SubscriptionKey,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::exchange::set_field;
use crate::failure::Failure;
use crate::port::{Port, Reply, Served, Work};
use crate::sessions::{self, EventsCall, RegistryCall};
use crate::shared::Node;
use crate::wire::field;

/// What JavaScript asks for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Request {
    Connect { url: String, options: Box<RawValue>, shared: bool },
    Describe {},
    Health {},
    Stats {},
    Shutdown { ms: u64 },
    Abandon {},
    SetOutage { on: bool },
    AdvanceClock { ms: u64 },
    Open { id: String, token: u32, after: Option<String>, reject: bool },
    Has { id: String },
    Known { id: String },
    Close { id: String },
    Forget { id: String },
    InfoGet { id: String },
    InfoCached { id: String },
    InfoPut { id: String, patch: Patch },
    InfoDelete { id: String },
    AddSubscription { id: String, uri: String },
    RemoveSubscription { id: String, uri: String },
    Subscribers { uri: String },
    SessionSubscriptions { id: String },
    Listen { id: Box<RawValue>, origin: String, filters: Box<RawValue>, token: u32, mailed: bool },
    EndSubscription { id: Box<RawValue>, origin: String, reason: String },
    EndSubscriptions { origin: Option<String>, reason: String },
    CheckCursor { id: String, cursor: String },
    Registry(RegistryCall),
    Events(EventsCall),
    Release { token: u32 },
    Leave { ms: u64 },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Patch {
    client_info: Option<Box<RawValue>>,
    client_capabilities: Option<Box<RawValue>>,
    log_level: Option<String>,
    protocol_version: Option<String>,
    initialize_params: Option<Box<RawValue>>,
}

impl Patch {
    fn read(self) -> Result<InfoPatch, Failure> {
        let raw = |json: Option<Box<RawValue>>| json.map(|json| json.get().to_owned());
        let fields = [
            (field::CLIENT_INFO, raw(self.client_info)),
            (field::CLIENT_CAPABILITIES, raw(self.client_capabilities)),
            (field::LOG_LEVEL, self.log_level),
            (field::PROTOCOL_VERSION, self.protocol_version),
            (field::INITIALIZE_PARAMS, raw(self.initialize_params)),
        ];
        let mut patch = InfoPatch::default();
        for (field, value) in fields {
            if let Some(value) = value {
                set_field(&mut patch, field, &value)?;
            }
        }
        Ok(patch)
    }
}

/// Starts a call; the answer if it is there at once, else it comes with a later exchange.
pub(crate) fn start(port: &mut Port, call: u32, request: &str) -> Option<Result<String, Failure>> {
    match work(port, request) {
        Ok(work) => port.start(call, work),
        Err(failure) => Some(Err(failure)),
    }
}

fn work(port: &mut Port, request: &str) -> Result<Work, Failure> {
    let request: Request = serde_json::from_str(request)
        .map_err(|cause| Failure::invalid("call", format!("the call is not understood: {cause}")))?;
    if let Request::Connect { url, options, shared } = request {
        return Ok(Box::pin(async move {
            let node = match shared {
                true => Node::shared(&url, options.get()).await?,
                false => Node::connect(&url, options.get()).await?,
            };
            Ok(Reply::Connected(node))
        }));
    }
    if let Request::Leave { ms } = request {
        // Ports of other threads may go on with it.
        let last = port.node.take().and_then(Arc::into_inner);
        return Ok(Box::pin(async move {
            if let Some(node) = last {
                node.shutdown(Duration::from_millis(ms)).await?;
            }
            json(&())
        }));
    }
    let request = match request {
        Request::Registry(call) => return sessions::registry(port, call),
        Request::Events(call) => return sessions::events(port, call),
        other => other,
    };
    let node = port.node("call")?.clone();
    let session = |id: &str| SessionId::new(id).map_err(Failure::from);
    Ok(match request {
        Request::Connect { .. } | Request::Leave { .. } | Request::Registry(_) | Request::Events(_) => {
            return Err(Failure::invalid("call", "a port connects once, and leaves once"));
        }
        Request::Describe {} => answer(&Described::of(&node)),
        Request::Stats {} => answer(&node.stats()),
        Request::Health {} => Box::pin(async move { json(&node.health().await) }),
        Request::Shutdown { ms } => {
            Box::pin(async move { json(&node.shutdown(Duration::from_millis(ms)).await?) })
        }
        Request::Abandon {} => {
            node.abandon();
            answer(&())
        }
        Request::SetOutage { on } => {
            node.set_outage(on)?;
            answer(&())
        }
        Request::AdvanceClock { ms } => {
            Box::pin(async move { json(&node.advance_clock(Duration::from_millis(ms)).await?) })
        }
        Request::Open { id, token, after, reject } => {
            let id = session(&id)?;
            let mut options = OpenOptions::default();
            if reject {
                options = options.conflict(Conflict::Reject);
            }
            if let Some(after) = after {
                options = options.after(after);
            }
            Box::pin(async move {
                let stream = node.streams().open(&id, options).await?;
                Ok(Reply::Pulled { token, stream })
            })
        }
        Request::Has { id } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.streams().has(&id).await?) })
        }
        Request::Known { id } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.streams().known(&id).await?) })
        }
        Request::Close { id } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.streams().close(&id).await?) })
        }
        Request::Forget { id } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.streams().forget(&id).await?) })
        }
        Request::InfoGet { id } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.info().get(&id).await?.as_deref().map(record).transpose()?) })
        }
        Request::InfoCached { id } => {
            let info = node.info().cached(&session(&id)?);
            answer(&info.as_deref().map(record).transpose()?)
        }
        Request::InfoPut { id, patch } => {
            let (id, patch) = (session(&id)?, patch.read()?);
            node.info_changed(&id, &port.signals);
            Box::pin(async move { json(&node.info().put(&id, patch).await?) })
        }
        Request::InfoDelete { id } => {
            let id = session(&id)?;
            node.info_changed(&id, &port.signals);
            Box::pin(async move { json(&node.info().delete(&id).await?) })
        }
        Request::AddSubscription { id, uri } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.info().add_subscription(&id, &uri).await?) })
        }
        Request::RemoveSubscription { id, uri } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.info().remove_subscription(&id, &uri).await?) })
        }
        Request::Subscribers { uri } => Box::pin(async move {
            let sessions = node.info().subscribers(&uri).await?;
            json(&sessions.iter().map(SessionId::as_str).collect::<Vec<_>>())
        }),
        Request::SessionSubscriptions { id } => {
            let id = session(&id)?;
            Box::pin(async move { json(&node.info().subscriptions(&id).await?) })
        }
        Request::Listen { id, origin, filters, token, mailed } => {
            let created = listen(port, &node, Key { id, origin }, &filters, token, mailed)?;
            answer(&created)
        }
        Request::EndSubscription { id, origin, reason } => {
            let key = Key { id, origin }.read()?;
            answer(&node.subscriptions().close(&key, end(&reason)))
        }
        Request::EndSubscriptions { origin, reason } => {
            answer(&node.subscriptions().close_all(origin.as_deref(), end(&reason)))
        }
        Request::Release { token } => {
            let stream = port.release(token);
            Box::pin(async move {
                if let Some(stream) = stream {
                    stream.close().await;
                }
                json(&())
            })
        }
        Request::CheckCursor { id, cursor } => {
            mcp_sessions::Cursor::check(&cursor, &session(&id)?)?;
            answer(&())
        }
    })
}

struct Key {
    id: Box<RawValue>,
    origin: String,
}

impl Key {
    fn read(self) -> Result<SubscriptionKey, Failure> {
        Ok(SubscriptionKey::new(RequestId::from_json(self.id.get())?, self.origin))
    }
}

fn listen(
    port: &mut Port,
    node: &Node,
    key: Key,
    filters: &RawValue,
    token: u32,
    mailed: bool,
) -> Result<bool, Failure> {
    let (key, filters) = (key.read()?, SubscriptionFilter::from_json(filters.get())?);
    let subscriptions = node.subscriptions();
    let created = match mailed {
        true => subscriptions.create_in(key, filters, &port.mailbox, token)?,
        false => subscriptions.create(key, filters)?,
    };
    let is_new = created.is_some();
    if let Some(subscription) = created {
        port.subscriptions.insert(token, Served { subscription, stash: None });
    }
    Ok(is_new)
}

fn end(reason: &str) -> SubscriptionEnd {
    match reason {
        "closed" => SubscriptionEnd::Closed,
        _ => SubscriptionEnd::Cancelled,
    }
}

/// What an engine is, as far as it does not change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    node_id: String,
    immediate: bool,
    merged_order: bool,
    processes: bool,
    manual_clock: bool,
    max_payload_bytes: usize,
    max_uri_bytes: usize,
    max_info_bytes: usize,
    session_ttl_ms: u64,
    registry_stale_ms: u64,
    frame_ids: bool,
}

impl Described {
    fn of(node: &Node) -> Self {
        let (capability, options) = (node.capability(), node.options());
        Described {
            node_id: node.node_id().to_string(),
            immediate: capability.immediate,
            merged_order: capability.merged_order,
            processes: capability.processes,
            manual_clock: capability.manual_clock,
            max_payload_bytes: options.max_payload_bytes,
            max_uri_bytes: options.max_uri_bytes,
            max_info_bytes: options.max_info_bytes,
            session_ttl_ms: options.session_ttl_ms,
            registry_stale_ms: options.registry.stale_ms,
            frame_ids: options.frame_ids,
        }
    }
}

/// A session's info; what is JSON already stays as it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_capabilities: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initialize_params: Option<&'a RawValue>,
}

/// Stored JSON as it is.
pub(crate) fn raw(json: Option<&mcp_sessions::Json>) -> Result<Option<&RawValue>, Failure> {
    let parsed = json.map(|json| serde_json::from_str(json.as_str())).transpose();
    parsed.map_err(|cause| Failure::invalid("info.get", format!("what is stored is not JSON: {cause}")))
}

pub(crate) fn record(info: &SessionInfo) -> Result<Record<'_>, Failure> {
    Ok(Record {
        client_info: raw(info.client_info.as_ref())?,
        client_capabilities: raw(info.client_capabilities.as_ref())?,
        log_level: info.log_level.map(|level| level.as_str()),
        protocol_version: info.protocol_version.as_deref(),
        initialize_params: raw(info.initialize_params.as_ref())?,
    })
}

pub(crate) fn json(value: &impl Serialize) -> Result<Reply, Failure> {
    serde_json::to_string(value)
        .map(Reply::Json)
        .map_err(|cause| Failure::invalid("call", format!("the answer is no JSON: {cause}")))
}

pub(crate) fn answer(value: &impl Serialize) -> Work {
    Box::pin(ready(json(value)))
}
