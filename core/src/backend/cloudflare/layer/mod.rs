//! The sync layer: what one Durable Object knows and does, apart from the platform.
//!
//! It takes one message of a node at a time and has done it whole when it returns: the state is in
//! storage ([`Host`]), so that the object can be put to sleep or moved after any message. A node's
//! lease is the time its socket was last heard; heartbeats are answered by the platform, so that
//! nodes cost an idle object nothing.

mod guests;
mod host;
mod info;
mod keys;
mod log;
mod nodes;
mod registry;
mod sessions;
mod topics;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use host::Host;

use crate::backend::cloudflare::wire::{self, Call, Frame, Limits, Reply, Request, Told};
use crate::error::ErrorKind;
use crate::streams::Position;
use guests::{Kind, Parcel, Places};
use nodes::Node;

/// The most that one alarm looks at before it lets others have their turn.
const ALARM_BATCH: usize = 512;

/// Why a message was refused: the code of an error, and what to say.
type Refusal = (ErrorKind, String);
type Answer = Result<Reply, Refusal>;

/// One shard of a deployment's sessions.
pub struct SyncLayer<H> {
    host: H,
    nodes: HashMap<String, Node>,
    /// When the alarm is set for; `u64::MAX` when it is not.
    alarm_ms: u64,
    /// What the message under way has to tell which node.
    told: BTreeMap<String, Vec<Told>>,
    /// What it has to give to which stream or subscription of a Worker.
    parcels: HashMap<String, Parcel>,
    places: Places,
    /// The head of the broadcasts, once it was looked at.
    broadcasts: Option<Position>,
    /// What the options of Workers come to.
    guest_limits: HashMap<String, Limits>,
    /// Owner epochs that were set apart for the claims to come.
    owner_epochs: Range<u64>,
}

impl<H: Host> SyncLayer<H> {
    /// The shard that lies in this host's storage.
    pub fn new(host: H) -> Self {
        let mut layer = SyncLayer {
            host,
            nodes: HashMap::new(),
            alarm_ms: u64::MAX,
            told: BTreeMap::new(),
            parcels: HashMap::new(),
            places: HashMap::new(),
            broadcasts: None,
            guest_limits: HashMap::new(),
            owner_epochs: 0..0,
        };
        layer.nodes = layer.stored_nodes();
        // Set again, in case that the one before was lost on its way to the platform.
        if let Some(at_ms) = layer.stored(keys::ALARM) {
            layer.wake_at(at_ms);
        }
        layer
    }

    /// Does what a node asks for and answers on its socket. False when the message is not one of this
    /// version: the socket is to be closed then.
    pub fn message(&mut self, node: &str, message: &[u8]) -> bool {
        let Some(call) = wire::read::<Call>(message) else { return false };
        let reply = match self.answer(node, call.request) {
            Ok(reply) => reply,
            Err((kind, message)) => Reply::Failed(kind.code().to_owned(), message),
        };
        self.tell();
        self.host.send(node, &wire::write(&Frame::Reply(call.number, reply)));
        true
    }

    /// A node's socket was closed, and last heard then. Its lease runs on: it may come back.
    pub fn closed(&mut self, node: &str, heard_ms: u64) {
        self.node_closed(node, heard_ms);
        self.tell();
    }

    /// Expires what is due, and sets the next alarm.
    pub fn alarm(&mut self) {
        self.alarm_ms = u64::MAX;
        self.host.delete(keys::ALARM);
        self.bury_dead_nodes();
        let now_ms = self.host.now_ms();
        for (at_ms, name) in self.due(ALARM_BATCH) {
            if at_ms > now_ms {
                self.wake_at(at_ms);
                break;
            }
            self.host.delete(&keys::due(at_ms, &name));
            self.expire(&name);
        }
        if let Some((at_ms, _)) = self.due(1).first() {
            self.wake_at(*at_ms);
        }
        if let Some(at_ms) = self.next_node_check() {
            self.wake_at(at_ms);
        }
        if let Some(at_ms) = self.sweep_for_guests() {
            self.wake_at(at_ms);
        }
        self.tell();
    }

    fn expire(&mut self, name: &str) {
        match topics::of_name(name) {
            Some(topic) => self.expire_topic(topic),
            None => self.expire_session(name),
        }
    }

    fn answer(&mut self, node: &str, request: Request) -> Answer {
        match request {
            Request::Join { limits } => return self.join(node, limits),
            Request::Resume => return Ok(self.resume(node)),
            Request::Ping => return Ok(Reply::Done),
            _ => {}
        }
        let Some(limits) = self.limits(node) else { return Ok(Reply::Lost) };
        self.do_for(node, &limits, request)
    }

    /// Does what a node with these limits asks for.
    fn do_for(&mut self, node: &str, limits: &Limits, request: Request) -> Answer {
        match request {
            Request::Leave => self.leave(node),
            Request::Accept(batch) => return self.accept(limits, batch),
            Request::Claim { session, after, replace } => {
                return self.claim(node, limits, &named(session)?, after, replace);
            }
            Request::Reclaim(held) => return Ok(self.reclaim(node, limits, held)),
            Request::Release(releases) => self.release(limits, releases),
            Request::Read { session, after } => return Ok(self.read(&named(session)?, after)),
            Request::ReadTopic { topic, after } => return self.read_topic(topic, after),
            Request::Holder(session) => return Ok(self.holder(&named(session)?)),
            Request::Held(session) => return Ok(self.held(node, &named(session)?)),
            Request::Known(session) => return Ok(Reply::Yes(self.known(&named(session)?))),
            Request::End(session, reason) => return Ok(self.end(limits, &named(session)?, reason)),
            Request::Forget(session) => return Ok(self.forget(limits, &named(session)?)),
            Request::Info(session) => return Ok(self.info(limits, &named(session)?)),
            Request::PutInfo(session, patch) => {
                return self.put_info(node, limits, &named(session)?, patch);
            }
            Request::ForgetInfo(session) => return Ok(self.forget_info(node, &named(session)?)),
            Request::Subscribe { session, uri, max } => {
                return self.subscribe(limits, &named(session)?, &uri, max);
            }
            Request::Unsubscribe { session, uri } => return Ok(self.unsubscribe(&named(session)?, &uri)),
            Request::Subscribers(uri) => return Ok(self.subscribers(&uri)),
            Request::Subscriptions(session) => return Ok(self.subscriptions(&named(session)?)),
            Request::RegistryKey(candidate) => return Ok(self.registry_key(candidate)),
            Request::Register { session, new } => return Ok(self.register(limits, &named(session)?, new)),
            Request::Records { sessions, touch } => return Ok(self.read_records(limits, sessions, &touch)),
            Request::Report { node, counts } => return Ok(self.take_reports(&node, counts)),
            Request::Adopt { session, node } => return Ok(self.adopt(&named(session)?, node)),
            Request::CloseSession { session, reason } => {
                return Ok(self.start_close(limits, &named(session)?, &reason));
            }
            Request::BurySession(session) => self.bury_session(limits, &named(session)?),
            Request::Owned(owner) => return Ok(self.owned(&named(owner)?)),
            Request::List { owner, node, after, limit } => {
                return Ok(self.list_sessions(owner.as_deref(), node.as_deref(), after.as_deref(), limit));
            }
            Request::Count => return Ok(self.count_sessions(limits)),
            Request::SweepRegistry => return Ok(self.sweep_registry(limits)),
            Request::Append { scope, log, payload } => {
                return self.append(limits, &named(scope)?, &named(log)?, &payload);
            }
            Request::Logs(scope) => return Ok(self.logs(&named(scope)?)),
            Request::ForgetLogs { scope, logs } => self.forget_logs(&named(scope)?, &logs),
            Request::Join { .. } | Request::Resume | Request::Ping => {}
        }
        Ok(Reply::Done)
    }

    fn limits(&self, node: &str) -> Option<Limits> {
        self.nodes.get(node).map(|node| node.limits)
    }

    /// Puts what was said on the sockets: before the answer, so that whoever asked comes last.
    fn tell(&mut self) {
        for (node, told) in std::mem::take(&mut self.told) {
            self.host.send(&node, &wire::write(&Frame::Told(told)));
        }
        self.deliver();
    }

    fn say(&mut self, node: &str, told: Told) {
        if self.nodes.get(node).is_some_and(|node| node.kind != Kind::Process) {
            return self.say_to_guest(node, told);
        }
        self.told.entry(node.to_owned()).or_default().push(told);
    }

    /// Tells all processes but one.
    fn say_to_others(&mut self, me: Option<&str>, told: &Told) {
        let processes = self.nodes.iter().filter(|(_, node)| node.kind == Kind::Process);
        for (node, _) in processes.filter(|(node, _)| me != Some(node)) {
            self.told.entry(node.clone()).or_default().push(told.clone());
        }
    }

    fn stored<T: DeserializeOwned>(&self, key: &[u8]) -> Option<T> {
        postcard::from_bytes(&self.host.get(key)?).ok()
    }

    fn store(&self, key: &[u8], value: &impl Serialize) {
        self.host.put(key, &wire::write(value));
    }

    /// What is due first.
    fn due(&self, most: usize) -> Vec<(u64, String)> {
        let mut due = Vec::new();
        self.host
            .scan(keys::DUE, &keys::after(keys::DUE), most, &mut |key, _| due.extend(keys::read_due(key)));
        due
    }

    /// Brings a name up at a time, sooner than it was to come up; the time it is scheduled for.
    fn schedule(&mut self, name: &str, scheduled_ms: u64, due_ms: u64) -> u64 {
        if due_ms >= scheduled_ms {
            return scheduled_ms;
        }
        if scheduled_ms != u64::MAX {
            self.host.delete(&keys::due(scheduled_ms, name));
        }
        self.host.put(&keys::due(due_ms, name), &[]);
        self.wake_at(due_ms);
        due_ms
    }

    fn wake_at(&mut self, at_ms: u64) {
        // What is overdue is due now: the platform takes no time long past.
        let at_ms = at_ms.max(self.host.now_ms());
        if at_ms < self.alarm_ms {
            self.alarm_ms = at_ms;
            self.store(keys::ALARM, &at_ms);
            self.host.wake_at(at_ms);
        }
    }
}

/// A name that keys can be made of.
fn named(id: String) -> Result<String, Refusal> {
    if id.is_empty() || id.len() > 1_024 || id.bytes().any(|byte| byte < 0x20) {
        return Err((ErrorKind::InvalidInput, "this is not the name of a session".into()));
    }
    Ok(id)
}
