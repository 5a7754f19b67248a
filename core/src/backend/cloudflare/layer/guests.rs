//! Workers: calls without a node, and streams and subscriptions that have a socket each.
//!
//! In a Worker nothing can be shared between requests, so each of its streams is fed by a socket of its
//! own request. It is given finished text: positions, cursors and filters stay on this side. It is alive
//! while its socket is open, which the platform watches, so it sends no heartbeats while nothing comes.

use std::collections::HashMap;
use std::str::FromStr as _;

use serde::{Deserialize, Serialize};

use super::nodes::Node;
use super::{Host, Refusal, SyncLayer, keys};
use crate::backend::cloudflare::wire::{Closing, Limits, Reply, Request, Told, WireTail, topic_of};
use crate::backend::{Tail, Topic};
use crate::error::{Error, ErrorKind};
use crate::info::{InfoPatch, Json, LogLevel, SessionInfo};
use crate::options::Options;
use crate::session::SessionId;
use crate::streams::cursor::{Cursor, CursorKey};
use crate::streams::merge::merge;
use crate::streams::{EndReason, Payload, Position, Positions, frame_prefix, is_frame};
use crate::subscriptions::{Subject, SubscriptionFilter, subject};

/// The most that goes into one message: what a stream is given has no bounds of its own.
const PIECE_BYTES: usize = 256 << 10;
/// Positions of events that are in no log are of an epoch that no log has: a client that comes back with
/// one is told of a gap.
const LIVE: u64 = 1 << 63;
/// The options of Workers that are kept ready; each of a deployment's managers may have its own.
const MAX_OPTIONS: usize = 16;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A process outside, with many streams.
    Process,
    /// One stream of a Worker.
    Stream { session: String, frame_ids: bool },
    /// One subscription of a Worker.
    Listener { key: String, origin: String, filter: SubscriptionFilter },
}

/// What a guest's socket is to be given.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// Said before anything else.
    greeting: Option<String>,
    text: Vec<u8>,
    end: Option<String>,
}

/// A stream's place, as long as this object is in memory.
pub(super) struct Place {
    key: CursorKey,
    own: Position,
    /// Without history nothing of an event is written, its position neither.
    live: bool,
}

/// What a Worker wants of a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opening {
    session: String,
    after: Option<String>,
    #[serde(default)]
    reject: bool,
    #[serde(default)]
    frame_ids: bool,
}

/// What a Worker wants to hear of.
#[derive(Debug, Deserialize)]
struct Listening {
    /// The request's id as JSON: 1 is not "1".
    key: String,
    origin: String,
    filters: SubscriptionFilter,
}

/// What a Worker asks for at once.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Question {
    /// All that was sent in one turn, in order.
    Send(Vec<Sending>),
    Notify {
        payload: Payload,
    },
    Has(String),
    Known(String),
    End(String),
    Forget(String),
    CheckCursor {
        session: String,
        cursor: String,
    },
    Info(String),
    PutInfo {
        session: String,
        info: Patch,
    },
    Ask(Request),
    /// Ends a session of the registry, and everything of it.
    Close {
        session: String,
        reason: String,
    },
    /// Closes what is stale now.
    Sweep,
    Unlisten {
        key: String,
        origin: String,
        reason: String,
    },
    UnlistenAll {
        origin: Option<String>,
        reason: String,
    },
}

/// An event to sessions, or to all.
#[derive(Debug, Deserialize)]
struct Sending {
    sessions: Option<Vec<String>>,
    payload: Payload,
    key: Option<String>,
}

/// Info in the shape that Workers have it in.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Patch {
    client_info: Option<String>,
    client_capabilities: Option<String>,
    log_level: Option<String>,
    protocol_version: Option<String>,
    initialize_params: Option<String>,
}

impl Patch {
    fn read(self) -> Result<InfoPatch, Error> {
        let json = |text: Option<String>| text.as_deref().map(Json::parse).transpose();
        Ok(InfoPatch {
            client_info: json(self.client_info)?,
            client_capabilities: json(self.client_capabilities)?,
            log_level: self.log_level.as_deref().map(LogLevel::from_str).transpose()?,
            protocol_version: self.protocol_version,
            initialize_params: json(self.initialize_params)?,
        })
    }

    fn of(info: SessionInfo) -> Self {
        let text = |json: Option<Json>| json.map(|json| json.as_str().to_owned());
        Patch {
            client_info: text(info.client_info),
            client_capabilities: text(info.client_capabilities),
            log_level: info.log_level.map(|level| level.as_str().to_owned()),
            protocol_version: info.protocol_version,
            initialize_params: text(info.initialize_params),
        }
    }
}

fn refused(error: &Error) -> Refusal {
    (error.kind(), error.message().to_owned())
}

fn told<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn failed((kind, message): Refusal) -> String {
    told(&serde_json::json!({ "code": kind.code(), "message": message }))
}

fn understood<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| {
        (ErrorKind::InvalidInput, format!("the sync layer was asked for something else: {error}"))
    })
}

impl<H: Host> SyncLayer<H> {
    /// Does what a Worker asks for; both are JSON. The answer is an object with `ok`, or `code` and
    /// `message`.
    pub fn ask(&mut self, options: &str, question: &str) -> String {
        let answer =
            self.limits_of(options).and_then(|limits| self.answer_guest(&limits, understood(question)?));
        self.tell();
        match answer {
            Ok(ok) => format!("{{\"ok\":{ok}}}"),
            Err(refusal) => failed(refusal),
        }
    }

    /// A Worker's stream, whose socket is open under this name. It is told where it starts, then given
    /// what it missed. The failure, if it can't be opened: as [`ask`](Self::ask) answers.
    pub fn open(&mut self, node: &str, options: &str, opening: &str) -> Option<String> {
        let opened =
            self.limits_of(options).and_then(|limits| self.open_stream(node, limits, understood(opening)?));
        self.finish_opening(node, opened)
    }

    /// A Worker's subscription, whose socket is open under this name; the failure, if there can be none.
    pub fn listen(&mut self, node: &str, options: &str, listening: &str) -> Option<String> {
        let heard = self
            .limits_of(options)
            .and_then(|limits| self.add_listener(node, limits, understood(listening)?));
        self.finish_opening(node, heard)
    }

    fn finish_opening(&mut self, node: &str, opened: Result<(), Refusal>) -> Option<String> {
        let failure = opened.err().map(failed);
        if failure.is_some() {
            self.parcels.remove(node);
            self.forget_node(node);
        }
        self.tell();
        failure
    }

    /// The limits that options come to.
    fn limits_of(&mut self, options: &str) -> Result<Limits, Refusal> {
        if let Some(limits) = self.guest_limits.get(options) {
            return Ok(*limits);
        }
        let read = Options::from_json(options).and_then(Options::checked).map_err(|error| refused(&error))?;
        let limits = Limits::of(&read, read.lease.ttl_ms);
        if self.guest_limits.len() >= MAX_OPTIONS {
            self.guest_limits.clear();
        }
        self.guest_limits.insert(options.to_owned(), limits);
        Ok(limits)
    }

    fn answer_guest(&mut self, limits: &Limits, question: Question) -> Result<String, Refusal> {
        const NOBODY: &str = "";
        let request = match question {
            Question::Send(sendings) => {
                let send = |it: Sending| self.send_for_guest(limits, it.sessions, it.payload, it.key);
                return Ok(told(&sendings.into_iter().map(send).collect::<Result<Vec<_>, _>>()?));
            }
            Question::Notify { payload } => {
                self.topic_for_guest(limits, Topic::Notifications, payload, None);
                return Ok("null".into());
            }
            Question::Has(session) => {
                let Reply::Holder(holder) = self.holder(&super::named(session)?) else {
                    return Ok("false".into());
                };
                return Ok(told(&holder.is_some()));
            }
            Question::Known(session) => Request::Known(session),
            Question::End(session) => Request::End(session, EndReason::Closed),
            Question::Forget(session) => Request::Forget(session),
            Question::CheckCursor { session, cursor } => {
                let checked = SessionId::new(&session).and_then(|id| Cursor::check(&cursor, &id));
                return Ok(told(&checked.err().map(|error| error.message().to_owned())));
            }
            Question::Info(session) => {
                let Reply::Info(info) = self.info(limits, &super::named(session)?) else {
                    return Ok("null".into());
                };
                return Ok(told(&info.map(Patch::of)));
            }
            Question::PutInfo { session, info } => {
                Request::PutInfo(session, info.read().map_err(|error| refused(&error))?)
            }
            Question::Ask(request) => {
                if matches!(request, Request::Register { .. }) {
                    // The alarm sweeps with these, where no process does.
                    self.store(keys::GUEST_LIMITS, limits);
                }
                request
            }
            Question::Close { session, reason } => {
                return Ok(told(&self.close_whole(limits, &super::named(session)?, &reason)));
            }
            Question::Sweep => return Ok(told(&self.sweep_now(limits))),
            Question::Unlisten { key, origin, reason } => {
                return Ok(told(&(self.end_listeners(Some(&key), Some(&origin), &reason) > 0)));
            }
            Question::UnlistenAll { origin, reason } => {
                return Ok(told(&self.end_listeners(None, origin.as_deref(), &reason)));
            }
        };
        match self.do_for(NOBODY, limits, request)? {
            Reply::Done => Ok("null".into()),
            Reply::Yes(yes) => Ok(told(&yes)),
            Reply::Names(names) => Ok(told(&names)),
            reply => Ok(told(&reply)),
        }
    }

    fn send_for_guest(
        &mut self,
        limits: &Limits,
        sessions: Option<Vec<String>>,
        payload: Payload,
        key: Option<String>,
    ) -> Result<(u64, u64, u64), Refusal> {
        let taken = match sessions {
            None => self.topic_for_guest(limits, Topic::Broadcasts, payload, key),
            Some(sessions) => {
                let sessions = sessions.into_iter().map(super::named).collect::<Result<_, _>>()?;
                self.accept_for_sessions(limits, sessions, payload, key)
            }
        };
        Ok((taken.accepted, taken.dropped, taken.duplicates))
    }

    fn open_stream(&mut self, node: &str, limits: Limits, opening: Opening) -> Result<(), Refusal> {
        let session = SessionId::new(&opening.session).map_err(|error| refused(&error))?;
        let decode = |cursor: &str| Cursor::decode(cursor, &session).map_err(|error| refused(&error));
        let after = opening.after.as_deref().map(decode).transpose()?;
        let id = opening.session;
        self.add_guest(node, limits, Kind::Stream { session: id.clone(), frame_ids: opening.frame_ids });
        let claimed = self.claim(node, &limits, &id, after, !opening.reject)?;
        let Reply::Claimed { tail, .. } = claimed else {
            return Err((
                ErrorKind::Unavailable,
                "the stream's connection was lost while it was opened".into(),
            ));
        };
        self.greet(node, &session, tail, opening.frame_ids);
        Ok(())
    }

    /// Tells where a stream starts, and gives it what it missed.
    fn greet(&mut self, node: &str, session: &SessionId, tail: WireTail, frame_ids: bool) {
        let key = CursorKey::of(session);
        let cursor = Cursor::encode(tail.start, key);
        let gap = tail.gap;
        let mut own = tail.start.session;
        let mut text = Vec::new();
        for event in merge(Tail::from(tail)) {
            own = event.at.session;
            write_event(&mut text, &event.payload, frame_ids.then(|| Cursor::encode(event.at, key)));
        }
        let greeting = serde_json::json!({ "gap": gap, "cursor": cursor.as_str(), "replay": text.len() });
        let parcel = self.parcels.entry(node.to_owned()).or_default();
        parcel.greeting = Some(greeting.to_string());
        parcel.text = text;
        self.places.insert(node.to_owned(), Place { key, own, live: false });
    }

    fn add_listener(&mut self, node: &str, limits: Limits, listening: Listening) -> Result<(), Refusal> {
        let Listening { key, origin, filters } = listening;
        let taken = |node: &Node| matches!(&node.kind, Kind::Listener { key: k, origin: o, .. } if *k == key && *o == origin);
        if self.nodes.iter().any(|(name, node)| taken(node) && self.host.heard_ms(name).is_some()) {
            return Err((
                ErrorKind::Conflict,
                "there is a subscription of this id and origin already".into(),
            ));
        }
        self.add_guest(node, limits, Kind::Listener { key, origin, filter: filters });
        self.parcels.entry(node.to_owned()).or_default().greeting = Some("{}".into());
        Ok(())
    }

    fn add_guest(&mut self, name: &str, limits: Limits, kind: Kind) {
        let node = Node::new(limits, self.host.now_ms(), kind);
        self.store(&keys::node(name), &node);
        self.nodes.insert(name.to_owned(), node);
    }

    fn end_listeners(&mut self, key: Option<&str>, origin: Option<&str>, reason: &str) -> u64 {
        let wanted = |node: &Node| match &node.kind {
            Kind::Listener { key: k, origin: o, .. } => {
                key.is_none_or(|key| key == k) && origin.is_none_or(|origin| origin == o)
            }
            _ => false,
        };
        let names: Vec<_> =
            self.nodes.iter().filter(|(_, node)| wanted(node)).map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.parcels.entry(name.clone()).or_default().end = Some(reason.to_owned());
            self.forget_node(name);
        }
        names.len() as u64
    }

    /// Puts what was said to a guest into its parcel; what is no guest's business is left out.
    pub(super) fn say_to_guest(&mut self, node: &str, said: Told) {
        match said {
            Told::Event { position, payload, .. } => {
                let Some(Kind::Stream { session, frame_ids }) = self.nodes.get(node).map(|node| &node.kind)
                else {
                    return;
                };
                let (session, frame_ids) = (session.clone(), *frame_ids);
                let broadcast = self.broadcasts_head();
                let place = self.place(node, &session);
                place.own = position;
                let cursor =
                    frame_ids.then(|| Cursor::encode(Positions { session: position, broadcast }, place.key));
                write_event(&mut self.parcels.entry(node.to_owned()).or_default().text, &payload, cursor);
            }
            Told::Ended { reason, .. } => {
                self.parcels.entry(node.to_owned()).or_default().end = Some(reason.as_str().to_owned());
            }
            _ => {}
        }
    }

    /// Gives an event of a topic to all guests that it is for.
    pub(super) fn topic_to_guests(&mut self, topic: u8, broadcast: Position, payload: &Payload) {
        match topic_of(topic) {
            Some(Topic::Broadcasts) => {
                self.broadcasts = Some(broadcast);
                self.broadcast_to_guests(broadcast, payload);
            }
            Some(Topic::Notifications) => self.notify_guests(payload),
            None => {}
        }
    }

    fn broadcast_to_guests(&mut self, broadcast: Position, payload: &Payload) {
        let streams = self.nodes.iter().filter_map(|(name, node)| match &node.kind {
            Kind::Stream { session, frame_ids } => Some((name.clone(), session.clone(), *frame_ids)),
            _ => None,
        });
        let is_frame = is_frame(payload);
        for (name, session, frame_ids) in streams.collect::<Vec<_>>() {
            let cursor = (frame_ids && is_frame).then(|| {
                let place = self.place(&name, &session);
                Cursor::encode(Positions { session: place.own, broadcast }, place.key)
            });
            write_known(&mut self.parcels.entry(name).or_default().text, payload, cursor);
        }
    }

    fn notify_guests(&mut self, payload: &Payload) {
        let Some(subject) = subject(payload).filter(|subject| *subject != Subject::Other) else { return };
        let wants =
            |node: &Node| matches!(&node.kind, Kind::Listener { filter, .. } if filter.wants(&subject));
        let names: Vec<_> =
            self.nodes.iter().filter(|(_, node)| wants(node)).map(|(name, _)| name.clone()).collect();
        for name in names {
            // One message each: a listener reads whole notifications.
            let text = payload.as_bytes();
            self.host.send(&name, text);
        }
    }

    fn broadcasts_head(&mut self) -> Position {
        if let Some(head) = self.broadcasts {
            return head;
        }
        let head = self.topic(Topic::Broadcasts, &Limits::default()).log.head();
        self.broadcasts = Some(head);
        head
    }

    /// Gives an event to the stream of a Worker and writes nothing; false when nobody is there who takes it so.
    pub(super) fn give_live(&mut self, holder: Option<&str>, payload: &Payload) -> bool {
        let Some(node) = holder else { return false };
        let Some(Kind::Stream { session, frame_ids }) = self.nodes.get(node).map(|node| &node.kind) else {
            return false;
        };
        let (session, frame_ids) = (session.clone(), *frame_ids);
        let broadcast = self.broadcasts_head();
        let place = self.place(node, &session);
        if !place.live {
            place.live = true;
            place.own.epoch ^= LIVE;
        }
        place.own.offset += 1;
        let cursor =
            frame_ids.then(|| Cursor::encode(Positions { session: place.own, broadcast }, place.key));
        write_event(&mut self.parcels.entry(node.to_owned()).or_default().text, payload, cursor);
        true
    }

    /// Where a stream is; all that was accepted for its session was given to it.
    fn place(&mut self, node: &str, session: &str) -> &mut Place {
        if !self.places.contains_key(node) {
            let own = self.stored_session(session).map(|session| session.log.head()).unwrap_or_default();
            let key = CursorKey::of(&SessionId::new(session).unwrap_or_else(|_| SessionId::random()));
            self.places.insert(node.to_owned(), Place { key, own, live: false });
        }
        self.places.get_mut(node).expect("it was just put there")
    }

    /// Puts parcels on their sockets.
    pub(super) fn deliver(&mut self) {
        for (node, parcel) in std::mem::take(&mut self.parcels) {
            if let Some(greeting) = parcel.greeting {
                self.host.say(&node, &greeting);
            }
            for piece in parcel.text.chunks(PIECE_BYTES) {
                self.host.send(&node, piece);
            }
            if let Some(reason) = parcel.end {
                self.host.end(&node, &reason);
            }
        }
    }

    /// Closes a registered session and everything of it; true for the call that closed it.
    fn close_whole(&mut self, limits: &Limits, id: &str, reason: &str) -> bool {
        let Reply::Closing(closing) = self.start_close(limits, id, reason) else { return false };
        if closing == Closing::Gone {
            return false;
        }
        self.finish_close(limits, id);
        closing == Closing::Begun
    }

    fn finish_close(&mut self, limits: &Limits, id: &str) {
        let Reply::Names(logs) = self.logs(id) else { return };
        for log in &logs {
            self.forget(limits, log);
        }
        self.forget_logs(id, &logs);
        self.forget(limits, id);
        self.forget_info("", id);
        self.bury_session(limits, id);
    }

    /// Closes what is stale, where no process is there to do it; when to look again.
    pub(super) fn sweep_for_guests(&mut self) -> Option<u64> {
        let limits: Limits = self.stored(keys::GUEST_LIMITS)?;
        if self.nodes.values().any(|node| node.kind == Kind::Process) {
            return Some(self.host.now_ms() + limits.sweep_ms);
        }
        self.sweep_now(&limits);
        self.next_registry_due()
    }

    /// How many were stale.
    fn sweep_now(&mut self, limits: &Limits) -> u64 {
        let mut closed = 0;
        loop {
            let Reply::Taking(taking) = self.sweep_registry(limits) else { return closed };
            closed += taking.stale.len() as u64;
            for id in taking.stale.iter().chain(&taking.unfinished) {
                self.finish_close(limits, id);
            }
            if !taking.more {
                return closed;
            }
        }
    }

    /// The streams of Workers that a session has: requests that are under way.
    pub(super) fn is_streaming(&self, holder: Option<&str>) -> bool {
        let Some(holder) = holder else { return false };
        let is_stream = self.nodes.get(holder).is_some_and(|node| matches!(node.kind, Kind::Stream { .. }));
        is_stream && self.alive(holder)
    }
}

/// An event as a client reads it: with its cursor, if it is a frame that has room for one.
fn write_event(text: &mut Vec<u8>, payload: &Payload, cursor: Option<Cursor>) {
    write_known(text, payload, cursor.filter(|_| is_frame(payload)));
}

fn write_known(text: &mut Vec<u8>, payload: &Payload, cursor: Option<Cursor>) {
    if let Some(cursor) = cursor {
        text.extend_from_slice(frame_prefix(cursor.as_str()).as_bytes());
    }
    text.extend_from_slice(payload.as_bytes());
}

pub(super) type Places = HashMap<String, Place>;
