//! The Postgres backend: PostgreSQL 14 or later, also behind PgBouncer in transaction mode.
//!
//! Three connections a node: one for what is written in order, one for what is read, and one that
//! LISTENs on a channel of the node's own and one of all nodes. Where LISTEN can't be had, messages
//! wait in a table, and the node looks for them.
//!
//! | table | what |
//! |---|---|
//! | `tmcp_sessions` | a row a session: epoch and head of the log, owner epoch, holder, where to resume, until when it is known, when it is to be looked at; `updated_at` is when it was last used |
//! | `tmcp_session_client_info`, `…_client_capabilities`, `…_log_level`, `…_protocol_version`, `…_initialize_params` | its info |
//! | `tmcp_session_subscriptions` | the resources it is subscribed to |
//! | `tmcp_events`, `tmcp_keys` | the events and idempotency keys of every log, by its epoch |
//! | `tmcp_topics` | the broadcasts and the notifications |
//! | `tmcp_nodes` | a node's lease |
//! | `tmcp_registry`, `tmcp_requests` | the session registry: a record or tombstone a session; the requests each node serves |
//! | `tmcp_logs` | the event logs of a session |
//! | `tmcp_mail` | messages for a node that are too long for a notification, or that it comes for; not logged |
//! | `tmcp_meta`, `tmcp_canary`, `tmcp_notes` | the version; whether anything accepted may be lost |
//!
//! What is in order: a session's row, or a topic's, is locked until its events are committed, and
//! notifications come in the order of commits.

mod accept;
mod address;
mod claim;
mod each;
mod fault;
mod gather;
mod inbox;
mod info;
mod link;
mod prepared;
mod registry;
mod schema;
mod statements;
mod tls;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

pub(crate) use address::{PostgresAddress, is_postgres, parse};

use crate::backend::{
    Acceptance, ActiveRequests, Append, Backend, Capability, Claim, Claimed, CloseStart, Joined, Lane,
    ListQuery, Listed, NewSession, Reason, Reclaim, RegistryStats, Release, Renewal, Signal, SignalSink,
    Submission, Swept, Tail, Topic, TopicTail, Touch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{InfoPatch, SessionInfo};
use crate::options::Options;
use crate::registry::{OwnerHash, SessionRecord};
use crate::runtime::Runtime;
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Position, Positions};

use address::Listen;
use gather::Gather;
use inbox::Inbox;
use link::{Keeping, Link, Live};
use prepared::Direct;
use schema::Schema;
use statements::Statements;

/// Sessions that one statement sweeps.
const SWEEP_BATCH: i64 = 256;
/// How often a statement that collided with another is tried.
const TRIES: usize = 5;

/// A parameter of a statement.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One node on a Postgres server.
pub(crate) struct PostgresBackend(Arc<Inner>);

struct Inner {
    address: PostgresAddress,
    options: Arc<Options>,
    keeping: Keeping,
    statements: Statements,
    everybody: String,
    /// What is written, in order.
    writes: Link,
    /// What must not wait behind it.
    reads: Link,
    listener: AsyncMutex<Option<Link>>,
    inbox: Arc<Inbox>,
    me: OnceLock<String>,
    joined: AtomicBool,
    claims: Arc<Gather<Claim, Claimed>>,
    infos: Arc<Gather<SessionId, Option<Arc<SessionInfo>>>>,
    patches: Arc<Gather<(SessionId, InfoPatch), ()>>,
    holders: Arc<Gather<SessionId, Option<NodeId>>>,
    forgets: Arc<Gather<SessionId, bool>>,
    creates: Arc<Gather<(SessionId, NewSession), bool>>,
    records: Arc<Gather<(SessionId, Touch), Option<SessionRecord>>>,
    closes: Arc<Gather<(SessionId, Reason), CloseStart>>,
    burials: Arc<Gather<SessionId, ()>>,
    appends: Arc<Gather<Append, Position>>,
    info_forgets: Arc<Gather<SessionId, bool>>,
    logs: Arc<Gather<SessionId, Vec<SessionId>>>,
    log_drops: Arc<Gather<(SessionId, Vec<SessionId>), ()>>,
    caught_ups: Arc<Gather<(), ()>>,
}

/// What has to be in a database, as a script: the tables and functions of the deployment that a URL
/// names. For databases where the server's user may make none, and `create=false`.
///
/// Without `schema=` the names are in `public`. Fails with `config` when the URL makes no sense.
pub fn postgres_ddl(url: &str) -> Result<String> {
    let address = parse(url).map_err(|message| Error::new(ErrorKind::Config, "postgres_ddl", message))?;
    Ok(Schema::new(&address.tables, "public").ddl())
}

impl PostgresBackend {
    /// Connects, and makes the tables where they are missing; LISTEN follows when the node joins.
    pub(crate) async fn connect(
        address: PostgresAddress,
        runtime: Runtime,
        options: Arc<Options>,
    ) -> Result<Self> {
        let inbox = Inbox::new();
        let polls = matches!(address.listen, Listen::Poll(_));
        let keeping = Keeping {
            server: address.server.clone(),
            runtime,
            first: options.operation_timeout(),
            heartbeat: Duration::from_millis(options.lease.renew_ms),
            patience: Duration::from_millis(options.lease.ttl_ms),
            on_notice: None,
            greeting: String::new(),
            on_return: None,
            direct: Direct::default(),
        };
        let back = inbox.clone();
        let for_writes =
            Keeping { on_return: Some(Arc::new(move || back.signal(Signal::Reachable))), ..keeping.clone() };
        let returned = inbox.clone();
        let for_reads = Keeping {
            // The mail may be lost with the server.
            on_return: polls.then(|| Arc::new(move || returned.returned()) as Arc<dyn Fn() + Send + Sync>),
            ..keeping.clone()
        };
        let writes = Link::open(for_writes).await?;
        let schema = prepared(&writes, &address).await?;
        let reads = Link::open(for_reads).await?;
        Ok(PostgresBackend(Arc::new(Inner {
            address,
            options,
            keeping,
            statements: Statements::new(&schema),
            everybody: schema.everybody,
            writes,
            reads,
            listener: AsyncMutex::default(),
            inbox,
            me: OnceLock::new(),
            joined: AtomicBool::new(false),
            claims: Gather::new(),
            infos: Gather::new(),
            patches: Gather::new(),
            holders: Gather::new(),
            forgets: Gather::new(),
            creates: Gather::new(),
            records: Gather::new(),
            closes: Gather::new(),
            burials: Gather::new(),
            appends: Gather::new(),
            info_forgets: Gather::new(),
            logs: Gather::new(),
            log_drops: Gather::new(),
            caught_ups: Gather::new(),
        })))
    }
}

impl PostgresBackend {
    /// Asks what leaves together with others of its kind.
    async fn gathered<Q, A, F>(
        &self,
        line: &Arc<Gather<Q, A>>,
        operation: &'static str,
        question: Q,
        answer: impl Fn(Arc<Inner>, Vec<Q>) -> F + Send + Sync + 'static,
    ) -> Result<A>
    where
        Q: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Vec<Result<A>>> + Send + 'static,
    {
        let inner = self.0.clone();
        let answers = move |questions| Box::pin(answer(inner.clone(), questions)) as _;
        line.ask(&self.0.keeping.runtime, operation, question, answers).await
    }
}

/// Finds out where the tables are, and that they are there.
async fn prepared(link: &Link, address: &PostgresAddress) -> Result<Schema> {
    let live = link.live().ok_or_else(|| fault::down("connect"))?;
    let question = "select current_schema()::text, current_setting('server_encoding'), \
        current_setting('server_version_num')::int";
    let rows = live.client.query_typed(question, &[]).await;
    let rows = rows.map_err(|error| fault::failed("connect", &error))?;
    let config = |message: String| Error::new(ErrorKind::Config, "connect", message);
    let row = rows.first().ok_or_else(|| fault::unreadable("connect"))?;
    let (current, encoding, version): (Option<String>, String, i32) = (row.get(0), row.get(1), row.get(2));
    if encoding != "UTF8" {
        return Err(config(format!("the database's encoding is {encoding}; it has to be UTF8")));
    }
    if version < 140_000 {
        return Err(config(format!("this is PostgreSQL {}; it has to be 14 or later", version / 10_000)));
    }
    let schema = Schema::new(&address.tables, current.as_deref().unwrap_or("public"));
    schema.prepare(&live.client, address.create).await?;
    Ok(schema)
}

/// A node's id as the server writes it.
fn uuid(node: &NodeId) -> String {
    let id = node.as_str();
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

fn node(uuid: &str) -> Option<NodeId> {
    NodeId::parse(&uuid.replace('-', ""))
}

fn millis(ms: u64) -> i64 {
    // A thousand years; beyond, sums with the clock would overflow.
    ms.min(31_556_952_000_000) as i64
}

fn count(n: usize) -> i64 {
    n.min(1 << 40) as i64
}

impl Inner {
    fn me(&self) -> &str {
        self.me.get().map_or("00000000-0000-0000-0000-000000000000", String::as_str)
    }

    fn polls(&self) -> bool {
        matches!(self.address.listen, Listen::Poll(_))
    }

    /// Whether an event that was accepted may be lost in a crash of the server.
    fn relaxed(&self) -> bool {
        self.address.relaxed || self.options.retention.events == 0
    }

    /// Sends one statement at the first poll, and waits for its answer.
    async fn once(
        &self,
        link: &Link,
        operation: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Result<Vec<Row>, tokio_postgres::Error>> {
        let live: Live = link.live().ok_or_else(|| fault::down(operation))?;
        let answer = live.query(statement, parameters).await;
        if let Err(error) = &answer {
            live.heed(error);
            if fault::is_full_queue(error) {
                // The server only looks for room when something was notified, or when it is asked this.
                let _ = live.client.query_typed("select pg_notification_queue_usage()", &[]).await;
            }
        }
        Ok(answer)
    }

    /// [`once`](Self::once), again where it collided with another statement.
    async fn ask(
        &self,
        link: &Link,
        operation: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>> {
        let mut tries = 0;
        loop {
            match self.once(link, operation, statement, parameters).await? {
                Ok(rows) => return Ok(rows),
                Err(error) if fault::is_collision(&error) && tries < TRIES => tries += 1,
                Err(error) => return Err(fault::failed(operation, &error)),
            }
        }
    }

    /// [`ask`](Self::ask) for an answer of yes or no.
    async fn asked(
        &self,
        link: &Link,
        operation: &'static str,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<bool> {
        let rows = self.ask(link, operation, statement, parameters).await?;
        let answer = rows.first().and_then(|row| row.try_get(0).ok());
        answer.ok_or_else(|| fault::unreadable(operation))
    }

    /// Begins to take messages; they go to whatever sink is the last.
    async fn follow(self: &Arc<Self>) -> Result<()> {
        let mut listener = self.listener.lock().await;
        if listener.is_some() {
            return Ok(());
        }
        let inbox = self.inbox.clone();
        let me = self.me().to_owned();
        inbox.serve(me.clone(), self);
        let Listen::On(server) = &self.address.listen else {
            return Ok(());
        };
        let returned = inbox.clone();
        let keeping = Keeping {
            server: (**server).clone(),
            on_notice: Some(Arc::new(move |message| inbox.take(message))),
            greeting: format!("listen \"tmcp:{me}\"; listen \"{}\"", self.everybody),
            on_return: Some(Arc::new(move || returned.signal(Signal::Doubt))),
            ..self.keeping.clone()
        };
        let link = Link::open(keeping).await?;
        self.check_reach(&me).await?;
        if self.address.prepares {
            self.keeping.direct.found();
        }
        *listener = Some(link);
        Ok(())
    }

    /// A pooler may take a LISTEN and never notify: better told now than never.
    async fn check_reach(&self, me: &str) -> Result<()> {
        const OPERATION: &str = "connect";
        let heard = self.inbox.echo();
        let channel = format!("tmcp:{me}");
        self.ask(&self.reads, OPERATION, "select pg_notify($1, 'h')", &[(&channel, Type::TEXT)]).await?;
        let limit = self.keeping.first.min(Duration::from_secs(3));
        let told = Box::pin(async { heard.await.map_err(|_| Error::closed(OPERATION)) });
        self.keeping.runtime.deadline(OPERATION, limit, told).await.map_err(|_| {
            Error::new(
                ErrorKind::Config,
                OPERATION,
                "LISTEN is accepted but nothing arrives, as behind a pooler in transaction mode; name the \
                 server itself with listen_url=, or use listen=off",
            )
        })
    }

    /// Unholds what a node holds, and forgets the node.
    async fn bury(&self, operation: &'static str) -> Result<()> {
        let age = millis(self.options.retention.age_ms);
        let parameters: [Parameter<'_>; 3] =
            [(&self.me(), Type::TEXT), (&age, Type::INT8), (&SWEEP_BATCH, Type::INT8)];
        while self.asked(&self.writes, operation, &self.statements.bury, &parameters).await? {}
        Ok(())
    }

    async fn caught_up(&self) -> Result<()> {
        const OPERATION: &str = "catch up";
        if self.polls() {
            self.reads.live().ok_or_else(|| fault::down(OPERATION))?;
            return self.inbox.polled().await.map_err(|_| fault::down(OPERATION));
        }
        let live = self.listener.lock().await.as_ref().and_then(Link::live);
        let live = live.ok_or_else(|| fault::down(OPERATION))?;
        // Its answer comes behind everything that was notified before.
        if let Err(error) = live.client.batch_execute("").await {
            live.heed(&error);
            return Err(fault::failed(OPERATION, &error));
        }
        self.inbox.settled().await.map_err(|_| fault::down(OPERATION))
    }
}

impl Backend for PostgresBackend {
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
        let inner = &self.0;
        let _ = inner.me.set(uuid(node));
        inner.inbox.set_sink(sink);
        inner.follow().await?;
        if inner.joined.load(Ordering::Acquire) {
            inner.bury("join").await?;
        }
        let (ttl, polls, relaxed) = (millis(lease.as_millis() as u64), inner.polls(), inner.relaxed());
        let parameters: [Parameter<'_>; 4] =
            [(&inner.me(), Type::TEXT), (&ttl, Type::INT8), (&polls, Type::BOOL), (&relaxed, Type::BOOL)];
        let rows = inner.ask(&inner.reads, "join", &inner.statements.join, &parameters).await?;
        inner.joined.store(true, Ordering::Release);
        let row = rows.first().ok_or_else(|| fault::unreadable("join"))?;
        Ok(Joined {
            broadcasts: vec![wire::position(row.get(0), row.get(1))],
            notifications: wire::position(row.get(2), row.get(3)),
        })
    }

    async fn renew(&self, _: &NodeId) -> Result<Renewal> {
        let inner = &self.0;
        let ttl = millis(inner.options.lease.ttl_ms);
        let parameters: [Parameter<'_>; 2] = [(&inner.me(), Type::TEXT), (&ttl, Type::INT8)];
        // Not behind what is written: a lock that somebody holds must not cost the lease.
        let kept = inner.asked(&inner.reads, "lease.renew", &inner.statements.renew, &parameters).await?;
        Ok(if kept { Renewal::Kept } else { Renewal::Lost })
    }

    async fn leave(&self, _: &NodeId) -> Result<()> {
        let inner = &self.0;
        let left = inner.bury("shutdown").await;
        if let Some(listener) = inner.listener.lock().await.take() {
            listener.close();
        }
        inner.inbox.close();
        inner.writes.close();
        inner.reads.close();
        left
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        self.0.accept(batch).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.claim_all(asked).await };
        self.gathered(&self.0.claims, "streams.open", claim, answer).await
    }

    async fn reclaim(&self, node: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        self.0.reclaim(node, held).await
    }

    async fn release(&self, releases: &[Release]) -> Result<()> {
        self.0.release(releases).await
    }

    async fn read(&self, session: &SessionId, after: Positions) -> Result<Tail> {
        let tail = self.0.read(session, after, None).await?;
        tail.ok_or_else(|| fault::unreadable("streams.read"))
    }

    async fn read_held(&self, node: &NodeId, held: &Reclaim) -> Result<Option<Tail>> {
        self.0.read(&held.session, held.after, Some((node, held.owner_epoch))).await
    }

    async fn read_topic(&self, topic: Topic, _: Lane, after: Position) -> Result<TopicTail> {
        self.0.read_topic(topic, after).await
    }

    async fn holder(&self, session: &SessionId) -> Result<Option<NodeId>> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.holders(asked).await };
        self.gathered(&self.0.holders, "streams.has", session.clone(), answer).await
    }

    async fn held(&self, node: &NodeId, session: &SessionId) -> Result<Option<Release>> {
        self.0.held(node, session).await
    }

    async fn known(&self, session: &SessionId) -> Result<bool> {
        let inner = &self.0;
        let id = session.as_str();
        inner.asked(&inner.reads, "streams.known", &inner.statements.known, &[(&id, Type::TEXT)]).await
    }

    async fn end(&self, session: &SessionId, reason: EndReason) -> Result<bool> {
        let inner = &self.0;
        let (id, reason, age) = (session.as_str(), reason.as_str(), millis(inner.options.retention.age_ms));
        let parameters: [Parameter<'_>; 3] = [(&id, Type::TEXT), (&reason, Type::TEXT), (&age, Type::INT8)];
        inner.asked(&inner.writes, "streams.close", &inner.statements.end, &parameters).await
    }

    async fn forget(&self, session: &SessionId) -> Result<bool> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.forget_each(asked).await };
        self.gathered(&self.0.forgets, "streams.forget", session.clone(), answer).await
    }

    async fn info(&self, session: &SessionId) -> Result<Option<Arc<SessionInfo>>> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.infos(asked).await };
        self.gathered(&self.0.infos, "info.get", session.clone(), answer).await
    }

    async fn put_info(&self, session: &SessionId, patch: InfoPatch) -> Result<()> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.put_infos(asked).await };
        self.gathered(&self.0.patches, "info.put", (session.clone(), patch), answer).await
    }

    async fn forget_info(&self, session: &SessionId) -> Result<bool> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.forget_infos(asked).await };
        self.gathered(&self.0.info_forgets, "info.delete", session.clone(), answer).await
    }

    async fn subscribe(&self, session: &SessionId, uri: &str, max: usize) -> Result<bool> {
        self.0.subscribe(session, uri, max).await
    }

    async fn unsubscribe(&self, session: &SessionId, uri: &str) -> Result<bool> {
        let inner = &self.0;
        let (id, uri) = (session.as_str(), wire::stored(uri));
        let parameters: [Parameter<'_>; 2] = [(&id, Type::TEXT), (&uri, Type::TEXT)];
        let statement = &inner.statements.unsubscribe;
        inner.asked(&inner.writes, "info.remove_subscription", statement, &parameters).await
    }

    async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        self.0.subscribers(uri).await
    }

    async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        self.0.subscriptions(session).await
    }

    async fn sweep(&self) -> Result<bool> {
        let inner = &self.0;
        let limits = inner.limits();
        let mut parameters: Vec<Parameter<'_>> = vec![(&SWEEP_BATCH, Type::INT8)];
        parameters.extend(limits.iter().map(|limit| (limit as &(dyn ToSql + Sync), Type::INT8)));
        inner.asked(&inner.reads, "sweep", &inner.statements.sweep, &parameters).await
    }

    async fn caught_up(&self) -> Result<()> {
        let answer = |inner: Arc<Inner>, asked: Vec<()>| async move {
            let caught_up = inner.caught_up().await;
            each::done(asked.len(), &caught_up)
        };
        self.gathered(&self.0.caught_ups, "catch up", (), answer).await
    }

    async fn ping(&self) -> Result<()> {
        let inner = &self.0;
        for link in [&inner.writes, &inner.reads] {
            let live = link.live().ok_or_else(|| fault::down("health"))?;
            let answer = live.client.batch_execute("").await;
            answer.map_err(|error| fault::failed("health", &error))?;
        }
        inner.caught_up().await
    }

    async fn registry_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        self.0.keep_key(candidate).await
    }

    async fn registry_create(&self, session: &SessionId, new: NewSession) -> Result<bool> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.register(asked).await };
        self.gathered(&self.0.creates, "registry.create", (session.clone(), new), answer).await
    }

    async fn registry_read(
        &self,
        sessions: &[SessionId],
        touch: Touch,
    ) -> Result<Vec<Option<SessionRecord>>> {
        let [session] = sessions else { return self.0.records(sessions, touch).await };
        let answer = |inner: Arc<Inner>, asked| async move { inner.record_each(asked).await };
        self.gathered(&self.0.records, "registry.get", (session.clone(), touch), answer)
            .await
            .map(|record| vec![record])
    }

    async fn registry_report(&self, _: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        self.0.report(reports).await
    }

    async fn registry_adopt(&self, session: &SessionId, node: &NodeId) -> Result<bool> {
        self.0.adopt(session, node).await
    }

    async fn registry_close(&self, session: &SessionId, reason: &str) -> Result<CloseStart> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.start_close(asked).await };
        self.gathered(&self.0.closes, "registry.close", (session.clone(), reason.into()), answer).await
    }

    async fn registry_bury(&self, session: &SessionId) -> Result<()> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.bury_sessions(asked).await };
        self.gathered(&self.0.burials, "registry.close", session.clone(), answer).await
    }

    async fn registry_owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        self.0.owned(owner).await
    }

    async fn registry_list(&self, query: ListQuery) -> Result<Listed> {
        self.0.list_sessions(query).await
    }

    async fn registry_stats(&self) -> Result<RegistryStats> {
        self.0.count_sessions().await
    }

    async fn registry_sweep(&self) -> Result<Swept> {
        self.0.sweep_registry().await
    }

    async fn append(&self, event: Append) -> Result<Position> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.append(asked).await };
        self.gathered(&self.0.appends, "events.append", event, answer).await
    }

    async fn logs(&self, scope: &SessionId) -> Result<Vec<SessionId>> {
        let answer = |inner: Arc<Inner>, asked| async move { inner.logs_of(asked).await };
        self.gathered(&self.0.logs, "events.forget", scope.clone(), answer).await
    }

    async fn forget_logs(&self, scope: &SessionId, logs: &[SessionId]) -> Result<()> {
        let asked = (scope.clone(), logs.to_vec());
        let answer = |inner: Arc<Inner>, asked| async move { inner.drop_logs(asked).await };
        self.gathered(&self.0.log_drops, "events.forget", asked, answer).await
    }
}

impl Drop for PostgresBackend {
    fn drop(&mut self) {
        // What answers gathered calls may outlive this for a moment.
        self.0.inbox.close();
        self.0.writes.close();
        self.0.reads.close();
    }
}
