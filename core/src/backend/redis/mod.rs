//! The Redis backend: Redis 6.2 or later, and Valkey.
//!
//! On one server, or on the master that sentinels name, each operation is one script; [`many`] says
//! how they are done in a cluster.
//!
//! Two connections a node: one for commands, one that the server pushes to. The second subscribes
//! one channel of the node's own and one of all nodes, and nothing ever waits on it. In a cluster
//! there is a connection for commands to each shard, and the node's channel carries everything.
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
//! | `topic:{all}b`, `topiclog:{all}b`, `topickeys:{all}b` | the broadcasts; with `n`: the notifications |
//! | `nodes:{all}` sorted set | nodes by the end of their lease |
//! | `held:N` set (in a cluster: sorted by owner epoch) | what a node holds |
//! | `due:{all}` sorted set | sessions with subscriptions by the end of their info |
//! | … | the session registry's, told in [`registry`] |
//!
//! Logs that another server takes over, or the same one when it starts again, go on in other epochs: see
//! [`run`].
//!
//! Every key has a time to live, or is empty when its last member goes. What a node holds is put off
//! by its renewals, a few sessions at a time, so that no session costs a command of its own.

mod accept;
mod address;
mod cluster;
mod corrupt;
mod documents;
mod doubt;
mod fault;
mod interop;
mod link;
mod live;
mod many;
mod mixed;
mod registry;
mod run;
mod scripts;
mod sentinel;
mod tracking;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Cmd, PushInfo, Value};
use tokio::sync::Mutex as AsyncMutex;

pub(crate) use address::{RedisAddress, is_redis, parse};

use crate::backend::{
    Acceptance, ActiveRequests, Append, Backend, Capability, Claim, Claimed, CloseStart, Joined, Lane,
    ListQuery, Listed, NewSession, Reclaim, RegistryStats, Release, Renewal, Signal, SignalSink, Start,
    Submission, Swept, Tail, Topic, TopicTail, Touch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{InfoPatch, Json, SessionInfo};
use crate::options::Options;
use crate::registry::{OwnerHash, SessionRecord};
use crate::runtime::{Runtime, random_epoch};
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Position, Positions};
use crate::sync::Mutex;

use address::Place;
use cluster::Cluster;
use corrupt::About;
use documents::read_info;
use doubt::Lost;
use interop::{Attached, Interop};
use link::{Handle, Keeping, Link, Live, OnPush, Way};
use live::LiveOnly;
use many::Many;
use scripts::{Both, Script};
use sentinel::Sentinels;
use tracking::Tracking;

/// Sessions of a dead node, or subscribers whose info ran out, that one script call looks at.
const SWEEP_BATCH: usize = 128;
/// Held sessions are there at least this long after their whole fleet died.
const SHORTEST_HOLD_MS: u64 = 3_600_000;

/// Where pushed signals go; a node that joins again brings another sink.
type Sink = Arc<Mutex<Option<Arc<dyn SignalSink>>>>;

/// Where commands go.
enum Servers {
    /// One server: this connection.
    One(Link),
    /// The shards of a cluster.
    Many(Arc<Cluster>),
}

/// One node on a Redis server.
pub(crate) struct RedisBackend {
    address: RedisAddress,
    options: Arc<Options>,
    keeping: Keeping,
    servers: Servers,
    tracking: Arc<Tracking>,
    push: AsyncMutex<Option<Link>>,
    /// Batches go out one after the other, in the order they came.
    turns: AsyncMutex<()>,
    sink: Sink,
    live_only: Arc<LiveOnly>,
    lost: Lost,
    /// With tmcp's own managers in the fleet.
    interop: Option<Attached>,
    /// What all nodes of a cluster are to be asked.
    questions: Mutex<Vec<Vec<u8>>>,
    me: OnceLock<NodeId>,
    joined: AtomicBool,
    /// Where the renewals are in what this node holds.
    scan: Mutex<String>,
    /// The last broadcast this node knows of.
    broadcasts_seen: Arc<Mutex<Position>>,
}

impl RedisBackend {
    /// Connects for commands; the connection for pushes follows when the node joins.
    pub(crate) async fn connect(
        address: RedisAddress,
        runtime: Runtime,
        options: Arc<Options>,
    ) -> Result<Self> {
        let sink = Sink::default();
        let tracking = Arc::new(Tracking::new(&address.prefix));
        let (told, tracks) = (sink.clone(), tracking.clone());
        let on_push: OnPush = Arc::new(move |push| {
            let Some(sink) = told.lock().clone() else { return };
            tracks.told(&push.data, &mut |signal| sink.signal(signal));
        });
        let (told, tracks) = (sink.clone(), tracking.clone());
        let on_return: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if tracks.works() {
                signal(&told, Signal::InfoDoubtful);
            }
            signal(&told, Signal::Reachable);
        });
        let heartbeat = Duration::from_millis(options.lease.renew_ms);
        let patience = Duration::from_millis(options.lease.ttl_ms);
        let keeping = |way| Keeping {
            way,
            runtime: runtime.clone(),
            first: address.connect.unwrap_or_else(|| options.operation_timeout()),
            heartbeat,
            patience,
            on_push: None,
            tracking: None,
            channels: Vec::new(),
            pattern: None,
            more_channels: None,
            sharded: false,
            on_return: None,
        };
        let tracked = |keeping: Keeping| Keeping {
            on_push: Some(on_push),
            tracking: Some(tracking.clone()),
            on_return: Some(on_return.clone()),
            ..keeping
        };
        let interop = address
            .interop
            .then(|| Attached(Interop::new(runtime.clone(), sink.clone(), options.max_pending_bytes)));
        let (keeping, servers) = match address.place.clone() {
            Place::One(client) => {
                let keeping = keeping(Way::Fixed(client));
                (keeping.clone(), Servers::One(Link::open(tracked(keeping)).await?))
            }
            Place::Sentinel { seeds, name, ask, to } => {
                let sentinels = Sentinels::new(seeds, name, *ask, *to, runtime.clone());
                let keeping = keeping(Way::Master(Arc::new(sentinels)));
                (keeping.clone(), Servers::One(Link::open(tracked(keeping)).await?))
            }
            Place::Cluster { seeds, to } => {
                let links =
                    keeping(Way::Fixed(Box::new(to.client(&seeds[0]).map_err(|_| fault::down("connect"))?)));
                let links = Keeping { on_return: Some(on_return), ..links };
                let cluster = Cluster::connect(seeds, *to, links).await?;
                (keeping(Way::Slot(cluster.clone(), 0)), Servers::Many(cluster))
            }
        };
        Ok(RedisBackend {
            address,
            options,
            keeping,
            servers,
            tracking,
            push: AsyncMutex::default(),
            turns: AsyncMutex::default(),
            sink,
            live_only: Arc::default(),
            lost: Lost::default(),
            interop,
            questions: Mutex::default(),
            me: OnceLock::new(),
            joined: AtomicBool::new(false),
            scan: Mutex::new("0".to_owned()),
            broadcasts_seen: Arc::default(),
        })
    }

    /// Starts what goes on for as long as somebody keeps the backend.
    pub(crate) fn start(self: &Arc<Self>) {
        if let Some(Attached(interop)) = &self.interop {
            interop.start(self);
        }
    }

    fn prefix(&self) -> &str {
        &self.address.prefix
    }

    /// The channel of all nodes. Channels know no databases, so their number is part of its name.
    fn everybody(&self) -> String {
        format!("{}nodes@{}", self.prefix(), self.address.db)
    }

    /// The channel of nodes whose server does not tell them which documents changed.
    fn untracked(&self) -> String {
        format!("{}info@{}", self.prefix(), self.address.db)
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
        let live = match &self.servers {
            Servers::One(link) => link.live(),
            Servers::Many(_) => None,
        };
        live.ok_or_else(|| fault::down(operation))
    }

    fn many(&self) -> Option<Many<'_>> {
        match &self.servers {
            Servers::One(_) => None,
            Servers::Many(cluster) => Some(Many { backend: self, cluster }),
        }
    }

    /// With history off nothing is written; in a cluster the script that finds the holder is as fast.
    fn is_live_only(&self) -> bool {
        self.options.retention.events == 0 && !self.is_cluster() && self.interop.is_none()
    }

    /// An event log numbers its events by itself.
    fn counts(&self, session: &SessionId) -> bool {
        self.is_live_only() && session.as_log().is_none()
    }

    fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Many(_))
    }

    fn saw_broadcast(&self, at: Position) {
        saw(&self.broadcasts_seen, at);
    }

    /// Subscribes; the signals go to whatever sink is the last.
    async fn follow(&self, node: &NodeId) -> Result<()> {
        let mut push = self.push.lock().await;
        if push.is_some() {
            return Ok(());
        }
        let (sink, me) = (self.sink.clone(), node.clone());
        let seen = self.broadcasts_seen.clone();
        let interop = self.interop.as_ref().map(|Attached(interop)| interop.clone());
        let hears = Hears {
            me,
            seen,
            interop: interop.clone(),
            live_only: self.live_only.clone(),
            commands: match &self.servers {
                Servers::One(link) => Some(link.handle()),
                Servers::Many(_) => None,
            },
            runtime: self.keeping.runtime.clone(),
            prefix: self.address.prefix.clone(),
        };
        let on_push: OnPush = Arc::new(move |push| match &hears.interop {
            Some(interop) if interop.take(&push) => {}
            _ => hears.tell(&sink, push),
        });
        let (live_only, runtime) = (self.live_only.clone(), self.keeping.runtime.clone());
        let sink = self.sink.clone();
        let channel = self.channel(node.as_str());
        let (way, sharded, channels) = match &self.servers {
            Servers::One(_) => {
                let mut channels = vec![channel.into_bytes(), self.everybody().into_bytes()];
                if !self.tracking.works() {
                    channels.push(self.untracked().into_bytes());
                }
                if interop.is_some() {
                    channels.extend(Interop::fixed_channels());
                }
                (self.keeping.way.clone(), false, channels)
            }
            Servers::Many(cluster) => {
                let way = Way::Slot(cluster.clone(), cluster::slot_of(channel.as_bytes()));
                (way, cluster.is_sharded(), vec![channel.into_bytes()])
            }
        };
        let keeping = Keeping {
            way,
            sharded,
            on_push: Some(on_push),
            channels,
            pattern: interop.as_ref().map(|_| Interop::pattern()),
            more_channels: interop.clone().map(|interop| Arc::new(move || interop.channels()) as _),
            on_return: Some(Arc::new(move || {
                live_only.missed_answers(&runtime);
                if let Some(interop) = &interop {
                    interop.doubt();
                }
                signal(&sink, Signal::Doubt);
            })),
            ..self.keeping.clone()
        };
        *push = Some(Link::open(keeping).await?);
        Ok(())
    }

    async fn send(&self, operation: &'static str, cmd: Cmd) -> Result<Result<Value, redis::ServerError>> {
        if let Servers::Many(cluster) = &self.servers {
            let key = cmd.args_iter().nth(1).and_then(|key| match key {
                redis::Arg::Simple(key) => Some(String::from_utf8_lossy(key).into_owned()),
                _ => None,
            });
            let call = cluster::Call::new(&key.unwrap_or_default(), cmd);
            return Ok(match cluster.run(operation, call).await? {
                Value::ServerError(error) => Err(error),
                value => Ok(value),
            });
        }
        let mut live = self.live(operation)?;
        match live.send(cmd).await.map_err(|error| fault::lost(operation, error))? {
            Value::ServerError(error) => {
                live.heed(&error);
                Ok(Err(error))
            }
            value => Ok(Ok(value)),
        }
    }

    /// Runs a script on one server. The prefix is its first argument.
    async fn call(
        &self,
        operation: &'static str,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let fill = |mut cmd: Cmd| {
            cmd.arg(keys.len()).arg(keys).arg(self.prefix());
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

    /// [`call`](Self::call) for a session's script on one server: the id is the first argument.
    async fn of_session(
        &self,
        operation: &'static str,
        script: &Script,
        session: &SessionId,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let arguments = [&[session.as_str().as_bytes()], arguments].concat();
        let answer = self.call(operation, script, &self.keys(session), &arguments).await;
        self.explained(answer, About::Session(session)).await
    }

    /// A session's script, with all it does to other keys.
    async fn both(
        &self,
        operation: &'static str,
        script: &'static Both,
        session: &SessionId,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        match self.many() {
            Some(many) => {
                let answer = many.session(operation, script, session, arguments).await;
                self.explained(answer, About::Session(session)).await
            }
            None => match self.interop.as_ref().and_then(|_| mixed::mixed(script)) {
                Some((mixed, said)) => {
                    let said = said.map_or(&b""[..], |at| arguments[at]);
                    let own = self.mixed_arguments(session.as_str(), said);
                    let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
                    self.of_session(operation, mixed, session, &[arguments, &own].concat()).await
                }
                None => self.of_session(operation, script.one, session, arguments).await,
            },
        }
    }

    /// A session's script that answers yes or no.
    async fn asked(
        &self,
        operation: &'static str,
        script: &'static Both,
        session: &SessionId,
        arguments: &[&[u8]],
    ) -> Result<bool> {
        yes(operation, &self.both(operation, script, session, arguments).await?)
    }

    /// Reads both logs; `None` when it is for a holder, by its owner epoch, that is none any more.
    async fn read_log(
        &self,
        session: &SessionId,
        after: Positions,
        holder: Option<(&NodeId, u64)>,
    ) -> Result<Option<Tail>> {
        const OPERATION: &str = "streams.read";
        let (at, age, shared) = (wire::positions(after), self.age(), self.broadcast_age());
        let head = self.live_only.head_after(session, after).map(wire::position).unwrap_or_default();
        let owner = holder.map(|(node, epoch)| (node.as_str(), epoch.to_string()));
        let owner = owner.iter().flat_map(|(node, epoch)| [node.as_bytes(), epoch.as_bytes()]);
        let arguments = [&at[..], age.as_bytes(), shared.as_bytes(), &head];
        let arguments: Vec<&[u8]> = arguments.into_iter().chain(owner).collect();
        let tail = match self.both(OPERATION, &scripts::READ, session, &arguments).await? {
            Value::Nil => Tail { start: after, gap: true, ..Tail::default() },
            answer if wire::string(&answer) == Some("taken") => return Ok(None),
            answer => {
                wire::array(&answer).and_then(wire::tail).ok_or_else(|| fault::unreadable(OPERATION))?
            }
        };
        let Some(many) = self.many() else { return Ok(Some(tail)) };
        let shared = many.read_topic(OPERATION, Topic::Broadcasts, after.broadcast).await?;
        if let (Some((node, epoch)), [_, ..]) = (holder, &shared.tail.entries[..]) {
            // They were read later.
            let held = self.held(node, session).await?;
            if held.is_none_or(|held| held.owner_epoch != epoch) {
                return Ok(None);
            }
        }
        Ok(Some(many::with_broadcasts(tail, shared)))
    }

    /// A script of the keys that belong to all.
    async fn of_nodes(
        &self,
        operation: &'static str,
        script: &'static Script,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let answer = match self.many() {
            Some(many) => {
                let arguments = [&[self.prefix().as_bytes()], arguments].concat();
                many.of_all(operation, script, &arguments).await
            }
            None => self.call(operation, script, &[self.nodes()], arguments).await,
        };
        self.explained(answer, About::Nodes).await
    }

    /// Unholds what a node holds, and forgets the node.
    async fn bury(&self, operation: &'static str, node: &str, only_dead: bool) -> Result<()> {
        if let Some(many) = self.many() {
            return many.bury(operation, node, only_dead).await;
        }
        let (age, batch) = (self.age(), SWEEP_BATCH.to_string());
        let only_dead: &[u8] = if only_dead { b"1" } else { b"0" };
        let arguments: [&[u8]; 4] = [node.as_bytes(), age.as_bytes(), batch.as_bytes(), only_dead];
        while wire::number(&self.of_nodes(operation, &scripts::BURY, &arguments).await?) == Some(1) {}
        Ok(())
    }

    /// Puts off the expiry of some of what this node holds.
    async fn hold(&self, node: &NodeId, turns: u64) -> Result<()> {
        let cursor = self.scan.lock().clone();
        let next = match self.many() {
            Some(many) => {
                many.ask_all().await?;
                many.hold(node.as_str(), &cursor, turns).await?
            }
            None => {
                let (hold, turns) = (self.hold_ms().to_string(), turns.to_string());
                let arguments: [&[u8]; 4] =
                    [node.as_str().as_bytes(), hold.as_bytes(), cursor.as_bytes(), turns.as_bytes()];
                let answer = self.of_nodes("lease.renew", &scripts::HOLD, &arguments).await?;
                let Some([next, lost]) = wire::array(&answer) else {
                    return Err(fault::unreadable("lease.renew"));
                };
                for session in wire::sessions(lost) {
                    signal(&self.sink, Signal::Doubtful { session });
                }
                wire::string(next).unwrap_or("0").to_owned()
            }
        };
        *self.scan.lock() = next;
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

fn saw(seen: &Mutex<Position>, at: Position) {
    let mut seen = seen.lock();
    if seen.epoch != at.epoch || seen.offset < at.offset {
        *seen = at;
    }
}

fn yes(operation: &'static str, answer: &Value) -> Result<bool> {
    wire::number(answer).map(|n| n > 0).ok_or_else(|| fault::unreadable(operation))
}

/// What a node does with what it is pushed.
struct Hears {
    me: NodeId,
    seen: Arc<Mutex<Position>>,
    live_only: Arc<LiveOnly>,
    commands: Option<Handle>,
    runtime: Runtime,
    prefix: Arc<str>,
    /// With tmcp's own managers in the fleet.
    interop: Option<Arc<Interop>>,
}

impl Hears {
    fn tell(&self, sink: &Sink, push: PushInfo) {
        let Some(sink) = sink.lock().clone() else { return };
        let message = push.data.last().and_then(wire::bytes).unwrap_or_default();
        let told = match (message.first(), &self.commands) {
            (Some(b'L'), Some(commands)) => {
                self.live_only.take(message, self.runtime.now_ms(), &*sink).map(|(sender, answer)| {
                    live::answer(commands, &self.runtime, format!("{}to:{sender}", self.prefix), answer);
                })
            }
            (Some(b'A'), _) => self.live_only.answered(message),
            _ => wire::message(message, &self.me, &mut |signal| {
                match &signal {
                    Signal::Topic { topic: Topic::Broadcasts, position, .. } => saw(&self.seen, *position),
                    Signal::Ended { session, owner_epoch, .. } => {
                        self.live_only.let_go(session, *owner_epoch);
                        if let Some(interop) = &self.interop {
                            interop.ended(session, *owner_epoch);
                        }
                    }
                    _ => {}
                }
                sink.signal(signal);
            }),
        };
        if told.is_none() {
            tracing::warn!(
                "a message on a channel of this prefix could not be read; is another program using it?"
            );
        }
    }
}

impl Backend for RedisBackend {
    fn capability(&self) -> Capability {
        Capability {
            immediate: false,
            // A shard does not know what others accepted; a sender's own order, and what it had seen,
            // is kept in replay there, too.
            merged_order: !self.is_cluster(),
            processes: true,
            manual_clock: false,
            pipelined: !self.is_cluster(),
        }
    }

    async fn join(&self, node: &NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Result<Joined> {
        let _ = self.me.set(node.clone());
        *self.sink.lock() = Some(sink);
        self.follow(node).await?;
        if self.joined.load(Ordering::Acquire) {
            self.bury("join", node.as_str(), false).await?;
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
        let started_ms = self.keeping.runtime.now_ms();
        let answer = self.of_nodes("join", &scripts::JOIN, &arguments).await?;
        self.live_only.leased(started_ms, lease.as_millis() as u64);
        if let Some(Attached(interop)) = &self.interop {
            interop.renewed(started_ms + self.options.lease.ttl_ms);
        }
        self.joined.store(true, Ordering::Release);
        let heads: Option<Vec<Position>> =
            wire::array(&answer).and_then(|heads| heads.iter().map(wire::read_position).collect());
        match heads.as_deref() {
            Some([broadcasts, notifications]) => {
                self.saw_broadcast(*broadcasts);
                Ok(Joined { broadcasts: vec![*broadcasts], notifications: *notifications })
            }
            _ => Err(fault::unreadable("join")),
        }
    }

    async fn renew(&self, node: &NodeId) -> Result<Renewal> {
        const OPERATION: &str = "lease.renew";
        let lease = &self.options.lease;
        let (ttl, hold, topics) = (lease.ttl_ms.to_string(), self.hold_ms().to_string(), self.topic_ttl());
        let arguments: [&[u8]; 4] =
            [node.as_str().as_bytes(), ttl.as_bytes(), hold.as_bytes(), topics.as_bytes()];
        let started_ms = self.keeping.runtime.now_ms();
        if !yes(OPERATION, &self.of_nodes(OPERATION, &scripts::RENEW, &arguments).await?)? {
            self.live_only.lease_lost();
            return Ok(Renewal::Lost);
        }
        self.live_only.leased(started_ms, lease.ttl_ms);
        let turns = (self.hold_ms() / 4 / lease.renew_ms).max(1);
        if let Err(error) = self.hold(node, turns).await {
            tracing::debug!(%error, "what is held could not be put off; the next renewal goes on");
        }
        self.mixed_renewed(started_ms).await;
        Ok(Renewal::Kept)
    }

    async fn leave(&self, node: &NodeId) -> Result<()> {
        let left = self.bury("shutdown", node.as_str(), false).await;
        if let Some(push) = self.push.lock().await.take() {
            push.close();
        }
        if let Some(Attached(interop)) = &self.interop {
            interop.close();
        }
        match &self.servers {
            Servers::One(link) => link.close(),
            Servers::Many(cluster) => cluster.close(),
        }
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
        let head = match (self.counts(id), self.live_only.head(id)) {
            (false, _) => Vec::new(),
            (true, Some(head)) => wire::position(head),
            (true, None) => b"u".to_vec(),
        };
        let arguments: [&[u8]; 11] = [
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
            &head,
        ];
        let opening = self.opening(id).await?;
        let (answer, shared) = match self.many() {
            Some(many) => many.claim(&claim, &arguments).await?,
            None => (self.both(OPERATION, &scripts::CLAIM, id, &arguments).await?, None),
        };
        let answer = wire::array(&answer).unwrap_or_default();
        match (answer.first().and_then(wire::string), answer) {
            (Some("ok"), [_, owner_epoch, rest @ ..]) => {
                let owner_epoch = wire::string(owner_epoch).and_then(|n| n.parse().ok());
                if let (Some(opening), Some(owner_epoch)) = (&opening, owner_epoch) {
                    opening.claimed(owner_epoch);
                }
                let tail = wire::tail(rest).map(|tail| match shared {
                    Some(shared) => many::with_broadcasts(tail, shared),
                    None => tail,
                });
                owner_epoch
                    .zip(tail)
                    .map(|(owner_epoch, tail)| {
                        if self.counts(id) {
                            self.live_only.hold(id, owner_epoch, tail.start.session);
                        }
                        Claimed { owner_epoch, tail }
                    })
                    .ok_or_else(|| fault::unreadable(OPERATION))
            }
            (Some("lease"), _) => Err(fault::no_lease(OPERATION)),
            (Some("gone"), _) => Err(fault::session_closed(OPERATION, id)),
            (Some("conflict"), _) => Err(Error::new(
                ErrorKind::Conflict,
                OPERATION,
                format!("session {id} has a stream already; close it, or open with replace"),
            )),
            _ => Err(fault::unreadable(OPERATION)),
        }
    }

    async fn reclaim(&self, node: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        let answers = self.reclaim_batch(node, held).await?;
        self.mixed_reclaimed(held, &answers);
        Ok(answers)
    }

    async fn release(&self, releases: &[Release]) -> Result<()> {
        self.mixed_release(releases).await
    }

    async fn read(&self, session: &SessionId, after: Positions) -> Result<Tail> {
        let tail = self.read_log(session, after, None).await?;
        tail.ok_or_else(|| fault::unreadable("streams.read"))
    }

    async fn read_held(&self, node: &NodeId, held: &Reclaim) -> Result<Option<Tail>> {
        self.read_log(&held.session, held.after, Some((node, held.owner_epoch))).await
    }

    async fn read_topic(&self, topic: Topic, _: Lane, after: Position) -> Result<TopicTail> {
        const OPERATION: &str = "streams.read";
        let name = wire::topic_name(topic);
        let (at, age) = (wire::position(after), self.broadcast_age());
        let arguments: [&[u8]; 4] = [name.as_bytes(), &at, age.as_bytes(), &wire::epoch(random_epoch())];
        let answer = self.of_nodes(OPERATION, &scripts::READ_TOPIC, &arguments).await?;
        wire::topic_tail(&answer).map(|(tail, _)| tail).ok_or_else(|| fault::unreadable(OPERATION))
    }

    async fn holder(&self, session: &SessionId) -> Result<Option<NodeId>> {
        const OPERATION: &str = "streams.has";
        match self.both(OPERATION, &scripts::HOLDER, session, &[]).await? {
            Value::Nil => Ok(None),
            answer => wire::string(&answer)
                .and_then(NodeId::parse)
                .map(Some)
                .ok_or_else(|| fault::unreadable(OPERATION)),
        }
    }

    async fn held(&self, node: &NodeId, session: &SessionId) -> Result<Option<Release>> {
        const OPERATION: &str = "streams.held";
        let answer = self.both(OPERATION, &scripts::HELD, session, &[node.as_str().as_bytes()]).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let held = wire::array(&answer).and_then(|held| match held {
            [owner_epoch, resume] => Some(Release {
                session: session.clone(),
                owner_epoch: wire::string(owner_epoch)?.parse().ok()?,
                delivered: wire::read_positions(resume)?,
            }),
            _ => None,
        });
        held.map(Some).ok_or_else(|| fault::unreadable(OPERATION))
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
        let answer = match self.many() {
            Some(many) => many.info(session).await?,
            None => self.of_session(OPERATION, &scripts::INFO, session, &[ttl.as_bytes()]).await?,
        };
        if answer == Value::Nil {
            return Ok(None);
        }
        let documents = wire::array(&answer).ok_or_else(|| fault::unreadable(OPERATION))?;
        read_info(documents).map(|info| Some(Arc::new(info))).map_err(|name| {
            let key = format!("{}{name}:{session}", self.prefix());
            let message = format!("what the key {key} holds is no {name}; delete the key, or set it again");
            Error::new(ErrorKind::Corrupt, OPERATION, message)
        })
    }

    async fn put_info(&self, session: &SessionId, patch: InfoPatch) -> Result<()> {
        let documents = [
            patch.client_info.as_ref().map(Json::as_str),
            patch.client_capabilities.as_ref().map(Json::as_str),
            patch.log_level.map(|level| level.as_str()),
            patch.protocol_version.as_deref(),
            patch.initialize_params.as_ref().map(Json::as_str),
        ];
        if let Some(many) = self.many() {
            let documents: Vec<(usize, &str)> =
                documents.into_iter().enumerate().filter_map(|(n, document)| Some((n, document?))).collect();
            return many.put_info(session, &documents).await;
        }
        if self.tracking.works() {
            return self.put_documents(session, &documents).await;
        }
        let (ttl, channel) = (self.session_ttl(), self.untracked());
        let epoch = wire::epoch(random_epoch());
        let mut arguments: Vec<&[u8]> =
            vec![ttl.as_bytes(), &epoch, channel.as_bytes(), self.me().as_bytes()];
        for (number, document) in ["1", "2", "3", "4", "5"].into_iter().zip(documents) {
            if let Some(document) = document {
                arguments.extend([number.as_bytes(), document.as_bytes()]);
            }
        }
        const OPERATION: &str = "info.put";
        let answer = self.of_session(OPERATION, &scripts::PUT_INFO, session, &arguments).await?;
        match wire::number(&answer) {
            Some(-1) => Err(fault::session_closed(OPERATION, session)),
            _ => Ok(()),
        }
    }

    async fn forget_info(&self, session: &SessionId) -> Result<bool> {
        const OPERATION: &str = "info.delete";
        if let Some(many) = self.many() {
            return many.forget_info(session).await;
        }
        let channel = self.untracked();
        let arguments: [&[u8]; 2] = [channel.as_bytes(), self.me().as_bytes()];
        yes(OPERATION, &self.of_session(OPERATION, &scripts::FORGET_INFO, session, &arguments).await?)
    }

    async fn subscribe(&self, session: &SessionId, uri: &str, max: usize) -> Result<bool> {
        const OPERATION: &str = "info.add_subscription";
        let (ttl, most) = (self.session_ttl(), max.to_string());
        let arguments: [&[u8]; 4] =
            [ttl.as_bytes(), &wire::epoch(random_epoch()), uri.as_bytes(), most.as_bytes()];
        let answer = match self.many() {
            Some(many) => many.subscribe(session, uri, &arguments).await?,
            None => self.of_session(OPERATION, &scripts::SUBSCRIBE, session, &arguments).await?,
        };
        match wire::number(&answer) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(-2) => Err(fault::session_closed(OPERATION, session)),
            Some(_) => Err(Error::new(
                ErrorKind::TooLarge,
                OPERATION,
                format!("session {session} has {max} resource subscriptions, which is the limit"),
            )),
            None => Err(fault::unreadable(OPERATION)),
        }
    }

    async fn unsubscribe(&self, session: &SessionId, uri: &str) -> Result<bool> {
        const OPERATION: &str = "info.remove_subscription";
        if let Some(many) = self.many() {
            return many.unsubscribe(session, uri).await;
        }
        yes(OPERATION, &self.of_session(OPERATION, &scripts::UNSUBSCRIBE, session, &[uri.as_bytes()]).await?)
    }

    async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        const OPERATION: &str = "info.subscribers";
        let answer = if self.interop.is_some() {
            self.mixed_subscribers(OPERATION, uri).await
        } else {
            let mut cmd = redis::cmd("SMEMBERS");
            cmd.arg(format!("{}subscriptions:{uri}", self.prefix()));
            self.send(OPERATION, cmd).await?.map_err(|error| fault::refused(OPERATION, &error))
        };
        let answer = self.explained(answer, About::Uri(uri)).await?;
        wire::array(&answer).ok_or_else(|| fault::unreadable(OPERATION))?;
        // Another program's members may be no session ids of ours.
        Ok(wire::sessions(&answer).filter(|session| session.as_log().is_none()).collect())
    }

    async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        const OPERATION: &str = "info.subscriptions";
        let answer = self.both(OPERATION, &scripts::SUBSCRIPTIONS, session, &[]).await?;
        let uris = wire::array(&answer).and_then(|uris| uris.iter().map(wire::string).collect());
        let mut uris: Vec<&str> = Option::ok_or_else(uris, || fault::unreadable(OPERATION))?;
        uris.sort_unstable();
        Ok(uris.into_iter().map(ToOwned::to_owned).collect())
    }

    async fn sweep(&self) -> Result<bool> {
        const OPERATION: &str = "sweep";
        let batch = SWEEP_BATCH.to_string();
        let answer = self.of_nodes(OPERATION, &scripts::SWEEP, &[batch.as_bytes()]).await?;
        let [dead, due] = match wire::array(&answer) {
            Some([dead, due]) => [dead, due].map(|list| wire::array(list).unwrap_or_default()),
            _ => return Err(fault::unreadable(OPERATION)),
        };
        for node in dead.iter().filter_map(wire::string) {
            self.bury(OPERATION, node, true).await?;
        }
        if let Some(many) = self.many() {
            for session in due.iter().filter_map(wire::string).filter_map(|id| SessionId::new(id).ok()) {
                many.expire(&session).await?;
            }
        } else if !due.is_empty() {
            let channel = self.untracked();
            let due = due.iter().filter_map(wire::bytes);
            let arguments: Vec<&[u8]> = std::iter::once(channel.as_bytes()).chain(due).collect();
            self.of_nodes(OPERATION, &scripts::EXPIRE, &arguments).await?;
        }
        Ok(due.len() == SWEEP_BATCH)
    }

    async fn caught_up(&self) -> Result<()> {
        const OPERATION: &str = "catch up";
        let push = self.push.lock().await.as_ref().and_then(Link::live);
        let mut live = push.ok_or_else(|| fault::down(OPERATION))?;
        // Its answer comes behind everything that was pushed before.
        live.send(redis::cmd("PING")).await.map(drop).map_err(|error| fault::lost(OPERATION, error))
    }

    async fn ping(&self) -> Result<()> {
        let answer = self.send("health", redis::cmd("PING")).await?;
        answer.map_err(|error| fault::refused("health", &error))?;
        self.caught_up().await
    }

    async fn registry_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        self.keep_key(candidate).await
    }

    async fn registry_create(&self, session: &SessionId, new: NewSession) -> Result<bool> {
        self.register(session, new).await
    }

    async fn registry_read(
        &self,
        sessions: &[SessionId],
        touch: Touch,
    ) -> Result<Vec<Option<SessionRecord>>> {
        self.look(sessions, touch).await
    }

    async fn registry_report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        self.report(node, reports).await
    }

    async fn registry_adopt(&self, session: &SessionId, node: &NodeId) -> Result<bool> {
        self.adopt(session, node).await
    }

    async fn registry_close(&self, session: &SessionId, reason: &str) -> Result<CloseStart> {
        self.start_close(session, reason).await
    }

    async fn registry_bury(&self, session: &SessionId) -> Result<()> {
        self.bury_session(session).await
    }

    async fn registry_owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        self.owned(owner).await
    }

    async fn registry_list(&self, query: ListQuery) -> Result<Listed> {
        self.list_sessions(query).await
    }

    async fn registry_stats(&self) -> Result<RegistryStats> {
        self.count_sessions().await
    }

    async fn registry_sweep(&self) -> Result<Swept> {
        self.sweep_registry().await
    }

    async fn append(&self, event: Append) -> Result<Position> {
        self.append_event(event).await
    }

    async fn logs(&self, scope: &SessionId) -> Result<Vec<SessionId>> {
        self.logs_of(scope).await
    }

    async fn forget_logs(&self, scope: &SessionId, logs: &[SessionId]) -> Result<()> {
        self.drop_logs(scope, logs).await
    }
}
