//! A batch on its way: one statement.

use std::borrow::Cow;

use tokio_postgres::types::{ToSql, Type};

use super::{Inner, Parameter, count, fault, millis, wire};
use crate::backend::{Acceptance, Address, Submission, Topic};
use crate::error::{Error, Result};
use crate::session::SessionId;

const OPERATION: &str = "streams.send";

/// A batch as the statement takes it: deliveries, each with the number of its submission.
struct Batch<'a> {
    to: Vec<&'a str>,
    at: Vec<i32>,
    payloads: Vec<Cow<'a, str>>,
    keys: Option<Vec<Option<Cow<'a, str>>>>,
}

impl<'a> Batch<'a> {
    fn new(batch: &'a [Submission]) -> Self {
        let mut to = Vec::with_capacity(batch.len());
        let mut at = Vec::with_capacity(batch.len());
        for (n, submission) in batch.iter().enumerate() {
            let number = n as i32 + 1;
            let mut add = |id| {
                to.push(id);
                at.push(number);
            };
            match &submission.to {
                Address::Session(session) => add(session.as_str()),
                Address::Sessions(sessions) => sessions.iter().for_each(|session| add(session.as_str())),
                // No session id has a space.
                Address::Topic(Topic::Broadcasts) => add(" b"),
                Address::Topic(Topic::Notifications) => add(" n"),
            }
        }
        let keyed = batch.iter().any(|submission| submission.idempotency_key.is_some());
        let key = |submission: &'a Submission| submission.idempotency_key.as_deref().map(wire::stored);
        Batch {
            to,
            at,
            payloads: batch.iter().map(|submission| wire::stored(submission.payload.as_str())).collect(),
            keys: keyed.then(|| batch.iter().map(key).collect()),
        }
    }

    /// Brings the letters back to the submissions.
    fn settle(&self, letters: &str) -> Option<Vec<Result<Acceptance>>> {
        let mut outcomes = vec![Acceptance::default(); self.payloads.len()];
        let all = letters == "a";
        if !all && letters.len() != self.to.len() {
            return None;
        }
        let letters = letters.bytes().chain(std::iter::repeat(b'a'));
        for (at, letter) in self.at.iter().zip(letters) {
            let outcome = outcomes.get_mut(usize::try_from(*at - 1).ok()?)?;
            match letter {
                b'a' => outcome.accepted += 1,
                b'd' => outcome.duplicates += 1,
                _ => outcome.dropped += 1,
            }
        }
        Some(outcomes.into_iter().map(Ok).collect())
    }
}

impl Inner {
    /// What is kept of a session's events, then of those of a topic.
    pub(super) fn limits(&self) -> [i64; 6] {
        let (own, shared) = (&self.options.retention, &self.options.broadcast_retention);
        [
            count(own.events),
            count(own.bytes),
            millis(own.age_ms),
            count(shared.events),
            count(shared.bytes),
            millis(shared.age_ms),
        ]
    }

    pub(super) async fn accept(&self, submissions: &[Submission]) -> Vec<Result<Acceptance>> {
        match self.submit(submissions).await {
            Ok(outcomes) => outcomes,
            Err(error) => submissions.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn submit(&self, submissions: &[Submission]) -> Result<Vec<Result<Acceptance>>> {
        if let [one] = submissions
            && let (Address::Session(session), None) = (&one.to, &one.idempotency_key)
        {
            return self.submit_one(session, one.payload.as_str()).await.map(|outcome| vec![Ok(outcome)]);
        }
        let batch = Batch::new(submissions);
        if batch.to.is_empty() {
            return Ok(submissions.iter().map(|_| Ok(Acceptance::default())).collect());
        }
        let (relaxed, limits) = (self.relaxed(), self.limits());
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&batch.to, Type::TEXT_ARRAY),
            (&batch.at, Type::INT4_ARRAY),
            (&batch.payloads, Type::TEXT_ARRAY),
            (&batch.keys, Type::TEXT_ARRAY),
            (&relaxed, Type::BOOL),
        ];
        parameters.extend(limits.iter().map(|limit| (limit as &(dyn ToSql + Sync), Type::INT8)));
        // Never a second time: another batch may have followed.
        let rows = self.once(&self.writes, OPERATION, &self.statements.accept, &parameters).await?;
        let rows = rows.map_err(|error| fault::failed(OPERATION, &error))?;
        let letters: Option<&str> = rows.first().and_then(|row| row.try_get(0).ok());
        let outcomes = letters.and_then(|letters| batch.settle(letters));
        outcomes.ok_or_else(|| Error::with_unknown_outcome(fault::unreadable(OPERATION)))
    }

    /// An event of its own, without a key: the shorter function, as an idle engine sends one after the other.
    async fn submit_one(&self, session: &SessionId, payload: &str) -> Result<Acceptance> {
        let (id, payload, relaxed) = (session.as_str(), wire::stored(payload), self.relaxed());
        let [events, bytes, age, ..] = self.limits();
        let parameters: [Parameter<'_>; 6] = [
            (&id, Type::TEXT),
            (&payload, Type::TEXT),
            (&relaxed, Type::BOOL),
            (&events, Type::INT8),
            (&bytes, Type::INT8),
            (&age, Type::INT8),
        ];
        let rows = self.once(&self.writes, OPERATION, &self.statements.post_one, &parameters).await?;
        let rows = rows.map_err(|error| fault::failed(OPERATION, &error))?;
        let letter = rows.first().and_then(|row| row.try_get::<_, &str>(0).ok()?.bytes().next());
        match letter {
            Some(b'a') => Ok(Acceptance { accepted: 1, ..Acceptance::default() }),
            Some(b'x') => Ok(Acceptance { dropped: 1, ..Acceptance::default() }),
            _ => Err(Error::with_unknown_outcome(fault::unreadable(OPERATION))),
        }
    }
}
