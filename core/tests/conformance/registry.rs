//! The steps of the session registry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use mcp_sessions::{
    Caller, Closings, Engine, Error, Json, PageRequest, RequestGuard, SessionFilter, SessionId,
    SessionRecord, SessionState,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::check::{Outcome, PATIENCE, check, check_until, done, eventually, lock, same};
use crate::scenario::{Expect, Failure, Text, Texts};
use crate::world::World;

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum RegistryStep {
    #[serde(rename = "registry.create")]
    Create {
        node: Option<String>,
        session: Option<Text>,
        #[serde(rename = "as")]
        name: Option<String>,
        owner: Option<Text>,
        metadata: Option<Value>,
        #[serde(default)]
        pad: usize,
        expect: Option<Failure>,
    },
    #[serde(rename = "registry.get")]
    Get {
        node: Option<String>,
        session: Text,
        owner: Option<Text>,
        #[serde(default)]
        trusted: bool,
        expect: Expect<RecordIs>,
    },
    #[serde(rename = "registry.peek")]
    Peek {
        node: Option<String>,
        session: Text,
        #[serde(default)]
        eventually: bool,
        expect: Expect<RecordIs>,
    },
    #[serde(rename = "registry.getByOwner")]
    GetByOwner { node: Option<String>, owner: Text, expect: Expect<RecordIs> },
    #[serde(rename = "registry.has")]
    Has {
        node: Option<String>,
        session: Text,
        #[serde(default)]
        eventually: bool,
        expect: Expect<bool>,
    },
    #[serde(rename = "registry.begin")]
    Begin {
        node: Option<String>,
        session: Text,
        #[serde(rename = "as")]
        name: String,
        expect: Option<Failure>,
    },
    #[serde(rename = "registry.end")]
    End { request: String },
    #[serde(rename = "registry.drop")]
    Drop { request: String },
    #[serde(rename = "registry.adopt")]
    Adopt { node: Option<String>, session: Text, expect: Expect<bool> },
    #[serde(rename = "registry.close")]
    Close { node: Option<String>, session: Text, reason: Text, expect: Expect<bool> },
    #[serde(rename = "registry.closeByOwner")]
    CloseByOwner { node: Option<String>, owner: Text, reason: Text, expect: Expect<u64> },
    #[serde(rename = "registry.list")]
    List {
        node: Option<String>,
        owner: Option<Text>,
        of: Option<String>,
        state: Option<String>,
        limit: Option<usize>,
        after: Option<Text>,
        expect: Expect<Texts>,
    },
    #[serde(rename = "registry.stats")]
    Stats {
        node: Option<String>,
        #[serde(default)]
        eventually: bool,
        expect: StatsAre,
    },
    #[serde(rename = "registry.sweep")]
    Sweep { node: Option<String>, expect: Expect<u64> },
    #[serde(rename = "registry.follow")]
    Follow {
        node: Option<String>,
        #[serde(rename = "as")]
        name: String,
    },
    #[serde(rename = "registry.closings")]
    Closings { of: String, expect: Vec<ClosingIs> },
    #[serde(rename = "registry.closingsEnd")]
    ClosingsEnd { of: String },
    #[serde(rename = "registry.drain")]
    Drain { node: Option<String>, deadline_ms: u64, expect: u64 },
    #[serde(rename = "registry.shutdown")]
    Shutdown { node: Option<String>, deadline_ms: u64, expect: Expect<ShutdownIs> },
}

/// What a record has to be; what is not named is not looked at. `null`: there is none.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Option<RecordHas>")]
pub struct RecordIs(Option<RecordHas>);

impl From<Option<RecordHas>> for RecordIs {
    fn from(has: Option<RecordHas>) -> Self {
        RecordIs(has)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordHas {
    session: Option<Text>,
    state: Option<String>,
    /// A node by its name in the scenario.
    node: Option<String>,
    owned: Option<bool>,
    active_requests: Option<u64>,
    reason: Option<String>,
    metadata: Option<Value>,
    client_info: Option<Value>,
    protocol_version: Option<String>,
    idle_at_least_ms: Option<u64>,
    idle_below_ms: Option<u64>,
    age_at_least_ms: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatsAre {
    total: Option<u64>,
    active: Option<u64>,
    stale: Option<u64>,
    closing: Option<u64>,
    by_node: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosingIs {
    session: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShutdownIs {
    closed: u64,
    requests_left: u64,
}

/// What the steps made.
#[derive(Default)]
pub struct Held {
    requests: Mutex<HashMap<String, RequestGuard>>,
    closings: Mutex<HashMap<String, std::sync::Arc<Closings>>>,
    /// Every id that was made; none twice.
    made: Mutex<HashSet<String>>,
}

impl Held {
    /// Requests end, and every closing was read.
    pub fn check_the_end(&self) -> Outcome {
        lock(&self.requests).clear();
        for (name, closings) in lock(&self.closings).iter() {
            if let Some(closing) = closings.try_next() {
                return Err(format!("at the end, closings {name}: unread {closing:?}"));
            }
        }
        Ok(())
    }
}

pub async fn step(world: &World, step: RegistryStep) -> Outcome {
    match step {
        RegistryStep::Create { node, session, name, owner, metadata, pad, expect } => {
            create(world, &node, session, name, owner, metadata, pad, &expect).await
        }
        RegistryStep::Get { node, session, owner, trusted, expect } => {
            let engine = world.node(&node)?;
            let caller = match (&owner, trusted) {
                (Some(Text(token)), _) => Caller::Owner(token),
                (None, true) => Caller::Trusted,
                (None, false) => Caller::Nobody,
            };
            let got = async { engine.registry().get(&id_of(world, &session)?, caller).await };
            check_record(world, got.await, &expect)
        }
        RegistryStep::Peek { node, session, eventually: until, expect } => {
            let engine = world.node(&node)?;
            let peek = || async {
                let got = async { engine.registry().peek(&id_of(world, &session)?).await };
                check_record(world, got.await, &expect)
            };
            if until { eventually(peek).await } else { peek().await }
        }
        RegistryStep::GetByOwner { node, owner, expect } => {
            check_record(world, world.node(&node)?.registry().get_by_owner(&owner.0).await, &expect)
        }
        RegistryStep::Has { node, session, eventually, expect } => {
            let engine = world.node(&node)?;
            let has = || async { engine.registry().has(&id_of(world, &session)?).await };
            check_until(eventually, has, &expect).await
        }
        RegistryStep::Begin { node, session, name, expect } => {
            let engine = world.node(&node)?;
            let begun = async { engine.registry().begin_request(&id_of(world, &session)?).await }.await;
            done(begun.map(|guard| drop(lock(&world.registry.requests).insert(name, guard))), &expect)
        }
        RegistryStep::End { request } => done(taken(world, &request)?.end().await, &None),
        RegistryStep::Drop { request } => {
            drop(taken(world, &request)?);
            Ok(())
        }
        RegistryStep::Adopt { node, session, expect } => {
            let engine = world.node(&node)?;
            check(async { engine.registry().adopt(&id_of(world, &session)?).await }.await, &expect)
        }
        RegistryStep::Close { node, session, reason, expect } => {
            let engine = world.node(&node)?;
            let close = async { engine.registry().close(&id_of(world, &session)?, &reason.0).await };
            check(close.await, &expect)
        }
        RegistryStep::CloseByOwner { node, owner, reason, expect } => {
            check(world.node(&node)?.registry().close_by_owner(&owner.0, &reason.0).await, &expect)
        }
        RegistryStep::List { node, owner, of, state, limit, after, expect } => {
            let filter = filter_of(world, owner, of, state)?;
            let after = after.map(|Text(after)| after);
            let got = list(&world.node(&node)?, filter, limit.unwrap_or(100), after).await;
            check_listed(world, got, &expect)
        }
        RegistryStep::Stats { node, eventually: until, expect } => {
            let engine = world.node(&node)?;
            let check = || check_stats(world, &engine, &expect);
            if until { eventually(check).await } else { check().await }
        }
        RegistryStep::Sweep { node, expect } => {
            check(world.node(&node)?.registry().sweep_stale().await, &expect)
        }
        RegistryStep::Follow { node, name } => {
            let closings = world.node(&node)?.registry().closings();
            lock(&world.registry.closings).insert(name, closings.into());
            Ok(())
        }
        RegistryStep::Closings { of, expect } => read_closings(world, &of, expect).await,
        RegistryStep::ClosingsEnd { of } => match timeout(PATIENCE, followed(world, &of)?.next()).await {
            Ok(None) => Ok(()),
            Ok(Some(closing)) => Err(format!("unread {closing:?}")),
            Err(_) => Err("goes on".into()),
        },
        RegistryStep::Drain { node, deadline_ms, expect } => {
            let left = world.node(&node)?.registry().drain(Duration::from_millis(deadline_ms)).await;
            same("requests left", &left, &expect)
        }
        RegistryStep::Shutdown { node, deadline_ms, expect } => {
            let report = world.node(&node)?.registry().shutdown(Duration::from_millis(deadline_ms)).await;
            let report = report
                .map(|report| ShutdownIs { closed: report.closed, requests_left: report.requests_left });
            check(report, &expect)
        }
    }
}

#[allow(clippy::too_many_arguments)]
async fn create(
    world: &World,
    node: &Option<String>,
    session: Option<Text>,
    name: Option<String>,
    owner: Option<Text>,
    metadata: Option<Value>,
    pad: usize,
    expect: &Option<Failure>,
) -> Outcome {
    let engine = world.node(node)?;
    let owner = owner.as_ref().map(|Text(token)| token.as_str());
    let metadata = metadata.map(|mut metadata| {
        if pad > 0 {
            metadata["pad"] = "x".repeat(pad).into();
        }
        Json::from(&metadata)
    });
    let created = match session {
        Some(session) => {
            let register = async {
                let id = SessionId::new(&session.0)?;
                engine.registry().register(&id, owner, metadata).await
            };
            register.await
        }
        None => match engine.registry().create(owner, metadata).await {
            Ok(id) => {
                unguessable(world, &id)?;
                world.save(name.ok_or("a created session needs a name: \"as\"")?, id.to_string());
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    done(created, expect)
}

/// At least 128 bits in base64url, and never the same again.
fn unguessable(world: &World, id: &SessionId) -> Outcome {
    if id.as_str().len() < 22 {
        return Err(format!("{id} is too short to be unguessable"));
    }
    match lock(&world.registry.made).insert(id.to_string()) {
        true => Ok(()),
        false => Err(format!("{id} was made twice")),
    }
}

/// A session by its id, or as `$name` by the name it was created under.
fn id_of(world: &World, session: &Text) -> Result<SessionId, Error> {
    SessionId::new(world.named(&session.0))
}

fn taken(world: &World, request: &str) -> Result<RequestGuard, String> {
    lock(&world.registry.requests).remove(request).ok_or_else(|| format!("there is no request {request}"))
}

fn followed(world: &World, name: &str) -> Result<std::sync::Arc<Closings>, String> {
    lock(&world.registry.closings).get(name).cloned().ok_or_else(|| format!("nothing follows as {name}"))
}

async fn read_closings(world: &World, of: &str, expect: Vec<ClosingIs>) -> Outcome {
    let closings = followed(world, of)?;
    let mut wanted: Vec<_> = expect
        .into_iter()
        .map(|wanted| ClosingIs { session: world.named(&wanted.session), reason: wanted.reason })
        .collect();
    let mut got = Vec::new();
    while got.len() < wanted.len() {
        match timeout(PATIENCE, closings.next()).await {
            Ok(Some(closing)) => got
                .push(ClosingIs { session: closing.session.to_string(), reason: closing.reason.to_string() }),
            Ok(None) => return Err(format!("the closings ended after {got:?}")),
            Err(_) => return Err(format!("waited in vain for a closing after {got:?}")),
        }
    }
    wanted.sort();
    got.sort();
    same("closings", &got, &wanted)
}

fn check_record(
    world: &World,
    got: Result<Option<SessionRecord>, Error>,
    expect: &Expect<RecordIs>,
) -> Outcome {
    match (got, expect) {
        (got, Expect::Failure(failure)) => check(got.map(|record| format!("{record:?}")), &fails(failure)),
        (Err(error), Expect::Value(_)) => Err(format!("unexpected error {}: {error}", error.code())),
        (Ok(None), Expect::Value(RecordIs(None))) => Ok(()),
        (Ok(None), Expect::Value(RecordIs(Some(_)))) => Err("there is no such session".into()),
        (Ok(Some(record)), Expect::Value(RecordIs(None))) => Err(format!("expected none, got {record:?}")),
        (Ok(Some(record)), Expect::Value(RecordIs(Some(has)))) => compare(world, &record, has),
    }
}

fn fails<T>(failure: &Failure) -> Expect<T> {
    Expect::Failure(failure.clone())
}

fn compare(world: &World, record: &SessionRecord, has: &RecordHas) -> Outcome {
    fn one<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: &Option<T>) -> Outcome {
        wanted.as_ref().map_or(Ok(()), |wanted| same(what, &got, wanted))
    }
    let node = has.node.as_ref().map(|node| world.node_id(node)).transpose()?;
    let info = record.info.as_deref();
    let json = |json: Option<&Json>| json.map_or(Value::Null, Json::value);
    let idle = record.idle().as_millis() as u64;
    one("session", record.id.to_string(), &has.session.as_ref().map(|Text(id)| world.named(id)))?;
    one("state", record.state.as_str().to_owned(), &has.state)?;
    one("node", record.node.to_string(), &node)?;
    one("owned", record.owner.is_some(), &has.owned)?;
    one("active requests", record.active_requests, &has.active_requests)?;
    one("reason", record.reason.as_deref().unwrap_or_default().to_owned(), &has.reason)?;
    one("metadata", json(record.metadata.as_ref()), &has.metadata)?;
    one("client info", json(info.and_then(|info| info.client_info.as_ref())), &has.client_info)?;
    let version = info.and_then(|info| info.protocol_version.clone()).unwrap_or_default();
    one("protocol version", version, &has.protocol_version)?;
    one("idle for long enough", has.idle_at_least_ms.is_none_or(|least| idle >= least), &Some(true))?;
    one("accessed lately enough", has.idle_below_ms.is_none_or(|below| idle < below), &Some(true))?;
    let age = record.age().as_millis() as u64;
    one("old enough", has.age_at_least_ms.is_none_or(|least| age >= least), &Some(true))
}

fn filter_of(
    world: &World,
    owner: Option<Text>,
    of: Option<String>,
    state: Option<String>,
) -> Result<SessionFilter, String> {
    let mut filter = SessionFilter::default();
    if let Some(Text(token)) = owner {
        filter = filter.owner(token);
    }
    if let Some(node) = of {
        filter = filter.node(&world.node_id(&node)?.parse().map_err(|error: Error| error.to_string())?);
    }
    let states = [SessionState::Active, SessionState::Stale, SessionState::Closing, SessionState::Closed];
    if let Some(state) = state {
        let known = states.into_iter().find(|known| known.as_str() == state);
        filter = filter.state(known.ok_or_else(|| format!("{state} is no state"))?);
    }
    Ok(filter)
}

/// All pages; no page is longer than its limit.
async fn list(
    engine: &Engine,
    filter: SessionFilter,
    limit: usize,
    after: Option<String>,
) -> Result<Vec<String>, Error> {
    let mut listed = Vec::new();
    let mut page = PageRequest::default().limit(limit);
    page.after = after;
    loop {
        let got = engine.registry().list(filter.clone(), page.clone()).await?;
        assert!(got.sessions.len() <= limit, "a page is longer than its limit");
        listed.extend(got.sessions.iter().map(|record| record.id.to_string()));
        match got.next {
            Some(next) => page = page.after(next),
            None => return Ok(listed),
        }
    }
}

fn check_listed(world: &World, got: Result<Vec<String>, Error>, expect: &Expect<Texts>) -> Outcome {
    match expect {
        Expect::Failure(failure) => check(got, &fails(failure)),
        Expect::Value(Texts(wanted)) => {
            let sorted = |mut list: Vec<String>| {
                list.sort();
                list
            };
            let wanted = wanted.iter().map(|id| world.named(id)).collect();
            check(got.map(sorted), &Expect::Value(sorted(wanted)))
        }
    }
}

async fn check_stats(world: &World, engine: &Engine, expect: &StatsAre) -> Outcome {
    let stats = engine.registry().stats().await.map_err(|error| error.to_string())?;
    let counts = [
        ("total", stats.total, expect.total),
        ("active", stats.active, expect.active),
        ("stale", stats.stale, expect.stale),
        ("closing", stats.closing, expect.closing),
    ];
    for (name, got, wanted) in counts {
        same(name, &got, &wanted.unwrap_or(got))?;
    }
    let Some(by_node) = &expect.by_node else { return Ok(()) };
    let mut wanted = json!({});
    for (node, count) in by_node {
        wanted[world.node_id(node)?] = json!(count);
    }
    let got: serde_json::Map<_, _> =
        stats.by_node.iter().map(|(node, count)| (node.to_string(), json!(count))).collect();
    same("by node", &Value::Object(got), &wanted)
}
