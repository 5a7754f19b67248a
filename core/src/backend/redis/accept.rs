//! A batch on its way: one script call a session, all in one pipelined round trip.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::task::Poll;

use redis::{Cmd, Pipeline, ServerError, Value};

use super::scripts::{self, Script};
use super::{RedisBackend, fault, wire};
use crate::backend::{Acceptance, Address, Release, Submission, Topic};
use crate::error::{Error, Result};
use crate::options::Retention;
use crate::runtime::random_epoch;
use crate::session::SessionId;

const OPERATION: &str = "streams.send";

/// One script call: everything that goes to one log, up to the next broadcast.
#[derive(Clone)]
struct Call<'a> {
    to: Log<'a>,
    submissions: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Log<'a> {
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

/// How commands name their scripts: by hash, or the first of each script brings its text along and
/// the others their hash, so that none can fail for want of a script.
#[derive(Default)]
struct Naming {
    by_hash: bool,
    session: bool,
    topic: bool,
}

impl Naming {
    fn by_hash() -> Self {
        Naming { by_hash: true, ..Naming::default() }
    }

    fn command(&mut self, to: Log<'_>) -> Cmd {
        match to {
            Log::Session(_) => named(&scripts::ACCEPT, &mut self.session, self.by_hash),
            Log::Topic(_) => named(&scripts::ACCEPT_TOPIC, &mut self.topic, self.by_hash),
        }
    }
}

fn named(script: &Script, sent: &mut bool, by_hash: bool) -> Cmd {
    match std::mem::replace(sent, true) || by_hash {
        true => script.by_hash(),
        false => script.by_text(),
    }
}

impl RedisBackend {
    /// A small batch names its scripts by hash; when the server has lost one, it is sent again, and
    /// no later batch may come before that. A large one brings the text, and others may follow it.
    pub(super) async fn accept_batch(&self, batch: &[Submission]) -> Vec<Result<Acceptance>> {
        let calls = calls(batch);
        // In the order of the first poll, whatever the scheduler's budget.
        let turn = tokio::task::unconstrained(self.turns.lock()).await;
        let answers = if is_small(&calls) {
            self.submit_by_hash(batch, &calls).await
        } else {
            let mut submit = Box::pin(self.submit(batch, &calls, Naming::default()));
            match poll_fn(|cx| Poll::Ready(submit.as_mut().poll(cx))).await {
                Poll::Ready(answers) => answers,
                Poll::Pending => {
                    drop(turn);
                    submit.await
                }
            }
        };
        match answers {
            Ok(answers) => settle(batch, &calls, &answers),
            Err(error) => batch.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn submit_by_hash(&self, batch: &[Submission], calls: &[Call<'_>]) -> Result<Vec<Value>> {
        let mut answers = self.submit(batch, calls, Naming::by_hash()).await?;
        let lost = |answer: &Value| server_error(answer).is_some_and(fault::is_no_script);
        let missing: Vec<usize> = (0..answers.len()).filter(|at| lost(&answers[*at])).collect();
        if !missing.is_empty() {
            let calls: Vec<_> = missing.iter().filter_map(|at| calls.get(*at).cloned()).collect();
            let again = self.submit(batch, &calls, Naming::default()).await?;
            missing.into_iter().zip(again).for_each(|(at, answer)| answers[at] = answer);
        }
        Ok(answers)
    }

    async fn submit(
        &self,
        batch: &[Submission],
        calls: &[Call<'_>],
        mut naming: Naming,
    ) -> Result<Vec<Value>> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            let mut cmd = naming.command(call.to);
            match call.to {
                Log::Session(session) => self.session_log(&mut cmd, session),
                Log::Topic(topic) => self.topic_log(&mut cmd, topic),
            }
            for n in &call.submissions {
                let submission = &batch[*n];
                cmd.arg(submission.payload.as_str());
                cmd.arg(submission.idempotency_key.as_deref().unwrap_or_default());
            }
            pipeline.add_command(cmd);
        }
        self.pipelined(OPERATION, &pipeline, calls.len()).await
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

    fn topic_log(&self, cmd: &mut Cmd, topic: Topic) {
        let name = wire::topic_name(topic);
        cmd.arg(3);
        for kind in ["topic", "topiclog", "topickeys"] {
            cmd.arg(format!("{}{kind}:{{{name}}}", self.prefix()));
        }
        cmd.arg(self.everybody()).arg(name);
        limits(cmd, &self.options.broadcast_retention);
        cmd.arg(self.topic_ttl()).arg(&wire::epoch(random_epoch())[..]);
    }

    /// One round trip for several commands; each has its own answer.
    async fn pipelined(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Value>> {
        let mut live = self.live(operation)?;
        match live.connection.send_packed_commands(pipeline, 0, count).await {
            Ok(answers) => {
                let refused = answers.iter().find_map(|answer| match answer {
                    Value::ServerError(error) => Some(error),
                    _ => None,
                });
                refused.into_iter().for_each(|error| live.heed(error));
                Ok(answers)
            }
            Err(error) => {
                live.give_up();
                Err(fault::lost(operation, error))
            }
        }
    }

    pub(super) async fn release_batch(&self, releases: &[Release]) -> Result<()> {
        const OPERATION: &str = "streams.release";
        let age = self.age();
        let mut pipeline = Pipeline::with_capacity(releases.len());
        let mut sent = false;
        for release in releases {
            let mut cmd = named(&scripts::RELEASE, &mut sent, false);
            cmd.arg(1).arg(self.key("session", &release.session));
            cmd.arg(self.prefix()).arg(release.session.as_str());
            cmd.arg(release.owner_epoch).arg(wire::positions(release.delivered)).arg(&age);
            pipeline.add_command(cmd);
        }
        let answers = self.pipelined(OPERATION, &pipeline, releases.len()).await?;
        // What can't be read now never will be: trying again would only keep the others from it.
        let mut refused =
            answers.iter().filter_map(server_error).map(|error| fault::refused(OPERATION, error));
        refused.find(Error::retryable).map_or(Ok(()), Err)
    }
}

fn server_error(answer: &Value) -> Option<&ServerError> {
    match answer {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

fn limits(cmd: &mut Cmd, retention: &Retention) {
    cmd.arg(retention.age_ms).arg(retention.events).arg(retention.bytes);
}

/// Brings the letters that the scripts answered back to the submissions.
fn settle(batch: &[Submission], calls: &[Call<'_>], answers: &[Value]) -> Vec<Result<Acceptance>> {
    let mut outcomes: Vec<Result<Acceptance>> = batch.iter().map(|_| Ok(Acceptance::default())).collect();
    for (call, answer) in calls.iter().zip(answers) {
        let letters = wire::bytes(answer).filter(|letters| letters.len() == call.submissions.len());
        for (at, n) in call.submissions.iter().enumerate() {
            let outcome = &mut outcomes[*n];
            match letters.map(|letters| letters[at]) {
                Some(letter) => count(outcome, letter),
                None => *outcome = Err(failure(answer, &batch[*n])),
            }
        }
    }
    outcomes
}

fn count(outcome: &mut Result<Acceptance>, letter: u8) {
    let Ok(acceptance) = outcome else { return };
    match letter {
        b'a' => acceptance.accepted += 1,
        b'd' => acceptance.duplicates += 1,
        _ => acceptance.dropped += 1,
    }
}

fn failure(answer: &Value, submission: &Submission) -> Error {
    let error = match answer {
        Value::ServerError(error) => fault::refused(OPERATION, error),
        _ => fault::unreadable(OPERATION),
    };
    // Other sessions of a list may have got it.
    match submission.to {
        Address::Sessions(_) => error.with_unknown_outcome(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
