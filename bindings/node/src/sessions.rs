//! The session registry and the event log: calls as JSON, and what they leave with a port.

use std::sync::Arc;
use std::time::Duration;

use mcp_sessions::{
    Caller, Closings, EventLog, EventTail, Json, LoggedEvent, NodeId, PageRequest, Replay, RequestGuard,
    SessionFilter, SessionId, SessionRecord, SessionState,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::calls::{Record, answer, json, raw, record};
use crate::failure::Failure;
use crate::port::{ByNumber, Port, Reply, Work};

/// What a port holds of sessions, by numbers that JavaScript chooses.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) requests: ByNumber<RequestGuard>,
    pub(crate) closings: ByNumber<Arc<Closings>>,
    pub(crate) tails: ByNumber<Arc<EventTail>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum RegistryCall {
    Create {
        id: Option<String>,
        owner: Option<String>,
        metadata: Option<Box<RawValue>>,
    },
    Get {
        id: String,
        owner: Option<String>,
        trusted: bool,
    },
    Peek {
        id: String,
    },
    GetByOwner {
        owner: String,
    },
    Has {
        id: String,
    },
    Begin {
        id: String,
        token: u32,
    },
    End {
        token: u32,
    },
    Drop {
        token: u32,
    },
    Adopt {
        id: String,
    },
    Close {
        id: String,
        reason: String,
    },
    CloseByOwner {
        owner: String,
        reason: String,
    },
    List {
        owner: Option<String>,
        node: Option<String>,
        state: Option<String>,
        after: Option<String>,
        limit: usize,
        info: bool,
    },
    Stats {},
    Sweep {},
    Follow {
        token: u32,
    },
    NextClosing {
        token: u32,
    },
    Unfollow {
        token: u32,
    },
    Drain {
        ms: u64,
    },
    Shutdown {
        ms: u64,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum EventsCall {
    Append { scope: String, stream: String, payload: String },
    Prime { scope: String, stream: String },
    End { scope: String, stream: String },
    StreamOf { scope: String, id: String },
    Replay { scope: String, after: String },
    Read { scope: String, stream: String },
    Tail { scope: String, after: String, token: u32 },
    Follow { scope: String, stream: String, token: u32 },
    Next { token: u32 },
    Close { token: u32 },
    Forget { scope: String, stream: String },
    ForgetAll { scope: String },
}

fn session(id: &str) -> Result<SessionId, Failure> {
    SessionId::new(id).map_err(Failure::from)
}

fn metadata(raw: Option<Box<RawValue>>) -> Result<Option<Json>, Failure> {
    raw.map(|raw| Json::parse(raw.get()).map_err(Failure::from)).transpose()
}

pub(crate) fn registry(port: &mut Port, call: RegistryCall) -> Result<Work, Failure> {
    let node = port.node("registry")?.clone();
    let of = |id: String| session(&id);
    Ok(match call {
        RegistryCall::Create { id, owner, metadata: kept } => {
            let (id, kept) = (id.map(of).transpose()?, metadata(kept)?);
            Box::pin(async move {
                let registry = node.registry();
                let id = match id {
                    Some(id) => registry.register(&id, owner.as_deref(), kept).await.map(|()| id)?,
                    None => registry.create(owner.as_deref(), kept).await?,
                };
                json(&id.as_str())
            })
        }
        RegistryCall::Get { id, owner, trusted } => {
            let id = of(id)?;
            Box::pin(async move {
                let caller = match (&owner, trusted) {
                    (Some(token), _) => Caller::Owner(token),
                    (None, true) => Caller::Trusted,
                    (None, false) => Caller::Nobody,
                };
                shown(node.registry().get(&id, caller).await?)
            })
        }
        RegistryCall::Peek { id } => {
            let id = of(id)?;
            Box::pin(async move { shown(node.registry().peek(&id).await?) })
        }
        RegistryCall::GetByOwner { owner } => {
            Box::pin(async move { shown(node.registry().get_by_owner(&owner).await?) })
        }
        RegistryCall::Has { id } => {
            let id = of(id)?;
            Box::pin(async move { json(&node.registry().has(&id).await?) })
        }
        RegistryCall::Begin { id, token } => {
            let id = of(id)?;
            Box::pin(async move {
                let request = node.registry().begin_request(&id).await?;
                Ok(Reply::Begun { token, request })
            })
        }
        RegistryCall::End { token } => {
            let request = port.kept.requests.remove(&token);
            Box::pin(async move {
                if let Some(request) = request {
                    request.end().await?;
                }
                json(&())
            })
        }
        RegistryCall::Drop { token } => {
            port.kept.requests.remove(&token);
            answer(&())
        }
        RegistryCall::Adopt { id } => {
            let id = of(id)?;
            Box::pin(async move { json(&node.registry().adopt(&id).await?) })
        }
        RegistryCall::Close { id, reason } => {
            let id = of(id)?;
            Box::pin(async move { json(&node.registry().close(&id, &reason).await?) })
        }
        RegistryCall::CloseByOwner { owner, reason } => {
            Box::pin(async move { json(&node.registry().close_by_owner(&owner, &reason).await?) })
        }
        RegistryCall::List { owner, node: by, state, after, limit, info } => {
            let filter = filter(owner, by, state)?;
            let mut page = PageRequest::default().limit(limit);
            page.after = after;
            page.info = info;
            Box::pin(async move {
                let page = node.registry().list(filter, page).await?;
                let sessions = page.sessions.iter().map(Session::of).collect::<Result<Vec<_>, _>>()?;
                json(&Page { sessions, next: page.next.as_deref() })
            })
        }
        RegistryCall::Stats {} => Box::pin(async move {
            let stats = node.registry().stats().await?;
            json(&Counted {
                total: stats.total,
                active: stats.active,
                stale: stats.stale,
                closing: stats.closing,
                by_node: stats.by_node.iter().map(|(node, count)| (node.as_str(), *count)).collect(),
            })
        }),
        RegistryCall::Sweep {} => Box::pin(async move { json(&node.registry().sweep_stale().await?) }),
        RegistryCall::Follow { token } => {
            port.kept.closings.insert(token, node.registry().closings().into());
            answer(&())
        }
        RegistryCall::NextClosing { token } => {
            let closings = port.kept.closings.get(&token).cloned();
            Box::pin(async move {
                let closing = match closings {
                    Some(closings) => closings.next().await,
                    None => None,
                };
                json(&closing.map(|closing| (closing.session.to_string(), closing.reason.to_string())))
            })
        }
        RegistryCall::Unfollow { token } => {
            port.kept.closings.remove(&token);
            answer(&())
        }
        RegistryCall::Drain { ms } => {
            Box::pin(async move { json(&node.registry().drain(Duration::from_millis(ms)).await) })
        }
        RegistryCall::Shutdown { ms } => Box::pin(async move {
            let report = node.registry().shutdown(Duration::from_millis(ms)).await?;
            json(&(report.closed, report.requests_left))
        }),
    })
}

fn filter(
    owner: Option<String>,
    node: Option<String>,
    state: Option<String>,
) -> Result<SessionFilter, Failure> {
    let mut filter = SessionFilter::default();
    if let Some(owner) = owner {
        filter = filter.owner(owner);
    }
    if let Some(node) = node {
        filter = filter.node(&node.parse::<NodeId>()?);
    }
    let states = [SessionState::Active, SessionState::Stale, SessionState::Closing, SessionState::Closed];
    if let Some(state) = state {
        let known = states.into_iter().find(|known| known.as_str() == state);
        filter = filter.state(known.ok_or_else(|| {
            Failure::invalid("registry.list", "a state is active, stale, closing or closed".to_owned())
        })?);
    }
    Ok(filter)
}

/// A record, as JavaScript gets it; the times are ages, as its clock is another.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session<'a> {
    id: &'a str,
    node: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    age_ms: u64,
    idle_ms: u64,
    active_requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Record<'a>>,
}

impl<'a> Session<'a> {
    fn of(of: &'a SessionRecord) -> Result<Self, Failure> {
        Ok(Session {
            id: of.id.as_str(),
            node: of.node.as_str(),
            state: of.state.as_str(),
            owner: of.owner.map(|owner| owner.to_hex()),
            age_ms: of.age().as_millis() as u64,
            idle_ms: of.idle().as_millis() as u64,
            active_requests: of.active_requests,
            reason: of.reason.as_deref(),
            metadata: raw(of.metadata.as_ref())?,
            info: of.info.as_deref().map(record).transpose()?,
        })
    }
}

fn shown(record: Option<SessionRecord>) -> Result<Reply, Failure> {
    json(&record.as_ref().map(Session::of).transpose()?)
}

#[derive(Serialize)]
struct Page<'a> {
    sessions: Vec<Session<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted<'a> {
    total: u64,
    active: u64,
    stale: u64,
    closing: u64,
    by_node: std::collections::BTreeMap<&'a str, u64>,
}

pub(crate) fn events(port: &mut Port, call: EventsCall) -> Result<Work, Failure> {
    let node = port.node("events")?.clone();
    let log = |scope: &str| -> Result<EventLog, Failure> { Ok(node.events(&session(scope)?)) };
    Ok(match call {
        EventsCall::Append { scope, stream, payload } => {
            let log = log(&scope)?;
            Box::pin(async move { json(&log.append(&stream, &payload).await?.as_str()) })
        }
        EventsCall::Prime { scope, stream } => {
            let log = log(&scope)?;
            Box::pin(async move { json(&log.prime(&stream).await?.as_str()) })
        }
        EventsCall::End { scope, stream } => {
            let log = log(&scope)?;
            Box::pin(async move { json(&log.end(&stream).await?.as_str()) })
        }
        EventsCall::StreamOf { scope, id } => answer(&log(&scope)?.stream_of(&id)?),
        EventsCall::Replay { scope, after } => {
            let log = log(&scope)?;
            Box::pin(async move { replayed(&log.replay(&after).await?) })
        }
        EventsCall::Read { scope, stream } => {
            let log = log(&scope)?;
            Box::pin(async move { replayed(&log.read(&stream).await?) })
        }
        EventsCall::Tail { scope, after, token } => {
            let log = log(&scope)?;
            Box::pin(async move { Ok(Reply::Tailed { token, tail: log.tail(&after).await?.into() }) })
        }
        EventsCall::Follow { scope, stream, token } => {
            let log = log(&scope)?;
            Box::pin(async move { Ok(Reply::Tailed { token, tail: log.follow(&stream).await?.into() }) })
        }
        EventsCall::Next { token } => {
            let tail = port.kept.tails.get(&token).cloned();
            Box::pin(async move {
                let Some(tail) = tail else { return json(&Next { event: None, end: Some("closed") }) };
                match tail.next().await {
                    Some(event) => json(&Next { event: Some(logged(&event)), end: None }),
                    None => json(&Next { event: None, end: tail.end().map(|end| end.as_str()) }),
                }
            })
        }
        EventsCall::Close { token } => {
            let tail = port.kept.tails.remove(&token);
            Box::pin(async move {
                if let Some(tail) = tail {
                    tail.close().await;
                }
                json(&())
            })
        }
        EventsCall::Forget { scope, stream } => {
            let log = log(&scope)?;
            Box::pin(async move { json(&log.forget(&stream).await?) })
        }
        EventsCall::ForgetAll { scope } => {
            let log = log(&scope)?;
            Box::pin(async move { json(&log.forget_all().await?) })
        }
    })
}

#[derive(Serialize)]
struct Next<'a> {
    event: Option<(&'a str, &'a str)>,
    end: Option<&'static str>,
}

fn logged(event: &LoggedEvent) -> (&str, &str) {
    (event.id().as_str(), event.payload())
}

#[derive(Serialize)]
struct Replayed<'a> {
    stream: &'a str,
    events: Vec<(&'a str, &'a str)>,
    gap: bool,
    ended: bool,
}

fn replayed(replay: &Replay) -> Result<Reply, Failure> {
    json(&Replayed {
        stream: &replay.stream,
        events: replay.events.iter().map(logged).collect(),
        gap: replay.gap,
        ended: replay.ended,
    })
}
