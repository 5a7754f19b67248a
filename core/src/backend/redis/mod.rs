//! The Redis backend: Redis 6.2 or later, and Valkey.
//!
//! Two connections a node: one for commands, one that the server pushes to. The second subscribes
//! one channel of the node's own and one of all nodes, and nothing ever waits on it.
//!
//! Keys, below the prefix (`tmcp:`); a session's own share a hash tag, `{id}`:
//!
//! | key | what |
//! |---|---|
//! | `session:{id}` hash | epoch and head of the log, owner epoch, holder, where to resume, until when it is known |
//! | `log:{id}` list | events: when, after which broadcast, payload |
//! | `keys:{id}` sorted set | idempotency keys by time |
//! | `uris:{id}` set | the resources it is subscribed to |
//! | `client_info:id`, `client_capabilities:id`, `log_level:id`, `protocol_version:id`, `initialize_params:id` | its info |
//! | `subscriptions:uri` set | the sessions subscribed to a resource |
//! | `topic:{b}`, `topiclog:{b}`, `topickeys:{b}` | the broadcasts; `{n}`: the notifications |
//! | `node:N` string | a node's lease |
//! | `nodes` sorted set, `held:N` set | nodes by the end of their lease; what each holds |
//! | `due` sorted set | sessions with subscriptions by the end of their info |
//!
//! Every key has a time to live, or is empty when its last member goes. What a node holds is put off
//! by its renewals, a few sessions at a time, so that no session costs a command of its own.

mod accept;
mod address;
mod fault;
mod link;
mod scripts;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Cmd, PushInfo, Value};
use tokio::sync::Mutex as AsyncMutex;

pub(crate) use address::{RedisAddress, is_redis, parse};

use crate::backend::{
    Acceptance, Backend, Capability, Claim, Claimed, Joined, Release, Renewal, Signal, SignalSink, Start,
    Submission, Tail, Topic, TopicTail,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{InfoPatch, Json, SessionInfo};
use crate::options::Options;
use crate::runtime::{Runtime, random_epoch};
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Position, Positions};
use crate::sync::Mutex;

use link::{Keeping, Link, Live, OnPush};
use scripts::Script;

/// Sessions of a dead node, or subscribers whose info ran out, that one script call looks at.
const SWEEP_BATCH: usize = 128;
/// Held sessions are there at least this long after their whole fleet died.
const SHORTEST_HOLD_MS: u64 = 3_600_000;

/// Where pushed signals go; a node that joins again brings another sink.
type Sink = Arc<Mutex<Option<Arc<dyn SignalSink>>>>;

/// One node on a Redis server.
pub(crate) struct RedisBackend {
    address: RedisAddress,
    options: Arc<Options>,
    keeping: Keeping,
    commands: Link,
    push: AsyncMutex<Option<Link>>,
    /// Batches go out one after the other, in the order they came.
    turns: AsyncMutex<()>,
    sink: Sink,
    me: OnceLock<NodeId>,
    joined: AtomicBool,
    /// Where the renewals are in what this node holds.
    scan: Mutex<String>,
}

impl RedisBackend {
    /// Connects for commands; the connection for pushes follows when the node joins.
    pub(crate) async fn connect(
        address: RedisAddress,
        runtime: Runtime,
        options: Arc<Options>,
    ) -> Result<Self> {
        let keeping = Keeping {
            client: address.client.clone(),
            runtime,
            first: options.operation_timeout(),
            heartbeat: Duration::from_millis(options.lease.renew_ms),
            patience: Duration::from_millis(options.lease.ttl_ms),
            on_push: None,
            channels: Vec::new(),
            on_return: None,
        };
        let commands = Link::open(keeping.clone()).await?;
        Ok(RedisBackend {
            address,
            options,
            keeping,
            commands,
            push: AsyncMutex::default(),
            turns: AsyncMutex::default(),
            sink: Sink::default(),
            me: OnceLock::new(),
            joined: AtomicBool::new(false),
            scan: Mutex::new("0".to_owned()),
        })
    }

    fn prefix(&self) -> &str {
        &self.address.prefix
    }

    /// The channel of all nodes. Channels know no databases, so their number is part of its name.
    fn everybody(&self) -> String {
        format!("{}nodes@{}", self.prefix(), self.address.db)
    }

    fn key(&self, kind: &str, session: &SessionId) -> String {
        let id = session.as_str();
        let mut key = String::with_capacity(self.prefix().len() + kind.len() + id.len() + 3);
        key.extend([self.prefix(), kind, ":{"]);
        if id.contains(['%', '{', '}']) {
            key.push_str(&id.replace('%', "%25").replace('{', "%7B").replace('}', "%7D"));
        } else {
            key.push_str(id);
        }
        key.push('}');
        key
    }

    fn me(&self) -> &str {
        self.me.get().map_or("00000000000000000000000000000000", NodeId::as_str)
    }

    fn live(&self, operation: &'static str) -> Result<Live> {
        self.commands.live().ok_or_else(|| fault::down(operation))
    }

    /// Subscribes; the signals go to whatever sink is the last.
    async fn follow(&self, node: &NodeId) -> Result<()> {
        let mut push = self.push.lock().await;
        if push.is_some() {
            return Ok(());
        }
        let (sink, me) = (self.sink.clone(), node.clone());
        let on_push: OnPush = Arc::new(move |push| tell(&sink, &me, push));
        let sink = self.sink.clone();
        let keeping = Keeping {
            on_push: Some(on_push),
            channels: vec![format!("{}to:{node}", self.prefix()).into_bytes(), self.everybody().into_bytes()],
            on_return: Some(Arc::new(move || signal(&sink, Signal::Doubt))),
            ..self.keeping.clone()
        };
        *push = Some(Link::open(keeping).await?);
        Ok(())
    }

    async fn send(&self, operation: &'static str, cmd: Cmd) -> Result<Result<Value, redis::ServerError>> {
        let mut live = self.live(operation)?;
        match live.connection.send_packed_command(&cmd).await {
            Ok(Value::ServerError(error)) => {
                live.heed(&error);
                Ok(Err(error))
            }
            Ok(value) => Ok(Ok(value)),
            Err(error) => {
                live.give_up();
                Err(fault::lost(operation, error))
            }
        }
    }

    /// Runs a script. `key` says where in a cluster it belongs.
    async fn call(
        &self,
        operation: &'static str,
        script: &Script,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let fill = |mut cmd: Cmd| {
            cmd.arg(1).arg(key).arg(self.prefix());
            for argument in arguments {
                cmd.arg(*argument);
            }
            cmd
        };
        let outcome = match self.send(operation, fill(script.by_hash())).await? {
            Err(error) if fault::is_no_script(&error) => self.send(operation, fill(script.by_text())).await?,
            outcome => outcome,
        };
        outcome.map_err(|error| fault::refused(operation, &error))
    }

    /// [`call`](Self::call) for a session's script: the id is the first argument.
    async fn of_session(
        &self,
        operation: &'static str,
        script: &Script,
        session: &SessionId,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let arguments = [&[session.as_str().as_bytes()], arguments].concat();
        self.call(operation, script, &self.key("session", session), &arguments).await
    }

    /// A script of a session that answers yes or no.
    async fn asked(
        &self,
        operation: &'static str,
        script: &Script,
        session: &SessionId,
        arguments: &[&[u8]],
    ) -> Result<bool> {
        let answer = self.of_session(operation, script, session, arguments).await?;
        wire::number(&answer).map(|n| n > 0).ok_or_else(|| fault::unreadable(operation))
    }

    async fn of_nodes(&self, operation: &'static str, script: &Script, arguments: &[&[u8]]) -> Result<Value> {
        self.call(operation, script, &format!("{}nodes", self.prefix()), arguments).await
    }

    /// Unholds what a node holds, and forgets the node.
    async fn bury(&self, operation: &'static str, node: &str) -> Result<()> {
        let (age, batch) = (self.age(), SWEEP_BATCH.to_string());
        while wire::number(
            &self
                .of_nodes(operation, &scripts::BURY, &[node.as_bytes(), age.as_bytes(), batch.as_bytes()])
                .await?,
        ) == Some(1)
        {}
        Ok(())
    }

    fn age(&self) -> String {
        self.options.retention.age_ms.to_string()
    }

    fn broadcast_age(&self) -> String {
        self.options.broadcast_retention.age_ms.to_string()
    }

    fn session_ttl(&self) -> String {
        self.options.session_ttl_ms.to_string()
    }

    fn hold_ms(&self) -> u64 {
        self.options.session_ttl_ms.max(SHORTEST_HOLD_MS)
    }

    /// A topic outlives every position a client or a session may still have in it.
    fn topic_ttl(&self) -> String {
        let options = &self.options;
        let ages = options.retention.age_ms + options.broadcast_retention.age_ms;
        (options.session_ttl_ms + ages + options.lease.ttl_ms * 2).to_string()
    }
}

fn signal(sink: &Sink, signal: Signal) {
    let sink = sink.lock().clone();
    if let Some(sink) = sink {
        sink.signal(signal);
    }
}

fn tell(sink: &Sink, me: &NodeId, push: PushInfo) {
    let Some(sink) = sink.lock().clone() else { return };
    let message = push.data.last().and_then(wire::bytes).unwrap_or_default();
    if wire::message(message, me, &mut |signal| sink.signal(signal)).is_none() {
        tracing::warn!(
            "a message on a channel of this prefix could not be read; is another program using it?"
        );
    }
}

impl Backend for RedisBackend {
    fn capability(&self) -> Capability {
        Capability {
            immediate: false,
            merged_order: true,
            processes: true,
            manual_clock: false,
            pipelined: true,
        }
    }

    async fn join(&self, node: &NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Result<Joined> {
        let _ = self.me.set(node.clone());
        *self.sink.lock() = Some(sink);
        self.follow(node).await?;
        if self.joined.load(Ordering::Acquire) {
            self.bury("join", node.as_str()).await?;
        }
        let (ttl, hold) = (lease.as_millis().to_string(), self.hold_ms().to_string());
        let topics = self.topic_ttl();
        let arguments: [&[u8]; 6] = [
            node.as_str().as_bytes(),
            ttl.as_bytes(),
            hold.as_bytes(),
            topics.as_bytes(),
            &wire::epoch(random_epoch()),
            &wire::epoch(random_epoch()),
        ];
        let answer = self.of_nodes("join", &scripts::JOIN, &arguments).await?;
        self.joined.store(true, Ordering::Release);
        let heads: Option<Vec<Position>> =
            wire::array(&answer).and_then(|heads| heads.iter().map(wire::read_position).collect());
        match heads.as_deref() {
            Some([broadcasts, notifications]) => {
                Ok(Joined { broadcasts: *broadcasts, notifications: *notifications })
            }
            _ => Err(fault::unreadable("join")),
        }
    }

    async fn renew(&self, node: &NodeId) -> Result<Renewal> {
        let lease = &self.options.lease;
        let (ttl, hold, topics) = (lease.ttl_ms.to_string(), self.hold_ms().to_string(), self.topic_ttl());
        let turns = (self.hold_ms() / 4 / lease.renew_ms).max(1).to_string();
        let scan = self.scan.lock().clone();
        let arguments: [&[u8]; 6] = [
            node.as_str().as_bytes(),
            ttl.as_bytes(),
            hold.as_bytes(),
            topics.as_bytes(),
            scan.as_bytes(),
            turns.as_bytes(),
        ];
        let answer = self.of_nodes("lease.renew", &scripts::RENEW, &arguments).await?;
        let Some([kept, scan]) = wire::array(&answer) else { return Err(fault::unreadable("lease.renew")) };
        *self.scan.lock() = wire::string(scan).unwrap_or("0").to_owned();
        Ok(if wire::number(kept) == Some(1) { Renewal::Kept } else { Renewal::Lost })
    }

    async fn leave(&self, node: &NodeId) -> Result<()> {
        let left = self.bury("shutdown", node.as_str()).await;
        if let Some(push) = self.push.lock().await.take() {
            push.close();
        }
        self.commands.close();
        left
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        self.accept_batch(batch).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        const OPERATION: &str = "streams.open";
        let id = &claim.session;
        let (kind, from) = match claim.start {
            Start::Cursor(at) | Start::Delivered(at) => ("c", at),
            Start::Fresh => ("f", Positions::default()),
        };
        let (ttl, hold) = (self.options.lease.ttl_ms.to_string(), self.hold_ms().to_string());
        let (age, shared_age) = (self.age(), self.broadcast_age());
        let arguments: [&[u8]; 10] = [
            claim.node.as_str().as_bytes(),
            ttl.as_bytes(),
            kind.as_bytes(),
            &wire::positions(from),
            if claim.replace { b"1" } else { b"0" },
            &wire::epoch(random_epoch()),
            age.as_bytes(),
            shared_age.as_bytes(),
            hold.as_bytes(),
            &wire::epoch(random_epoch()),
        ];
        let answer = self.of_session(OPERATION, &scripts::CLAIM, id, &arguments).await?;
        let answer = wire::array(&answer).unwrap_or_default();
        match (answer.first().and_then(wire::string), answer) {
            (Some("ok"), [_, owner_epoch, rest @ ..]) => {
                let owner_epoch = wire::string(owner_epoch).and_then(|n| n.parse().ok());
                owner_epoch
                    .zip(wire::tail(rest))
                    .map(|(owner_epoch, tail)| Claimed { owner_epoch, tail })
                    .ok_or_else(|| fault::unreadable(OPERATION))
            }
            (Some("lease"), _) => Err(Error::new(
                ErrorKind::Unavailable,
                OPERATION,
                "this node's lease has run out; it is renewed shortly",
            )),
            (Some("conflict"), _) => Err(Error::new(
                ErrorKind::Conflict,
                OPERATION,
                format!("session {id} has a stream already; close it, or open with replace"),
            )),
            _ => Err(fault::unreadable(OPERATION)),
        }
    }

    async fn release(&self, releases: &[Release]) -> Result<()> {
        self.release_batch(releases).await
    }

    async fn read(&self, session: &SessionId, after: Positions) -> Result<Tail> {
        const OPERATION: &str = "streams.read";
        let (at, age, shared) = (wire::positions(after), self.age(), self.broadcast_age());
        let arguments: [&[u8]; 3] = [&at, age.as_bytes(), shared.as_bytes()];
        match self.of_session(OPERATION, &scripts::READ, session, &arguments).await? {
            Value::Nil => Ok(Tail { start: after, gap: true, ..Tail::default() }),
            answer => wire::array(&answer).and_then(wire::tail).ok_or_else(|| fault::unreadable(OPERATION)),
        }
    }

    async fn read_topic(&self, topic: Topic, after: Position) -> Result<TopicTail> {
        const OPERATION: &str = "streams.read";
        let name = wire::topic_name(topic);
        let (at, age) = (wire::position(after), self.broadcast_age());
        let arguments: [&[u8]; 3] = [name.as_bytes(), &at, age.as_bytes()];
        let key = format!("{}topic:{{{name}}}", self.prefix());
        let answer = self.call(OPERATION, &scripts::READ_TOPIC, &key, &arguments).await?;
        wire::topic_tail(&answer).ok_or_else(|| fault::unreadable(OPERATION))
    }

    async fn holder(&self, session: &SessionId) -> Result<Option<NodeId>> {
        const OPERATION: &str = "streams.has";
        match self.of_session(OPERATION, &scripts::HOLDER, session, &[]).await? {
            Value::Nil => Ok(None),
            answer => wire::string(&answer)
                .and_then(NodeId::parse)
                .map(Some)
                .ok_or_else(|| fault::unreadable(OPERATION)),
        }
    }

    async fn known(&self, session: &SessionId) -> Result<bool> {
        self.asked("streams.known", &scripts::KNOWN, session, &[]).await
    }

    async fn end(&self, session: &SessionId, reason: EndReason) -> Result<bool> {
        let (reason, age) = (wire::reason(reason), self.age());
        self.asked("streams.close", &scripts::END, session, &[reason.as_bytes(), age.as_bytes()]).await
    }

    async fn forget(&self, session: &SessionId) -> Result<bool> {
        self.asked("streams.forget", &scripts::FORGET, session, &[&wire::epoch(random_epoch())]).await
    }

    async fn info(&self, session: &SessionId) -> Result<Option<Arc<SessionInfo>>> {
        const OPERATION: &str = "info.get";
        let ttl = self.session_ttl();
        let answer = self.of_session(OPERATION, &scripts::INFO, session, &[ttl.as_bytes()]).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let documents = wire::array(&answer).and_then(read_info);
        documents.map(|info| Some(Arc::new(info))).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                OPERATION,
                format!("the stored info of session {session} can't be read"),
            )
        })
    }

    async fn put_info(&self, session: &SessionId, patch: InfoPatch) -> Result<()> {
        let (ttl, everybody) = (self.session_ttl(), self.everybody());
        let epoch = wire::epoch(random_epoch());
        let mut arguments: Vec<&[u8]> =
            vec![ttl.as_bytes(), &epoch, everybody.as_bytes(), self.me().as_bytes()];
        let documents = [
            patch.client_info.as_ref().map(Json::as_str),
            patch.client_capabilities.as_ref().map(Json::as_str),
            patch.log_level.map(|level| level.as_str()),
            patch.protocol_version.as_deref(),
            patch.initialize_params.as_ref().map(Json::as_str),
        ];
        for (number, document) in ["1", "2", "3", "4", "5"].into_iter().zip(documents) {
            if let Some(document) = document {
                arguments.extend([number.as_bytes(), document.as_bytes()]);
            }
        }
        self.of_session("info.put", &scripts::PUT_INFO, session, &arguments).await.map(drop)
    }

    async fn forget_info(&self, session: &SessionId) -> Result<bool> {
        let everybody = self.everybody();
        let arguments: [&[u8]; 2] = [everybody.as_bytes(), self.me().as_bytes()];
        self.asked("info.delete", &scripts::FORGET_INFO, session, &arguments).await
    }

    async fn subscribe(&self, session: &SessionId, uri: &str, max: usize) -> Result<bool> {
        const OPERATION: &str = "info.add_subscription";
        let (ttl, most) = (self.session_ttl(), max.to_string());
        let arguments: [&[u8]; 4] =
            [ttl.as_bytes(), &wire::epoch(random_epoch()), uri.as_bytes(), most.as_bytes()];
        let answer = self.of_session(OPERATION, &scripts::SUBSCRIBE, session, &arguments).await?;
        match wire::number(&answer) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(_) => Err(Error::new(
                ErrorKind::TooLarge,
                OPERATION,
                format!("session {session} has {max} resource subscriptions, which is the limit"),
            )),
            None => Err(fault::unreadable(OPERATION)),
        }
    }

    async fn unsubscribe(&self, session: &SessionId, uri: &str) -> Result<bool> {
        self.asked("info.remove_subscription", &scripts::UNSUBSCRIBE, session, &[uri.as_bytes()]).await
    }

    async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        const OPERATION: &str = "info.subscribers";
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(format!("{}subscriptions:{uri}", self.prefix()));
        let answer = self.send(OPERATION, cmd).await?.map_err(|error| fault::refused(OPERATION, &error))?;
        let sessions = wire::array(&answer).ok_or_else(|| fault::unreadable(OPERATION))?;
        // Another program's members may be no session ids of ours.
        Ok(sessions.iter().filter_map(wire::string).filter_map(|id| SessionId::new(id).ok()).collect())
    }

    async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        const OPERATION: &str = "info.subscriptions";
        let answer = self.of_session(OPERATION, &scripts::SUBSCRIPTIONS, session, &[]).await?;
        let uris = wire::array(&answer).and_then(|uris| uris.iter().map(wire::string).collect());
        let mut uris: Vec<&str> = Option::ok_or_else(uris, || fault::unreadable(OPERATION))?;
        uris.sort_unstable();
        Ok(uris.into_iter().map(ToOwned::to_owned).collect())
    }

    async fn sweep(&self) -> Result<bool> {
        const OPERATION: &str = "sweep";
        let (everybody, batch) = (self.everybody(), SWEEP_BATCH.to_string());
        let arguments: [&[u8]; 2] = [everybody.as_bytes(), batch.as_bytes()];
        let answer = self.of_nodes(OPERATION, &scripts::SWEEP, &arguments).await?;
        let Some([more, dead @ ..]) = wire::array(&answer) else { return Err(fault::unreadable(OPERATION)) };
        for node in dead.iter().filter_map(wire::string) {
            self.bury(OPERATION, node).await?;
        }
        Ok(wire::number(more) == Some(1))
    }

    async fn caught_up(&self) -> Result<()> {
        const OPERATION: &str = "catch up";
        let push = self.push.lock().await.as_ref().and_then(Link::live);
        let mut live = push.ok_or_else(|| fault::down(OPERATION))?;
        // Its answer comes behind everything that was pushed before.
        match live.connection.send_packed_command(&redis::cmd("PING")).await {
            Ok(_) => Ok(()),
            Err(error) => {
                live.give_up();
                Err(fault::lost(OPERATION, error))
            }
        }
    }

    async fn ping(&self) -> Result<()> {
        let answer = self.send("health", redis::cmd("PING")).await?;
        answer.map_err(|error| fault::refused("health", &error))?;
        self.caught_up().await
    }
}

/// The five documents, as they are stored.
fn read_info(documents: &[Value]) -> Option<SessionInfo> {
    let [client_info, client_capabilities, log_level, protocol_version, initialize_params] = documents else {
        return None;
    };
    let text = |value: &Value| match value {
        Value::Nil => Some(None),
        value => wire::string(value).map(|text| Some(text.to_owned())),
    };
    let json = |value: &Value| text(value)?.map(|text| Json::parse(&text)).transpose().ok();
    Some(SessionInfo {
        client_info: json(client_info)?,
        client_capabilities: json(client_capabilities)?,
        // tmcp's own manager writes the level as JSON.
        log_level: text(log_level)?.map(|level| level.trim_matches('"').parse()).transpose().ok()?,
        protocol_version: text(protocol_version)?,
        initialize_params: json(initialize_params)?,
    })
}
