//! Sessions: who holds their stream, their logs, and how long they are known.

use serde::{Deserialize, Serialize};

use super::info::Record;
use super::log::Log;
use super::registry::{Registered, closed};
use super::{Answer, Host, Refusal, SyncLayer, keys, topics};
use crate::backend::Topic;
use crate::backend::cloudflare::wire::{Item, Limits, Reply, Taken, To, Told, WireTail, topic_of};
use crate::error::ErrorKind;
use crate::streams::{EndReason, Payload, Position, Positions};

/// So many are set apart at once, so that not every claim writes which was the last.
const OWNER_EPOCHS: u64 = 256;

/// A session, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) log: Log,
    pub(super) owner_epoch: u64,
    pub(super) holder: Option<String>,
    /// It is unheld because its holder's lease ran out: that node may reclaim it.
    pub(super) lost: bool,
    /// Where a stream without a cursor starts.
    resume: Positions,
    /// The session is known until then for the sake of its last stream.
    remembered_until_ms: u64,
    pub(super) info: Option<Record>,
    pub(super) registered: Option<Registered>,
    /// When it will be brought up next.
    scheduled_ms: u64,
}

impl Session {
    fn known(&self, now_ms: u64) -> bool {
        if let Some(registered) = self.registered.as_ref().filter(|registered| !registered.is_gone(now_ms)) {
            return registered.is_open();
        }
        self.remembered_until_ms > now_ms
            || self.holder.is_some()
            || self.info.as_ref().is_some_and(|record| record.expires_ms > now_ms)
    }

    /// Whether there is anything of it, known or not.
    fn is_there(&self, now_ms: u64) -> bool {
        let registered = self.registered.as_ref().is_some_and(|registered| !registered.is_gone(now_ms));
        registered || self.holder.is_some() || self.known(now_ms)
    }

    /// A session that is closing or closed takes nothing more.
    pub(super) fn check_open(&self, id: &str) -> Result<(), Refusal> {
        match self.registered.as_ref().is_some_and(|registered| !registered.is_open()) {
            true => Err(closed(id)),
            false => Ok(()),
        }
    }

    pub(super) fn remember_until(&mut self, until_ms: u64) {
        self.remembered_until_ms = self.remembered_until_ms.max(until_ms);
    }

    fn due_ms(&self) -> u64 {
        // Once it is over it is 0, and nothing comes up for it again.
        let nothing_else = self.registered.is_none() && self.info.is_none();
        let remembers = self.holder.is_none() && (self.remembered_until_ms > 0 || nothing_else);
        let remembered = remembers.then_some(self.remembered_until_ms);
        let info = self.info.as_ref().map(|record| record.expires_ms);
        let tombstone = self.registered.as_ref().and_then(Registered::gone_ms);
        self.log.due_ms().into_iter().chain(remembered).chain(info).chain(tombstone).min().unwrap_or(u64::MAX)
    }
}

impl<H: Host> SyncLayer<H> {
    fn broadcast_head(&mut self, limits: &Limits) -> Position {
        self.topic(Topic::Broadcasts, limits).log.head()
    }

    pub(super) fn stored_session(&self, id: &str) -> Option<Session> {
        self.stored(&keys::session(id))
    }

    /// A session of which there is anything. A node that died is buried when one looks at a session of its.
    pub(super) fn session(&mut self, id: &str) -> Option<Session> {
        let mut session = self.stored_session(id)?;
        if let Some(node) = session.holder.clone().filter(|node| !self.alive(node)) {
            self.bury_dead(&node);
            session = self.stored_session(id)?;
        }
        session.is_there(self.host.now_ms()).then_some(session)
    }

    fn known_session(&mut self, id: &str) -> Option<Session> {
        let now_ms = self.host.now_ms();
        self.session(id).filter(|session| session.known(now_ms))
    }

    /// A session, made if there is none; one that has expired is as good as gone.
    pub(super) fn session_or_new(&mut self, limits: &Limits, id: &str) -> Session {
        if let Some(mut session) = self.session(id) {
            session.log.keep = limits.own;
            if session.registered.as_ref().is_some_and(|old| old.is_gone(self.host.now_ms())) {
                session.registered = None;
            }
            return session;
        }
        self.drop_session(id);
        let log = Log::new(limits.own);
        let broadcast = self.broadcast_head(limits);
        Session {
            resume: Positions { session: log.head(), broadcast },
            log,
            owner_epoch: 0,
            holder: None,
            lost: false,
            remembered_until_ms: 0,
            info: None,
            registered: None,
            scheduled_ms: u64::MAX,
        }
    }

    /// Stores a session, and sees to it that it comes up when it is due.
    pub(super) fn keep(&mut self, id: &str, session: &mut Session) {
        session.scheduled_ms = self.schedule(id, session.scheduled_ms, session.due_ms());
        self.store(&keys::session(id), session);
    }

    /// Removes everything of a session.
    pub(super) fn drop_session(&mut self, id: &str) {
        let Some(mut session) = self.stored_session(id) else { return };
        self.drop_info(id, &mut session);
        session.log.clear(&self.host, id);
        if let Some((scope, _)) = id.split_once(' ') {
            self.host.delete(&keys::note(scope, id));
        }
        if session.scheduled_ms != u64::MAX {
            self.host.delete(&keys::due(session.scheduled_ms, id));
        }
        if let Some(node) = &session.holder {
            self.note_unheld(node, id);
        }
        self.host.delete(&keys::session(id));
    }

    /// Takes the holder away, and tells it why; the session is remembered from now on, or from when
    /// its node died.
    pub(super) fn unhold(&mut self, id: &str, session: &mut Session, reason: Option<EndReason>) {
        session.lost = false;
        session.resume = self.fresh_start(id, session);
        let Some(node) = session.holder.take() else { return };
        let now_ms = self.host.now_ms();
        let since_ms = self.lease_end_ms(&node).map_or(now_ms, |end_ms| now_ms.min(end_ms));
        session.remembered_until_ms = since_ms.saturating_add(session.log.keep.age_ms);
        self.note_unheld(&node, id);
        if let Some(reason) = reason {
            let owner_epoch = session.owner_epoch;
            self.say(&node, Told::Ended { session: id.to_owned(), owner_epoch, reason });
        }
    }

    /// Where a stream starts that brings no position of its own.
    fn fresh_start(&mut self, id: &str, session: &Session) -> Positions {
        let Some(node) = &session.holder else { return session.resume };
        let broadcasts = self.topic(Topic::Broadcasts, &Limits::default()).log;
        if self.alive(node) {
            return Positions { session: session.log.head(), broadcast: broadcasts.head() };
        }
        // What its node was sent after it was last heard may never have reached its reader.
        let since_ms = self.heard_ms(node).unwrap_or(0);
        let own = session.log.since(&self.host, id, since_ms);
        let shared = broadcasts.since(&self.host, topics::name(Topic::Broadcasts), since_ms);
        let floor = session.resume;
        Positions {
            session: own.at(own.offset.max(floor.session.offset)),
            broadcast: shared.at(shared.offset.max(floor.broadcast.offset)),
        }
    }

    fn tail(&mut self, id: &str, log: &Log, after: Positions) -> WireTail {
        let own = log.after(&self.host, id, after.session);
        let broadcasts = self.topic(Topic::Broadcasts, &Limits::default()).log;
        let shared = broadcasts.after(&self.host, topics::name(Topic::Broadcasts), after.broadcast);
        WireTail {
            start: Positions { session: own.start, broadcast: shared.start },
            gap: own.gap || shared.gap,
            own: own.entries.into_iter().map(|e| (e.offset, e.after_broadcast, e.payload)).collect(),
            broadcasts: shared.entries.into_iter().map(|e| (e.offset, e.payload)).collect(),
        }
    }

    pub(super) fn accept(&mut self, limits: &Limits, batch: Vec<Item>) -> Answer {
        let mut taken = Vec::with_capacity(batch.len());
        for item in &batch {
            let mut sum = Taken::default();
            let mut add = |one: Taken| sum.add(one);
            match &item.to {
                To::Session(id) => add(self.accept_for_session(limits, id, item)),
                To::Sessions(ids) => ids.iter().for_each(|id| add(self.accept_for_session(limits, id, item))),
                To::Topic(topic) => match topic_of(*topic) {
                    Some(topic) => add(self.accept_for_topic(limits, topic, item)),
                    None => return Err((ErrorKind::InvalidInput, "there is no such topic".into())),
                },
            }
            taken.push(sum);
        }
        Ok(Reply::Accepted(taken))
    }

    /// What a Worker sends to sessions.
    pub(super) fn accept_for_sessions(
        &mut self,
        limits: &Limits,
        ids: Vec<String>,
        payload: Payload,
        key: Option<String>,
    ) -> Taken {
        let item = Item { to: To::Sessions(ids), payload, key };
        let To::Sessions(ids) = &item.to else { return Taken::default() };
        let mut sum = Taken::default();
        for id in ids {
            sum.add(self.accept_for_session(limits, id, &item));
        }
        sum
    }

    fn accept_for_session(&mut self, limits: &Limits, id: &str, item: &Item) -> Taken {
        let Some(mut session) = self.known_session(id) else {
            return Taken { dropped: 1, ..Taken::default() };
        };
        session.log.keep = limits.own;
        if item.key.as_ref().is_some_and(|key| session.log.knows(&self.host, id, key)) {
            return Taken { duplicates: 1, ..Taken::default() };
        }
        let is_live = limits.own.events == 0 && item.key.is_none();
        if is_live && self.give_live(session.holder.as_deref(), &item.payload) {
            return Taken { accepted: 1, ..Taken::default() };
        }
        let after = self.broadcast_head(limits);
        if session.holder.is_none() && limits.own.events == 0 {
            // Nobody gets it, so its key stays free (G5); the next cursor finds it missing (G3).
            session.log.append(&self.host, id, &item.payload, after);
            self.keep(id, &mut session);
            return Taken { dropped: 1, ..Taken::default() };
        }
        if let Some(key) = &item.key {
            session.log.note(&self.host, id, key);
        }
        let position = session.log.append(&self.host, id, &item.payload, after);
        if let Some(node) = &session.holder {
            let payload = item.payload.clone();
            self.say(node, Told::Event { session: id.to_owned(), position, payload });
        }
        self.keep(id, &mut session);
        Taken { accepted: 1, ..Taken::default() }
    }

    pub(super) fn claim(
        &mut self,
        node: &str,
        limits: &Limits,
        id: &str,
        after: Option<Positions>,
        replace: bool,
    ) -> Answer {
        if !self.alive(node) {
            return Ok(Reply::Lost);
        }
        let mut session = self.session_or_new(limits, id);
        session.check_open(id)?;
        if !replace && session.holder.is_some() {
            let message = format!("session {id} has a stream already; close it, or open with replace");
            return Err((ErrorKind::Conflict, message));
        }
        session.log.trim(&self.host, id);
        self.trim_topic(Topic::Broadcasts, limits);
        let after = match after {
            Some(positions) => positions,
            None => self.fresh_start(id, &session),
        };
        self.unhold(id, &mut session, Some(EndReason::Replaced));
        session.owner_epoch = self.next_owner_epoch();
        session.holder = Some(node.to_owned());
        self.note_held(node, id);
        let tail = self.tail(id, &session.log, after);
        session.resume = tail.start;
        let owner_epoch = session.owner_epoch;
        self.keep(id, &mut session);
        Ok(Reply::Claimed { owner_epoch, tail })
    }

    pub(super) fn reclaim(
        &mut self,
        node: &str,
        limits: &Limits,
        held: Vec<(String, u64, Positions)>,
    ) -> Reply {
        if !self.alive(node) {
            return Reply::Lost;
        }
        self.trim_topic(Topic::Broadcasts, limits);
        let each = |(id, owner_epoch, after): (String, u64, Positions)| {
            self.reclaim_one(node, limits, &id, owner_epoch, after)
        };
        Reply::Reclaimed(held.into_iter().map(each).collect())
    }

    fn reclaim_one(
        &mut self,
        node: &str,
        limits: &Limits,
        id: &str,
        owner_epoch: u64,
        after: Positions,
    ) -> Option<WireTail> {
        let wiped = after.broadcast.epoch != self.broadcast_head(limits).epoch;
        let mut session = match self.known_session(id) {
            // Not even the broadcasts are those it followed: this object has lost everything, and
            // whoever has not claimed the session since did not take it from anybody.
            None if wiped => self.session_or_new(limits, id),
            Some(session) if wiped && session.owner_epoch == 0 && session.holder.is_none() => session,
            found => found.filter(|session| {
                let is_its = session.holder.as_deref().map_or(session.lost, |holder| holder == node);
                is_its && session.owner_epoch == owner_epoch
            })?,
        };
        if wiped {
            self.reserve_owner_epochs(owner_epoch, 0);
        }
        let head = session.log.head();
        if head.epoch == after.session.epoch && head.offset < after.session.offset {
            // What the node was given is not in the log any more: its offsets must not be given again.
            session.log.clear(&self.host, id);
            session.log = Log::new(limits.own);
        }
        session.log.trim(&self.host, id);
        session.owner_epoch = owner_epoch;
        session.holder = Some(node.to_owned());
        session.lost = false;
        self.note_held(node, id);
        let tail = self.tail(id, &session.log, after);
        session.resume = tail.start;
        self.keep(id, &mut session);
        Some(tail)
    }

    fn next_owner_epoch(&mut self) -> u64 {
        if self.owner_epochs.is_empty() {
            self.reserve_owner_epochs(0, OWNER_EPOCHS);
        }
        self.owner_epochs.next().unwrap_or(u64::MAX)
    }

    /// Sets so many apart that nobody had yet, and that are more than `last`.
    fn reserve_owner_epochs(&mut self, last: u64, count: u64) {
        let last = self.stored::<u64>(keys::OWNER_EPOCHS).unwrap_or(0).max(last);
        self.owner_epochs = last + 1..last + 1 + count;
        self.store(keys::OWNER_EPOCHS, &(last + count));
    }

    pub(super) fn release(&mut self, limits: &Limits, releases: Vec<(String, u64, Positions)>) {
        for (id, owner_epoch, delivered) in releases {
            let found = self.stored_session(&id).filter(|session| session.owner_epoch == owner_epoch);
            let Some(mut session) = found else { continue };
            session.resume = delivered;
            session.lost = false;
            if let Some(node) = session.holder.take() {
                self.note_unheld(&node, &id);
                session.remembered_until_ms = self.host.now_ms() + limits.own.age_ms;
            }
            self.keep(&id, &mut session);
        }
    }

    pub(super) fn read(&mut self, id: &str, after: Positions) -> Reply {
        Reply::Tail(match self.session(id) {
            Some(session) => self.tail(id, &session.log, after),
            None => WireTail { start: after, gap: true, ..WireTail::default() },
        })
    }

    pub(super) fn holder(&mut self, id: &str) -> Reply {
        Reply::Holder(self.session(id).and_then(|session| session.holder))
    }

    pub(super) fn held(&mut self, node: &str, id: &str) -> Reply {
        let own = self.session(id).filter(|session| session.holder.as_deref() == Some(node));
        Reply::Held(own.map(|session| (session.owner_epoch, session.resume)))
    }

    pub(super) fn known(&mut self, id: &str) -> bool {
        self.known_session(id).is_some()
    }

    pub(super) fn end(&mut self, limits: &Limits, id: &str, reason: EndReason) -> Reply {
        let Some(mut session) = self.session(id) else { return Reply::Yes(false) };
        let live = session.holder.is_some();
        session.log.keep = limits.own;
        self.unhold(id, &mut session, Some(reason));
        self.keep(id, &mut session);
        Reply::Yes(live)
    }

    pub(super) fn forget(&mut self, limits: &Limits, id: &str) -> Reply {
        let Some(mut session) = self.session(id) else { return Reply::Yes(false) };
        let had_stream = session.holder.is_some() || session.remembered_until_ms > self.host.now_ms();
        let had_log = session.log.due_ms().is_some();
        self.unhold(id, &mut session, Some(EndReason::Terminated));
        match (session.info.take(), session.registered.take()) {
            (None, None) => {
                self.keep(id, &mut session);
                self.drop_session(id);
            }
            (info, registered) => {
                session.log.clear(&self.host, id);
                session.log = Log::new(limits.own);
                session.resume =
                    Positions { session: session.log.head(), broadcast: self.broadcast_head(limits) };
                session.remembered_until_ms = 0;
                session.info = info;
                session.registered = registered;
                self.keep(id, &mut session);
            }
        }
        Reply::Yes(had_stream || had_log)
    }

    /// Trims what is too old of one session, and removes it once nothing is left to know it by.
    pub(super) fn expire_session(&mut self, id: &str) {
        let Some(mut session) = self.stored_session(id) else { return };
        session.scheduled_ms = u64::MAX;
        let now_ms = self.host.now_ms();
        session.log.trim(&self.host, id);
        if session.info.as_ref().is_some_and(|record| record.expires_ms <= now_ms) {
            self.drop_info(id, &mut session);
            self.say_to_others(None, &Told::InfoChanged(id.to_owned()));
        }
        if session.remembered_until_ms <= now_ms {
            session.remembered_until_ms = 0;
        }
        if session.registered.as_ref().is_some_and(|old| old.is_gone(now_ms)) {
            session.registered = None;
        }
        if session.is_there(now_ms) {
            return self.keep(id, &mut session);
        }
        self.store(&keys::session(id), &session);
        self.drop_session(id);
    }
}
