//! The backend trait: accept, deliver, remember, expire, in whole operations.
//!
//! A backend shares state between nodes and says what happened; it does not order, replay, fan out
//! or hold back: managers and hub do that once for all. Each operation is made so that a backend
//! can do it in one round trip of its own kind.
//!
//! This is the crate's own seam, shown for those who write a backend: it may change in a minor version.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::info::{InfoPatch, SessionInfo};
use crate::registry::{OwnerHash, SessionRecord};
use crate::runtime::{BoxFuture, MaybeSend};
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Payload, Position, Positions};

#[cfg(feature = "sync-layer")]
pub mod cloudflare;
pub(crate) mod log;
pub(crate) mod memory;
#[cfg(any(feature = "redis", feature = "postgres", feature = "cloudflare"))]
mod pauses;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod registry;
#[cfg(any(feature = "redis", feature = "cloudflare"))]
mod sum;
pub(crate) mod url;
pub(crate) mod waiting;

pub use registry::{
    ActiveRequests, Append, CloseStart, ListQuery, Listed, NewSession, Reason, RegistryStats, Swept, Touch,
};

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

    /// The names of all capabilities.
    pub const NAMES: [&'static str; 5] =
        ["immediate", "mergedOrder", "processes", "manualClock", "pipelined"];

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

/// One of the orders in which a backend accepts broadcasts.
///
/// Most have one for all. Where sessions are in parts that know nothing of each other, each part is a lane:
/// a broadcast goes to every one of them, and a session gets it from its own, in that one's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lane(pub u8);

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

impl Tail {
    /// Whether the session's own log lost something after what was asked for. Where it did not, it
    /// starts there, and the gap is the broadcasts'; a log that is gone starts nowhere else, either.
    pub(crate) fn lost_own(&self, asked: Positions) -> bool {
        let elsewhere = self.start.broadcast != asked.broadcast;
        self.gap && !(self.start.session == asked.session && elsewhere)
    }
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

/// A node asks to go on with a stream it held when it lost touch with the backend.
#[derive(Debug, Clone)]
pub struct Reclaim {
    /// The session.
    pub session: SessionId,
    /// The owner epoch of its claim.
    pub owner_epoch: u64,
    /// What this node has of both logs.
    pub after: Positions,
}

/// Whether a node's lease could be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It goes on for another time to live.
    Kept,
    /// It had run out: the node has to join again, and to reclaim its streams.
    Lost,
}

/// What a joining node follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The head of [`Topic::Broadcasts`] in each lane.
    pub broadcasts: Vec<Position>,
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
        /// The lane of a broadcast; the first for a notification.
        lane: Lane,
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
        /// The lane of broadcasts; the first for notifications.
        lane: Lane,
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
    /// What this node follows of a session may be gone: its log is read again, and says.
    Doubtful {
        /// The session.
        session: SessionId,
    },
    /// A session's info changed: what is cached of it is stale.
    InfoChanged {
        /// The session.
        session: SessionId,
    },
    /// The info of any session may have changed: nothing that is cached of it can be trusted.
    InfoDoubtful,
    /// A registered session is closing: what this process holds of it has to end.
    SessionClosing {
        /// The session.
        session: SessionId,
        /// Why.
        reason: Reason,
    },
    /// A notification of another program, for the subscriptions of this node; it is in no log.
    Notification {
        /// What it carries.
        payload: Payload,
    },
    /// Signals may have been missed: nothing cached can be trusted, every log may have moved on. It
    /// comes before any signal of what was accepted later.
    Doubt,
    /// The backend can be reached again, and no signal was missed.
    Reachable,
}

impl Signal {
    /// Whether it is about what is in a log, which can be read from there, too.
    pub(crate) fn is_delivery(&self) -> bool {
        matches!(
            self,
            Signal::Event { .. }
                | Signal::Doorbell { .. }
                | Signal::Topic { .. }
                | Signal::TopicDoorbell { .. }
        )
    }
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
/// - Everything that belongs to a session is gone once neither its registry record, nor its info, nor a
///   live holder, nor the retention after its last holder keeps it (G11).
pub trait Backend: Send + Sync + 'static {
    /// What it can do; the same for its whole life.
    fn capability(&self) -> Capability;

    /// How many lanes there are, from 1 to 256; the same from the first call of [`Backend::join`] on.
    fn lanes(&self) -> usize {
        1
    }

    /// The lane of a session, or of a log.
    fn lane(&self, _session: &SessionId) -> Lane {
        Lane::default()
    }

    /// Makes this node known, with a lease, and sends its signals to `sink` from here on.
    ///
    /// # Behavior
    /// - Joining again under the same id starts a new lease and replaces the sink.
    /// - What the node held is unheld, and can be reclaimed.
    fn join(
        &self,
        node: &NodeId,
        lease: Duration,
        sink: Arc<dyn SignalSink>,
    ) -> impl Future<Output = Result<Joined>> + MaybeSend;

    /// Renews the lease of a node.
    ///
    /// # Behavior
    /// A lease that ran out is `Lost`, and stays so until the node joins again. Whether it ran out is
    /// for the backend to say; a node measures its own from before it asked, so that it never
    /// believes in it for longer.
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

    /// [`accept`](Backend::accept) of one event where the capability says `immediate`, without what a
    /// batch and a future cost; `None` elsewhere.
    fn accept_now(&self, _submission: &Submission) -> Option<Result<Acceptance>> {
        None
    }

    /// Makes a node the holder of a session's stream and reads what it has to deliver first.
    ///
    /// # Behavior
    /// - One atomic act: an event is either in the tail or signalled to the new holder, later ones only there.
    /// - The session is known from here on.
    /// - A live holder gets [`Signal::Ended`] with `replaced` before this returns to the new one, or,
    ///   without `replace`, the claim fails with `conflict`.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed>> + MaybeSend;

    /// Gives sessions back to a node that may have lost them, and reads what it missed (G9).
    ///
    /// # Behavior
    /// - One round trip for all. One answer each: `None` when the session is no longer the node's, as
    ///   somebody claimed, ended, released or forgot it since the claim of this owner epoch.
    /// - Otherwise the node holds it again under the same owner epoch, whether it held it still or was
    ///   unheld for its lease's end; as with a claim, an event is either in the tail or signalled.
    /// - The tail follows on `after`. Where the log is gone because the backend has lost everything
    ///   (its topics are gone, too), or has lost what `after` says it held, it starts over in another
    ///   epoch: the tail is a gap, and the session is known and held.
    /// - Fails with `unavailable` while the node has no lease; then nothing was reclaimed.
    fn reclaim(
        &self,
        node: &NodeId,
        held: &[Reclaim],
    ) -> impl Future<Output = Result<Vec<Option<Tail>>>> + MaybeSend;

    /// Gives streams back, and notes what their readers got.
    ///
    /// # Behavior
    /// Only the last owner epoch of a session counts; anything older is passed over.
    fn release(&self, releases: &[Release]) -> impl Future<Output = Result<()>> + MaybeSend;

    /// Reads both logs of a session after these positions.
    fn read(&self, session: &SessionId, after: Positions) -> impl Future<Output = Result<Tail>> + MaybeSend;

    /// [`read`](Backend::read) for the holder of a session, after what it has; just as cheap.
    ///
    /// # Behavior
    /// - `None` when the session is not the node's under this owner epoch: what was accepted since
    ///   somebody else took over is not for it (G6).
    /// - A gap is told whoever holds the session.
    fn read_held(
        &self,
        node: &NodeId,
        held: &Reclaim,
    ) -> impl Future<Output = Result<Option<Tail>>> + MaybeSend;

    /// Reads a topic's log after a position.
    fn read_topic(
        &self,
        topic: Topic,
        lane: Lane,
        after: Position,
    ) -> impl Future<Output = Result<TopicTail>> + MaybeSend;

    /// The node that holds the session's stream, if its lease is alive (G7).
    fn holder(&self, session: &SessionId) -> impl Future<Output = Result<Option<NodeId>>> + MaybeSend;

    /// Whether the session is known.
    fn known(&self, session: &SessionId) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// What gives the session back untouched, if it is this node that holds it: asked for when the
    /// answer to a claim was lost.
    ///
    /// # Behavior
    /// The release has the owner epoch of the last claim, and the positions at which it started.
    fn held(
        &self,
        node: &NodeId,
        session: &SessionId,
    ) -> impl Future<Output = Result<Option<Release>>> + MaybeSend;

    /// Ends the session's stream wherever it is held. False when there was none.
    ///
    /// # Behavior
    /// The log stays for its retention; the session is unheld at once, and can't be reclaimed.
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

    /// The key that owners' tokens are hashed with where no option sets one: `candidate`, unless there
    /// is one already.
    ///
    /// # Behavior
    /// Every node of a deployment gets the same.
    fn registry_key(&self, candidate: [u8; 32]) -> impl Future<Output = Result<[u8; 32]>> + MaybeSend;

    /// Registers a session; it is known from here on (G4). False when the id is taken, or was closed
    /// within the time of a tombstone: nothing is changed then.
    ///
    /// # Behavior
    /// - It is active, and accessed now.
    /// - [`Backend::registry_owned`], [`Backend::registry_list`] and [`Backend::registry_stats`] find it.
    fn registry_create(
        &self,
        session: &SessionId,
        new: NewSession,
    ) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Reads records, tombstones included, in the order they were asked for.
    ///
    /// # Behavior
    /// - Active requests are those that live nodes reported: a node that dies takes its own with it.
    /// - Touching notes an access of an active session, if a 20th of the time after which it is stale
    ///   has passed since the last noted one: no session costs more writes than that, on however many
    ///   nodes it is read.
    /// - The state is `Active`, `Closing` or `Closed`: who reads tells `Stale` by the times.
    fn registry_read(
        &self,
        sessions: &[SessionId],
        touch: Touch,
    ) -> impl Future<Output = Result<Vec<Option<SessionRecord>>>> + MaybeSend;

    /// Takes what a node says of the requests it serves; true for each session that is active.
    ///
    /// # Behavior
    /// - Each is an access of its session.
    /// - It counts while the node's lease is alive; nothing is counted for a session that is not active.
    fn registry_report(
        &self,
        node: &NodeId,
        reports: &[ActiveRequests],
    ) -> impl Future<Output = Vec<Result<bool>>> + MaybeSend;

    /// Makes another node answer for an active session. False when there is none.
    fn registry_adopt(
        &self,
        session: &SessionId,
        node: &NodeId,
    ) -> impl Future<Output = Result<bool>> + MaybeSend;

    /// Begins to close a session: it is not active any more, for any node.
    ///
    /// # Behavior
    /// - Of all that ask, one gets [`CloseStart::Begun`].
    /// - Every node, the asking one included, gets [`Signal::SessionClosing`].
    /// - Until its tombstone is gone it is not known, can't be claimed (`not_found`) and takes no info.
    fn registry_close(
        &self,
        session: &SessionId,
        reason: &str,
    ) -> impl Future<Output = Result<CloseStart>> + MaybeSend;

    /// Ends a closing: the record gives way to a tombstone, which goes by itself after its time.
    ///
    /// # Behavior
    /// Nothing lists, counts or owns the session any more. A session that is not closing stays as it is.
    fn registry_bury(&self, session: &SessionId) -> impl Future<Output = Result<()>> + MaybeSend;

    /// The sessions of an owner, the oldest first, in O(own); some may be closing or gone.
    fn registry_owned(&self, owner: &OwnerHash) -> impl Future<Output = Result<Vec<SessionId>>> + MaybeSend;

    /// Lists sessions page by page, in an order of the backend's own.
    ///
    /// # Behavior
    /// A session that is there from the first page to the last is on one of them; one that is accessed
    /// or adopted meanwhile may be on two. `invalid_input` for an `after` that no page ended with.
    fn registry_list(&self, query: ListQuery) -> impl Future<Output = Result<Listed>> + MaybeSend;

    /// Counts sessions, in one statement or one look at each that is due for a sweep.
    fn registry_stats(&self) -> impl Future<Output = Result<RegistryStats>> + MaybeSend;

    /// Takes stale sessions, and closings that were left unfinished for two leases, a bounded amount.
    ///
    /// # Behavior
    /// - Stale is an active session without access for the set time and without an active request.
    /// - Of all nodes that sweep at once, one gets each; the stale ones are closing from here on, with
    ///   the reason `stale`, as by [`Backend::registry_close`].
    fn registry_sweep(&self) -> impl Future<Output = Result<Swept>> + MaybeSend;

    /// Appends to a log that is made if there is none, and says where the event is.
    ///
    /// # Behavior
    /// - The log is one of a session like any other: [`Backend::read`], [`Backend::claim`],
    ///   [`Backend::end`] and [`Backend::forget`] work on it, and retention is the streams'.
    /// - The log is known for the age of retention after its last event.
    /// - Where it has to be noted, or is made, it is noted before the event is there, for at least twice
    ///   that age.
    fn append(&self, event: Append) -> impl Future<Output = Result<Position>> + MaybeSend;

    /// The logs noted of a scope; some may be gone.
    fn logs(&self, scope: &SessionId) -> impl Future<Output = Result<Vec<SessionId>>> + MaybeSend;

    /// Forgets that there were these logs in a scope; the logs themselves are forgotten one by one before.
    fn forget_logs(
        &self,
        scope: &SessionId,
        logs: &[SessionId],
    ) -> impl Future<Output = Result<()>> + MaybeSend;
}

macro_rules! object_safe_twin {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        /// The object-safe twin of [`Backend`]: the same operations with boxed futures, implemented
        /// for every backend.
        pub trait DynBackend: Send + Sync + 'static {
            /// See [`Backend::capability`].
            fn capability(&self) -> Capability;
            /// See [`Backend::lanes`].
            fn lanes(&self) -> usize;
            /// See [`Backend::lane`].
            fn lane(&self, session: &SessionId) -> Lane;
            /// See [`Backend::accept_now`].
            fn accept_now(&self, submission: &Submission) -> Option<Result<Acceptance>>;
            $(
                #[doc = concat!("See [`Backend::", stringify!($name), "`].")]
                fn $name<'a>(&'a self, $($arg: $ty),*) -> BoxFuture<'a, $out>;
            )*
        }

        impl<B: Backend> DynBackend for B {
            fn capability(&self) -> Capability {
                Backend::capability(self)
            }
            fn lanes(&self) -> usize {
                Backend::lanes(self)
            }
            fn lane(&self, session: &SessionId) -> Lane {
                Backend::lane(self, session)
            }
            fn accept_now(&self, submission: &Submission) -> Option<Result<Acceptance>> {
                Backend::accept_now(self, submission)
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
    reclaim(node: &'a NodeId, held: &'a [Reclaim]) -> Result<Vec<Option<Tail>>>;
    release(releases: &'a [Release]) -> Result<()>;
    read(session: &'a SessionId, after: Positions) -> Result<Tail>;
    read_held(node: &'a NodeId, held: &'a Reclaim) -> Result<Option<Tail>>;
    read_topic(topic: Topic, lane: Lane, after: Position) -> Result<TopicTail>;
    holder(session: &'a SessionId) -> Result<Option<NodeId>>;
    held(node: &'a NodeId, session: &'a SessionId) -> Result<Option<Release>>;
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
    registry_key(candidate: [u8; 32]) -> Result<[u8; 32]>;
    registry_create(session: &'a SessionId, new: NewSession) -> Result<bool>;
    registry_read(sessions: &'a [SessionId], touch: Touch) -> Result<Vec<Option<SessionRecord>>>;
    registry_report(node: &'a NodeId, reports: &'a [ActiveRequests]) -> Vec<Result<bool>>;
    registry_adopt(session: &'a SessionId, node: &'a NodeId) -> Result<bool>;
    registry_close(session: &'a SessionId, reason: &'a str) -> Result<CloseStart>;
    registry_bury(session: &'a SessionId) -> Result<()>;
    registry_owned(owner: &'a OwnerHash) -> Result<Vec<SessionId>>;
    registry_list(query: ListQuery) -> Result<Listed>;
    registry_stats() -> Result<RegistryStats>;
    registry_sweep() -> Result<Swept>;
    append(event: Append) -> Result<Position>;
    logs(scope: &'a SessionId) -> Result<Vec<SessionId>>;
    forget_logs(scope: &'a SessionId, logs: &'a [SessionId]) -> Result<()>;
}
