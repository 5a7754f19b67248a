//! The backend trait: accept, deliver, remember, expire, in whole operations.
//!
//! A backend shares state between nodes and says what happened; it does not order, replay, fan out
//! or hold back: managers and hub do that once for all. Each operation is made so that a backend
//! can do it in one round trip of its own kind.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::info::{InfoPatch, SessionInfo};
use crate::runtime::{BoxFuture, MaybeSend};
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Payload, Position, Positions};

pub(crate) mod log;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod url;

/// What a backend can do; tests and managers ask this instead of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// Operations complete at the first poll: calls can be made synchronously, and there is nothing
    /// to gain from batching or caching.
    pub immediate: bool,
    /// Replay merges a session's events and broadcasts by order of acceptance (G1).
    pub merged_order: bool,
    /// Nodes may live in different processes.
    pub processes: bool,
    /// Time can be moved with `advance_clock`.
    pub manual_clock: bool,
    /// Batches that are submitted one after the other are accepted in that order, also when the
    /// first has not been answered yet.
    pub pipelined: bool,
}

impl Capability {
    /// A backend that can do nothing of this.
    pub const NONE: Capability = Capability {
        immediate: false,
        merged_order: false,
        processes: false,
        manual_clock: false,
        pipelined: false,
    };

    /// The capability of this name (in JSON camelCase), as scenarios require it.
    pub fn has(&self, name: &str) -> Option<bool> {
        match name {
            "immediate" => Some(self.immediate),
            "mergedOrder" => Some(self.merged_order),
            "processes" => Some(self.processes),
            "manualClock" => Some(self.manual_clock),
            "pipelined" => Some(self.pipelined),
            _ => None,
        }
    }
}

/// A log that every node follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What is sent to all streams.
    Broadcasts,
    /// Notifications for the subscriptions of the modern era.
    Notifications,
}

impl Topic {
    /// Both topics.
    pub const ALL: [Topic; 2] = [Topic::Broadcasts, Topic::Notifications];
}

/// To whom an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One session.
    Session(SessionId),
    /// Several, each named once.
    Sessions(Arc<[SessionId]>),
    /// Every node.
    Topic(Topic),
}

/// One event to accept.
#[derive(Debug, Clone)]
pub struct Submission {
    /// To whom it goes.
    pub to: Address,
    /// What it carries.
    pub payload: Payload,
    /// A second submission to the same address with the same key is a duplicate (G5).
    pub idempotency_key: Option<Arc<str>>,
}

/// What became of one submission, counted in sessions (a topic counts as one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acceptance {
    /// Accepted: in the log, or handed to the holder where history is off.
    pub accepted: u64,
    /// Dropped, as the session is not known (G4).
    pub dropped: u64,
    /// Accepted before under the same idempotency key.
    pub duplicates: u64,
}

/// Where a new stream of a session starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After the client's cursor (G2).
    Cursor(Positions),
    /// After what an older stream of this very node had delivered.
    Delivered(Positions),
    /// After what the last stream delivered; for a first one, where the session became known (G4).
    Fresh,
}

/// A node asks to hold a session's stream.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The session.
    pub session: SessionId,
    /// The node that will hold it.
    pub node: NodeId,
    /// Where delivery starts.
    pub start: Start,
    /// Whether a live holder is replaced, or the claim refused with `conflict`.
    pub replace: bool,
}

/// An event in a session's log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Its offset in the log's epoch.
    pub offset: u64,
    /// The last broadcast accepted before it.
    pub after_broadcast: Position,
    /// What it carries.
    pub payload: Payload,
}

/// An event in a topic's log.
#[derive(Debug, Clone)]
pub struct TopicEntry {
    /// Its offset in the log's epoch.
    pub offset: u64,
    /// What it carries.
    pub payload: Payload,
}

/// What both logs of a session hold after a start; the epochs are those of `start`.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// Where the entries follow on.
    pub start: Positions,
    /// Something between what was asked for and `start` is lost (G3).
    pub gap: bool,
    /// The session's own events, in order.
    pub own: Vec<LogEntry>,
    /// Broadcasts, in order.
    pub broadcasts: Vec<TopicEntry>,
}

/// What a topic's log holds after a position.
#[derive(Debug, Clone, Default)]
pub struct TopicTail {
    /// Where the entries follow on.
    pub start: Position,
    /// Something between what was asked for and `start` is lost.
    pub gap: bool,
    /// The entries, in order.
    pub entries: Vec<TopicEntry>,
}

/// A claim that was granted.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Grows with each claim of the session; the holder with the highest delivers (G6).
    pub owner_epoch: u64,
    /// What is to be delivered first.
    pub tail: Tail,
}

/// A node gives a stream back.
#[derive(Debug, Clone)]
pub struct Release {
    /// The session.
    pub session: SessionId,
    /// The owner epoch of its claim; a release of an older one changes nothing.
    pub owner_epoch: u64,
    /// What its reader got.
    pub delivered: Positions,
}

/// Whether a node's lease could be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It goes on for another time to live.
    Kept,
    /// It had run out: the node's streams are no longer its own.
    Lost,
}

/// What a joining node follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The head of [`Topic::Broadcasts`].
    pub broadcasts: Position,
    /// The head of [`Topic::Notifications`].
    pub notifications: Position,
}

/// What a backend tells a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Signal {
    /// An event for a stream this node holds.
    Event {
        /// Its session.
        session: SessionId,
        /// Its position in the session's log.
        position: Position,
        /// What it carries.
        payload: Payload,
    },
    /// An event for every node.
    Topic {
        /// Which log it is in.
        topic: Topic,
        /// Its position there.
        position: Position,
        /// What it carries.
        payload: Payload,
    },
    /// The session's log reaches to here; the payloads are to be read from it.
    Doorbell {
        /// The session.
        session: SessionId,
        /// The head of its log.
        head: Position,
    },
    /// A topic's log reaches to here; the payloads are to be read from it.
    TopicDoorbell {
        /// Which log.
        topic: Topic,
        /// Its head.
        head: Position,
    },
    /// A stream of this node has to end.
    Ended {
        /// Its session.
        session: SessionId,
        /// The owner epoch the end is for.
        owner_epoch: u64,
        /// Why.
        reason: EndReason,
    },
    /// A session's info changed: what is cached of it is stale.
    InfoChanged {
        /// The session.
        session: SessionId,
    },
    /// Signals may have been missed: nothing cached can be trusted, every log may have moved on.
    Doubt,
}

/// Where a backend puts what it has to tell a node.
pub trait SignalSink: Send + Sync {
    /// Takes one signal. Returns at once, and never calls the backend.
    fn signal(&self, signal: Signal);
}

/// Shared state between nodes.
///
/// # Behavior
/// - Errors are of kind `unavailable` or `timeout` when the backend can't be reached, with
///   [`Error::outcome_unknown`](crate::Error::outcome_unknown) set where the operation may have happened.
/// - An operation that failed otherwise changed nothing.
/// - Everything that belongs to a session is gone once neither its info, nor a live holder, nor the
///   retention after its last holder keeps it (G11).
pub trait Backend: Send + Sync + 'static {
    /// What it can do; the same for its whole life.
    fn capability(&self) -> Capability;

    /// Makes this node known, with a lease, and sends its signals to `sink` from here on.
    ///
    /// # Behavior
    /// Joining again under the same id renews the lease and replaces the sink.
    fn join(
        &self,
        node: &NodeId,
        lease: Duration,
        sink: Arc<dyn SignalSink>,
    ) -> impl Future<Output = Result<Joined>> + MaybeSend;

    /// Renews the lease of a node.
    ///
    /// # Behavior
    /// A lease that ran out is `Lost`, and stays so until the node joins again.
    fn renew(&self, node: &NodeId) -> impl Future<Output = Result<Renewal>> + MaybeSend;

    /// Forgets a node; streams it still holds are no longer held.
    fn leave(&self, node: &NodeId) -> impl Future<Output = Result<()>> + MaybeSend;

    /// Accepts a batch of events, in order.
    ///
    /// # Behavior
    /// - One outcome a submission. For each session of one batch the order is that of the batch.
    /// - Where the capability says `pipelined`, the first poll settles the order among batches.
    /// - An accepted event is in the log (unless history is off) and was signalled to the holder.
    /// - An event for an unknown session is dropped and costs nothing (G4).
    /// - An idempotency key is remembered for the age of retention, or the last 1,024 keys of its log.
    fn accept(&self, batch: &[Submission]) -> impl Future<Output = Vec<Result<Acceptance>>> + MaybeSend;

    /// Makes a node the holder of a session's stream and reads what it has to deliver first.
    ///
    /// # Behavior
    /// - One atomic act: an event is either in the tail or signalled to the new holder, later ones only there.
    /// - The session is known from here on.
    /// - A live holder gets [`Signal::Ended`] with `replaced` before this returns to the new one, or,
    ///   without `replace`, the claim fails with `conflict`.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed>> + MaybeSend;

    /// Gives streams back, and notes what their readers got.
    ///
    /// # Behavior
    /// Only the last owner epoch of a session counts; anything older is passed over.
    fn release(&self, releases: &[Release]) -> impl Future<Output = Result<()>> + MaybeSend;

    /// Reads both logs of a session after these positions.
    fn read(&self, session: &SessionId, after: Positions) -> impl Future<Output = Result<Tail>> + MaybeSend;

    /// Reads a topic's log after a position.
    fn read_topic(
        &self,
        topic: Topic,
        after: Position,
    ) -> impl Future<Output = Result<TopicTail>> + MaybeSend;

    /// The node that holds the session's stream, if its lease is alive (G7).
    fn holder(&self, session: &SessionId) -> impl Future<Output = Result<Option<NodeId>>> + MaybeSend;

    /// Whether the session is known.
    fn known(&self, session: &SessionId) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Ends the session's stream wherever it is held. False when there was none.
    ///
    /// # Behavior
    /// The log stays for its retention; the session is unheld at once.
    fn end(&self, session: &SessionId, reason: EndReason) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Ends the session's stream with `terminated` and removes its log. False when there was neither.
    ///
    /// # Behavior
    /// The session's info is left to [`Backend::forget_info`]; while it is there the session is known.
    fn forget(&self, session: &SessionId) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Reads all info of a session, and lets it live on if a quarter of its time has passed.
    fn info(&self, session: &SessionId)
    -> impl Future<Output = Result<Option<Arc<SessionInfo>>>> + MaybeSend;

    /// Changes info of a session; fields the patch does not name stay. The session is known from here on.
    ///
    /// # Behavior
    /// Every other node gets [`Signal::InfoChanged`].
    fn put_info(&self, session: &SessionId, patch: InfoPatch)
    -> impl Future<Output = Result<()>> + MaybeSend;

    /// Removes a session's info and its resource subscriptions, in O(own subscriptions). False when
    /// there was none.
    fn forget_info(&self, session: &SessionId) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Subscribes a session to a resource. False when it was; `too_large` beyond `max` of one session.
    fn subscribe(
        &self,
        session: &SessionId,
        uri: &str,
        max: usize,
    ) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Ends a session's subscription to a resource. False when there was none.
    fn unsubscribe(&self, session: &SessionId, uri: &str) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// The sessions subscribed to a resource, in no particular order.
    fn subscribers(&self, uri: &str) -> impl Future<Output = Result<Vec<SessionId>>> + MaybeSend;

    /// The resources a session is subscribed to, sorted.
    fn subscriptions(&self, session: &SessionId) -> impl Future<Output = Result<Vec<String>>> + MaybeSend;

    /// Removes what has expired, a bounded amount a call, so that no call takes long; true when more
    /// is due.
    fn sweep(&self) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Resolves when every signal of what was accepted before this call is with the sink.
    fn caught_up(&self) -> impl Future<Output = Result<()>> + MaybeSend;

    /// Resolves when the backend answers, and every signal sent before is with the sink.
    fn ping(&self) -> impl Future<Output = Result<()>> + MaybeSend;
}

macro_rules! object_safe_twin {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        /// The object-safe twin of [`Backend`]: the same operations with boxed futures, implemented
        /// for every backend.
        pub trait DynBackend: Send + Sync + 'static {
            /// See [`Backend::capability`].
            fn capability(&self) -> Capability;
            $(
                #[doc = concat!("See [`Backend::", stringify!($name), "`].")]
                fn $name<'a>(&'a self, $($arg: $ty),*) -> BoxFuture<'a, $out>;
            )*
        }

        impl<B: Backend> DynBackend for B {
            fn capability(&self) -> Capability {
                Backend::capability(self)
            }
            $(
                fn $name<'a>(&'a self, $($arg: $ty),*) -> BoxFuture<'a, $out> {
                    Box::pin(Backend::$name(self, $($arg),*))
                }
            )*
        }
    };
}

object_safe_twin! {
    join(node: &'a NodeId, lease: Duration, sink: Arc<dyn SignalSink>) -> Result<Joined>;
    renew(node: &'a NodeId) -> Result<Renewal>;
    leave(node: &'a NodeId) -> Result<()>;
    accept(batch: &'a [Submission]) -> Vec<Result<Acceptance>>;
    claim(claim: Claim) -> Result<Claimed>;
    release(releases: &'a [Release]) -> Result<()>;
    read(session: &'a SessionId, after: Positions) -> Result<Tail>;
    read_topic(topic: Topic, after: Position) -> Result<TopicTail>;
    holder(session: &'a SessionId) -> Result<Option<NodeId>>;
    known(session: &'a SessionId) -> Result<bool>;
    end(session: &'a SessionId, reason: EndReason) -> Result<bool>;
    forget(session: &'a SessionId) -> Result<bool>;
    info(session: &'a SessionId) -> Result<Option<Arc<SessionInfo>>>;
    put_info(session: &'a SessionId, patch: InfoPatch) -> Result<()>;
    forget_info(session: &'a SessionId) -> Result<bool>;
    subscribe(session: &'a SessionId, uri: &'a str, max: usize) -> Result<bool>;
    unsubscribe(session: &'a SessionId, uri: &'a str) -> Result<bool>;
    subscribers(uri: &'a str) -> Result<Vec<SessionId>>;
    subscriptions(session: &'a SessionId) -> Result<Vec<String>>;
    sweep() -> Result<bool>;
    caught_up() -> Result<()>;
    ping() -> Result<()>;
}
