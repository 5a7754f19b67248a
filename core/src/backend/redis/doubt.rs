//! A session that a node holds and Redis has lost, because it was evicted or deleted by hand: nothing
//! tells the holder. An event that is dropped for want of the session does, and so do the renewals.

use std::collections::HashMap;

use super::{RedisBackend, Servers};
use crate::backend::Address;
use crate::session::SessionId;
use crate::sync::Mutex;

/// Sessions that are asked for between two renewals; a sender of nonsense costs no more than this.
const MOST: usize = 64;

/// What was asked for lately, by when (milliseconds).
#[derive(Default)]
pub(super) struct Lost(Mutex<HashMap<SessionId, u64>>);

impl Lost {
    fn is_new(&self, session: &SessionId, now_ms: u64, for_ms: u64) -> bool {
        let mut asked = self.0.lock();
        asked.retain(|_, at_ms| now_ms < *at_ms + for_ms);
        if asked.len() >= MOST || asked.contains_key(session) {
            return false;
        }
        asked.insert(session.clone(), now_ms);
        true
    }
}

impl RedisBackend {
    /// Has whoever holds one of these sessions read its log, which says that it is gone (G3).
    pub(super) fn look_for_lost(&self, dropped: &Address) {
        let sessions = match dropped {
            Address::Session(session) => std::slice::from_ref(session),
            Address::Sessions(sessions) => sessions,
            Address::Topic(_) => return,
        };
        // Without history an event for a session without a stream is dropped as a rule.
        if self.options.retention.events == 0 && sessions.len() > 1 {
            return;
        }
        let runtime = &self.keeping.runtime;
        let (now_ms, for_ms) = (runtime.now_ms(), self.options.lease.renew_ms);
        for session in sessions.iter().filter(|session| self.lost.is_new(session, now_ms, for_ms)) {
            let message = [b"Q", session.as_str().as_bytes()].concat();
            if let Servers::Many(_) = &self.servers {
                self.questions.lock().push(message);
                continue;
            }
            let Ok(mut live) = self.live("streams.send") else { return };
            let mut cmd = redis::cmd("PUBLISH");
            cmd.arg(self.everybody()).arg(message);
            runtime.spawn(Box::pin(async move {
                if let Err(error) = live.send(cmd).await {
                    tracing::debug!(%error, "whether a lost session is still held could not be asked");
                }
            }));
        }
    }
}
