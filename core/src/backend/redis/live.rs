//! Live only: with history off nothing is written for an event, and a session that is held needs no script.
//!
//! A sender remembers which node holds a session. What a batch has for one node goes to its channel as
//! one message; the node gives each event its position, hands it to the stream, and answers which
//! events it holds no stream for. `send` resolves with that answer, so that a receipt means:
//!
//! - *accepted*: the node that holds the stream has it. *dropped*: nobody held one.
//! - `unavailable`, nothing happened: a node holds it, but does not listen just now.
//! - `unavailable` or `timeout`, outcome unknown: it was published, and no answer came.
//!
//! A holder that is remembered may be the holder no more. It then answers so, and the sender looks the
//! session up and sends the event to the next one: only who has no stream for it says so, and so it is
//! neither lost nor doubled. Until that is done, later events of the session wait (G1). A node whose
//! lease is not good has no streams, whatever it believes (G6).
//!
//! Positions are counted by the holder; Redis learns the head when the session is given back. A claim
//! that can't know the head starts another epoch, so that no position is given twice, and a cursor of
//! the old one is a gap (G3). Idempotency keys are noted before the event is published, and are free
//! again when nobody took it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::{Cmd, Value};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};

use super::accept::{Call, Log, failure, named, server_error, settle};
use super::link::Handle;
use super::{RedisBackend, fault, scripts, wire};
use crate::backend::sum::Sum;
use crate::backend::{Acceptance, Signal, SignalSink, Submission};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Runtime;
use crate::session::{NodeId, SessionId};
use crate::streams::{Position, Positions};
use crate::sync::Mutex;

const OPERATION: &str = "streams.send";
/// Holders that are remembered; beyond, all are looked up again.
const MOST_HOLDERS: usize = 65_536;
/// How often an event follows a session that moves; the pauses between add up to half a second.
const TRIES: u32 = 9;
/// A lease is believed to end so much sooner than it does.
const MARGIN_MS: u64 = 100;
/// An answer that can't be given is tried so often.
const ANSWER_TRIES: u32 = 40;
const ANSWER_PAUSE: Duration = Duration::from_millis(50);

/// What a node knows of live-only sessions, as a sender and as a holder.
#[derive(Default)]
pub(super) struct LiveOnly {
    holders: Mutex<HashMap<SessionId, Holder>>,
    held: Mutex<HashMap<SessionId, Held>>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// Told when events that had to look for another holder have found it, or none.
    settled: Notify,
    /// Those look one after the other.
    again: AsyncMutex<()>,
    lease_until_ms: AtomicU64,
}

enum Holder {
    At(NodeId),
    /// So many events look for its next one.
    Moving(usize),
}

/// A session this node holds.
struct Held {
    owner_epoch: u64,
    /// The last position that was given.
    at: Position,
    /// Where its stream asked for what is missing.
    asked: Option<Position>,
}

/// A message that waits for its answer: its events' sessions.
struct Waiting {
    sessions: Vec<SessionId>,
    answer: oneshot::Sender<Vec<bool>>,
}

/// An event for one session: which submission it is.
#[derive(Clone, Copy)]
struct Item<'a> {
    n: usize,
    session: &'a SessionId,
}

/// Where an event goes.
enum Found {
    Node(NodeId),
    Letter(u8),
    Failed(Error),
}

/// What became of an event that was sent to a node.
enum Sent {
    Taken,
    NotTaken,
    Failed(Error),
}

impl LiveOnly {
    // --- as a holder

    /// The lease is good from this moment for `ttl_ms`.
    pub(super) fn leased(&self, from_ms: u64, ttl_ms: u64) {
        self.lease_until_ms.store(from_ms + ttl_ms.saturating_sub(MARGIN_MS), Ordering::Release);
    }

    pub(super) fn lease_lost(&self) {
        self.lease_until_ms.store(0, Ordering::Release);
    }

    /// A session is held from now on; positions follow on `start`.
    pub(super) fn hold(&self, session: &SessionId, owner_epoch: u64, start: Position) {
        let mut held = self.held.lock();
        match held.get_mut(session).filter(|held| held.at.epoch == start.epoch) {
            // Some were given while the answer was on its way.
            Some(held) => held.owner_epoch = owner_epoch,
            None => drop(held.insert(session.clone(), Held { owner_epoch, at: start, asked: None })),
        }
    }

    /// A session is held no more; returns the last position that was given.
    pub(super) fn let_go(&self, session: &SessionId, owner_epoch: u64) -> Option<Position> {
        let mut held = self.held.lock();
        if held.get(session)?.owner_epoch != owner_epoch {
            return None;
        }
        held.remove(session).map(|held| held.at)
    }

    pub(super) fn head(&self, session: &SessionId) -> Option<Position> {
        self.held.lock().get(session).map(|held| held.at)
    }

    /// The head as a stream that asks for what comes after `after` is to believe it: nothing is missing
    /// unless it asks twice from the same place, for what was given meanwhile is with the stream.
    pub(super) fn head_after(&self, session: &SessionId, after: Positions) -> Option<Position> {
        let mut held = self.held.lock();
        let held = held.get_mut(session).filter(|held| held.at.epoch == after.session.epoch)?;
        let again = held.asked.replace(after.session) == Some(after.session);
        Some(if again { held.at } else { after.session })
    }

    /// Hands the events of a message to the streams; returns the sender, and the answer to it.
    pub(super) fn take(
        &self,
        message: &[u8],
        now_ms: u64,
        sink: &dyn SignalSink,
    ) -> Option<(String, Vec<u8>)> {
        let message = wire::live(message)?;
        let leased = now_ms < self.lease_until_ms.load(Ordering::Acquire);
        let mut taken = Vec::with_capacity(message.events.len());
        for (session, payload) in message.events {
            let position = leased.then(|| self.held.lock().get_mut(&session).map(Held::next)).flatten();
            taken.push(position.is_some());
            if let Some(position) = position {
                sink.signal(Signal::Event { session, position, payload });
            }
        }
        Some((message.sender, wire::live_answer(message.number, &taken)))
    }

    // --- as a sender

    fn known(&self, session: &SessionId) -> Option<NodeId> {
        match self.holders.lock().get(session) {
            Some(Holder::At(node)) => Some(node.clone()),
            _ => None,
        }
    }

    fn learn(&self, session: &SessionId, node: Option<&NodeId>) {
        let mut holders = self.holders.lock();
        if matches!(holders.get(session), Some(Holder::Moving(_))) {
            return;
        }
        match node {
            Some(node) => {
                if holders.len() >= MOST_HOLDERS {
                    holders.retain(|_, holder| matches!(holder, Holder::Moving(_)));
                }
                holders.insert(session.clone(), Holder::At(node.clone()));
            }
            None => drop(holders.remove(session)),
        }
    }

    fn moves(&self, session: &SessionId) {
        let mut holders = self.holders.lock();
        match holders.get_mut(session) {
            Some(Holder::Moving(events)) => *events += 1,
            _ => drop(holders.insert(session.clone(), Holder::Moving(1))),
        }
    }

    fn moved(&self, session: &SessionId) {
        let mut holders = self.holders.lock();
        let left = match holders.get_mut(session) {
            Some(Holder::Moving(events)) => {
                *events -= 1;
                *events
            }
            _ => return,
        };
        if left == 0 {
            holders.remove(session);
            drop(holders);
            self.settled.notify_waiters();
        }
    }

    /// Waits until no earlier event of these sessions looks for a holder.
    async fn until_settled(&self, items: &[Item<'_>]) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            let moving = {
                let holders = self.holders.lock();
                !holders.is_empty()
                    && items.iter().any(|item| matches!(holders.get(item.session), Some(Holder::Moving(_))))
            };
            if !moving {
                return;
            }
            settled.await;
        }
    }

    /// An answer to a message.
    pub(super) fn answered(&self, answer: &[u8]) -> Option<()> {
        let (number, not_taken) = wire::read_live_answer(answer)?;
        // Nobody waits any more for some.
        let Some(waiting) = self.waiting.lock().remove(&number) else { return Some(()) };
        let mut taken = vec![true; waiting.sessions.len()];
        for at in not_taken {
            *taken.get_mut(at)? = false;
        }
        let lost = || waiting.sessions.iter().zip(&taken).filter(|(_, taken)| !**taken);
        // Before any later event of theirs can go out.
        lost().for_each(|(session, _)| self.moves(session));
        if let Err(taken) = waiting.answer.send(taken.clone()) {
            let unwanted = waiting.sessions.iter().zip(&taken).filter(|(_, taken)| !**taken);
            unwanted.for_each(|(session, _)| self.moved(session));
        }
        Some(())
    }

    /// Answers may have been missed: whoever still waits for one of these in a while is told that it
    /// is unknown. Most come again, as nobody heard them.
    pub(super) fn missed_answers(self: &Arc<Self>, runtime: &Runtime) {
        let (live, before) = (self.clone(), self.next.load(Ordering::Relaxed));
        let patience = runtime.sleep(ANSWER_PAUSE * 10);
        runtime.spawn(Box::pin(async move {
            patience.await;
            live.waiting.lock().retain(|number, _| *number >= before);
        }));
    }
}

impl Held {
    fn next(&mut self) -> Position {
        self.at.offset += 1;
        self.at
    }
}

/// Gives an answer on the connection for commands: at once if it can, so that answers keep their order.
pub(super) fn answer(commands: &Handle, runtime: &Runtime, channel: String, answer: Vec<u8>) {
    let mut cmd = redis::cmd("PUBLISH");
    cmd.arg(channel).arg(answer);
    let (commands, pauses) = (commands.clone(), runtime.clone());
    let mut give = Box::pin(async move {
        for _ in 0..ANSWER_TRIES {
            if let Some(mut live) = commands.live()
                && let Ok(Value::Int(1..)) = live.send(cmd.clone()).await
            {
                return;
            }
            // The sender does not listen just now.
            pauses.sleep(ANSWER_PAUSE).await;
        }
    });
    if give.as_mut().now_or_never().is_none() {
        runtime.spawn(give);
    }
}

/// Takes the messages back for which nobody waits any more.
struct Wait<'a> {
    live: &'a LiveOnly,
    numbers: Vec<u64>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.live.waiting.lock();
        self.numbers.iter().for_each(|number| drop(waiting.remove(number)));
    }
}

/// Sessions whose events look for a holder; they have found it, or given up, when this goes.
struct Moves<'a> {
    live: &'a LiveOnly,
    sessions: Vec<SessionId>,
}

impl Drop for Moves<'_> {
    fn drop(&mut self) {
        self.sessions.iter().for_each(|session| self.live.moved(session));
    }
}

/// A message to one node, on its way.
struct Message {
    items: Vec<usize>,
    answer: oneshot::Receiver<Vec<bool>>,
    number: u64,
}

impl RedisBackend {
    /// What [`accept_batch`](Self::accept_batch) does with history off.
    pub(super) async fn accept_live(
        &self,
        batch: &[Submission],
        calls: &[Call<'_>],
    ) -> Vec<Result<Acceptance>> {
        let mut sums = Sum::each(batch.len());
        let turn = tokio::task::unconstrained(self.turns.lock()).await;
        let of_call = |call: &Call<'_>| -> Vec<usize> {
            if matches!(call.to, Log::Session(_)) { call.submissions.clone() } else { Vec::new() }
        };
        let mut items = Vec::new();
        for call in calls {
            if let Log::Session(session) = call.to {
                items.extend(of_call(call).into_iter().map(|n| Item { n, session }));
            }
        }
        self.live_only.until_settled(&items).await;
        let found = self.find(batch, &items, true).await;
        let mut commands = Vec::new();
        let (mut messages, mut topics) = (Vec::new(), Vec::new());
        let (mut at, mut sent_text) = (0, false);
        let together =
            |a: &Call<'_>, b: &Call<'_>| matches!((a.to, b.to), (Log::Session(_), Log::Session(_)));
        for stage in calls.chunk_by(together) {
            if let [call @ Call { to: Log::Topic(topic), .. }] = stage {
                let mut cmd = named(&scripts::ACCEPT_TOPIC, &mut sent_text, false);
                self.topic_log(&mut cmd, *topic);
                self.payloads(&mut cmd, batch, call);
                commands.push(cmd);
                topics.push((commands.len() - 1, call));
                continue;
            }
            let many = stage.iter().map(|call| call.submissions.len()).sum::<usize>();
            self.publish_to(&mut commands, &mut messages, batch, &items, &found, at..at + many);
            at += many;
        }
        let wait = Wait {
            live: &self.live_only,
            numbers: messages.iter().map(|(_, m): &(usize, Message)| m.number).collect(),
        };
        let (count, mut answers) = (commands.len(), Ok(Vec::new()));
        if count > 0 {
            let mut submit = Box::pin(self.pipelined(OPERATION, commands));
            // In the order of the first poll; the rest may overlap with the next batch.
            let first =
                std::future::poll_fn(|cx| std::task::Poll::Ready(submit.as_mut().poll_unpin(cx))).await;
            drop(turn);
            answers = match first {
                std::task::Poll::Ready(answers) => answers,
                std::task::Poll::Pending => submit.await,
            };
        }
        for (item, found) in items.iter().zip(&found) {
            match found {
                Found::Letter(letter) => sums[item.n].add(wire::counted(*letter)),
                Found::Failed(error) => sums[item.n].fail(error.duplicate()),
                Found::Node(_) => {}
            }
        }
        let answers = each(answers, count);
        topics.into_iter().for_each(|(at, call)| settle(&mut sums, call, &answers[at]));
        let mut left = Vec::new();
        for (at, message) in messages {
            for (item, sent) in self.delivered(&answers[at], message, &items).await {
                match sent {
                    Sent::Taken => sums[items[item].n].add(wire::counted(b'a')),
                    Sent::NotTaken => left.push(items[item]),
                    Sent::Failed(error) => {
                        sums[items[item].n].fail(self.untaken(batch, &items[item], error).await);
                    }
                }
            }
        }
        drop(wait);
        if !left.is_empty() {
            self.follow_on(batch, left, &mut sums).await;
        }
        Sum::outcomes(sums)
    }

    /// Adds a message a node to the commands.
    fn publish_to(
        &self,
        commands: &mut Vec<Cmd>,
        messages: &mut Vec<(usize, Message)>,
        batch: &[Submission],
        items: &[Item<'_>],
        found: &[Found],
        range: std::ops::Range<usize>,
    ) {
        let mut nodes: Vec<(&NodeId, Vec<usize>)> = Vec::new();
        let mut index: HashMap<&NodeId, usize> = HashMap::new();
        for at in range {
            let Found::Node(node) = &found[at] else { continue };
            let of = *index.entry(node).or_insert_with(|| {
                nodes.push((node, Vec::new()));
                nodes.len() - 1
            });
            nodes[of].1.push(at);
        }
        for (node, of_node) in nodes {
            let number = self.live_only.next.fetch_add(1, Ordering::Relaxed);
            let (told, answer) = oneshot::channel();
            let sessions: Vec<_> = of_node.iter().map(|at| items[*at].session.clone()).collect();
            let events = of_node.iter().map(|at| (items[*at].session, &batch[items[*at].n].payload));
            let message = wire::live_events(self.me(), number, events);
            self.live_only.waiting.lock().insert(number, Waiting { sessions, answer: told });
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.channel(node.as_str())).arg(message);
            commands.push(publish);
            messages.push((commands.len() - 1, Message { items: of_node, answer, number }));
        }
    }

    /// What became of the events of one message. Those that were not taken count as moving.
    async fn delivered(
        &self,
        published: &Result<Value>,
        message: Message,
        items: &[Item<'_>],
    ) -> Vec<(usize, Sent)> {
        let failed = |error: &Error| -> Vec<(usize, Sent)> {
            message.items.iter().map(|at| (*at, Sent::Failed(error.duplicate()))).collect()
        };
        match published {
            Ok(Value::Int(0)) => {
                // Nobody listens there.
                message.items.iter().for_each(|at| self.live_only.moves(items[*at].session));
                message.items.iter().map(|at| (*at, Sent::NotTaken)).collect()
            }
            Ok(Value::Int(_)) => match message.answer.await {
                Ok(taken) => {
                    let sent = |taken| if taken { Sent::Taken } else { Sent::NotTaken };
                    message.items.iter().copied().zip(taken.into_iter().map(sent)).collect()
                }
                Err(_) => failed(&no_answer()),
            },
            other => failed(&failure(other)),
        }
    }

    /// Where events go: as remembered, or as Redis says. Keys are noted by the way.
    async fn find(&self, batch: &[Submission], items: &[Item<'_>], first: bool) -> Vec<Found> {
        let mut found: Vec<Option<Found>> = Vec::with_capacity(items.len());
        let mut asked = Vec::new();
        let mut commands = Vec::new();
        let (mut holder, mut note) = (false, false);
        // A session is asked for once, unless there is a key to note.
        let mut once: HashMap<&SessionId, usize> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            let key = batch[item.n].idempotency_key.as_deref().filter(|_| first);
            let known = if first && key.is_none() { self.live_only.known(item.session) } else { None };
            if let Some(node) = known {
                found.push(Some(Found::Node(node)));
                continue;
            }
            found.push(None);
            if key.is_none()
                && let Some(of) = once.get(item.session)
            {
                asked.push((at, *of));
                continue;
            }
            let mut cmd = match key {
                None => named(&scripts::FIND, &mut holder, false),
                Some(_) => named(&scripts::NOTE, &mut note, false),
            };
            let keys = self.keys(item.session);
            cmd.arg(keys.len()).arg(&keys[..]).arg(self.prefix()).arg(item.session.as_str());
            match key {
                Some(key) => drop(cmd.arg(key).arg(self.age())),
                None => drop(once.insert(item.session, commands.len())),
            }
            asked.push((at, commands.len()));
            commands.push(cmd);
        }
        if !asked.is_empty() {
            let answers = self.pipelined(OPERATION, commands).await;
            for (at, of) in asked {
                found[at] = Some(match &answers {
                    Ok(answers) => self.read_holder(items[at].session, &answers[of]),
                    Err(error) => Found::Failed(error.duplicate()),
                });
            }
        }
        found.into_iter().map(|found| found.unwrap_or_else(|| Found::Failed(no_answer()))).collect()
    }

    fn read_holder(&self, session: &SessionId, answer: &Value) -> Found {
        if let Some(error) = server_error(answer) {
            return Found::Failed(fault::refused(OPERATION, error));
        }
        let node = match wire::string(answer) {
            Some("d") => return Found::Letter(b'd'),
            text => text.and_then(NodeId::parse),
        };
        self.live_only.learn(session, node.as_ref());
        node.map_or(Found::Letter(b'x'), Found::Node)
    }

    /// Events that a node had no stream for go to the next holder, in their order.
    async fn follow_on(&self, batch: &[Submission], left: Vec<Item<'_>>, sums: &mut [Sum]) {
        let sessions = left.iter().map(|item| item.session.clone()).collect();
        let _moves = Moves { live: &self.live_only, sessions };
        let _one_at_a_time = self.live_only.again.lock().await;
        let mut left = left;
        for tries in 0..TRIES {
            let found = self.find(batch, &left, false).await;
            let mut commands = Vec::new();
            let mut messages = Vec::new();
            self.publish_to(&mut commands, &mut messages, batch, &left, &found, 0..left.len());
            let numbers = messages.iter().map(|(_, message)| message.number).collect();
            let _wait = Wait { live: &self.live_only, numbers };
            for (item, found) in left.iter().zip(&found) {
                match found {
                    Found::Node(_) => {}
                    Found::Letter(letter) => {
                        sums[item.n].add(wire::counted(*letter));
                        self.free(batch, item).await;
                    }
                    Found::Failed(error) => {
                        sums[item.n].fail(self.untaken(batch, item, error.duplicate()).await);
                    }
                }
            }
            let mut again = Vec::new();
            let mut moves = Moves { live: &self.live_only, sessions: Vec::new() };
            let count = commands.len();
            if count > 0 {
                let answers = each(self.pipelined(OPERATION, commands).await, count);
                for (at, message) in messages {
                    for (at, sent) in self.delivered(&answers[at], message, &left).await {
                        match sent {
                            Sent::Taken => sums[left[at].n].add(wire::counted(b'a')),
                            Sent::Failed(error) => {
                                sums[left[at].n].fail(self.untaken(batch, &left[at], error).await);
                            }
                            Sent::NotTaken => {
                                moves.sessions.push(left[at].session.clone());
                                again.push(left[at]);
                            }
                        }
                    }
                }
            }
            again.sort_by_key(|item: &Item<'_>| item.n);
            if again.is_empty() {
                return;
            }
            left = again;
            self.keeping.runtime.sleep(Duration::from_millis(1 << tries)).await;
        }
        for item in &left {
            let error = Error::new(
                ErrorKind::Unavailable,
                OPERATION,
                format!("the node that holds session {} can't be reached just now", item.session),
            );
            sums[item.n].fail(self.untaken(batch, item, error).await);
        }
    }

    /// Why nobody took an event: for sure only if its key can be used again, or a retry would come to
    /// nothing.
    async fn untaken(&self, batch: &[Submission], item: &Item<'_>, error: Error) -> Error {
        if error.outcome_unknown() || self.free(batch, item).await {
            return error;
        }
        error.with_unknown_outcome()
    }

    /// The key of an event that nobody took can be used again, if this is true.
    async fn free(&self, batch: &[Submission], item: &Item<'_>) -> bool {
        let Some(key) = batch[item.n].idempotency_key.as_deref() else { return true };
        let mut cmd = redis::cmd("ZREM");
        cmd.arg(self.key("keys", item.session)).arg(key);
        let freed = self.send(OPERATION, cmd).await;
        if let Err(error) = &freed {
            tracing::debug!(%error, "the key of an event that was not taken stays for its time");
        }
        freed.is_ok_and(|answer| answer.is_ok())
    }
}

/// An answer a command, also when none came.
fn each(answers: Result<Vec<Value>>, count: usize) -> Vec<Result<Value>> {
    match answers {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) => (0..count).map(|_| Err(error.duplicate())).collect(),
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Unavailable, OPERATION, "the node that holds the session did not answer")
        .with_unknown_outcome()
}
