//! The registry of sessions, and the notes of event logs.

use serde::{Deserialize, Serialize};

use super::{Answer, Host, Refusal, SyncLayer, keys};
use crate::backend::Topic;
use crate::backend::cloudflare::wire::{
    Closing, Counts, Limits, NewRecord, Record, Reply, State, Taking, Told, TouchBy,
};
use crate::error::ErrorKind;
use crate::info::Json;
use crate::streams::Payload;

/// The most sessions one sweep of the registry looks at.
const SWEEP_BATCH: usize = 256;

/// A session's record, or its tombstone; metadata lies under a key of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Registered {
    owner: Option<String>,
    node: String,
    created_ms: u64,
    last_access_ms: u64,
    /// What each node reported.
    requests: Vec<(String, u32)>,
    phase: Phase,
    /// When a sweep has to look at it, at the latest: an access does not move it.
    due_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Open,
    Closing(String),
    Closed(String, u64),
}

impl Registered {
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// When its tombstone goes.
    pub(super) fn gone_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Closed(_, until_ms) => Some(until_ms),
            _ => None,
        }
    }

    pub(super) fn is_gone(&self, now_ms: u64) -> bool {
        self.gone_ms().is_some_and(|gone_ms| gone_ms <= now_ms)
    }
}

/// What a session that is closing or closed answers.
pub(super) fn closed(id: &str) -> Refusal {
    let message = format!("session {id} has been closed; answer 404, and the client starts a new one");
    (ErrorKind::NotFound, message)
}

impl<H: Host> SyncLayer<H> {
    fn registered(&self, id: &str) -> Option<Registered> {
        let registered = self.stored_session(id)?.registered?;
        (!registered.is_gone(self.host.now_ms())).then_some(registered)
    }

    fn keep_registered(&mut self, id: &str, registered: Registered) {
        if let Some(mut session) = self.stored_session(id) {
            session.registered = Some(registered);
            self.keep(id, &mut session);
        }
    }

    fn put_off(&mut self, id: &str, registered: &mut Registered, due_ms: u64) {
        self.host.delete(&keys::registry_due(registered.due_ms, id));
        registered.due_ms = due_ms;
        self.host.put(&keys::registry_due(due_ms, id), &[]);
    }

    /// The requests under way of a session; a stream of a Worker is one.
    fn live_requests(&self, id: &str, registered: &Registered) -> u64 {
        let holder = self.stored_session(id).and_then(|session| session.holder);
        let streams = u64::from(self.is_streaming(holder.as_deref()));
        let live = registered.requests.iter().filter(|(node, _)| self.alive(node));
        streams + live.map(|(_, count)| u64::from(*count)).sum::<u64>()
    }

    pub(super) fn registry_key(&self, candidate: [u8; 32]) -> Reply {
        Reply::Key(self.stored(keys::OWNER_KEY).unwrap_or_else(|| {
            self.store(keys::OWNER_KEY, &candidate);
            candidate
        }))
    }

    pub(super) fn register(&mut self, limits: &Limits, id: &str, new: NewRecord) -> Reply {
        let now_ms = self.host.now_ms();
        let mut session = self.session_or_new(limits, id);
        if session.registered.is_some() {
            return Reply::Yes(false);
        }
        let due_ms = now_ms + limits.stale_ms;
        self.wake_at(due_ms);
        self.host.put(&keys::entry(id), new.node.as_bytes());
        self.host.put(&keys::registry_due(due_ms, id), &[]);
        if let Some(owner) = &new.owner {
            self.host.put(&keys::owned(owner, now_ms, id), &[]);
        }
        if let Some(metadata) = &new.metadata {
            self.store(&keys::metadata(id), metadata);
        }
        session.registered = Some(Registered {
            owner: new.owner,
            node: new.node,
            created_ms: now_ms,
            last_access_ms: now_ms,
            requests: Vec::new(),
            phase: Phase::Open,
            due_ms,
        });
        self.keep(id, &mut session);
        Reply::Yes(true)
    }

    pub(super) fn read_records(&mut self, limits: &Limits, ids: Vec<String>, touch: &TouchBy) -> Reply {
        Reply::Records(ids.iter().map(|id| self.read_record(limits, id, touch)).collect())
    }

    fn read_record(&mut self, limits: &Limits, id: &str, touch: &TouchBy) -> Option<Record> {
        let now_ms = self.host.now_ms();
        let mut registered = self.registered(id)?;
        let touches = match touch {
            TouchBy::Nobody => false,
            TouchBy::Anybody => true,
            TouchBy::Owner(owner) => *owner == registered.owner,
        };
        if touches && registered.is_open() && now_ms >= registered.last_access_ms + limits.stale_ms / 20 {
            registered.last_access_ms = now_ms;
            self.keep_registered(id, registered.clone());
        }
        let active_requests = self.live_requests(id, &registered);
        let (state, reason) = match registered.phase {
            Phase::Open => (State::Open, None),
            Phase::Closing(reason) => (State::Closing, Some(reason)),
            Phase::Closed(reason, _) => (State::Closed, Some(reason)),
        };
        Some(Record {
            owner: registered.owner,
            node: registered.node,
            created_ms: registered.created_ms,
            last_access_ms: registered.last_access_ms,
            now_ms,
            active_requests,
            state,
            reason,
            metadata: self.stored::<Json>(&keys::metadata(id)),
        })
    }

    pub(super) fn take_reports(&mut self, node: &str, reports: Vec<(String, u32)>) -> Reply {
        Reply::Truths(reports.into_iter().map(|(id, count)| self.take_report(node, &id, count)).collect())
    }

    fn take_report(&mut self, node: &str, id: &str, count: u32) -> bool {
        let Some(mut registered) = self.registered(id).filter(Registered::is_open) else { return false };
        registered.requests.retain(|(other, _)| other != node && self.alive(other));
        registered.last_access_ms = self.host.now_ms();
        if count > 0 {
            registered.requests.push((node.to_owned(), count));
        }
        self.keep_registered(id, registered);
        true
    }

    pub(super) fn adopt(&mut self, id: &str, node: String) -> Reply {
        let Some(mut registered) = self.registered(id).filter(Registered::is_open) else {
            return Reply::Yes(false);
        };
        self.host.put(&keys::entry(id), node.as_bytes());
        registered.node = node;
        self.keep_registered(id, registered);
        Reply::Yes(true)
    }

    /// The session is closing from here on.
    fn begin_close(&mut self, limits: &Limits, id: &str, mut registered: Registered, reason: &str) {
        registered.phase = Phase::Closing(reason.to_owned());
        let unfinished_ms = self.host.now_ms() + 2 * limits.lease_ms;
        self.put_off(id, &mut registered, unfinished_ms);
        self.keep_registered(id, registered);
        let closing = Told::SessionClosing { session: id.to_owned(), reason: reason.to_owned() };
        self.say_to_others(None, &closing);
    }

    pub(super) fn start_close(&mut self, limits: &Limits, id: &str, reason: &str) -> Reply {
        Reply::Closing(match self.registered(id) {
            Some(registered) if registered.is_open() => {
                self.begin_close(limits, id, registered, reason);
                Closing::Begun
            }
            Some(Registered { phase: Phase::Closing(_), .. }) => Closing::Underway,
            _ => Closing::Gone,
        })
    }

    pub(super) fn bury_session(&mut self, limits: &Limits, id: &str) {
        let Some(mut registered) = self.registered(id) else { return };
        let Phase::Closing(reason) = registered.phase else { return };
        self.host.delete(&keys::entry(id));
        self.host.delete(&keys::registry_due(registered.due_ms, id));
        self.host.delete(&keys::metadata(id));
        if let Some(owner) = registered.owner.take() {
            self.host.delete(&keys::owned(&owner, registered.created_ms, id));
        }
        registered.requests.clear();
        registered.phase = Phase::Closed(reason, self.host.now_ms() + limits.tombstone_ms);
        self.keep_registered(id, registered);
    }

    pub(super) fn owned(&self, owner: &str) -> Reply {
        let prefix = keys::owned_by(owner);
        Reply::Names(self.names_under(&prefix, prefix.len() + 8))
    }

    /// What keys with this prefix end with, from this byte on.
    fn names_under(&self, prefix: &[u8], from: usize) -> Vec<String> {
        let mut names = Vec::new();
        self.host.scan(prefix, &keys::after(prefix), usize::MAX, &mut |key, _| {
            names.extend(key.get(from..).and_then(|name| String::from_utf8(name.to_vec()).ok()));
        });
        names
    }

    pub(super) fn list_sessions(
        &self,
        owner: Option<&str>,
        node: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Reply {
        let mut own = owner.map(|owner| {
            let prefix = keys::owned_by(owner);
            self.names_under(&prefix, prefix.len() + 8)
        });
        let mut sessions = Vec::new();
        let most = (limit as usize).saturating_add(1);
        if let Some(own) = &mut own {
            own.sort_unstable();
        }
        let of_node = |at: &[u8]| node.is_none_or(|node| node.as_bytes() == at);
        match own {
            Some(own) => {
                let follows = |id: &String| after.is_none_or(|after| id.as_str() > after);
                let found = own
                    .into_iter()
                    .filter(follows)
                    .filter(|id| self.host.get(&keys::entry(id)).is_some_and(|at| of_node(&at)));
                sessions.extend(found.take(most));
            }
            None => {
                // A key ends with a byte that stands before all others, so this is the first one after it.
                let from = after.map_or(keys::ENTRIES.to_vec(), |after| keys::after(&keys::entry(after)));
                self.host.scan(&from, &keys::after(keys::ENTRIES), usize::MAX, &mut |key, at| {
                    if sessions.len() < most && of_node(at) {
                        let name = key.get(1..key.len() - 1).map(<[u8]>::to_vec);
                        sessions.extend(name.and_then(|name| String::from_utf8(name).ok()));
                    }
                });
            }
        }
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        let next = more.then(|| sessions.last().cloned()).flatten();
        Reply::Listed { sessions, next }
    }

    pub(super) fn count_sessions(&self, limits: &Limits) -> Reply {
        let now_ms = self.host.now_ms();
        let mut counts = Counts::default();
        let mut ids = Vec::new();
        self.host.scan(keys::ENTRIES, &keys::after(keys::ENTRIES), usize::MAX, &mut |key, _| {
            let name = key.get(1..key.len() - 1).map(<[u8]>::to_vec);
            ids.extend(name.and_then(|name| String::from_utf8(name).ok()));
        });
        for id in &ids {
            let Some(registered) = self.registered(id) else { continue };
            let idle = now_ms >= registered.last_access_ms + limits.stale_ms;
            match registered.phase {
                Phase::Open if idle && self.live_requests(id, &registered) == 0 => counts.stale += 1,
                Phase::Open => counts.active += 1,
                Phase::Closing(_) => counts.closing += 1,
                Phase::Closed(..) => continue,
            }
            *counts.by_node.entry(registered.node).or_default() += 1;
        }
        Reply::Counts(counts)
    }

    pub(super) fn sweep_registry(&mut self, limits: &Limits) -> Reply {
        let now_ms = self.host.now_ms();
        let mut due = Vec::new();
        let until = keys::registry_due(now_ms + 1, "");
        self.host
            .scan(keys::REGISTRY_DUE, &until, SWEEP_BATCH, &mut |key, _| due.extend(keys::read_due(key)));
        let mut taking = Taking { more: due.len() == SWEEP_BATCH, ..Taking::default() };
        for (at_ms, id) in due {
            let Some(mut registered) = self.registered(&id) else {
                self.host.delete(&keys::registry_due(at_ms, &id));
                continue;
            };
            match registered.phase {
                Phase::Open => {
                    let stale_ms = registered.last_access_ms + limits.stale_ms;
                    let busy = self.live_requests(&id, &registered) > 0;
                    if stale_ms <= now_ms && !busy {
                        self.begin_close(limits, &id, registered, "stale");
                        taking.stale.push(id);
                        continue;
                    }
                    let due_ms = if busy { stale_ms.max(now_ms + limits.sweep_ms) } else { stale_ms };
                    self.put_off(&id, &mut registered, due_ms);
                }
                Phase::Closing(_) => {
                    // Whoever sweeps at the same time finds it gone.
                    self.put_off(&id, &mut registered, now_ms + 2 * limits.lease_ms);
                    taking.unfinished.push(id.clone());
                }
                Phase::Closed(..) => self.host.delete(&keys::registry_due(at_ms, &id)),
            }
            self.keep_registered(&id, registered);
        }
        Reply::Taking(taking)
    }

    /// When the registry has to be swept next.
    pub(super) fn next_registry_due(&self) -> Option<u64> {
        let mut due = Vec::new();
        let (from, to) = (keys::REGISTRY_DUE, keys::after(keys::REGISTRY_DUE));
        self.host.scan(from, &to, 1, &mut |key, _| due.extend(keys::read_due(key)));
        due.first().map(|(at_ms, _)| *at_ms)
    }

    pub(super) fn append(&mut self, limits: &Limits, scope: &str, log: &str, payload: &Payload) -> Answer {
        let now_ms = self.host.now_ms();
        let mut session = self.session_or_new(limits, log);
        session.remember_until(now_ms.saturating_add(limits.own.age_ms));
        let after_broadcast = self.topic(Topic::Broadcasts, limits).log.head();
        let position = session.log.append(&self.host, log, payload, after_broadcast);
        if let Some(node) = &session.holder {
            let told = Told::Event { session: log.to_owned(), position, payload: payload.clone() };
            self.say(node, told);
        }
        self.host.put(&keys::note(scope, log), &[]);
        self.keep(log, &mut session);
        Ok(Reply::At(position))
    }

    pub(super) fn logs(&self, scope: &str) -> Reply {
        let prefix = keys::note(scope, "");
        Reply::Names(self.names_under(&prefix, prefix.len()))
    }

    pub(super) fn forget_logs(&self, scope: &str, logs: &[String]) {
        logs.iter().for_each(|log| self.host.delete(&keys::note(scope, log)));
    }
}
