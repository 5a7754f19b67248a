//! The operations in a cluster.
//!
//! A script may touch the keys of one slot only: those of one session, or those with the tag `{all}`
//! (topics, leases, what is due). What else an operation changes follows in commands of its own, so
//! it can stop halfway, by a fault or a kill. The order of the writes makes what is then left behind
//! harmless, or somebody's to finish:
//!
//! - *Held.* `held:N` names at least what N holds: a claim adds to it before, a release takes away
//!   after (G11). Its scores are owner epochs, so that a late removal does not hit a later claim; a
//!   claim under way counts as infinite.
//! - *Claim.* The session's script is the moment at which the holder changes (G6). The old holder is
//!   told after it and before the claim returns, so before the new stream's first event: on its own
//!   channel this comes ahead of whatever is published to it later. Until it is told the session notes
//!   it; when the claimer dies in between, whoever buries it, or claims next, tells (G6, G7).
//! - *Send.* The log is written first, then the holder is told, and `send` resolves after both: what
//!   was accepted is in the log, and signalled. A sender that dies in between has accepted nothing;
//!   its event comes with the next one, or with a retry, which rings a doorbell (G4, G5).
//! - *Broadcasts* go to each node's own channel, as directed events do: one channel keeps the order
//!   of one sender's events (G1), and one connection is all a node needs for them.
//! - *Leases* are judged as seen before the session's script. A script that meets another holder than
//!   was looked up changes nothing and is called again. A holder whose lease ran out after it was seen
//!   good is told to end and gets nothing else; one that is back after it was seen dead has joined
//!   again, which ends its streams (G7).
//! - *Runs.* A shard that fails over loses no other connection, so nobody is in doubt. The first event
//!   that a log gets then is in another epoch: whoever follows the log reclaims it.
//! - *Subscriptions.* The session's own list is written before the subscriber is added to the
//!   resource, and after it is removed: what a resource names, its session knows to clean (G11). Then
//!   the resource is made to follow the list until that stays as it is, so that two who change the
//!   same one at once leave both the same.
//! - *Info* is several keys in several slots: the session is known first, then its documents are
//!   written, then caches are told. A fault in between leaves some of a patch; putting it again is
//!   harmless.

use std::sync::Arc;

use redis::Value;

use super::accept::reclaimed;
use super::cluster::{Call, Cluster, all_settled, settled};
use super::scripts::{self, Both, Script};
use super::{RedisBackend, SWEEP_BATCH, fault, signal, wire};
use crate::backend::{Claim, Reclaim, Release, Signal, Tail, Topic, TopicTail};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::random_epoch;
use crate::session::{NodeId, SessionId};
use crate::streams::Position;

/// How far the clocks of two shards may be apart.
const CLOCKS_MS: u64 = 1_000;
/// A session that gets another holder each time it is looked at is given up after so many.
const LOOKS: usize = 16;
/// A resource's subscribers are made to follow a session's list so often, while others change it.
const REFLECTIONS: usize = 8;
const GRACE_MS: u64 = 3_600_000;
/// A message is published so often while its channel's shard can't be reached.
const PUBLISH_TRIES: usize = 3;

/// What other keys said before a session's script: as it is handed to `many.lua`.
struct Seen(Vec<u8>);

impl Seen {
    /// Enough for scripts that ask nothing, or ask again.
    fn nothing() -> Self {
        let mut seen = b"0".to_vec();
        seen.extend_from_slice(&[b'0'; 32]);
        seen.push(b'0');
        seen.extend_from_slice(&[0; 26]);
        Seen(seen)
    }

    fn holder_lives(&self) -> bool {
        self.0.get(33) == Some(&b'1')
    }
}

/// What a session's script answered, and what it leaves to be done.
struct Answer {
    value: Value,
    effects: Vec<Value>,
}

/// What was read of the broadcasts, and the epochs they had before.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) tail: TopicTail,
    before: Vec<Position>,
}

/// A message on its way to a node's channel.
pub(super) struct Message {
    pub(super) node: String,
    pub(super) text: Vec<u8>,
}

impl RedisBackend {
    /// The keys of a session.
    pub(super) fn keys(&self, session: &SessionId) -> [String; 5] {
        ["session", "log", "keys", "uris", "registry"].map(|kind| self.key(kind, session))
    }

    fn held(&self, node: &str) -> String {
        format!("{}held:{node}", self.prefix())
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}nodes:{{all}}", self.prefix())
    }

    pub(super) fn due(&self) -> String {
        format!("{}due:{{all}}", self.prefix())
    }

    /// The channel of a node.
    pub(super) fn channel(&self, node: &str) -> String {
        format!("{}to:{node}", self.prefix())
    }
}

/// A backend on a cluster.
pub(super) struct Many<'a> {
    pub(super) backend: &'a RedisBackend,
    pub(super) cluster: &'a Arc<Cluster>,
}

impl Many<'_> {
    async fn see(
        &self,
        operation: &'static str,
        caller: &str,
        holder: Option<(&str, u64)>,
        new_epoch: bool,
    ) -> Result<Seen> {
        let (holder, ttl) = holder.unwrap_or_default();
        let epoch = if new_epoch { wire::epoch(random_epoch()).to_vec() } else { Vec::new() };
        let (ttl, slack) = (ttl.to_string(), CLOCKS_MS.to_string());
        let arguments: [&[u8]; 6] = [
            self.backend.prefix().as_bytes(),
            caller.as_bytes(),
            holder.as_bytes(),
            ttl.as_bytes(),
            slack.as_bytes(),
            &epoch,
        ];
        let seen = self.of_all(operation, &scripts::SEE, &arguments).await?;
        wire::bytes(&seen).map(|seen| Seen(seen.to_vec())).ok_or_else(|| fault::unreadable(operation))
    }

    /// A script of the keys with the tag `{all}`; the prefix is its first argument.
    pub(super) async fn of_all(
        &self,
        operation: &'static str,
        script: &'static Script,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let call = Call::script(script, &[self.backend.nodes()], arguments);
        settled(operation, self.cluster.run(operation, call).await)
    }

    fn call(&self, script: &'static Script, session: &SessionId, seen: &Seen, arguments: &[&[u8]]) -> Call {
        let arguments = [&[&seen.0[..], session.as_str().as_bytes()], arguments].concat();
        Call::script(script, &self.backend.keys(session), &arguments)
    }

    /// Runs a session's script, and looks its holder up when it asks.
    async fn run(
        &self,
        operation: &'static str,
        script: &'static Script,
        session: &SessionId,
        mut seen: Seen,
        caller: &str,
        arguments: &[&[u8]],
    ) -> Result<Answer> {
        for _ in 0..LOOKS {
            let call = self.call(script, session, &seen, arguments);
            let answer = settled(operation, self.cluster.run(operation, call).await)?;
            match looked(operation, answer)? {
                Looked::Done(answer) => return Ok(answer),
                Looked::Again(holder, ttl) => {
                    seen = self.see(operation, caller, Some((&holder, ttl)), true).await?;
                }
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            operation,
            format!("session {session} changed its holder all the time; try again"),
        ))
    }

    /// A session's script with all it leaves to be done.
    pub(super) async fn session(
        &self,
        operation: &'static str,
        script: &'static Both,
        session: &SessionId,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        let answer = self.run(operation, script.many, session, Seen::nothing(), "", arguments).await?;
        self.finish(operation, session, &answer.effects).await?;
        Ok(answer.value)
    }

    /// Does what scripts left to be done to other keys.
    async fn finish(&self, operation: &'static str, session: &SessionId, effects: &[Value]) -> Result<()> {
        let (mut calls, mut messages, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects.chunks_exact(3) {
            let text = |n: usize| wire::string(&effect[n]).unwrap_or_default();
            match text(0) {
                "tell" => messages.push(Message {
                    node: text(1).to_owned(),
                    text: wire::bytes(&effect[2]).unwrap_or_default().to_vec(),
                }),
                "drop" => calls.push(self.dropped(text(1), session, text(2))),
                "unsubscribe" => gone.push(text(1).to_owned()),
                "prolong" => calls.extend(self.prolonged(session, text(1))),
                "subscribed" => calls.push(self.outlives(&self.forward(text(1)))),
                _ => return Err(fault::unreadable(operation)),
            }
        }
        // The old holder first: the rest only tidies up.
        self.publish(operation, messages).await?;
        all_settled(operation, self.cluster.run_all(operation, calls).await)?;
        self.reflect(operation, session, gone).await
    }

    fn dropped(&self, node: &str, session: &SessionId, owner: &str) -> Call {
        Call::script(&scripts::DROP, &[self.backend.held(node)], &[session.as_str(), owner])
    }

    /// Messages to nodes, in order for each. Doubled ones do no harm, so a lost answer is no reason
    /// not to try again.
    pub(super) async fn publish(&self, operation: &'static str, messages: Vec<Message>) -> Result<()> {
        let command = if self.cluster.is_sharded() { "SPUBLISH" } else { "PUBLISH" };
        let mut left = messages;
        for tries in 1.. {
            let calls = left.iter().map(|message| {
                let channel = self.backend.channel(&message.node);
                let mut cmd = redis::cmd(command);
                cmd.arg(&channel).arg(&message.text);
                Call::new(&channel, cmd)
            });
            let answers = self.cluster.run_all(operation, calls.collect()).await;
            let mut problem = None;
            let mut again = Vec::new();
            for (message, answer) in left.into_iter().zip(answers) {
                if let Err(error) = settled(operation, answer) {
                    problem = Some(error);
                    again.push(message);
                }
            }
            match problem {
                None => return Ok(()),
                Some(error) if tries == PUBLISH_TRIES || !error.retryable() => {
                    return Err(error.with_unknown_outcome());
                }
                Some(_) => left = again,
            }
        }
        Ok(())
    }

    /// A message to every node.
    pub(super) async fn tell_all(&self, operation: &'static str, text: Vec<u8>) -> Result<()> {
        let mut cmd = redis::cmd("ZRANGE");
        let key = self.backend.nodes();
        cmd.arg(&key).arg(0).arg(-1);
        let nodes = settled(operation, self.cluster.run(operation, Call::new(&key, cmd)).await)?;
        let nodes = wire::array(&nodes).unwrap_or_default().iter().filter_map(wire::string);
        let messages = nodes.map(|node| Message { node: node.to_owned(), text: text.clone() });
        self.publish(operation, messages.collect()).await
    }

    // --- streams

    pub(super) async fn claim(&self, claim: &Claim, arguments: &[&[u8]]) -> Result<(Value, Option<Shared>)> {
        const OPERATION: &str = "streams.open";
        let (node, session) = (claim.node.as_str(), &claim.session);
        let held = self.backend.held(node);
        let mut add = redis::cmd("ZADD");
        add.arg(&held).arg("NX").arg("inf").arg(session.as_str());
        settled(OPERATION, self.cluster.run(OPERATION, Call::new(&held, add)).await)?;
        let seen = self.see(OPERATION, node, None, true).await?;
        let answer = self.run(OPERATION, scripts::CLAIM.many, session, seen, node, arguments).await?;
        let Some([state, owner, start, ..]) = wire::array(&answer.value) else {
            let none = self.dropped(node, session, "inf");
            settled(OPERATION, self.cluster.run(OPERATION, none).await)?;
            return Ok((answer.value, None));
        };
        debug_assert_eq!(wire::string(state), Some("ok"));
        let owner = wire::string(owner).ok_or_else(|| fault::unreadable(OPERATION))?;
        let mut add = redis::cmd("ZADD");
        add.arg(&held).arg(owner).arg(session.as_str());
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&held).arg(self.backend.hold_ms());
        let calls = vec![Call::new(&held, add), Call::new(&held, expire)];
        all_settled(OPERATION, self.cluster.run_all(OPERATION, calls).await)?;
        self.finish(OPERATION, session, &answer.effects).await?;
        self.told(OPERATION, session, &answer.effects).await?;
        // Read after the session's own log, so that it has all that those events note.
        let from = wire::read_positions(start).ok_or_else(|| fault::unreadable(OPERATION))?.broadcast;
        let shared = self.read_topic(OPERATION, Topic::Broadcasts, from).await?;
        Ok((answer.value, Some(shared)))
    }

    /// The replaced holder knows: the session need not note it any more.
    async fn told(&self, operation: &'static str, session: &SessionId, effects: &[Value]) -> Result<()> {
        let was_told = effects.chunks_exact(3).any(|effect| wire::string(&effect[0]) == Some("tell"));
        if !was_told {
            return Ok(());
        }
        let key = self.backend.key("session", session);
        let mut get = redis::cmd("HGET");
        get.arg(&key).arg("p");
        let noted = settled(operation, self.cluster.run(operation, Call::new(&key, get)).await)?;
        if let Some(noted) = wire::string(&noted) {
            let call = Call::script(&scripts::TOLD, &[key], &[noted]);
            settled(operation, self.cluster.run(operation, call).await)?;
        }
        Ok(())
    }

    pub(super) async fn release(&self, releases: &[Release]) -> Result<()> {
        const OPERATION: &str = "streams.release";
        let age = self.backend.age();
        let nothing = Seen::nothing();
        let calls = releases.iter().map(|release| {
            let (owner, at) = (release.owner_epoch.to_string(), wire::positions(release.delivered));
            self.call(
                scripts::RELEASE.many,
                &release.session,
                &nothing,
                &[owner.as_bytes(), &at, age.as_bytes()],
            )
        });
        let answers = self.cluster.run_all(OPERATION, calls.collect()).await;
        let (mut problem, mut drops) = (None, Vec::new());
        for (release, answer) in releases.iter().zip(answers) {
            let done = settled(OPERATION, answer).and_then(|answer| looked(OPERATION, answer));
            match done {
                Ok(Looked::Done(answer)) => {
                    drops.extend(answer.effects.chunks_exact(3).filter_map(|effect| {
                        Some(self.dropped(
                            wire::string(&effect[1])?,
                            &release.session,
                            wire::string(&effect[2])?,
                        ))
                    }))
                }
                Ok(Looked::Again(..)) => {}
                Err(error) if error.retryable() => problem = Some(error),
                // What can't be read now never will be: trying again would only keep the others from it.
                Err(_) => {}
            }
        }
        all_settled(OPERATION, self.cluster.run_all(OPERATION, drops).await)?;
        problem.map_or(Ok(()), Err)
    }

    /// What a node held before is held again: the list of what it holds first, as for a claim.
    pub(super) async fn reclaim(&self, node: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        const OPERATION: &str = "streams.reclaim";
        let key = self.backend.held(node.as_str());
        let mut add = redis::cmd("ZADD");
        add.arg(&key);
        for one in held {
            add.arg(one.owner_epoch).arg(one.session.as_str());
        }
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&key).arg(self.backend.hold_ms());
        let calls = vec![Call::new(&key, add), Call::new(&key, expire)];
        all_settled(OPERATION, self.cluster.run_all(OPERATION, calls).await)?;
        let seen = self.see(OPERATION, node.as_str(), None, true).await?;
        let calls = held.iter().map(|one| {
            let arguments = self.backend.reclaiming(node, one);
            let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
            self.call(scripts::RECLAIM.many, &one.session, &seen, &arguments)
        });
        let answers = self.cluster.run_all(OPERATION, calls.collect()).await;
        let (mut tails, mut drops) = (Vec::with_capacity(held.len()), Vec::new());
        // Most follow the broadcasts from the same place.
        let mut shared: Option<(Position, Shared)> = None;
        for (one, answer) in held.iter().zip(answers) {
            let answer = match answer? {
                Value::Array(parts) => match looked(OPERATION, Value::Array(parts))? {
                    Looked::Done(answer) => answer.value,
                    Looked::Again(..) => return Err(fault::unreadable(OPERATION)),
                },
                error => error,
            };
            let Some(tail) = reclaimed(OPERATION, answer)? else {
                drops.push(self.dropped(node.as_str(), &one.session, &one.owner_epoch.to_string()));
                tails.push(None);
                continue;
            };
            let from = one.after.broadcast;
            if shared.as_ref().is_none_or(|(at, _)| *at != from) {
                shared = Some((from, self.read_topic(OPERATION, Topic::Broadcasts, from).await?));
            }
            let (_, read) = shared.as_ref().ok_or_else(|| fault::unreadable(OPERATION))?;
            tails.push(Some(with_broadcasts(tail, read.clone())));
        }
        all_settled(OPERATION, self.cluster.run_all(OPERATION, drops).await)?;
        Ok(tails)
    }

    /// Asks whoever holds sessions that are lost to look (see `doubt.rs`).
    pub(super) async fn ask_all(&self) -> Result<()> {
        let questions = std::mem::take(&mut *self.backend.questions.lock());
        for question in questions {
            self.tell_all("streams.send", question).await?;
        }
        Ok(())
    }

    pub(super) async fn read_topic(
        &self,
        operation: &'static str,
        topic: Topic,
        after: Position,
    ) -> Result<Shared> {
        let age = self.backend.broadcast_age();
        let (at, name) = (wire::position(after), wire::topic_name(topic));
        let arguments: [&[u8]; 4] = [name.as_bytes(), &at, age.as_bytes(), &wire::epoch(random_epoch())];
        let answer = self.backend.of_nodes(operation, &scripts::READ_TOPIC, &arguments).await?;
        let read = wire::topic_tail(&answer).ok_or_else(|| fault::unreadable(operation))?;
        Ok(Shared { tail: read.0, before: read.1 })
    }

    // --- nodes

    /// Puts off the expiry of some of what a node holds; returns where to go on.
    pub(super) async fn hold(&self, node: &str, cursor: &str, turns: u64) -> Result<String> {
        const OPERATION: &str = "lease.renew";
        let held = self.backend.held(node);
        let [mut count, mut expire] = [redis::cmd("ZCARD"), redis::cmd("PEXPIRE")];
        count.arg(&held);
        expire.arg(&held).arg(self.backend.hold_ms());
        let calls = vec![Call::new(&held, count), Call::new(&held, expire)];
        let counted = all_settled(OPERATION, self.cluster.run_all(OPERATION, calls).await)?;
        let count = counted.first().and_then(wire::number).unwrap_or(0);
        if count <= 0 {
            return Ok("0".into());
        }
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(&held).arg(cursor).arg("COUNT").arg((count as u64).div_ceil(turns));
        let some = settled(OPERATION, self.cluster.run(OPERATION, Call::new(&held, scan)).await)?;
        let Some([next, some]) = wire::array(&some) else { return Err(fault::unreadable(OPERATION)) };
        let some = scored(some);
        let (hold, nothing) = (self.backend.hold_ms().to_string(), Seen::nothing());
        let calls = some.iter().map(|(session, _)| {
            self.call(&scripts::MANY_HOLD, session, &nothing, &[node.as_bytes(), hold.as_bytes()])
        });
        let answers = self.cluster.run_all(OPERATION, calls.collect()).await;
        // What is not held by now; a claim under way is let be.
        let stale = some.iter().zip(answers).filter_map(|((session, owner), answer)| {
            let Ok(Looked::Done(answer)) = looked(OPERATION, settled(OPERATION, answer).ok()?) else {
                return None;
            };
            let held = wire::number(&answer.value);
            if held == Some(-1) {
                signal(&self.backend.sink, Signal::Doubtful { session: session.clone() });
            }
            let gone = held != Some(1) && owner != "inf";
            gone.then(|| self.dropped(node, session, owner))
        });
        all_settled(OPERATION, self.cluster.run_all(OPERATION, stale.collect()).await)?;
        Ok(wire::string(next).unwrap_or("0").to_owned())
    }

    /// Unholds what a node holds, and forgets the node.
    pub(super) async fn bury(&self, operation: &'static str, node: &str, only_dead: bool) -> Result<()> {
        let (held, age) = (self.backend.held(node), self.backend.age());
        loop {
            let ttl = self.backend.options.lease.ttl_ms;
            let seen = self.see(operation, "", Some((node, ttl)), false).await?;
            if only_dead && seen.holder_lives() {
                return Ok(());
            }
            let mut range = redis::cmd("ZRANGE");
            range.arg(&held).arg(0).arg(SWEEP_BATCH - 1).arg("WITHSCORES");
            let some = settled(operation, self.cluster.run(operation, Call::new(&held, range)).await)?;
            let some = scored(&some);
            if some.is_empty() {
                break;
            }
            let calls = some.iter().map(|(session, _)| {
                self.call(&scripts::MANY_BURY, session, &seen, &[age.as_bytes(), node.as_bytes()])
            });
            let answers = self.cluster.run_all(operation, calls.collect()).await;
            for ((session, _), answer) in some.iter().zip(answers) {
                if let Looked::Done(answer) = looked(operation, settled(operation, answer)?)? {
                    self.finish(operation, session, &answer.effects).await?;
                }
            }
            let drops = some.iter().map(|(session, owner)| self.dropped(node, session, owner));
            all_settled(operation, self.cluster.run_all(operation, drops.collect()).await)?;
        }
        let nodes = self.backend.nodes();
        let mut forget = redis::cmd("ZREM");
        forget.arg(&nodes).arg(node);
        settled(operation, self.cluster.run(operation, Call::new(&nodes, forget)).await).map(drop)
    }

    /// Ends the subscriptions of a session whose info ran out.
    pub(super) async fn expire(&self, session: &SessionId) -> Result<()> {
        const OPERATION: &str = "sweep";
        let look = async |look: &[u8]| {
            let seen = Seen::nothing();
            self.run(OPERATION, &scripts::MANY_EXPIRE, session, seen, "", &[look]).await
        };
        let first = look(b"look").await?;
        let due = self.backend.due();
        if let Some(until) = wire::number(&first.value) {
            let mut put_off = redis::cmd("ZADD");
            put_off.arg(&due).arg(until).arg(session.as_str());
            return settled(OPERATION, self.cluster.run(OPERATION, Call::new(&due, put_off)).await).map(drop);
        }
        let uris = strings(&first.value);
        self.unlisted(OPERATION, session, &uris).await?;
        look(b"").await?;
        self.reflect(OPERATION, session, uris).await?;
        let mut forget = redis::cmd("ZREM");
        forget.arg(&due).arg(session.as_str());
        settled(OPERATION, self.cluster.run(OPERATION, Call::new(&due, forget)).await)?;
        self.info_changed(OPERATION, session, "00000000000000000000000000000000").await
    }

    // --- info

    fn documents(&self, session: &SessionId) -> [String; 5] {
        ["client_info", "client_capabilities", "log_level", "protocol_version", "initialize_params"]
            .map(|kind| format!("{}{kind}:{session}", self.backend.prefix()))
    }

    fn prolonged(&self, session: &SessionId, until: &str) -> Vec<Call> {
        let documents = self.documents(session);
        let expire = documents.iter().map(|key| {
            let mut cmd = redis::cmd("PEXPIREAT");
            cmd.arg(key).arg(until);
            Call::new(key, cmd)
        });
        let due = self.backend.due();
        let mut note = redis::cmd("ZADD");
        // Of those that are subscribed to something; `subscribe` adds the others.
        note.arg(&due).arg("XX").arg(until).arg(session.as_str());
        expire.chain([Call::new(&due, note)]).collect()
    }

    /// A key of subscriptions outlives the info of all that are in it.
    fn outlives(&self, key: &str) -> Call {
        let mut cmd = redis::cmd("PEXPIRE");
        cmd.arg(key).arg(self.backend.options.session_ttl_ms + 2 * GRACE_MS);
        Call::new(key, cmd)
    }

    /// The five documents, or nil.
    pub(super) async fn info(&self, session: &SessionId) -> Result<Value> {
        const OPERATION: &str = "info.get";
        let ttl = self.backend.session_ttl();
        let mut calls =
            vec![self.call(&scripts::MANY_TOUCH, session, &Seen::nothing(), &[ttl.as_bytes(), b""])];
        calls.extend(self.documents(session).iter().map(|key| {
            let mut cmd = redis::cmd("GET");
            cmd.arg(key);
            Call::new(key, cmd)
        }));
        let mut answers = all_settled(OPERATION, self.cluster.run_all(OPERATION, calls).await)?;
        let documents = answers.split_off(1);
        let Some(Ok(Looked::Done(touched))) = answers.pop().map(|answer| looked(OPERATION, answer)) else {
            return Err(fault::unreadable(OPERATION));
        };
        self.finish(OPERATION, session, &touched.effects).await?;
        let known = wire::number(&touched.value) != Some(0);
        let any = known || documents.iter().any(|document| *document != Value::Nil);
        Ok(if any { Value::Array(documents) } else { Value::Nil })
    }

    /// `documents` are numbers from 0, and texts.
    pub(super) async fn put_info(&self, session: &SessionId, documents: &[(usize, &str)]) -> Result<()> {
        const OPERATION: &str = "info.put";
        let ttl = self.backend.session_ttl();
        let arguments: [&[u8]; 2] = [ttl.as_bytes(), &wire::epoch(random_epoch())];
        let touched =
            self.run(OPERATION, &scripts::MANY_TOUCH, session, Seen::nothing(), "", &arguments).await?;
        let until = wire::number(&touched.value).ok_or_else(|| fault::unreadable(OPERATION))?;
        if until < 0 {
            return Err(fault::session_closed(OPERATION, session));
        }
        self.finish(OPERATION, session, &touched.effects).await?;
        let keys = self.documents(session);
        let sets = documents.iter().map(|(n, text)| {
            let mut cmd = redis::cmd("SET");
            cmd.arg(&keys[*n]).arg(*text).arg("PXAT").arg(until);
            Call::new(&keys[*n], cmd)
        });
        all_settled(OPERATION, self.cluster.run_all(OPERATION, sets.collect()).await)?;
        self.info_changed(OPERATION, session, self.backend.me()).await
    }

    async fn info_changed(&self, operation: &'static str, session: &SessionId, sender: &str) -> Result<()> {
        self.tell_all(operation, format!("I{sender}{session}").into_bytes()).await
    }

    pub(super) async fn forget_info(&self, session: &SessionId) -> Result<bool> {
        const OPERATION: &str = "info.delete";
        let uris = self.listed(OPERATION, session).await?;
        self.unlisted(OPERATION, session, &uris).await?;
        let keys = self.documents(session);
        let deletes = keys.iter().map(|key| {
            let mut cmd = redis::cmd("DEL");
            cmd.arg(key);
            Call::new(key, cmd)
        });
        let deleted = all_settled(OPERATION, self.cluster.run_all(OPERATION, deletes.collect()).await)?;
        let answer =
            self.run(OPERATION, &scripts::MANY_FORGET_INFO, session, Seen::nothing(), "", &[]).await?;
        self.finish(OPERATION, session, &answer.effects).await?;
        self.reflect(OPERATION, session, uris).await?;
        let due = self.backend.due();
        let mut forget = redis::cmd("ZREM");
        forget.arg(&due).arg(session.as_str());
        settled(OPERATION, self.cluster.run(OPERATION, Call::new(&due, forget)).await)?;
        self.info_changed(OPERATION, session, self.backend.me()).await?;
        let had = deleted.iter().chain([&answer.value]).any(|answer| wire::number(answer) == Some(1));
        Ok(had)
    }

    // --- resource subscriptions

    fn forward(&self, uri: &str) -> String {
        format!("{}subscriptions:{uri}", self.backend.prefix())
    }

    /// What the session's own list says, also when its info has run out.
    async fn listed(&self, operation: &'static str, session: &SessionId) -> Result<Vec<String>> {
        let key = self.backend.key("uris", session);
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(&key);
        Ok(strings(&settled(operation, self.cluster.run(operation, Call::new(&key, cmd)).await)?))
    }

    /// Takes the session away from the subscribers of these.
    async fn unlisted(&self, operation: &'static str, session: &SessionId, uris: &[String]) -> Result<()> {
        let removes = uris.iter().map(|uri| self.list(uri, session, false));
        all_settled(operation, self.cluster.run_all(operation, removes.collect()).await).map(drop)
    }

    fn list(&self, uri: &str, session: &SessionId, subscribed: bool) -> Call {
        let key = self.forward(uri);
        let mut cmd = redis::cmd(if subscribed { "SADD" } else { "SREM" });
        cmd.arg(&key).arg(session.as_str());
        Call::new(&key, cmd)
    }

    /// Makes the subscribers of these follow the session's own list, until that stays as it is.
    async fn reflect(
        &self,
        operation: &'static str,
        session: &SessionId,
        mut uris: Vec<String>,
    ) -> Result<()> {
        let own = self.backend.key("uris", session);
        let look = async |uris: &[String]| -> Result<Vec<bool>> {
            let asks = uris.iter().map(|uri| {
                let mut cmd = redis::cmd("SISMEMBER");
                cmd.arg(&own).arg(uri);
                Call::new(&own, cmd)
            });
            let answers = all_settled(operation, self.cluster.run_all(operation, asks.collect()).await)?;
            Ok(answers.iter().map(|answer| wire::number(answer) == Some(1)).collect())
        };
        for _ in 0..REFLECTIONS {
            if uris.is_empty() {
                return Ok(());
            }
            let before = look(&uris).await?;
            let follow = uris.iter().zip(&before).flat_map(|(uri, subscribed)| {
                [self.list(uri, session, *subscribed), self.outlives(&self.forward(uri))]
            });
            all_settled(operation, self.cluster.run_all(operation, follow.collect()).await)?;
            let after = look(&uris).await?;
            let changed = uris.into_iter().zip(before.into_iter().zip(after));
            uris = changed.filter(|(_, (before, after))| before != after).map(|(uri, _)| uri).collect();
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            operation,
            format!("the subscriptions of session {session} changed all the time; try again"),
        )
        .with_unknown_outcome())
    }

    /// 1 when it is new, 0 when it was there, -1 at the limit.
    pub(super) async fn subscribe(
        &self,
        session: &SessionId,
        uri: &str,
        arguments: &[&[u8]],
    ) -> Result<Value> {
        const OPERATION: &str = "info.add_subscription";
        let answer =
            self.run(OPERATION, &scripts::MANY_SUBSCRIBE, session, Seen::nothing(), "", arguments).await?;
        if wire::number(&answer.value) == Some(-1) {
            self.finish(OPERATION, session, &answer.effects).await?;
            return Ok(answer.value);
        }
        let until = answer.effects.chunks_exact(3).find(|effect| wire::string(&effect[0]) == Some("prolong"));
        let until = until.and_then(|effect| wire::string(&effect[1])).unwrap_or("0");
        // Whoever sweeps finds it, before it is anywhere.
        let due = self.backend.due();
        let mut note = redis::cmd("ZADD");
        note.arg(&due).arg(until).arg(session.as_str());
        let calls = vec![Call::new(&due, note), self.outlives(&due)];
        all_settled(OPERATION, self.cluster.run_all(OPERATION, calls).await)?;
        self.finish(OPERATION, session, &answer.effects).await?;
        self.reflect(OPERATION, session, vec![uri.to_owned()]).await?;
        Ok(answer.value)
    }

    pub(super) async fn unsubscribe(&self, session: &SessionId, uri: &str) -> Result<bool> {
        const OPERATION: &str = "info.remove_subscription";
        let uris = [uri.to_owned()];
        self.unlisted(OPERATION, session, &uris).await?;
        let arguments = [uri.as_bytes()];
        let answer =
            self.run(OPERATION, &scripts::MANY_UNSUBSCRIBE, session, Seen::nothing(), "", &arguments).await?;
        self.reflect(OPERATION, session, uris.to_vec()).await?;
        Ok(wire::number(&answer.value) == Some(1))
    }
}

enum Looked {
    Done(Answer),
    /// This is the holder, with a lease of so many ms; it is to be looked up.
    Again(String, u64),
}

fn looked(operation: &'static str, answer: Value) -> Result<Looked> {
    let unreadable = || fault::unreadable(operation);
    let Value::Array(mut parts) = answer else { return Err(unreadable()) };
    match (parts.first().and_then(wire::string), &parts[..]) {
        (Some("again"), [_, holder, ttl]) => {
            let holder = wire::string(holder).ok_or_else(unreadable)?;
            let ttl = wire::number(ttl).and_then(|ttl| u64::try_from(ttl).ok()).ok_or_else(unreadable)?;
            Ok(Looked::Again(holder.to_owned(), ttl))
        }
        (Some("done"), [_, _, Value::Array(_)]) => {
            let (Some(Value::Array(effects)), Some(value)) = (parts.pop(), parts.pop()) else {
                return Err(unreadable());
            };
            Ok(Looked::Done(Answer { value, effects }))
        }
        _ => Err(unreadable()),
    }
}

/// Adds the broadcasts to what a session's own log holds.
pub(super) fn with_broadcasts(mut tail: Tail, shared: Shared) -> Tail {
    tail.start.broadcast = shared.tail.start;
    tail.gap |= shared.tail.gap;
    tail.broadcasts = shared.tail.entries;
    wire::note_epochs(&mut tail, &shared.before);
    tail
}

fn strings(value: &Value) -> Vec<String> {
    let values = wire::array(value).unwrap_or_default();
    values.iter().filter_map(wire::string).map(ToOwned::to_owned).collect()
}

/// Members of a held set with their owner epochs, as text; nested or not, as commands differ.
fn scored(value: &Value) -> Vec<(SessionId, String)> {
    let values = wire::array(value).unwrap_or_default();
    let flat: Vec<&Value> =
        values.iter().flat_map(|v| wire::array(v).map_or(vec![v], |v| v.iter().collect())).collect();
    let pair = |pair: &[&Value]| {
        let score = match pair[1] {
            Value::Double(score) => *score,
            value => wire::string(value)?.parse().ok()?,
        };
        let score = if score.is_infinite() { "inf".to_owned() } else { format!("{score:.0}") };
        Some((SessionId::stored(wire::string(pair[0])?)?, score))
    };
    flat.chunks_exact(2).filter_map(pair).collect()
}
