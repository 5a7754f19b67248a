//! A node outside of Cloudflare: the backend over one WebSocket to a Worker's gateway.
//!
//! What is about one session goes to its object, what is about several is split, and what is about none
//! goes to all of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::OnceCell;

use super::address::CloudflareAddress;
use super::link::{Keeping, Link, Shard};
use super::shards::{Answers, Parts, all, shard_of, split};
use super::wire::{Closing, Item, Limits, NewRecord, Record, Reply, Request, State, To, TouchBy, number_of};
use crate::backend::sum::Sum;
use crate::backend::{
    Acceptance, ActiveRequests, Address, Append, Backend, Capability, Claim, Claimed, CloseStart, Joined,
    Lane, ListQuery, Listed, NewSession, Reclaim, RegistryStats, Release, Renewal, SignalSink, Start,
    Submission, Swept, Tail, Topic, TopicTail, Touch,
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

    /// How many objects share the sessions.
    fn shards(&self) -> usize {
        self.link.get().map_or(1, Link::shards)
    }

    fn shard_of(&self, session: &SessionId) -> Shard {
        shard_of(session, self.shards())
    }

    async fn call_at(&self, operation: &'static str, shard: Shard, request: Request) -> Result<Reply> {
        let Some(link) = self.link.get() else {
            return Err(Error::new(ErrorKind::Unavailable, operation, "this node has not joined yet"));
        };
        link.call(operation, shard, request).await
    }

    /// Calls the object of a session.
    async fn call(&self, operation: &'static str, session: &SessionId, request: Request) -> Result<Reply> {
        self.call_at(operation, self.shard_of(session), request).await
    }

    /// Calls all objects; waits for all of them, also when one fails.
    async fn call_all(&self, operation: &'static str, request: &Request) -> Result<Vec<Reply>> {
        let calls = all(self.shards()).map(|shard| self.call_at(operation, shard, request.clone()));
        join_all(calls).await.into_iter().collect()
    }

    async fn asked(&self, operation: &'static str, session: &SessionId, request: Request) -> Result<bool> {
        match self.call(operation, session, request).await? {
            Reply::Yes(yes) => Ok(yes),
            _ => Err(unreadable(operation)),
        }
    }

    async fn names(
        &self,
        operation: &'static str,
        session: &SessionId,
        request: Request,
    ) -> Result<Vec<String>> {
        match self.call(operation, session, request).await? {
            Reply::Names(names) => Ok(names),
            _ => Err(unreadable(operation)),
        }
    }

    /// The names that any of the objects has.
    async fn all_names(&self, operation: &'static str, request: &Request) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for reply in self.call_all(operation, request).await? {
            let Reply::Names(names) = reply else { return Err(unreadable(operation)) };
            all.extend(names);
        }
        Ok(all)
    }

    async fn done(&self, operation: &'static str, session: &SessionId, request: Request) -> Result<()> {
        self.call(operation, session, request).await.map(|_| ())
    }

    /// Asks each object for its part, and puts the answers in the places of what they answer.
    async fn ask_parts<T, A>(
        &self,
        operation: &'static str,
        count: usize,
        parts: Parts<T>,
        ask: impl Fn(Vec<T>) -> Request,
        read: impl Fn(Reply) -> Option<Vec<A>>,
    ) -> Result<Vec<A>> {
        let calls = parts.into_iter().map(|part| {
            let request = ask(part.items);
            async move { Ok((part.places, self.call_at(operation, part.shard, request).await?)) }
        });
        let mut answers = Answers::new(count);
        for (places, reply) in try_join_all(calls).await? {
            if !read(reply).is_some_and(|part| answers.put(&places, part)) {
                return Err(unreadable(operation));
            }
        }
        answers.whole().ok_or_else(|| unreadable(operation))
    }

    /// A batch by the objects that it goes to.
    fn parts(&self, batch: &[Submission], sums: &mut [Sum]) -> Parts<Item> {
        let shards = self.shards();
        let mut parts = Parts::new();
        for (place, submission) in batch.iter().enumerate() {
            match &submission.to {
                Address::Session(id) => {
                    parts.push(shard_of(id, shards), place, item(submission, To::Session(name(id))));
                }
                Address::Sessions(ids) => {
                    let lists = split(ids, shards, |id| id, name);
                    for list in lists.into_iter() {
                        parts.push(list.shard, place, item(submission, To::Sessions(list.items)));
                    }
                }
                Address::Topic(topic) => {
                    sums[place].count_once();
                    for shard in all(shards) {
                        parts.push(shard, place, item(submission, To::Topic(number_of(*topic))));
                    }
                }
            }
        }
        parts
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

fn item(submission: &Submission, to: To) -> Item {
    Item {
        to,
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

    fn lanes(&self) -> usize {
        self.shards()
    }

    fn lane(&self, session: &SessionId) -> Lane {
        Lane(self.shard_of(session))
    }

    async fn join(&self, node: &NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Result<Joined> {
        let link = self.open(node).await?;
        link.follow(sink);
        let limits = Limits::of(&self.options, lease.as_millis() as u64);
        let mut heads = Vec::new();
        for reply in self.call_all("join", &Request::Join { limits }).await? {
            let Reply::Joined { broadcasts, notifications } = reply else { return Err(unreadable("join")) };
            heads.push((broadcasts, notifications));
        }
        link.joined();
        // Every object tells of all notifications; those of the first are followed.
        let notifications = heads.first().map(|(_, notifications)| *notifications);
        Ok(Joined {
            broadcasts: heads.into_iter().map(|(broadcasts, _)| broadcasts).collect(),
            notifications: notifications.ok_or_else(|| unreadable("join"))?,
        })
    }

    async fn renew(&self, _: &NodeId) -> Result<Renewal> {
        match self.link.get() {
            Some(link) => link.beat().await,
            None => Ok(Renewal::Lost),
        }
    }

    async fn leave(&self, _: &NodeId) -> Result<()> {
        let left = self.call_all("shutdown", &Request::Leave).await.map(|_| ());
        if let Some(link) = self.link.get() {
            link.close();
        }
        left
    }

    async fn accept(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        const OPERATION: &str = "streams.send";
        let mut sums = Sum::each(batch.len());
        let calls = self.parts(batch, &mut sums).into_iter().map(|part| {
            let call = self.call_at(OPERATION, part.shard, Request::Accept(part.items));
            async move { (part.places, call.await) }
        });
        for (places, answer) in join_all(calls).await {
            let failure = match answer {
                Ok(Reply::Accepted(taken)) if taken.len() == places.len() => {
                    places.iter().zip(taken).for_each(|(place, taken)| sums[*place].add(taken.into()));
                    continue;
                }
                Ok(_) => unreadable(OPERATION).with_unknown_outcome(),
                Err(error) => error,
            };
            places.iter().for_each(|place| sums[*place].fail(failure.duplicate()));
        }
        Sum::outcomes(sums)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        let after = match claim.start {
            Start::Cursor(at) | Start::Delivered(at) => Some(at),
            Start::Fresh => None,
        };
        let request = Request::Claim { session: name(&claim.session), after, replace: claim.replace };
        match self.call("streams.open", &claim.session, request).await? {
            Reply::Claimed { owner_epoch, tail } => Ok(Claimed { owner_epoch, tail: tail.into() }),
            _ => Err(unreadable("streams.open")),
        }
    }

    async fn reclaim(&self, _: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        let claim = |it: &Reclaim| (name(&it.session), it.owner_epoch, it.after);
        let parts = split(held, self.shards(), |it| &it.session, claim);
        let read = |reply| match reply {
            Reply::Reclaimed(tails) => Some(tails.into_iter().map(|tail| tail.map(Tail::from)).collect()),
            _ => None,
        };
        self.ask_parts("streams.reclaim", held.len(), parts, Request::Reclaim, read).await
    }

    async fn release(&self, releases: &[Release]) -> Result<()> {
        let give_back = |it: &Release| (name(&it.session), it.owner_epoch, it.delivered);
        let parts = split(releases, self.shards(), |it| &it.session, give_back);
        let calls = parts
            .into_iter()
            .map(|part| self.call_at("streams.close", part.shard, Request::Release(part.items)));
        join_all(calls).await.into_iter().try_for_each(|done| done.map(|_| ()))
    }

    async fn read(&self, session: &SessionId, after: Positions) -> Result<Tail> {
        match self.call("streams.read", session, Request::Read { session: name(session), after }).await? {
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

    async fn read_topic(&self, topic: Topic, lane: Lane, after: Position) -> Result<TopicTail> {
        let request = Request::ReadTopic { topic: number_of(topic), after };
        match self.call_at("streams.read", lane.0, request).await? {
            Reply::TopicTail(tail) => Ok(tail.into()),
            _ => Err(unreadable("streams.read")),
        }
    }

    async fn holder(&self, session: &SessionId) -> Result<Option<NodeId>> {
        match self.call("streams.has", session, Request::Holder(name(session))).await? {
            Reply::Holder(node) => Ok(node.as_deref().and_then(NodeId::parse)),
            _ => Err(unreadable("streams.has")),
        }
    }

    async fn held(&self, _: &NodeId, session: &SessionId) -> Result<Option<Release>> {
        match self.call("streams.held", session, Request::Held(name(session))).await? {
            Reply::Held(held) => Ok(held.map(|(owner_epoch, delivered)| Release {
                session: session.clone(),
                owner_epoch,
                delivered,
            })),
            _ => Err(unreadable("streams.held")),
        }
    }

    async fn known(&self, session: &SessionId) -> Result<bool> {
        self.asked("streams.known", session, Request::Known(name(session))).await
    }

    async fn end(&self, session: &SessionId, reason: EndReason) -> Result<bool> {
        self.asked("streams.close", session, Request::End(name(session), reason)).await
    }

    async fn forget(&self, session: &SessionId) -> Result<bool> {
        self.asked("streams.forget", session, Request::Forget(name(session))).await
    }

    async fn info(&self, session: &SessionId) -> Result<Option<Arc<SessionInfo>>> {
        match self.call("info.get", session, Request::Info(name(session))).await? {
            Reply::Info(info) => Ok(info.map(Arc::new)),
            _ => Err(unreadable("info.get")),
        }
    }

    async fn put_info(&self, session: &SessionId, patch: InfoPatch) -> Result<()> {
        self.done("info.put", session, Request::PutInfo(name(session), patch)).await
    }

    async fn forget_info(&self, session: &SessionId) -> Result<bool> {
        self.asked("info.delete", session, Request::ForgetInfo(name(session))).await
    }

    async fn subscribe(&self, session: &SessionId, uri: &str, max: usize) -> Result<bool> {
        let request = Request::Subscribe { session: name(session), uri: uri.to_owned(), max: max as u64 };
        self.asked("info.add_subscription", session, request).await
    }

    async fn unsubscribe(&self, session: &SessionId, uri: &str) -> Result<bool> {
        let request = Request::Unsubscribe { session: name(session), uri: uri.to_owned() };
        self.asked("info.remove_subscription", session, request).await
    }

    async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        let names = self.all_names("info.subscriptions", &Request::Subscribers(uri.to_owned())).await?;
        Ok(ids(names))
    }

    async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        self.names("info.session_subscriptions", session, Request::Subscriptions(name(session))).await
    }

    /// The sync layer's own alarm does it.
    async fn sweep(&self) -> Result<bool> {
        Ok(false)
    }

    async fn caught_up(&self) -> Result<()> {
        self.call_all("shutdown", &Request::Ping).await.map(|_| ())
    }

    async fn ping(&self) -> Result<()> {
        self.call_all("health", &Request::Ping).await.map(|_| ())
    }

    async fn registry_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        match self.call_at("registry", 0, Request::RegistryKey(candidate)).await? {
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
        self.asked("registry.create", session, Request::Register { session: name(session), new }).await
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
        let parts = split(sessions, self.shards(), |id| id, name);
        let ask = |sessions| Request::Records { sessions, touch: touch.clone() };
        let read = |reply| match reply {
            Reply::Records(records) => Some(records),
            _ => None,
        };
        let records = self.ask_parts("registry.get", sessions.len(), parts, ask, read).await?;
        Ok(sessions.iter().zip(records).map(|(id, record)| record.and_then(|it| it.of(id))).collect())
    }

    async fn registry_report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        const OPERATION: &str = "registry.requests";
        let count = |report: &ActiveRequests| (name(&report.session), report.count);
        let parts = split(reports, self.shards(), |report| &report.session, count);
        let calls = parts.into_iter().map(|part| {
            let request = Request::Report { node: node.as_str().to_owned(), counts: part.items };
            async move { (part.places, self.call_at(OPERATION, part.shard, request).await) }
        });
        let mut answers = Answers::new(reports.len());
        for (places, answer) in join_all(calls).await {
            let truths = match answer {
                Ok(Reply::Truths(truths)) if truths.len() == places.len() => {
                    truths.into_iter().map(Ok).collect()
                }
                Ok(_) => places.iter().map(|_| Err(unreadable(OPERATION))).collect(),
                Err(error) => places.iter().map(|_| Err(error.duplicate())).collect(),
            };
            answers.put(&places, truths);
        }
        answers.whole().unwrap_or_default()
    }

    async fn registry_adopt(&self, session: &SessionId, node: &NodeId) -> Result<bool> {
        let request = Request::Adopt { session: name(session), node: node.as_str().to_owned() };
        self.asked("registry.adopt", session, request).await
    }

    async fn registry_close(&self, session: &SessionId, reason: &str) -> Result<CloseStart> {
        let request = Request::CloseSession { session: name(session), reason: reason.to_owned() };
        match self.call("registry.close", session, request).await? {
            Reply::Closing(Closing::Begun) => Ok(CloseStart::Begun),
            Reply::Closing(Closing::Underway) => Ok(CloseStart::Underway),
            Reply::Closing(Closing::Gone) => Ok(CloseStart::Gone),
            _ => Err(unreadable("registry.close")),
        }
    }

    async fn registry_bury(&self, session: &SessionId) -> Result<()> {
        self.done("registry.close", session, Request::BurySession(name(session))).await
    }

    async fn registry_owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        let owned = ids(self.all_names("registry.get", &Request::Owned(owner.to_hex())).await?);
        if self.shards() == 1 {
            return Ok(owned);
        }
        // Each object tells its own in order, and when a session was made is in its record.
        let records = self.registry_read(&owned, Touch::No).await?;
        let mut found: Vec<_> = records.into_iter().flatten().collect();
        found.sort_by_key(|record| record.created_ms);
        Ok(found.into_iter().map(|record| record.id).collect())
    }

    async fn registry_list(&self, query: ListQuery) -> Result<Listed> {
        let shards = self.shards();
        let (mut shard, mut after) = place_of(query.after.as_deref(), shards)?;
        let mut listed = Listed::default();
        while shard < shards && listed.sessions.len() < query.limit {
            let request = Request::List {
                owner: query.owner.map(OwnerHash::to_hex),
                node: query.node.as_ref().map(|node| node.as_str().to_owned()),
                after: after.take(),
                limit: (query.limit - listed.sessions.len()) as u64,
            };
            let answer = self.call_at("registry.list", shard as Shard, request).await?;
            let Reply::Listed { sessions, next } = answer else { return Err(unreadable("registry.list")) };
            listed.sessions.extend(ids(sessions));
            match next {
                Some(next) => after = Some(next),
                None => shard += 1,
            }
        }
        listed.next = (shard < shards).then(|| format!("{shard} {}", after.unwrap_or_default()));
        Ok(listed)
    }

    async fn registry_stats(&self) -> Result<RegistryStats> {
        let mut stats = RegistryStats::default();
        for reply in self.call_all("registry.stats", &Request::Count).await? {
            let Reply::Counts(counts) = reply else { return Err(unreadable("registry.stats")) };
            stats.total += counts.active + counts.stale + counts.closing;
            stats.active += counts.active;
            stats.stale += counts.stale;
            stats.closing += counts.closing;
            for (node, count) in counts.by_node {
                let Some(node) = NodeId::parse(&node) else { continue };
                *stats.by_node.entry(node).or_default() += count;
            }
        }
        Ok(stats)
    }

    async fn registry_sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        // What one has taken is this node's to close, whatever becomes of the others.
        let sweeps = all(self.shards()).map(|it| self.call_at("registry.sweep", it, Request::SweepRegistry));
        let mut failure = None;
        for answer in join_all(sweeps).await {
            match answer {
                Ok(Reply::Taking(taking)) => {
                    swept.stale.extend(ids(taking.stale));
                    swept.unfinished.extend(ids(taking.unfinished));
                    swept.more |= taking.more;
                }
                Ok(_) => failure = Some(unreadable("registry.sweep")),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if swept.stale.is_empty() && swept.unfinished.is_empty() => Err(error),
            _ => Ok(swept),
        }
    }

    async fn append(&self, event: Append) -> Result<Position> {
        let request = Request::Append {
            scope: name(&event.scope),
            log: name(&event.log),
            payload: event.payload.clone(),
        };
        match self.call("events.append", &event.log, request).await? {
            Reply::At(position) => Ok(position),
            _ => Err(unreadable("events.append")),
        }
    }

    async fn logs(&self, scope: &SessionId) -> Result<Vec<SessionId>> {
        Ok(ids(self.names("events.forget", scope, Request::Logs(name(scope))).await?))
    }

    async fn forget_logs(&self, scope: &SessionId, logs: &[SessionId]) -> Result<()> {
        let logs = logs.iter().map(name).collect();
        self.done("events.forget", scope, Request::ForgetLogs { scope: name(scope), logs }).await
    }
}

/// Where a page begins: in which object, after what.
fn place_of(after: Option<&str>, shards: usize) -> Result<(usize, Option<String>)> {
    let Some(text) = after else { return Ok((0, None)) };
    let read = || {
        let (shard, after) = text.split_once(' ')?;
        let shard = shard.parse().ok().filter(|shard| *shard < shards)?;
        let after = (!after.is_empty()).then(|| SessionId::new(after)).transpose().ok()?;
        Some((shard, after.as_ref().map(name)))
    };
    read().ok_or_else(|| Error::invalid("registry.list", "this is not the next of a page"))
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
