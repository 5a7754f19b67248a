//! A node outside of Cloudflare: the backend over one WebSocket to a Worker's gateway.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::address::CloudflareAddress;
use super::link::{Keeping, Link};
use super::wire::{Closing, Item, Limits, NewRecord, Record, Reply, Request, State, To, TouchBy, number_of};
use crate::backend::{
    Acceptance, ActiveRequests, Address, Append, Backend, Capability, Claim, Claimed, CloseStart, Joined,
    ListQuery, Listed, NewSession, Reclaim, RegistryStats, Release, Renewal, SignalSink, Start, Submission,
    Swept, Tail, Topic, TopicTail, Touch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{InfoPatch, SessionInfo};
use crate::options::Options;
use crate::registry::{OwnerHash, SessionRecord, SessionState};
use crate::runtime::Runtime;
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Position, Positions};

/// One node of the sessions behind a gateway.
pub(crate) struct CloudflareBackend {
    address: CloudflareAddress,
    runtime: Runtime,
    options: Arc<Options>,
    link: OnceCell<Link>,
}

impl CloudflareBackend {
    /// A node that connects when it joins: the socket carries its name.
    pub(crate) fn new(address: CloudflareAddress, runtime: Runtime, options: Arc<Options>) -> Self {
        CloudflareBackend { address, runtime, options, link: OnceCell::new() }
    }

    async fn call(&self, operation: &'static str, request: Request) -> Result<Reply> {
        let Some(link) = self.link.get() else {
            return Err(Error::new(ErrorKind::Unavailable, operation, "this node has not joined yet"));
        };
        link.call(operation, request).await
    }

    async fn asked(&self, operation: &'static str, request: Request) -> Result<bool> {
        match self.call(operation, request).await? {
            Reply::Yes(yes) => Ok(yes),
            _ => Err(unreadable(operation)),
        }
    }

    async fn names(&self, operation: &'static str, request: Request) -> Result<Vec<String>> {
        match self.call(operation, request).await? {
            Reply::Names(names) => Ok(names),
            _ => Err(unreadable(operation)),
        }
    }

    async fn done(&self, operation: &'static str, request: Request) -> Result<()> {
        self.call(operation, request).await.map(|_| ())
    }

    async fn open(&self, node: &NodeId) -> Result<&Link> {
        let keeping = Keeping {
            address: self.address.clone(),
            node: node.clone(),
            runtime: self.runtime.clone(),
            first: self.options.operation_timeout(),
            patience: Duration::from_millis(self.options.lease.ttl_ms),
        };
        self.link.get_or_try_init(|| Link::open(keeping)).await
    }
}

fn unreadable(operation: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, "the Worker gave an answer this version can't read")
}

fn item(submission: &Submission) -> Item {
    Item {
        to: match &submission.to {
            Address::Session(id) => To::Session(id.as_str().to_owned()),
            Address::Sessions(ids) => To::Sessions(ids.iter().map(|id| id.as_str().to_owned()).collect()),
            Address::Topic(topic) => To::Topic(number_of(*topic)),
        },
        payload: submission.payload.clone(),
        key: submission.idempotency_key.as_ref().map(|key| key.to_string()),
    }
}

fn name(id: &SessionId) -> String {
    id.as_str().to_owned()
}

impl Backend for CloudflareBackend {
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
        let link = self.open(node).await?;
        link.follow(sink);
        let limits = Limits::of(&self.options, lease.as_millis() as u64);
        match link.call("join", Request::Join { limits }).await? {
            Reply::Joined { broadcasts, notifications } => {
                link.joined();
                Ok(Joined { broadcasts, notifications })
            }
            _ => Err(unreadable("join")),
        }
    }

    async fn renew(&self, _: &NodeId) -> Result<Renewal> {
        match self.link.get() {
            Some(link) => link.beat().await,
            None => Ok(Renewal::Lost),
        }
    }

    async fn leave(&self, _: &NodeId) -> Result<()> {
        let left = self.done("shutdown", Request::Leave).await;
        if let Some(link) = self.link.get() {
            link.close();
        }
        left
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        const OPERATION: &str = "streams.send";
        let request = Request::Accept(batch.iter().map(item).collect());
        let answer = match self.call(OPERATION, request).await {
            Ok(Reply::Accepted(taken)) if taken.len() == batch.len() => Ok(taken),
            Ok(_) => Err(unreadable(OPERATION).with_unknown_outcome()),
            Err(error) => Err(error),
        };
        match answer {
            Ok(taken) => taken.into_iter().map(|one| Ok(one.into())).collect(),
            Err(error) => batch.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        let after = match claim.start {
            Start::Cursor(at) | Start::Delivered(at) => Some(at),
            Start::Fresh => None,
        };
        let request = Request::Claim { session: name(&claim.session), after, replace: claim.replace };
        match self.call("streams.open", request).await? {
            Reply::Claimed { owner_epoch, tail } => Ok(Claimed { owner_epoch, tail: tail.into() }),
            _ => Err(unreadable("streams.open")),
        }
    }

    async fn reclaim(&self, _: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        let claims = held.iter().map(|r| (name(&r.session), r.owner_epoch, r.after)).collect();
        match self.call("streams.reclaim", Request::Reclaim(claims)).await? {
            Reply::Reclaimed(tails) if tails.len() == held.len() => {
                Ok(tails.into_iter().map(|tail| tail.map(Tail::from)).collect())
            }
            _ => Err(unreadable("streams.reclaim")),
        }
    }

    async fn release(&self, releases: &[Release]) -> Result<()> {
        let given_back = releases.iter().map(|r| (name(&r.session), r.owner_epoch, r.delivered)).collect();
        self.done("streams.close", Request::Release(given_back)).await
    }

    async fn read(&self, session: &SessionId, after: Positions) -> Result<Tail> {
        match self.call("streams.read", Request::Read { session: name(session), after }).await? {
            Reply::Tail(tail) => Ok(tail.into()),
            _ => Err(unreadable("streams.read")),
        }
    }

    /// The object answers in the order it was asked: what was read came before the holder was looked up.
    async fn read_held(&self, node: &NodeId, held: &Reclaim) -> Result<Option<Tail>> {
        let session = &held.session;
        let (tail, holds) =
            futures_util::future::join(self.read(session, held.after), self.held(node, session)).await;
        let (tail, holds) = (tail?, holds?);
        let is_its = holds.is_some_and(|holds| holds.owner_epoch == held.owner_epoch);
        Ok((is_its || tail.gap).then_some(tail))
    }

    async fn read_topic(&self, topic: Topic, after: Position) -> Result<TopicTail> {
        match self.call("streams.read", Request::ReadTopic { topic: number_of(topic), after }).await? {
            Reply::TopicTail(tail) => Ok(tail.into()),
            _ => Err(unreadable("streams.read")),
        }
    }

    async fn holder(&self, session: &SessionId) -> Result<Option<NodeId>> {
        match self.call("streams.has", Request::Holder(name(session))).await? {
            Reply::Holder(node) => Ok(node.as_deref().and_then(NodeId::parse)),
            _ => Err(unreadable("streams.has")),
        }
    }

    async fn held(&self, _: &NodeId, session: &SessionId) -> Result<Option<Release>> {
        match self.call("streams.held", Request::Held(name(session))).await? {
            Reply::Held(held) => Ok(held.map(|(owner_epoch, delivered)| Release {
                session: session.clone(),
                owner_epoch,
                delivered,
            })),
            _ => Err(unreadable("streams.held")),
        }
    }

    async fn known(&self, session: &SessionId) -> Result<bool> {
        self.asked("streams.known", Request::Known(name(session))).await
    }

    async fn end(&self, session: &SessionId, reason: EndReason) -> Result<bool> {
        self.asked("streams.close", Request::End(name(session), reason)).await
    }

    async fn forget(&self, session: &SessionId) -> Result<bool> {
        self.asked("streams.forget", Request::Forget(name(session))).await
    }

    async fn info(&self, session: &SessionId) -> Result<Option<Arc<SessionInfo>>> {
        match self.call("info.get", Request::Info(name(session))).await? {
            Reply::Info(info) => Ok(info.map(Arc::new)),
            _ => Err(unreadable("info.get")),
        }
    }

    async fn put_info(&self, session: &SessionId, patch: InfoPatch) -> Result<()> {
        self.done("info.put", Request::PutInfo(name(session), patch)).await
    }

    async fn forget_info(&self, session: &SessionId) -> Result<bool> {
        self.asked("info.delete", Request::ForgetInfo(name(session))).await
    }

    async fn subscribe(&self, session: &SessionId, uri: &str, max: usize) -> Result<bool> {
        let request = Request::Subscribe { session: name(session), uri: uri.to_owned(), max: max as u64 };
        self.asked("info.add_subscription", request).await
    }

    async fn unsubscribe(&self, session: &SessionId, uri: &str) -> Result<bool> {
        let request = Request::Unsubscribe { session: name(session), uri: uri.to_owned() };
        self.asked("info.remove_subscription", request).await
    }

    async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        let names = self.names("info.subscriptions", Request::Subscribers(uri.to_owned())).await?;
        Ok(ids(names))
    }

    async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        self.names("info.session_subscriptions", Request::Subscriptions(name(session))).await
    }

    /// The sync layer's own alarm does it.
    async fn sweep(&self) -> Result<bool> {
        Ok(false)
    }

    async fn caught_up(&self) -> Result<()> {
        self.done("shutdown", Request::Ping).await
    }

    async fn ping(&self) -> Result<()> {
        self.done("health", Request::Ping).await
    }

    async fn registry_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        match self.call("registry", Request::RegistryKey(candidate)).await? {
            Reply::Key(key) => Ok(key),
            _ => Err(unreadable("registry")),
        }
    }

    async fn registry_create(&self, session: &SessionId, new: NewSession) -> Result<bool> {
        let new = NewRecord {
            owner: new.owner.map(OwnerHash::to_hex),
            node: new.node.as_str().to_owned(),
            metadata: new.metadata,
        };
        self.asked("registry.create", Request::Register { session: name(session), new }).await
    }

    async fn registry_read(
        &self,
        sessions: &[SessionId],
        touch: Touch,
    ) -> Result<Vec<Option<SessionRecord>>> {
        let touch = match touch {
            Touch::No => TouchBy::Nobody,
            Touch::Yes => TouchBy::Anybody,
            Touch::IfOwner(owner) => TouchBy::Owner(owner.map(OwnerHash::to_hex)),
        };
        let request = Request::Records { sessions: sessions.iter().map(name).collect(), touch };
        match self.call("registry.get", request).await? {
            Reply::Records(records) if records.len() == sessions.len() => {
                let read = |(id, record): (&SessionId, Option<Record>)| record.and_then(|it| it.of(id));
                Ok(sessions.iter().zip(records).map(read).collect())
            }
            _ => Err(unreadable("registry.get")),
        }
    }

    async fn registry_report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        const OPERATION: &str = "registry.requests";
        let counts = reports.iter().map(|report| (name(&report.session), report.count)).collect();
        let request = Request::Report { node: node.as_str().to_owned(), counts };
        let answer = match self.call(OPERATION, request).await {
            Ok(Reply::Truths(truths)) if truths.len() == reports.len() => Ok(truths),
            Ok(_) => Err(unreadable(OPERATION)),
            Err(error) => Err(error),
        };
        match answer {
            Ok(truths) => truths.into_iter().map(Ok).collect(),
            Err(error) => reports.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn registry_adopt(&self, session: &SessionId, node: &NodeId) -> Result<bool> {
        let request = Request::Adopt { session: name(session), node: node.as_str().to_owned() };
        self.asked("registry.adopt", request).await
    }

    async fn registry_close(&self, session: &SessionId, reason: &str) -> Result<CloseStart> {
        let request = Request::CloseSession { session: name(session), reason: reason.to_owned() };
        match self.call("registry.close", request).await? {
            Reply::Closing(Closing::Begun) => Ok(CloseStart::Begun),
            Reply::Closing(Closing::Underway) => Ok(CloseStart::Underway),
            Reply::Closing(Closing::Gone) => Ok(CloseStart::Gone),
            _ => Err(unreadable("registry.close")),
        }
    }

    async fn registry_bury(&self, session: &SessionId) -> Result<()> {
        self.done("registry.close", Request::BurySession(name(session))).await
    }

    async fn registry_owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        let names = self.names("registry.get", Request::Owned(owner.to_hex())).await?;
        Ok(ids(names))
    }

    async fn registry_list(&self, query: ListQuery) -> Result<Listed> {
        let request = Request::List {
            owner: query.owner.map(OwnerHash::to_hex),
            node: query.node.map(|node| node.as_str().to_owned()),
            after: query.after.as_deref().map(SessionId::new).transpose()?.as_ref().map(name),
            limit: query.limit as u64,
        };
        match self.call("registry.list", request).await? {
            Reply::Listed { sessions, next } => Ok(Listed { sessions: ids(sessions), next }),
            _ => Err(unreadable("registry.list")),
        }
    }

    async fn registry_stats(&self) -> Result<RegistryStats> {
        let Reply::Counts(counts) = self.call("registry.stats", Request::Count).await? else {
            return Err(unreadable("registry.stats"));
        };
        let by_node = counts.by_node.iter().filter_map(|(node, count)| Some((NodeId::parse(node)?, *count)));
        Ok(RegistryStats {
            total: counts.active + counts.stale + counts.closing,
            active: counts.active,
            stale: counts.stale,
            closing: counts.closing,
            by_node: by_node.collect(),
        })
    }

    async fn registry_sweep(&self) -> Result<Swept> {
        match self.call("registry.sweep", Request::SweepRegistry).await? {
            Reply::Taking(taking) => {
                Ok(Swept { stale: ids(taking.stale), unfinished: ids(taking.unfinished), more: taking.more })
            }
            _ => Err(unreadable("registry.sweep")),
        }
    }

    async fn append(&self, event: Append) -> Result<Position> {
        let request =
            Request::Append { scope: name(&event.scope), log: name(&event.log), payload: event.payload };
        match self.call("events.append", request).await? {
            Reply::At(position) => Ok(position),
            _ => Err(unreadable("events.append")),
        }
    }

    async fn logs(&self, scope: &SessionId) -> Result<Vec<SessionId>> {
        Ok(ids(self.names("events.forget", Request::Logs(name(scope))).await?))
    }

    async fn forget_logs(&self, scope: &SessionId, logs: &[SessionId]) -> Result<()> {
        let logs = logs.iter().map(name).collect();
        self.done("events.forget", Request::ForgetLogs { scope: name(scope), logs }).await
    }
}

fn ids(names: Vec<String>) -> Vec<SessionId> {
    names.iter().filter_map(|name| SessionId::stored(name)).collect()
}

impl Record {
    /// The record of this session; `None` when it can't be read.
    fn of(self, id: &SessionId) -> Option<SessionRecord> {
        let state = match self.state {
            State::Open => SessionState::Active,
            State::Closing => SessionState::Closing,
            State::Closed => SessionState::Closed,
        };
        let mut record = SessionRecord::new(id.clone(), NodeId::parse(&self.node)?, state);
        record.owner = self.owner.as_deref().and_then(OwnerHash::from_hex);
        record.created_ms = self.created_ms;
        record.last_access_ms = self.last_access_ms;
        record.now_ms = self.now_ms;
        record.active_requests = self.active_requests;
        record.reason = self.reason.map(Into::into);
        record.metadata = self.metadata;
        Some(record)
    }
}
