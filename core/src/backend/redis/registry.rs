//! The session registry and the notes of event logs.
//!
//! Keys, beside those of a session; each is in a slot of its own, and every script touches one:
//!
//! | key | what |
//! |---|---|
//! | `registry:{id}` hash | a session's record, or its tombstone |
//! | `sessions:N` sorted set | the sessions node N answers for, by when a sweep has to look at them; below 0: closing since |
//! | `registries:{all}` set | the nodes that have such an index |
//! | `owner:H` sorted set | an owner's sessions by when they were registered |
//! | `ownerkey:{all}` string | what owners' tokens are hashed with |
//! | `logs:{id}` sorted set | the event logs of a session by when they are gone at the latest |
//!
//! The record is what counts; an index names at least what it should. So an index is written before
//! the record that it finds, and cleaned after that has gone; whoever comes upon a name without a
//! record, or with another node's, takes it away. An access moves no index: a sweep that comes too
//! early looks at the record and puts the session off.

use std::collections::{BTreeMap, HashMap};

use redis::{Cmd, Value};

use super::cluster::{Call, all_settled};
use super::many::Message;
use super::scripts::{self, Script};
use super::{RedisBackend, SWEEP_BATCH, Servers, fault, wire};
use crate::backend::{
    ActiveRequests, Append, CloseStart, ListQuery, Listed, NewSession, RegistryStats, Swept, Touch,
};
use crate::error::{Error, Result};
use crate::info::Json;
use crate::registry::{OwnerHash, SessionRecord, SessionState};
use crate::runtime::random_epoch;
use crate::session::{NodeId, SessionId};
use crate::streams::Position;

/// What a record outlives its session's last access by, beyond twice the time after which it is stale.
const GRACE_MS: u64 = 3_600_000;
/// Sessions whose records are looked at in one go when they are counted.
const LOOK_BATCH: usize = 1_024;

/// A command, and where it goes.
enum Step {
    Script(&'static Script, Vec<String>, Vec<Vec<u8>>),
    Command(String, Cmd),
}

fn command(name: &str, key: &str, arguments: &[&str]) -> Step {
    let mut cmd = redis::cmd(name);
    cmd.arg(key).arg(arguments);
    Step::Command(key.to_owned(), cmd)
}

fn script<const N: usize>(script: &'static Script, keys: &[String], arguments: [&str; N]) -> Step {
    Step::Script(script, keys.to_vec(), arguments.iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// A place in an index, as it is handed out: where, the score, the session.
struct Place<'a> {
    index: &'a str,
    score: &'a str,
    id: &'a str,
}

impl<'a> Place<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (index, rest) = text.split_once(' ')?;
        let (score, id) = rest.split_once(' ')?;
        score.parse::<f64>().ok().filter(|score| score.is_finite())?;
        SessionId::new(id).ok()?;
        (index == "owner" || NodeId::parse(index).is_some()).then_some(Place { index, score, id })
    }
}

impl RedisBackend {
    /// Several commands in this order, where they go to one server; one round trip each server.
    async fn steps(&self, operation: &'static str, steps: Vec<Step>) -> Result<Vec<Value>> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        if let Servers::Many(cluster) = &self.servers {
            let calls = steps.into_iter().map(|step| match step {
                Step::Script(script, keys, arguments) => Call::script(script, &keys, &arguments),
                Step::Command(key, cmd) => Call::new(&key, cmd),
            });
            return all_settled(operation, cluster.run_all(operation, calls.collect()).await);
        }
        let mut answers = self.go(operation, &steps, false).await?;
        let lost = |answer: &Value| matches!(answer, Value::ServerError(error) if fault::is_no_script(error));
        let missing: Vec<usize> = (0..answers.len()).filter(|at| lost(&answers[*at])).collect();
        if !missing.is_empty() {
            let mut steps: Vec<_> = steps.into_iter().map(Some).collect();
            let again: Vec<Step> = missing.iter().filter_map(|at| steps[*at].take()).collect();
            let found = self.go(operation, &again, true).await?;
            missing.into_iter().zip(found).for_each(|(at, answer)| answers[at] = answer);
        }
        all_settled(operation, answers.into_iter().map(Ok).collect())
    }

    /// To one server, scripts by their hash or by their text.
    async fn go(&self, operation: &'static str, steps: &[Step], by_text: bool) -> Result<Vec<Value>> {
        let mut commands = Vec::with_capacity(steps.len());
        for step in steps {
            commands.push(match step {
                Step::Command(_, cmd) => cmd.clone(),
                Step::Script(script, keys, arguments) => {
                    let mut cmd = if by_text { script.by_text() } else { script.by_hash() };
                    cmd.arg(keys.len()).arg(keys).arg(arguments);
                    cmd
                }
            });
        }
        self.pipelined(operation, commands).await
    }

    async fn step(&self, operation: &'static str, step: Step) -> Result<Value> {
        let mut answers = self.steps(operation, vec![step]).await?;
        answers.pop().ok_or_else(|| fault::unreadable(operation))
    }

    fn record_keys(&self, session: &SessionId) -> [String; 2] {
        ["session", "registry"].map(|kind| self.key(kind, session))
    }

    fn index_of(&self, node: &str) -> String {
        format!("{}sessions:{node}", self.prefix())
    }

    fn registries(&self) -> String {
        format!("{}registries:{{all}}", self.prefix())
    }

    fn owner_index(&self, owner: &str) -> String {
        format!("{}owner:{owner}", self.prefix())
    }

    /// How long a record lives that nobody looks at.
    fn record_ms(&self) -> String {
        (self.options.registry.stale_ms * 2 + GRACE_MS).to_string()
    }

    fn unfinished_ms(&self) -> u64 {
        2 * self.options.lease.ttl_ms
    }

    // --- records

    pub(super) async fn keep_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        const OPERATION: &str = "registry.key";
        let key = format!("{}ownerkey:{{all}}", self.prefix());
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&candidate[..]).arg("NX");
        let steps = vec![Step::Command(key.clone(), set), command("GET", &key, &[])];
        let answers = self.steps(OPERATION, steps).await?;
        let kept = answers.last().and_then(wire::bytes).and_then(|kept| kept.try_into().ok());
        kept.ok_or_else(|| fault::unreadable(OPERATION))
    }

    pub(super) async fn register(&self, session: &SessionId, new: NewSession) -> Result<bool> {
        const OPERATION: &str = "registry.create";
        let (id, node, ttl) = (session.as_str(), new.node.as_str(), self.record_ms());
        let owner = new.owner.map(OwnerHash::to_hex).unwrap_or_default();
        let stale = self.options.registry.stale_ms.to_string();
        let mut steps = vec![
            command("SADD", &self.registries(), &[node]),
            command("PEXPIRE", &self.registries(), &[&ttl]),
            script(&scripts::REGISTRY_INDEX, &[self.index_of(node)], [id, &stale, &ttl]),
        ];
        if new.owner.is_some() {
            steps.push(script(&scripts::REGISTRY_INDEX, &[self.owner_index(&owner)], [id, "0", &ttl]));
        }
        self.steps(OPERATION, steps).await?;
        let epoch = wire::epoch(random_epoch());
        let mut arguments: Vec<&[u8]> = vec![&epoch, ttl.as_bytes(), node.as_bytes(), owner.as_bytes()];
        arguments.extend(new.metadata.as_ref().map(|json| json.as_str().as_bytes()));
        let answer = self.both(OPERATION, &scripts::REGISTER, session, &arguments).await?;
        match wire::array(&answer) {
            Some([_]) => Ok(true),
            Some([_, state, its_node, its_owner]) => {
                // The indexes go back to what the record says that is there.
                let lives = wire::string(state) != Some("d");
                let mut steps = Vec::new();
                if !lives || wire::string(its_node) != Some(node) {
                    steps.push(command("ZREM", &self.index_of(node), &[id]));
                }
                if new.owner.is_some() && (!lives || wire::string(its_owner) != Some(&owner)) {
                    steps.push(command("ZREM", &self.owner_index(&owner), &[id]));
                }
                self.steps(OPERATION, steps).await.map(|_| false)
            }
            _ => Err(fault::unreadable(OPERATION)),
        }
    }

    pub(super) async fn look(
        &self,
        sessions: &[SessionId],
        touch: Touch,
    ) -> Result<Vec<Option<SessionRecord>>> {
        const OPERATION: &str = "registry.get";
        let whose = match touch {
            Touch::No => "n".to_owned(),
            Touch::Yes => "y".to_owned(),
            Touch::IfOwner(owner) => format!("o{}", owner.map(OwnerHash::to_hex).unwrap_or_default()),
        };
        let (every, ttl) = ((self.options.registry.stale_ms / 20).to_string(), self.record_ms());
        let looks = sessions.iter().map(|session| {
            script(&scripts::REGISTRY_LOOK, &self.record_keys(session), [&*whose, &*every, &*ttl])
        });
        let answers = self.steps(OPERATION, looks.collect()).await?;
        let mut records = Vec::with_capacity(answers.len());
        let mut busy = Vec::new();
        for (session, answer) in sessions.iter().zip(&answers) {
            let read = wire::array(answer).and_then(|parts| read_record(session, parts));
            let (record, requests) = read.ok_or_else(|| unreadable(OPERATION, session))?;
            if !requests.is_empty() {
                busy.push((records.len(), requests));
            }
            records.push(record);
        }
        if !busy.is_empty() {
            // Only those of live nodes count; who asks is one.
            let others = busy.iter().flat_map(|(_, requests)| requests).any(|(node, _)| *node != self.me());
            let live = if others { self.live_nodes(OPERATION).await? } else { vec![self.me().to_owned()] };
            for (at, requests) in busy {
                let counted = requests.iter().filter(|(node, _)| live.contains(node));
                if let Some(record) = &mut records[at] {
                    record.active_requests = counted.map(|(_, count)| count).sum();
                }
            }
        }
        Ok(records)
    }

    /// The nodes whose lease is good.
    async fn live_nodes(&self, operation: &'static str) -> Result<Vec<String>> {
        let key = self.nodes();
        let answer = self.of_nodes(operation, &scripts::LIVE_NODES, &[]).await?;
        let nodes = wire::array(&answer).ok_or_else(|| {
            tracing::debug!(key, "the leases can't be read");
            fault::unreadable(operation)
        })?;
        Ok(nodes.iter().filter_map(wire::string).map(ToOwned::to_owned).collect())
    }

    pub(super) async fn report(&self, node: &NodeId, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        const OPERATION: &str = "registry.begin_request";
        let ttl = self.record_ms();
        let steps = reports.iter().map(|report| {
            let count = report.count.to_string();
            let keys = self.record_keys(&report.session);
            script(&scripts::REGISTRY_REPORT, &keys, [node.as_str(), &count, &ttl])
        });
        match self.steps(OPERATION, steps.collect()).await {
            Ok(answers) => answers.iter().map(|answer| Ok(wire::number(answer) == Some(1))).collect(),
            Err(error) => reports.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    pub(super) async fn adopt(&self, session: &SessionId, node: &NodeId) -> Result<bool> {
        const OPERATION: &str = "registry.adopt";
        let (id, node, ttl) = (session.as_str(), node.as_str(), self.record_ms());
        let stale = self.options.registry.stale_ms.to_string();
        let steps = vec![
            command("SADD", &self.registries(), &[node]),
            command("PEXPIRE", &self.registries(), &[&ttl]),
            script(&scripts::REGISTRY_INDEX, &[self.index_of(node)], [id, &stale, &ttl]),
        ];
        self.steps(OPERATION, steps).await?;
        let adopt = script(&scripts::REGISTRY_ADOPT, &self.record_keys(session), [node]);
        let answer = self.step(OPERATION, adopt).await?;
        match wire::string(&answer) {
            Some(before) if before == node => Ok(true),
            Some(before) => {
                let forget = command("ZREM", &self.index_of(before), &[id]);
                self.step(OPERATION, forget).await.map(|_| true)
            }
            None => {
                let forget = command("ZREM", &self.index_of(node), &[id]);
                self.step(OPERATION, forget).await.map(|_| false)
            }
        }
    }

    // --- closing

    pub(super) async fn start_close(&self, session: &SessionId, reason: &str) -> Result<CloseStart> {
        const OPERATION: &str = "registry.close";
        let close = script(&scripts::REGISTRY_CLOSE, &self.record_keys(session), [reason, &self.record_ms()]);
        let answer = self.step(OPERATION, close).await?;
        let Some([start, node, now]) = wire::array(&answer) else { return Err(fault::unreadable(OPERATION)) };
        match wire::number(start) {
            Some(1) => {
                let since = format!("-{}", wire::number(now).unwrap_or(1));
                let index = self.index_of(wire::string(node).unwrap_or_default());
                let mark = command("ZADD", &index, &["XX", &since, session.as_str()]);
                self.step(OPERATION, mark).await.map_err(Error::with_unknown_outcome)?;
                self.announce(OPERATION, &[(session.clone(), reason.to_owned())])
                    .await
                    .map_err(Error::with_unknown_outcome)?;
                Ok(CloseStart::Begun)
            }
            Some(2) => Ok(CloseStart::Underway),
            _ => Ok(CloseStart::Gone),
        }
    }

    /// Tells every node that these close.
    async fn announce(&self, operation: &'static str, closings: &[(SessionId, String)]) -> Result<()> {
        let texts = closings.iter().map(|(session, reason)| wire::closing(session, reason));
        if let Some(many) = self.many() {
            for text in texts {
                many.tell_all(operation, text).await?;
            }
            return Ok(());
        }
        let channel = self.everybody();
        let publish = texts.map(|text| {
            let mut cmd = redis::cmd("PUBLISH");
            cmd.arg(&channel).arg(text);
            Step::Command(channel.clone(), cmd)
        });
        self.steps(operation, publish.collect()).await.map(drop)
    }

    pub(super) async fn bury_session(&self, session: &SessionId) -> Result<()> {
        const OPERATION: &str = "registry.close";
        let stays = self.options.registry.tombstone_ms.to_string();
        let bury = script(&scripts::REGISTRY_BURY, &self.record_keys(session), [&*stays]);
        let answer = self.step(OPERATION, bury).await?;
        let Some([node, owner]) = wire::array(&answer) else { return Ok(()) };
        let id = session.as_str();
        let index = self.index_of(wire::string(node).unwrap_or_default());
        let mut steps = vec![command("ZREM", &index, &[id])];
        if let Some(owner) = wire::string(owner).filter(|owner| !owner.is_empty()) {
            steps.push(command("ZREM", &self.owner_index(owner), &[id]));
        }
        self.steps(OPERATION, steps).await.map(drop)
    }

    // --- indexes

    pub(super) async fn owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        const OPERATION: &str = "registry.get_by_owner";
        let range = command("ZRANGE", &self.owner_index(&owner.to_hex()), &["0", "-1"]);
        let answer = self.step(OPERATION, range).await?;
        Ok(wire::sessions(&answer).collect())
    }

    async fn indexed_nodes(&self, operation: &'static str) -> Result<Vec<String>> {
        let answer = self.step(operation, command("SMEMBERS", &self.registries(), &[])).await?;
        let nodes = wire::array(&answer).ok_or_else(|| fault::unreadable(operation))?;
        let nodes = nodes.iter().filter_map(wire::string).filter_map(NodeId::parse);
        let mut nodes: Vec<String> = nodes.map(|node| node.to_string()).collect();
        nodes.sort_unstable();
        Ok(nodes)
    }

    pub(super) async fn list_sessions(&self, query: ListQuery) -> Result<Listed> {
        const OPERATION: &str = "registry.list";
        let refused = || Error::invalid(OPERATION, "no page of this list ends like that; start over");
        let after = query.after.as_deref().map(|text| Place::read(text).ok_or_else(refused)).transpose()?;
        // Each index, and how it is called in a place.
        let indexes: Vec<(String, String)> = match (&query.owner, &query.node) {
            (Some(owner), _) => vec![("owner".to_owned(), self.owner_index(&owner.to_hex()))],
            (None, Some(node)) => vec![(node.to_string(), self.index_of(node.as_str()))],
            (None, None) => {
                let nodes = self.indexed_nodes(OPERATION).await?;
                nodes.into_iter().map(|node| (node.clone(), self.index_of(&node))).collect()
            }
        };
        let from = after.as_ref().map_or("", |place| place.index);
        let mut listed = Listed::default();
        let mut last = None;
        for (name, key) in indexes.iter().filter(|(name, _)| name.as_str() >= from) {
            let place = after.as_ref().filter(|place| place.index == name);
            let (score, id) = place.map_or(("-inf", ""), |place| (place.score, place.id));
            // One more tells whether there is a next page.
            let room = (query.limit + 1 - listed.sessions.len()).to_string();
            let page = script(&scripts::REGISTRY_LIST, std::slice::from_ref(key), [score, id, &room]);
            let answer = self.step(OPERATION, page).await?;
            let found = wire::array(&answer).ok_or_else(|| fault::unreadable(OPERATION))?;
            for pair in found.chunks_exact(2) {
                let (Some(id), Some(score)) = (wire::string(&pair[0]), wire::string(&pair[1])) else {
                    return Err(fault::unreadable(OPERATION));
                };
                if listed.sessions.len() == query.limit {
                    listed.next = last;
                    return Ok(listed);
                }
                last = Some(format!("{name} {score} {id}"));
                listed.sessions.extend(SessionId::new(id));
            }
        }
        Ok(listed)
    }

    pub(super) async fn count_sessions(&self) -> Result<RegistryStats> {
        const OPERATION: &str = "registry.stats";
        let mut stats = RegistryStats { by_node: BTreeMap::new(), ..RegistryStats::default() };
        for node in self.indexed_nodes(OPERATION).await? {
            let due = self.due_of(OPERATION, &node, "", usize::MAX >> 1).await?;
            stats.stale += self.settle_due(OPERATION, &node, &due.sessions).await?;
            if let (true, Some(id)) = (due.total > 0, NodeId::parse(&node)) {
                stats.by_node.insert(id, due.total);
            }
            stats.total += due.total;
            stats.closing += due.closing;
        }
        stats.active = stats.total.saturating_sub(stats.stale + stats.closing);
        Ok(stats)
    }

    /// What a node's index says is due.
    async fn due_of(
        &self,
        operation: &'static str,
        node: &str,
        unfinished: &str,
        limit: usize,
    ) -> Result<Due> {
        let limit = limit.min(i64::MAX as usize).to_string();
        let arguments = [unfinished, &limit, &self.record_ms()];
        let due = script(&scripts::REGISTRY_DUE, &[self.index_of(node)], arguments);
        let answer = self.step(operation, due).await?;
        match wire::array(&answer) {
            Some([_, total, closing, sessions]) => Ok(Due {
                total: wire::number(total).unwrap_or(0).max(0) as u64,
                closing: wire::number(closing).unwrap_or(0).max(0) as u64,
                sessions: wire::sessions(sessions).collect(),
            }),
            _ => Err(fault::unreadable(operation)),
        }
    }

    /// Puts off those that were accessed since the index was written; how many are stale.
    async fn settle_due(&self, operation: &'static str, node: &str, due: &[SessionId]) -> Result<u64> {
        let (index, stale_ms) = (self.index_of(node), self.options.registry.stale_ms);
        let mut stale = 0;
        for some in due.chunks(LOOK_BATCH) {
            let mut put_off = Vec::new();
            for record in self.look(some, Touch::No).await?.into_iter().flatten() {
                let at = record.last_access_ms + stale_ms;
                if record.state != SessionState::Active || record.active_requests > 0 {
                    continue;
                }
                match at <= record.now_ms {
                    true => stale += 1,
                    false => {
                        put_off.push(command("ZADD", &index, &["XX", &at.to_string(), record.id.as_str()]))
                    }
                }
            }
            self.steps(operation, put_off).await?;
        }
        Ok(stale)
    }

    pub(super) async fn sweep_registry(&self) -> Result<Swept> {
        const OPERATION: &str = "registry.sweep";
        let mut swept = Swept::default();
        let unfinished = self.unfinished_ms().to_string();
        let mut live = None;
        for node in self.indexed_nodes(OPERATION).await? {
            let due = self.due_of(OPERATION, &node, &unfinished, SWEEP_BATCH).await?;
            if due.total == 0 {
                self.forget_index(OPERATION, &node).await?;
            }
            if due.sessions.is_empty() {
                continue;
            }
            let live = match &live {
                Some(live) => live,
                None => live.insert(self.live_nodes(OPERATION).await?),
            };
            swept.more |= due.sessions.len() == SWEEP_BATCH;
            self.judge(OPERATION, &node, due.sessions, live, &mut swept).await?;
        }
        Ok(swept)
    }

    /// An empty index of a node that is no more.
    async fn forget_index(&self, operation: &'static str, node: &str) -> Result<()> {
        if self.live_nodes(operation).await?.iter().any(|live| live == node) {
            return Ok(());
        }
        self.step(operation, command("SREM", &self.registries(), &[node])).await.map(drop)
    }

    /// Looks at what is due of a node: closes what is stale, takes on what was left, puts off the rest.
    async fn judge(
        &self,
        operation: &'static str,
        node: &str,
        due: Vec<SessionId>,
        live: &[String],
        swept: &mut Swept,
    ) -> Result<()> {
        let options = &self.options.registry;
        let ttl = self.record_ms();
        let limits = [options.stale_ms, options.sweep_ms, self.unfinished_ms()].map(|ms| ms.to_string());
        let arguments: Vec<Vec<u8>> = std::iter::once(node)
            .chain(limits.iter().map(String::as_str))
            .chain([ttl.as_str()])
            .chain(live.iter().map(String::as_str))
            .map(|text| text.as_bytes().to_vec())
            .collect();
        let judge = due.iter().map(|session| {
            Step::Script(&scripts::REGISTRY_JUDGE, self.record_keys(session).to_vec(), arguments.clone())
        });
        let verdicts = self.steps(operation, judge.collect()).await?;
        let index = self.index_of(node);
        let (mut steps, mut closings) = (Vec::new(), Vec::new());
        for (session, verdict) in due.into_iter().zip(&verdicts) {
            let parts: Option<Vec<&str>> =
                wire::array(verdict).and_then(|parts| parts.iter().map(wire::string).collect());
            let Some([score, what, owner, reason]) = parts.as_deref() else {
                return Err(fault::unreadable(operation));
            };
            match score.is_empty() {
                true => steps.push(command("ZREM", &index, &[session.as_str()])),
                false => steps.push(command("ZADD", &index, &["XX", score, session.as_str()])),
            }
            if !owner.is_empty() {
                steps.push(command("PEXPIRE", &self.owner_index(owner), &[&ttl]));
            }
            match *what {
                "stale" => swept.stale.push(session.clone()),
                "unfinished" => swept.unfinished.push(session.clone()),
                _ => continue,
            }
            closings.push((session, (*reason).to_owned()));
        }
        steps.push(command("PEXPIRE", &self.registries(), &[&ttl]));
        self.steps(operation, steps).await?;
        // Those that somebody else began may not have been told of.
        self.announce(operation, &closings).await
    }

    // --- event logs

    fn logs_key(&self, scope: &SessionId) -> String {
        self.key("logs", scope)
    }

    pub(super) async fn append_event(&self, event: Append) -> Result<Position> {
        const OPERATION: &str = "events.append";
        if event.note {
            self.open_log(OPERATION, &event).await?;
        }
        if let Some(at) = self.accept_event(OPERATION, &event).await? {
            return Ok(at);
        }
        // It ran out or was forgotten since it was noted, so nothing may name it any more.
        self.open_log(OPERATION, &event).await?;
        let at = self.accept_event(OPERATION, &event).await?;
        at.ok_or_else(|| Error::new(crate::ErrorKind::Unavailable, OPERATION, "the log went away; try again"))
    }

    /// Notes the log, then makes it.
    async fn open_log(&self, operation: &'static str, event: &Append) -> Result<()> {
        let lives = (2 * self.options.retention.age_ms).to_string();
        let note = script(&scripts::NOTE_LOG, &[self.logs_key(&event.scope)], [event.log.as_str(), &lives]);
        self.step(operation, note).await?;
        let arguments: [&[u8]; 2] = [&wire::epoch(random_epoch()), lives.as_bytes()];
        self.both(operation, &scripts::OPEN_LOG, &event.log, &arguments).await.map(drop)
    }

    /// Accepts the event and tells the log's holder; `None` where there is no such log. The script is
    /// the one that says where an event is, and leaves telling to its caller.
    async fn accept_event(&self, operation: &'static str, event: &Append) -> Result<Option<Position>> {
        let keys = self.keys(&event.log)[..3].to_vec();
        let seen = wire::position(*self.broadcasts_seen.lock());
        let retention = &self.options.retention;
        let limits = [retention.age_ms, retention.events as u64, retention.bytes as u64];
        let mut arguments = vec![[&seen[8..], &seen[..8]].concat(), wire::message_head(&event.log)];
        arguments.extend(limits.iter().map(|limit| limit.to_string().into_bytes()));
        arguments.extend([event.payload.as_str().into(), Vec::new()]);
        let accept = Step::Script(&scripts::MANY_ACCEPT, keys, arguments);
        let answer = self.step(operation, accept).await?;
        let Some([_, holder, at]) = wire::array(&answer) else { return Err(fault::unreadable(operation)) };
        let Some(position) = wire::read_position(at) else { return Ok(None) };
        if let Some(node) = wire::string(holder).filter(|node| !node.is_empty()) {
            let first = wire::bytes(at).unwrap_or_default();
            let text = wire::events(&event.log, first, std::iter::once(&event.payload));
            self.tell_node(operation, node, text).await?;
        }
        Ok(Some(position))
    }

    async fn tell_node(&self, operation: &'static str, node: &str, text: Vec<u8>) -> Result<()> {
        if let Some(many) = self.many() {
            return many.publish(operation, vec![Message { node: node.to_owned(), text }]).await;
        }
        let channel = self.channel(node);
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(&channel).arg(text);
        // It is in the log: who was not told finds it there.
        self.step(operation, Step::Command(channel, cmd)).await.map(drop).map_err(Error::with_unknown_outcome)
    }

    pub(super) async fn logs_of(&self, scope: &SessionId) -> Result<Vec<SessionId>> {
        const OPERATION: &str = "events.forget";
        let range = command("ZRANGE", &self.logs_key(scope), &["0", "-1"]);
        let answer = self.step(OPERATION, range).await?;
        Ok(wire::sessions(&answer).collect())
    }

    pub(super) async fn drop_logs(&self, scope: &SessionId, logs: &[SessionId]) -> Result<()> {
        if logs.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = logs.iter().map(SessionId::as_str).collect();
        let forget = command("ZREM", &self.logs_key(scope), &names);
        self.step("events.forget", forget).await.map(drop)
    }
}

struct Due {
    total: u64,
    closing: u64,
    sessions: Vec<SessionId>,
}

fn unreadable(operation: &'static str, session: &SessionId) -> Error {
    Error::new(
        crate::ErrorKind::Corrupt,
        operation,
        format!("the stored record of session {session} can't be read"),
    )
}

/// Reads what `look.lua` answered: a record, and what each node reported.
#[allow(clippy::type_complexity)]
fn read_record(session: &SessionId, parts: &[Value]) -> Option<(Option<SessionRecord>, Vec<(String, u64)>)> {
    let [now, fields] = parts else { return None };
    let now_ms = u64::try_from(wire::number(now)?).ok()?;
    let mut named: HashMap<&str, &Value> = HashMap::new();
    for pair in wire::array(fields)?.chunks_exact(2) {
        named.insert(wire::string(&pair[0])?, &pair[1]);
    }
    let text = |name: &str| named.get(name).and_then(|value| wire::string(value));
    let ms = |name: &str| text(name).and_then(|ms| ms.parse().ok());
    let state = match text("s") {
        // One that was never there, or what a late report left of one that has gone.
        None => return Some((None, Vec::new())),
        Some("o") => SessionState::Active,
        Some("c") => SessionState::Closing,
        Some("d") => SessionState::Closed,
        Some(_) => return None,
    };
    let mut record = SessionRecord::new(session.clone(), NodeId::parse(text("w")?)?, state);
    record.owner = match text("o") {
        Some(owner) => Some(OwnerHash::from_hex(owner)?),
        None => None,
    };
    record.created_ms = ms("c")?;
    record.last_access_ms = ms("a")?;
    record.now_ms = now_ms;
    record.reason = text("y").map(Into::into);
    record.metadata = match text("j") {
        Some(json) => Some(Json::parse(json).ok()?),
        None => None,
    };
    let request = |(name, value): (&&str, &&Value)| {
        let node = name.strip_prefix("q:")?.to_owned();
        Some((node, wire::string(value)?.parse().ok()?))
    };
    let requests = named.iter().filter_map(request).collect();
    Some((Some(record), requests))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_is_no_place_and_never_panics(text in ".{0,80}") {
            if let Some(place) = Place::read(&text) {
                prop_assert!(SessionId::new(place.id).is_ok());
            }
        }

        #[test]
        fn noise_is_no_record_and_never_panics(fields in proptest::collection::vec(".{0,8}", 0..12)) {
            let session = SessionId::new("s1").unwrap();
            let fields = fields.into_iter().map(|text| Value::BulkString(text.into_bytes())).collect();
            let _ = read_record(&session, &[Value::Int(1), Value::Array(fields)]);
        }
    }
}
