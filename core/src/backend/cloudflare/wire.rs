//! What nodes and the sync layer say to each other: one version, binary, over one socket.
//!
//! A node calls with a number and is answered with it; signals come in between, in order. Heartbeats
//! are the texts [`PING`] and [`PONG`], which the platform answers without waking the object.
//!
//! Where several objects share the sessions, the gateway puts them all on the node's one socket: each frame
//! begins with a byte that says whose it is, and a heartbeat is answered once all have answered it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::{Acceptance, LogEntry, Tail, Topic, TopicEntry, TopicTail};
use crate::info::{InfoPatch, Json, SessionInfo};
use crate::options::{Options, Retention};
use crate::streams::{EndReason, Payload, Position, Positions};

/// The WebSocket subprotocol; a change of any frame is another one.
pub const PROTOCOL: &str = "mcp-sessions.2";
/// A heartbeat.
pub const PING: &str = "ping";
/// Its answer.
pub const PONG: &str = "pong";

/// What is kept of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Keep {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) age_ms: u64,
}

impl From<&Retention> for Keep {
    fn from(retention: &Retention) -> Self {
        Keep { events: retention.events as u64, bytes: retention.bytes as u64, age_ms: retention.age_ms }
    }
}

/// The options of a node that the sync layer has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) own: Keep,
    pub(crate) broadcasts: Keep,
    pub(crate) session_ttl_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) stale_ms: u64,
    pub(crate) sweep_ms: u64,
    pub(crate) tombstone_ms: u64,
}

impl Limits {
    pub(crate) fn of(options: &Options, lease_ms: u64) -> Self {
        Limits {
            own: Keep::from(&options.retention),
            broadcasts: Keep::from(&options.broadcast_retention),
            session_ttl_ms: options.session_ttl_ms,
            lease_ms,
            stale_ms: options.registry.stale_ms,
            sweep_ms: options.registry.sweep_ms,
            tombstone_ms: options.registry.tombstone_ms,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum To {
    Session(String),
    Sessions(Vec<String>),
    Topic(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) to: To,
    pub(crate) payload: Payload,
    pub(crate) key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Join {
        limits: Limits,
    },
    /// The node has another socket: does its lease go on?
    Resume,
    Leave,
    Accept(Vec<Item>),
    /// Without positions, a fresh start.
    Claim {
        session: String,
        after: Option<Positions>,
        replace: bool,
    },
    /// Sessions with the owner epochs of their claims, and what the node has of them.
    Reclaim(Vec<(String, u64, Positions)>),
    Release(Vec<(String, u64, Positions)>),
    Read {
        session: String,
        after: Positions,
    },
    ReadTopic {
        topic: u8,
        after: Position,
    },
    Holder(String),
    Held(String),
    Known(String),
    End(String, EndReason),
    Forget(String),
    Info(String),
    PutInfo(String, InfoPatch),
    ForgetInfo(String),
    Subscribe {
        session: String,
        uri: String,
        max: u64,
    },
    Unsubscribe {
        session: String,
        uri: String,
    },
    Subscribers(String),
    Subscriptions(String),
    Ping,
    RegistryKey([u8; 32]),
    Register {
        session: String,
        new: NewRecord,
    },
    Records {
        sessions: Vec<String>,
        touch: TouchBy,
    },
    /// How many requests this node serves of each session.
    Report {
        node: String,
        counts: Vec<(String, u32)>,
    },
    Adopt {
        session: String,
        node: String,
    },
    CloseSession {
        session: String,
        reason: String,
    },
    BurySession(String),
    Owned(String),
    List {
        owner: Option<String>,
        node: Option<String>,
        after: Option<String>,
        limit: u64,
    },
    Count,
    SweepRegistry,
    Append {
        scope: String,
        log: String,
        payload: Payload,
    },
    Logs(String),
    ForgetLogs {
        scope: String,
        logs: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewRecord {
    pub(crate) owner: Option<String>,
    pub(crate) node: String,
    pub(crate) metadata: Option<Json>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TouchBy {
    Nobody,
    Anybody,
    Owner(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Open,
    Closing,
    Closed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) owner: Option<String>,
    pub(crate) node: String,
    pub(crate) created_ms: u64,
    pub(crate) last_access_ms: u64,
    pub(crate) now_ms: u64,
    pub(crate) active_requests: u64,
    pub(crate) state: State,
    pub(crate) reason: Option<String>,
    pub(crate) metadata: Option<Json>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Closing {
    Begun,
    Underway,
    Gone,
}

/// Registered sessions, counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) active: u64,
    pub(crate) stale: u64,
    pub(crate) closing: u64,
    pub(crate) by_node: BTreeMap<String, u64>,
}

/// What a sweep of the registry leaves to who asked for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Taking {
    pub(crate) stale: Vec<String>,
    pub(crate) unfinished: Vec<String>,
    pub(crate) more: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// The node has no lease (any more); it has to join again.
    Lost,
    Joined {
        broadcasts: Position,
        notifications: Position,
    },
    /// Whether the lease goes on.
    Resumed {
        kept: bool,
    },
    Accepted(Vec<Taken>),
    Claimed {
        owner_epoch: u64,
        tail: WireTail,
    },
    /// One each; `None` where the session is not the node's any more.
    Reclaimed(Vec<Option<WireTail>>),
    Tail(WireTail),
    TopicTail(WireTopicTail),
    Holder(Option<String>),
    /// The owner epoch of the node's own claim, and where it started.
    Held(Option<(u64, Positions)>),
    Yes(bool),
    Info(Option<SessionInfo>),
    Names(Vec<String>),
    Key([u8; 32]),
    Records(Vec<Option<Record>>),
    Truths(Vec<bool>),
    Closing(Closing),
    Listed {
        sessions: Vec<String>,
        next: Option<String>,
    },
    Counts(Counts),
    Taking(Taking),
    At(Position),
    /// The code of an error, and its message.
    Failed(String, String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Told {
    Event {
        session: String,
        position: Position,
        payload: Payload,
    },
    Topic {
        topic: u8,
        position: Position,
        payload: Payload,
    },
    Ended {
        session: String,
        owner_epoch: u64,
        reason: EndReason,
    },
    InfoChanged(String),
    SessionClosing {
        session: String,
        reason: String,
    },
    /// The node's lease ended.
    Lost,
}

/// A node's call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) request: Request,
}

/// What goes to a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Frame {
    Reply(u32, Reply),
    Told(Vec<Told>),
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) accepted: u64,
    pub(crate) dropped: u64,
    pub(crate) duplicates: u64,
}

impl Taken {
    pub(crate) fn add(&mut self, other: Taken) {
        self.accepted += other.accepted;
        self.dropped += other.dropped;
        self.duplicates += other.duplicates;
    }
}

impl From<Taken> for Acceptance {
    fn from(taken: Taken) -> Self {
        Acceptance { accepted: taken.accepted, dropped: taken.dropped, duplicates: taken.duplicates }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct WireTail {
    pub(crate) start: Positions,
    pub(crate) gap: bool,
    pub(crate) own: Vec<(u64, Position, Payload)>,
    pub(crate) broadcasts: Vec<(u64, Payload)>,
}

impl From<WireTail> for Tail {
    fn from(tail: WireTail) -> Self {
        let own = |(offset, after_broadcast, payload)| LogEntry { offset, after_broadcast, payload };
        Tail {
            start: tail.start,
            gap: tail.gap,
            own: tail.own.into_iter().map(own).collect(),
            broadcasts: topic_entries(tail.broadcasts),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct WireTopicTail {
    pub(crate) start: Position,
    pub(crate) gap: bool,
    pub(crate) entries: Vec<(u64, Payload)>,
}

impl From<WireTopicTail> for TopicTail {
    fn from(tail: WireTopicTail) -> Self {
        TopicTail { start: tail.start, gap: tail.gap, entries: topic_entries(tail.entries) }
    }
}

fn topic_entries(entries: Vec<(u64, Payload)>) -> Vec<TopicEntry> {
    entries.into_iter().map(|(offset, payload)| TopicEntry { offset, payload }).collect()
}

/// The number of a topic in frames.
pub(crate) fn number_of(topic: Topic) -> u8 {
    topic as u8
}

/// The topic of a number.
pub(crate) fn topic_of(number: u8) -> Option<Topic> {
    Topic::ALL.get(usize::from(number)).copied()
}

/// A frame's bytes.
pub(crate) fn write(frame: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(frame).unwrap_or_default()
}

/// A frame out of its bytes; `None` when they are not one.
pub(crate) fn read<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
