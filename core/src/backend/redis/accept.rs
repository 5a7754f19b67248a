//! A batch on its way: one script call a session, all in one pipelined round trip.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::ops::Range;
use std::task::Poll;

use redis::{Cmd, ServerError, Value};

use super::cluster::Call as Command;
use super::many::{Many, Message};
use super::scripts::{self, Script};
use super::{RedisBackend, Servers, fault, mixed, wire};
use crate::backend::sum::Sum;
use crate::backend::{Acceptance, Address, Reclaim, Release, Submission, Tail, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Retention;
use crate::runtime::random_epoch;
use crate::session::{NodeId, SessionId};

const OPERATION: &str = "streams.send";

/// One script call: everything that goes to one log, up to the next broadcast.
#[derive(Clone)]
pub(super) struct Call<'a> {
    pub(super) to: Log<'a>,
    pub(super) submissions: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Log<'a> {
    Session(&'a SessionId),
    Topic(Topic),
}

/// Groups a batch. A sender's directed and broadcast events keep their order (G1), so no group goes
/// on past a broadcast.
fn calls(batch: &[Submission]) -> Vec<Call<'_>> {
    let mut calls: Vec<Call<'_>> = Vec::new();
    let mut open: HashMap<&SessionId, usize> = HashMap::new();
    for (n, submission) in batch.iter().enumerate() {
        let mut of_session = |session| {
            let at = *open.entry(session).or_insert(calls.len());
            if at == calls.len() {
                calls.push(Call { to: Log::Session(session), submissions: Vec::new() });
            }
            calls[at].submissions.push(n);
        };
        match &submission.to {
            Address::Session(session) => of_session(session),
            Address::Sessions(sessions) => sessions.iter().for_each(of_session),
            Address::Topic(topic) => {
                open.clear();
                let to = Log::Topic(*topic);
                match calls.last_mut().filter(|last| last.to == to) {
                    Some(last) => last.submissions.push(n),
                    None => calls.push(Call { to, submissions: vec![n] }),
                }
            }
        }
    }
    calls
}

/// Few calls, whose order among each other does not matter: each has a log of its own.
fn is_small(calls: &[Call<'_>]) -> bool {
    let of_session = |call: &Call<'_>| matches!(call.to, Log::Session(_));
    calls.len() <= FEW && (calls.len() == 1 || calls.iter().all(of_session))
}

/// More calls than this are worth the scripts' text.
const FEW: usize = 4;

/// The most sessions and payload bytes of one script: others wait while it runs.
const MOST_TOGETHER: usize = 64;
const MOST_BYTES_TOGETHER: usize = 256 << 10;
/// What a script answers for a session that it could not read, and did not change.
const UNREAD: &[u8] = b"e";
/// For one that could not be read to the end, and was changed.
const BROKEN: &[u8] = b"c";

/// Which calls, one behind the other, can be one: those of sessions, without idempotency keys.
fn together(batch: &[Submission], calls: &[Call<'_>]) -> Vec<Range<usize>> {
    let bytes_of = |call: &Call<'_>| call.submissions.iter().map(|n| batch[*n].payload.len()).sum::<usize>();
    let may = |call: &Call<'_>| {
        matches!(call.to, Log::Session(_))
            && call.submissions.iter().all(|n| batch[*n].idempotency_key.is_none())
    };
    let mut groups = Vec::new();
    let mut start = 0;
    while start < calls.len() {
        let (mut end, mut bytes) = (start, 0);
        while end < calls.len() && end - start < MOST_TOGETHER && may(&calls[end]) {
            bytes += bytes_of(&calls[end]);
            if bytes > MOST_BYTES_TOGETHER {
                break;
            }
            end += 1;
        }
        if end - start > 1 {
            groups.push(start..end);
        }
        start = end.max(start + 1);
    }
    groups
}

/// The answers a command as answers a call.
fn spread(calls: usize, groups: &[Range<usize>], answers: Vec<Value>) -> Vec<Value> {
    let mut each = Vec::with_capacity(calls);
    let mut groups = groups.iter().peekable();
    for answer in answers {
        match (groups.next_if(|group| group.start == each.len()), answer) {
            (Some(group), Value::Array(letters)) if letters.len() == group.len() => each.extend(letters),
            // It failed as a whole.
            (Some(group), answer) => each.extend(group.clone().map(|_| answer.clone())),
            (None, answer) => each.push(answer),
        }
    }
    each
}

/// How commands name their scripts: by hash, or the first of each script brings its text along and
/// the others their hash, so that none can fail for want of a script.
#[derive(Default)]
struct Naming {
    /// With tmcp's own managers in the fleet.
    mixed: bool,
    by_hash: bool,
    session: bool,
    sessions: bool,
    topic: bool,
}

impl Naming {
    fn new(mixed: bool, by_hash: bool) -> Self {
        Naming { mixed, by_hash, ..Naming::default() }
    }

    fn command(&mut self, to: Log<'_>) -> Cmd {
        match (to, self.mixed) {
            (Log::Session(_), false) => named(&scripts::ACCEPT, &mut self.session, self.by_hash),
            (Log::Session(_), true) => named(&mixed::ACCEPT, &mut self.session, self.by_hash),
            (Log::Topic(_), false) => named(&scripts::ACCEPT_TOPIC, &mut self.topic, self.by_hash),
            (Log::Topic(_), true) => named(&mixed::ACCEPT_TOPIC, &mut self.topic, self.by_hash),
        }
    }
}

pub(super) fn named(script: &Script, sent: &mut bool, by_hash: bool) -> Cmd {
    match std::mem::replace(sent, true) || by_hash {
        true => script.by_hash(),
        false => script.by_text(),
    }
}

impl RedisBackend {
    /// A small batch names its scripts by hash; when the server has lost one, it is sent again, and
    /// no later batch may come before that. A large one brings the text, and others may follow it.
    pub(super) async fn accept_batch(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        self.accept_with(batch, self.interop.is_some()).await
    }

    /// The same for what tmcp's managers sent themselves: it is not sent to them.
    pub(super) async fn accept_here(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        self.accept_with(batch, false).await
    }

    async fn accept_with(&self, batch: &[Submission], mixed: bool) -> Vec<Result<Acceptance>> {
        let calls = calls(batch);
        if let Servers::Many(cluster) = &self.servers {
            let many = Many { backend: self, cluster };
            let outcomes = {
                let _turn = self.turns.lock().await;
                many.accept(batch, &calls).await
            };
            return self.looked_into(batch, outcomes).await;
        }
        if self.is_live_only() {
            let outcomes = self.accept_live(batch, &calls).await;
            return self.looked_into(batch, outcomes).await;
        }
        // In the order of the first poll, whatever the scheduler's budget.
        let turn = tokio::task::unconstrained(self.turns.lock()).await;
        let answers = if is_small(&calls) {
            let answers = self.submit_by_hash(batch, &calls, mixed).await;
            drop(turn);
            answers
        } else {
            let mut submit = Box::pin(self.submit_many(batch, &calls, mixed));
            match poll_fn(|cx| Poll::Ready(submit.as_mut().poll(cx))).await {
                Poll::Ready(answers) => answers,
                Poll::Pending => {
                    drop(turn);
                    submit.await
                }
            }
        };
        match answers {
            Ok(answers) => {
                let mut sums = Sum::each(batch.len());
                calls.iter().zip(&answers).for_each(|(call, answer)| settle(&mut sums, call, answer));
                self.looked_into(batch, Sum::outcomes(sums)).await
            }
            Err(error) => batch.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    /// Says more of what went wrong.
    async fn looked_into(
        &self,
        batch: &[Submission],
        mut outcomes: Vec<Result<Acceptance>>,
    ) -> Vec<Result<Acceptance>> {
        for (outcome, submission) in outcomes.iter_mut().zip(batch) {
            match outcome {
                Ok(accepted) if accepted.dropped > 0 => self.look_for_lost(&submission.to),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    *outcome = Err(self.explain_refusal(error.duplicate(), submission).await);
                }
                _ => {}
            }
        }
        outcomes
    }

    async fn submit_by_hash(
        &self,
        batch: &[Submission],
        calls: &[Call<'_>],
        mixed: bool,
    ) -> Result<Vec<Result<Value>>> {
        let answers = self.submit(batch, calls, &[], Naming::new(mixed, true)).await?;
        let lost = |answer: &Value| server_error(answer).is_some_and(fault::is_no_script);
        self.submit_again(batch, calls, answers, lost, mixed).await
    }

    /// Sessions are taken together, so that a server spends less on each; one that can't be read is
    /// asked for by itself, and says why.
    async fn submit_many(
        &self,
        batch: &[Submission],
        calls: &[Call<'_>],
        mixed: bool,
    ) -> Result<Vec<Result<Value>>> {
        let groups = if mixed { Vec::new() } else { together(batch, calls) };
        let answers = self.submit(batch, calls, &groups, Naming::new(mixed, false)).await?;
        let mut each = spread(calls.len(), &groups, answers);
        each.iter_mut()
            .filter(|answer| wire::bytes(answer) == Some(BROKEN))
            .for_each(|answer| *answer = Value::Nil);
        let unread = |answer: &Value| wire::bytes(answer) == Some(UNREAD);
        self.submit_again(batch, calls, each, unread, mixed).await
    }

    /// Sends those again of which the answer says that nothing was done. The others have theirs, whatever
    /// becomes of these.
    async fn submit_again(
        &self,
        batch: &[Submission],
        calls: &[Call<'_>],
        answers: Vec<Value>,
        undone: impl Fn(&Value) -> bool,
        mixed: bool,
    ) -> Result<Vec<Result<Value>>> {
        let again: Vec<usize> = (0..calls.len()).filter(|at| undone(&answers[*at])).collect();
        let mut answers: Vec<_> = answers.into_iter().map(Ok).collect();
        if !again.is_empty() {
            let calls: Vec<_> = again.iter().map(|at| calls[*at].clone()).collect();
            let new = self.submit(batch, &calls, &[], Naming::new(mixed, false)).await;
            match new {
                Ok(new) => again.into_iter().zip(new).for_each(|(at, answer)| answers[at] = Ok(answer)),
                Err(error) => again.into_iter().for_each(|at| answers[at] = Err(error.duplicate())),
            }
        }
        Ok(answers)
    }

    /// Sends calls, those of each group as one command; an answer a command.
    async fn submit(
        &self,
        batch: &[Submission],
        calls: &[Call<'_>],
        groups: &[Range<usize>],
        mut naming: Naming,
    ) -> Result<Vec<Value>> {
        let mut commands = Vec::with_capacity(calls.len());
        let mut groups = groups.iter().peekable();
        let mut at = 0;
        while let Some(call) = calls.get(at) {
            if let Some(group) = groups.next_if(|group| group.start == at) {
                let cmd = named(&scripts::ACCEPT_SESSIONS, &mut naming.sessions, false);
                commands.push(self.session_logs(cmd, batch, &calls[group.clone()]));
                at = group.end;
                continue;
            }
            at += 1;
            let mut cmd = naming.command(call.to);
            match call.to {
                Log::Session(session) => self.session_log(&mut cmd, session),
                Log::Topic(topic) => self.topic_log(&mut cmd, topic),
            }
            self.payloads(&mut cmd, batch, call);
            if naming.mixed {
                let of = match call.to {
                    Log::Session(session) => session.as_str(),
                    Log::Topic(topic) => wire::topic_name(topic),
                };
                cmd.arg(&self.mixed_arguments(of, call.submissions.len().to_string().as_bytes())[..]);
            }
            commands.push(cmd);
        }
        self.pipelined(OPERATION, commands).await
    }

    /// Where the events of several sessions go, what is kept of them, and what they are.
    fn session_logs(&self, mut cmd: Cmd, batch: &[Submission], calls: &[Call<'_>]) -> Cmd {
        let sessions = || {
            calls.iter().filter_map(|call| match call.to {
                Log::Session(session) => Some((session, call)),
                Log::Topic(_) => None,
            })
        };
        cmd.arg(2 * calls.len());
        for (session, _) in sessions() {
            cmd.arg(self.key("session", session)).arg(self.key("log", session));
        }
        cmd.arg(self.prefix());
        limits(&mut cmd, &self.options.retention);
        for (session, call) in sessions() {
            cmd.arg(wire::message_head(session)).arg(call.submissions.len());
            for n in &call.submissions {
                cmd.arg(batch[*n].payload.as_str());
            }
        }
        cmd
    }

    pub(super) fn payloads(&self, cmd: &mut Cmd, batch: &[Submission], call: &Call<'_>) {
        for n in &call.submissions {
            let submission = &batch[*n];
            cmd.arg(submission.payload.as_str());
            cmd.arg(submission.idempotency_key.as_deref().unwrap_or_default());
        }
    }

    /// Where a session's events go, and what is kept of them.
    fn session_log(&self, cmd: &mut Cmd, session: &SessionId) {
        cmd.arg(3);
        for kind in ["session", "log", "keys"] {
            cmd.arg(self.key(kind, session));
        }
        cmd.arg(self.prefix()).arg(wire::message_head(session));
        limits(cmd, &self.options.retention);
    }

    pub(super) fn topic_keys(&self, topic: Topic) -> [String; 3] {
        let name = wire::topic_name(topic);
        ["topic", "topiclog", "topickeys"].map(|kind| format!("{}{kind}:{{all}}{name}", self.prefix()))
    }

    pub(super) fn topic_log(&self, cmd: &mut Cmd, topic: Topic) {
        let name = wire::topic_name(topic);
        cmd.arg(3);
        for key in self.topic_keys(topic) {
            cmd.arg(key);
        }
        cmd.arg(self.everybody()).arg(name);
        limits(cmd, &self.options.broadcast_retention);
        cmd.arg(self.topic_ttl()).arg(&wire::epoch(random_epoch())[..]);
    }

    /// One round trip for several commands; each has its own answer.
    pub(super) async fn pipelined(&self, operation: &'static str, commands: Vec<Cmd>) -> Result<Vec<Value>> {
        let mut live = self.live(operation)?;
        let answers = live.send_all(commands).await.map_err(|error| fault::lost(operation, error))?;
        answers.iter().filter_map(server_error).for_each(|error| live.heed(error));
        Ok(answers)
    }

    pub(super) async fn reclaim_batch(&self, node: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        const OPERATION: &str = "streams.reclaim";
        if let Servers::Many(cluster) = &self.servers {
            return Many { backend: self, cluster }.reclaim(node, held).await;
        }
        let mut commands = Vec::with_capacity(held.len());
        let mut sent = false;
        for one in held {
            let mut cmd = named(scripts::RECLAIM.one, &mut sent, false);
            cmd.arg(5).arg(&self.keys(&one.session)[..]);
            cmd.arg(self.prefix()).arg(one.session.as_str());
            for argument in self.reclaiming(node, one) {
                cmd.arg(argument);
            }
            commands.push(cmd);
        }
        let answers = self.pipelined(OPERATION, commands).await?;
        let tails: Result<Vec<_>> = answers.into_iter().map(|answer| reclaimed(OPERATION, answer)).collect();
        if let Ok(tails) = &tails {
            for (one, tail) in held.iter().zip(tails).filter(|(one, _)| self.counts(&one.session)) {
                match tail {
                    Some(tail) => self.live_only.hold(&one.session, one.owner_epoch, tail.start.session),
                    None => drop(self.live_only.let_go(&one.session, one.owner_epoch)),
                }
            }
        }
        tails
    }

    /// What `reclaim.lua` is told, behind the session.
    pub(super) fn reclaiming(&self, node: &NodeId, one: &Reclaim) -> [Vec<u8>; 10] {
        [
            node.as_str().into(),
            self.options.lease.ttl_ms.to_string().into(),
            one.owner_epoch.to_string().into(),
            wire::positions(one.after),
            self.age().into(),
            self.broadcast_age().into(),
            self.hold_ms().to_string().into(),
            wire::epoch(random_epoch()).into(),
            wire::epoch(random_epoch()).into(),
            if self.counts(&one.session) { "1" } else { "0" }.into(),
        ]
    }

    pub(super) async fn release_batch(&self, releases: &[Release]) -> Result<()> {
        const OPERATION: &str = "streams.release";
        if let Servers::Many(cluster) = &self.servers {
            return Many { backend: self, cluster }.release(releases).await;
        }
        let age = self.age();
        let mut commands = Vec::with_capacity(releases.len());
        let mut sent = false;
        for release in releases {
            let script = if self.interop.is_some() { &mixed::RELEASE } else { scripts::RELEASE.one };
            let mut cmd = named(script, &mut sent, false);
            let keys = self.keys(&release.session);
            cmd.arg(keys.len()).arg(&keys[..]);
            cmd.arg(self.prefix()).arg(release.session.as_str());
            cmd.arg(release.owner_epoch).arg(wire::positions(release.delivered)).arg(&age);
            if self.interop.is_some() {
                cmd.arg(&self.mixed_arguments(release.session.as_str(), b"")[..]);
            }
            if let Some(head) = self.live_only.let_go(&release.session, release.owner_epoch) {
                cmd.arg(wire::position(head));
            }
            commands.push(cmd);
        }
        let answers = self.pipelined(OPERATION, commands).await?;
        // What can't be read now never will be: trying again would only keep the others from it.
        let mut refused =
            answers.iter().filter_map(server_error).map(|error| fault::refused(OPERATION, error));
        refused.find(Error::retryable).map_or(Ok(()), Err)
    }
}

/// Reads what `reclaim.lua` answered.
pub(super) fn reclaimed(operation: &'static str, answer: Value) -> Result<Option<Tail>> {
    if let Value::ServerError(error) = &answer {
        let error = fault::refused(operation, error);
        // A session that can't be read can't be gone on with; the others can.
        return if error.retryable() { Err(error) } else { Ok(None) };
    }
    match wire::array(&answer).unwrap_or_default() {
        [state, ..] if wire::string(state) == Some("lease") => Err(fault::no_lease(operation)),
        [state, rest @ ..] if wire::string(state) == Some("ok") => Ok(wire::tail(rest)),
        _ => Ok(None),
    }
}

/// What became of a call in a cluster.
struct Outcome {
    letters: Vec<u8>,
    /// Where the accepted events begin; without any, the head.
    at: Vec<u8>,
    /// Who is to be told.
    nodes: Vec<String>,
}

fn outcome(call: &Call<'_>, answer: &Value) -> Option<Outcome> {
    let parts = wire::array(answer)?;
    let (letters, at, nodes) = match (call.to, parts) {
        (Log::Session(_), [letters, holder, at]) => (letters, at, std::slice::from_ref(holder)),
        (Log::Topic(_), [letters, at, nodes @ ..]) => (letters, at, nodes),
        _ => return None,
    };
    let nodes = nodes.iter().filter_map(wire::string).filter(|node| !node.is_empty());
    Some(Outcome {
        letters: letters_of(call, letters)?.to_vec(),
        at: wire::bytes(at)?.to_vec(),
        nodes: nodes.map(ToOwned::to_owned).collect(),
    })
}

impl Many<'_> {
    /// Calls between two broadcasts go out at once, each to its shard; what comes behind them waits,
    /// so that one sender's events keep their order (G1). Then the holders are told, in that order.
    async fn accept(&self, batch: &[Submission], calls: &[Call<'_>]) -> Vec<Result<Acceptance>> {
        let mut sums = Sum::each(batch.len());
        let together =
            |a: &Call<'_>, b: &Call<'_>| matches!((a.to, b.to), (Log::Session(_), Log::Session(_)));
        for stage in calls.chunk_by(together) {
            let commands = stage.iter().map(|call| self.command(batch, call)).collect();
            let answers = self.cluster.run_all(OPERATION, commands).await;
            let mut messages = Vec::new();
            let mut told: Vec<usize> = Vec::new();
            for (call, answer) in stage.iter().zip(answers) {
                let read = answer.as_ref().ok().and_then(|answer| outcome(call, answer));
                let Some(outcome) = read else {
                    call.submissions.iter().for_each(|n| sums[*n].fail(failure(&answer)));
                    continue;
                };
                self.note_broadcast(call, &outcome);
                for (n, letter) in call.submissions.iter().zip(&outcome.letters) {
                    sums[*n].add(wire::counted(*letter));
                    told.extend((*letter != b'x').then_some(*n));
                }
                messages.extend(to_tell(batch, call, &outcome));
            }
            if let Err(error) = self.publish(OPERATION, messages).await {
                // In the log, but who holds the stream may not know: a retry rings again.
                told.into_iter().for_each(|n| sums[n].fail(error.duplicate()));
            }
        }
        Sum::outcomes(sums)
    }

    fn command(&self, batch: &[Submission], call: &Call<'_>) -> Command {
        let backend = self.backend;
        let mut arguments: Vec<Vec<u8>> = Vec::with_capacity(8 + 2 * call.submissions.len());
        let mut limits = |retention: &Retention| {
            for limit in [retention.age_ms, retention.events as u64, retention.bytes as u64] {
                arguments.push(limit.to_string().into_bytes());
            }
        };
        let (script, keys) = match call.to {
            Log::Session(session) => {
                limits(&backend.options.retention);
                // As far as this node knows; its own are always among them.
                let seen = *backend.broadcasts_seen.lock();
                let seen = wire::position(seen);
                let seen = [&seen[8..], &seen[..8]].concat();
                arguments.splice(0..0, [seen, wire::message_head(session)]);
                (&scripts::MANY_ACCEPT, backend.keys(session)[..3].to_vec())
            }
            Log::Topic(topic) => {
                limits(&backend.options.broadcast_retention);
                let head = [backend.nodes().into_bytes(), wire::topic_name(topic).into()];
                arguments.splice(0..0, head);
                arguments.push(backend.topic_ttl().into_bytes());
                arguments.push(wire::epoch(random_epoch()).to_vec());
                let mut keys = backend.topic_keys(topic).to_vec();
                keys.push(backend.nodes());
                (&scripts::MANY_ACCEPT_TOPIC, keys)
            }
        };
        for n in &call.submissions {
            arguments.push(batch[*n].payload.as_str().into());
            arguments.push(batch[*n].idempotency_key.as_deref().unwrap_or_default().into());
        }
        Command::script(script, &keys, &arguments)
    }

    fn note_broadcast(&self, call: &Call<'_>, outcome: &Outcome) {
        let at = Value::BulkString(outcome.at.clone());
        if let (Log::Topic(Topic::Broadcasts), Some(mut at)) = (call.to, wire::read_position(&at)) {
            let accepted = outcome.letters.iter().filter(|letter| **letter == b'a').count() as u64;
            at.offset += accepted.saturating_sub(1);
            self.backend.saw_broadcast(at);
        }
    }
}

/// The events that were accepted; or, since those of a retry may have been accepted and not told, a
/// ring of the bell.
fn to_tell(batch: &[Submission], call: &Call<'_>, outcome: &Outcome) -> Vec<Message> {
    let is = |letter: u8| move |(_, found): &(&usize, &u8)| **found == letter;
    let letters = || call.submissions.iter().zip(&outcome.letters);
    let payloads = || letters().filter(is(b'a')).map(|(n, _)| &batch[*n].payload);
    let mut texts = Vec::new();
    let any = payloads().next().is_some();
    match call.to {
        Log::Session(session) if any => texts.push(wire::events(session, &outcome.at, payloads())),
        Log::Topic(topic) if any => texts.push(wire::topic_events(topic, &outcome.at, payloads())),
        Log::Session(session) if letters().any(|at| is(b'd')(&at)) => {
            texts.push(wire::doorbell(session, &outcome.at));
        }
        Log::Topic(topic) if letters().any(|at| is(b'd')(&at)) => {
            texts.push(wire::topic_doorbell(topic, &outcome.at));
        }
        _ => {}
    }
    let to = |node: &String| {
        texts.iter().map(|text| Message { node: node.clone(), text: text.clone() }).collect::<Vec<_>>()
    };
    outcome.nodes.iter().flat_map(to).collect()
}

pub(super) fn server_error(answer: &Value) -> Option<&ServerError> {
    match answer {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

fn limits(cmd: &mut Cmd, retention: &Retention) {
    cmd.arg(retention.age_ms).arg(retention.events).arg(retention.bytes);
}

/// A letter for each submission of a call.
fn letters_of<'a>(call: &Call<'_>, answer: &'a Value) -> Option<&'a [u8]> {
    wire::bytes(answer).filter(|letters| letters.len() == call.submissions.len())
}

/// Brings what a script answered to a call back to its submissions.
pub(super) fn settle(sums: &mut [Sum], call: &Call<'_>, answer: &Result<Value>) {
    match answer.as_ref().ok().and_then(|answer| letters_of(call, answer)) {
        Some(letters) => {
            call.submissions.iter().zip(letters).for_each(|(n, letter)| sums[*n].add(wire::counted(*letter)));
        }
        None => call.submissions.iter().for_each(|n| sums[*n].fail(failure(answer))),
    }
}

/// Why a call has no letters.
pub(super) fn failure(answer: &Result<Value>) -> Error {
    match answer {
        Err(error) => error.duplicate(),
        Ok(Value::ServerError(error)) => fault::refused(OPERATION, error),
        // Something was done all the same.
        Ok(_) => fault::unreadable(OPERATION).with_unknown_outcome(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_taken_together_up_to_a_broadcast_a_key_or_a_bound() {
        let ids: Vec<_> = (0..70).map(|n| SessionId::new(format!("s{n}")).unwrap()).collect();
        let to = |to, size: usize| Submission { to, payload: "m".repeat(size).into(), idempotency_key: None };
        let mut batch: Vec<_> = ids.iter().map(|id| to(Address::Session(id.clone()), 1)).collect();
        batch.push(to(Address::Topic(Topic::Broadcasts), 1));
        for (n, size) in [1, MOST_BYTES_TOGETHER / 2, MOST_BYTES_TOGETHER / 2, MOST_BYTES_TOGETHER + 1, 1, 1]
            .into_iter()
            .enumerate()
        {
            batch.push(to(Address::Session(ids[n].clone()), size));
        }
        batch.last_mut().unwrap().idempotency_key = Some("k".into());
        let calls = calls(&batch);
        assert_eq!(together(&batch, &calls), [0..64, 64..70, 71..73]);
        let answers = vec![
            Value::Array((0..64).map(Value::Int).collect()),
            Value::Nil,
            Value::Int(70),
            Value::Array(vec![Value::Int(71), Value::Int(72)]),
            Value::Int(73),
            Value::Int(74),
            Value::Int(75),
            Value::Int(76),
        ];
        let each = spread(calls.len(), &together(&batch, &calls), answers);
        assert_eq!(each.len(), calls.len());
        for (at, answer) in each.iter().enumerate() {
            match at {
                64..70 => assert_eq!(*answer, Value::Nil),
                _ => assert_eq!(*answer, Value::Int(at as i64)),
            }
        }
    }

    #[test]
    fn nothing_happened_to_a_list_only_if_no_session_got_it() {
        let sessions: Vec<_> = ["s1", "s2"].iter().map(|id| SessionId::new(*id).unwrap()).collect();
        let to = Address::Sessions(sessions.into());
        let batch = [Submission { to, payload: "m".into(), idempotency_key: None }];
        let letter = |letter: &str| Ok(Value::BulkString(letter.into()));
        let refused = || {
            let answer = redis::parse_redis_value(b"-READONLY replica\r\n").unwrap();
            assert!(server_error(&answer).is_some());
            Ok(answer)
        };
        for (answers, unknown) in [
            ([refused(), refused()], false),
            ([refused(), letter("x")], false),
            ([letter("a"), refused()], true),
            // The connection went before a part could be sent again.
            ([letter("a"), Err(fault::down(OPERATION))], true),
            ([Err(fault::down(OPERATION)), refused()], false),
            // Something was done that can't be told.
            ([refused(), Ok(Value::Nil)], true),
        ] {
            let mut sums = Sum::each(1);
            calls(&batch).iter().zip(&answers).for_each(|(call, answer)| settle(&mut sums, call, answer));
            let error = Sum::outcomes(sums).remove(0).unwrap_err();
            assert_eq!(error.outcome_unknown(), unknown, "{answers:?}");
        }
    }

    #[test]
    fn groups_are_cut_at_broadcasts() {
        let [s1, s2] = ["s1", "s2"].map(|id| SessionId::new(id).unwrap());
        let to = |to| Submission { to, payload: "m".into(), idempotency_key: None };
        let batch = [
            to(Address::Session(s1.clone())),
            to(Address::Sessions([s2.clone(), s1.clone()].into())),
            to(Address::Topic(Topic::Broadcasts)),
            to(Address::Topic(Topic::Broadcasts)),
            to(Address::Session(s1)),
            to(Address::Topic(Topic::Notifications)),
            to(Address::Session(s2)),
        ];
        let groups: Vec<_> = calls(&batch).into_iter().map(|call| call.submissions).collect();
        assert_eq!(groups, [vec![0, 1], vec![1], vec![2, 3], vec![4], vec![5], vec![6]]);
    }
}
