//! Which key holds something else: looked for once an operation failed for it.

use super::RedisBackend;
use super::documents::DOCUMENTS;
use super::wire;
use crate::backend::{Address, Submission, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionId;

/// Sessions of one list whose keys are looked at.
const MOST_SESSIONS: usize = 16;

/// What an operation was about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    Session(&'a SessionId),
    Uri(&'a str),
    /// What all nodes share.
    Nodes,
}

impl RedisBackend {
    /// A result as it is, except that a `corrupt` one names the key and says what to do.
    pub(super) async fn explained<T>(&self, result: Result<T>, about: About<'_>) -> Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(self.explain(error, &[about]).await),
            result => result,
        }
    }

    /// [`explained`](Self::explained) for an event of a batch.
    pub(super) async fn explain_refusal(&self, error: Error, submission: &Submission) -> Error {
        let about: Vec<About<'_>> = match &submission.to {
            Address::Session(session) => vec![About::Session(session)],
            Address::Sessions(sessions) => sessions.iter().take(MOST_SESSIONS).map(About::Session).collect(),
            Address::Topic(_) => vec![About::Nodes],
        };
        self.explain(error, &about).await
    }

    async fn explain(&self, error: Error, about: &[About<'_>]) -> Error {
        let mut wrong = None;
        // What all nodes share is part of most operations.
        for about in about.iter().chain([&About::Nodes]) {
            for (key, wanted) in self.types(*about) {
                if wrong.is_none() {
                    wrong = self.other_type(error.operation(), &key, wanted).await;
                }
            }
        }
        let advice = "another program may be using this prefix: delete the key, or set another prefix";
        let message = match (wrong, about.first()) {
            (Some(wrong), _) => format!("{wrong}; {advice}"),
            (None, Some(About::Session(session))) => format!(
                "{}: {}; if it stays so, delete {} and the keys beside it",
                error.message(),
                "no key is of a wrong type",
                self.key("session", session)
            ),
            (None, _) => error.message().to_owned(),
        };
        let explained = Error::new(ErrorKind::Corrupt, error.operation(), message);
        let explained = match std::error::Error::source(&error) {
            Some(source) => explained.with_source(source.to_string()),
            None => explained,
        };
        if error.outcome_unknown() { explained.with_unknown_outcome() } else { explained }
    }

    async fn other_type(&self, operation: &'static str, key: &str, wanted: &str) -> Option<String> {
        let mut cmd = redis::cmd("TYPE");
        cmd.arg(key);
        let answer = self.send(operation, cmd).await.ok()?.ok()?;
        let found = wire::string(&answer)?;
        (found != "none" && found != wanted)
            .then(|| format!("the key {key} holds a {found} where a {wanted} belongs"))
    }

    /// The keys an operation may touch, and their types.
    fn types(&self, about: About<'_>) -> Vec<(String, &'static str)> {
        let prefix = self.prefix();
        match about {
            About::Session(session) => {
                let own = [("session", "hash"), ("log", "list"), ("keys", "zset"), ("uris", "set")];
                let own = own.into_iter().map(|(kind, wanted)| (self.key(kind, session), wanted));
                let documents = DOCUMENTS.map(|kind| (format!("{prefix}{kind}:{session}"), "string"));
                own.chain(documents).collect()
            }
            About::Uri(uri) => vec![(format!("{prefix}subscriptions:{uri}"), "set")],
            About::Nodes => {
                let me = self.me();
                let own = [
                    (self.nodes(), "zset"),
                    (self.due(), "zset"),
                    (format!("{prefix}held:{me}"), if self.is_cluster() { "zset" } else { "set" }),
                ];
                let topics = Topic::ALL
                    .into_iter()
                    .flat_map(|topic| self.topic_keys(topic).into_iter().zip(["hash", "list", "zset"]));
                own.into_iter().chain(topics).collect()
            }
        }
    }
}
