//! What is cached of session info is kept true by the server: client tracking of the documents' keys.
//!
//! The command connection tracks, by prefix (`BCAST`) and without its own writes (`NOLOOP`): the server
//! remembers nothing a key, whoever writes, tmcp's own manager, an expiry or an eviction included, is
//! told of, and what this node wrote itself need not be read again. `NOLOOP` is about plain commands
//! and not about scripts, so documents are set by commands of their own. On this connection an
//! invalidation can't overtake the answer of a read that came before the write. Measured with four
//! nodes, a write costs the server 3.1 µs more than without (publishing costs 2.0), and a key nothing.
//! Tracking key by key costs it 267 B for each key, and each node a read after each write.
//!
//! A server or a user that may not track has the published invalidation instead: writers publish it
//! to a channel that only nodes without tracking listen to, so that it costs nothing where there are none.

use std::sync::OnceLock;

use redis::{Cmd, RedisError, RedisResult, Value};

use super::documents::DOCUMENTS;
use super::wire;
use crate::backend::Signal;
use crate::session::SessionId;

/// Whether, and how, a node's connection tracks.
pub(super) struct Tracking {
    prefix: String,
    works: OnceLock<bool>,
}

impl Tracking {
    pub(super) fn new(prefix: &str) -> Self {
        Tracking { prefix: prefix.to_owned(), works: OnceLock::new() }
    }

    /// Whether the first connection could.
    pub(super) fn works(&self) -> bool {
        self.works.get().copied().unwrap_or(false)
    }

    /// To be sent on each connection before anything else; nothing where the first one could not.
    pub(super) fn command(&self) -> Option<Cmd> {
        if self.works.get() == Some(&false) {
            return None;
        }
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("TRACKING").arg("ON").arg("BCAST").arg("NOLOOP");
        for name in DOCUMENTS {
            cmd.arg("PREFIX").arg(format!("{}{name}:", self.prefix));
        }
        Some(cmd)
    }

    /// Fails when tracking worked before and does not now: nothing else would keep the cache true.
    pub(super) fn answered(&self, answer: &Value) -> RedisResult<()> {
        let works = match answer {
            Value::Okay => true,
            Value::SimpleString(text) => text == "OK",
            _ => false,
        };
        if *self.works.get_or_init(|| works) == works {
            return Ok(());
        }
        let text = "the server does not track keys any more";
        Err(RedisError::from(std::io::Error::other(text)))
    }

    /// What an invalidation says: which keys changed, or that all did.
    pub(super) fn told(&self, pushed: &[Value], tell: &mut dyn FnMut(Signal)) {
        let Some(Value::Array(keys)) = pushed.first() else { return tell(Signal::InfoDoubtful) };
        let mut last = None;
        for session in keys.iter().filter_map(|key| self.session(wire::bytes(key)?)) {
            // A session's documents come together.
            if last.as_ref() != Some(&session) {
                tell(Signal::InfoChanged { session: session.clone() });
            }
            last = Some(session);
        }
    }

    fn session(&self, key: &[u8]) -> Option<SessionId> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix)?;
        let (kind, id) = key.split_once(':')?;
        DOCUMENTS.contains(&kind).then(|| SessionId::new(id).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(keys: &[&str]) -> Vec<String> {
        let keys = keys.iter().map(|key| Value::BulkString(key.as_bytes().to_vec())).collect();
        let mut heard = Vec::new();
        Tracking::new("tmcp:").told(&[Value::Array(keys)], &mut |signal| match signal {
            Signal::InfoChanged { session } => heard.push(session.to_string()),
            other => panic!("{other:?}"),
        });
        heard
    }

    #[test]
    fn an_invalidation_names_sessions() {
        let keys = ["tmcp:client_info:a", "tmcp:log_level:a", "tmcp:log_level:b:c"];
        assert_eq!(told(&keys), ["a", "b:c"]);
        assert_eq!(told(&["other:client_info:a", "tmcp:session:{a}", "tmcp:log_level:", ""]), [""; 0]);
    }

    #[test]
    fn a_flush_is_about_everything() {
        let mut all = 0;
        Tracking::new("tmcp:").told(&[Value::Nil], &mut |signal| {
            all += usize::from(matches!(signal, Signal::InfoDoubtful));
        });
        assert_eq!(all, 1);
    }
}
