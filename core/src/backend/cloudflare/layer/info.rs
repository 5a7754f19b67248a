//! Session info and resource subscriptions.

use serde::{Deserialize, Serialize};

use super::sessions::Session;
use super::{Answer, Host, Refusal, SyncLayer, keys};
use crate::backend::cloudflare::wire::{Limits, Reply, Told};
use crate::error::ErrorKind;
use crate::info::{InfoPatch, SessionInfo};

/// What a session's row says of its info; the info itself lies under a key of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    touched_ms: u64,
    pub(super) expires_ms: u64,
    resources: u64,
}

impl<H: Host> SyncLayer<H> {
    /// The record of a session, made if there is none; the session is known from here on.
    fn with_record<T>(
        &mut self,
        limits: &Limits,
        id: &str,
        change: impl FnOnce(&mut Self, &mut Record) -> T,
    ) -> Result<T, Refusal> {
        let now_ms = self.host.now_ms();
        let mut session = self.session_or_new(limits, id);
        session.check_open(id)?;
        if session.info.as_ref().is_some_and(|record| record.expires_ms <= now_ms) {
            self.drop_info(id, &mut session);
        }
        let mut record = session.info.take().unwrap_or(Record { touched_ms: 0, expires_ms: 0, resources: 0 });
        record.touched_ms = now_ms;
        record.expires_ms = now_ms + limits.session_ttl_ms;
        let result = change(self, &mut record);
        session.info = Some(record);
        self.keep(id, &mut session);
        Ok(result)
    }

    fn live_record(&mut self, id: &str) -> Option<(Session, Record)> {
        let now_ms = self.host.now_ms();
        let session = self.session(id)?;
        let record = session.info.clone().filter(|record| record.expires_ms > now_ms)?;
        Some((session, record))
    }

    /// Reads all info of a session, and lets it live on if a quarter of its time has passed.
    pub(super) fn info(&mut self, limits: &Limits, id: &str) -> Reply {
        let Some((mut session, mut record)) = self.live_record(id) else { return Reply::Info(None) };
        let now_ms = self.host.now_ms();
        if now_ms >= record.touched_ms + limits.session_ttl_ms / 4 {
            record.touched_ms = now_ms;
            record.expires_ms = now_ms + limits.session_ttl_ms;
            session.info = Some(record);
            self.keep(id, &mut session);
        }
        Reply::Info(Some(self.stored(&keys::info(id)).unwrap_or_default()))
    }

    pub(super) fn put_info(&mut self, node: &str, limits: &Limits, id: &str, patch: InfoPatch) -> Answer {
        self.with_record(limits, id, |layer, _| {
            let key = keys::info(id);
            let mut info: SessionInfo = layer.stored(&key).unwrap_or_default();
            info.apply(patch);
            layer.store(&key, &info);
        })?;
        self.say_to_others(Some(node), &Told::InfoChanged(id.to_owned()));
        Ok(Reply::Done)
    }

    pub(super) fn forget_info(&mut self, node: &str, id: &str) -> Reply {
        let Some(mut session) = self.session(id) else { return Reply::Yes(false) };
        let had_info = self.drop_info(id, &mut session);
        self.keep(id, &mut session);
        if self.session(id).is_none() {
            self.drop_session(id);
        }
        self.say_to_others(Some(node), &Told::InfoChanged(id.to_owned()));
        Reply::Yes(had_info)
    }

    /// Removes a session's info and its resource subscriptions, in O(own subscriptions).
    pub(super) fn drop_info(&mut self, id: &str, session: &mut Session) -> bool {
        if session.info.take().is_none() {
            return false;
        }
        self.host.delete(&keys::info(id));
        for uri in self.resources(id) {
            self.host.delete(&keys::resource(id, &uri));
            self.host.delete(&keys::subscriber(&uri, id));
        }
        true
    }

    fn resources(&self, id: &str) -> Vec<String> {
        let prefix = keys::resource(id, "");
        let mut uris = Vec::new();
        self.host.scan(&prefix, &keys::after(&prefix), usize::MAX, &mut |key, _| {
            uris.extend(String::from_utf8(key[prefix.len()..].to_vec()).ok());
        });
        uris
    }

    pub(super) fn subscribe(&mut self, limits: &Limits, id: &str, uri: &str, max: u64) -> Answer {
        self.with_record(limits, id, |layer, record| {
            let key = keys::resource(id, uri);
            if layer.host.get(&key).is_some() {
                return Ok(Reply::Yes(false));
            }
            if record.resources >= max {
                let message = format!("session {id} has {max} resource subscriptions, which is the limit");
                return Err((ErrorKind::TooLarge, message));
            }
            record.resources += 1;
            layer.host.put(&key, &[]);
            layer.host.put(&keys::subscriber(uri, id), &[]);
            Ok(Reply::Yes(true))
        })?
    }

    pub(super) fn unsubscribe(&mut self, id: &str, uri: &str) -> Reply {
        let Some((mut session, mut record)) = self.live_record(id) else { return Reply::Yes(false) };
        let key = keys::resource(id, uri);
        if self.host.get(&key).is_none() {
            return Reply::Yes(false);
        }
        record.resources -= 1;
        session.info = Some(record);
        self.host.delete(&key);
        self.host.delete(&keys::subscriber(uri, id));
        self.keep(id, &mut session);
        Reply::Yes(true)
    }

    pub(super) fn subscribers(&mut self, uri: &str) -> Reply {
        let prefix = keys::subscriber(uri, "");
        let mut sessions = Vec::new();
        self.host.scan(&prefix, &keys::after(&prefix), usize::MAX, &mut |key, _| {
            sessions.extend(String::from_utf8(key[prefix.len()..].to_vec()).ok());
        });
        // One whose info ran out and that no alarm has come to yet is not subscribed any more.
        sessions.retain(|id| self.live_record(id).is_some());
        Reply::Names(sessions)
    }

    pub(super) fn subscriptions(&mut self, id: &str) -> Reply {
        let found = self.live_record(id).is_some();
        Reply::Names(if found { self.resources(id) } else { Vec::new() })
    }
}
