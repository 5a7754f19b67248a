//! A port: what one JavaScript thread holds of one engine.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use mcp_sessions::{
    BoxFuture, Cursor, Event, EventStream, EventTail, MailItem, Mailbox, Outgoing, Payload, Receipt,
    RequestGuard, Subscription,
};
use napi::bindgen_prelude::Buffer;

use crate::batch::{Batch, Group};
use crate::failure::Failure;
use crate::sessions::Kept;
use crate::shared::Node;
use crate::signals::{Signals, Woken};
use crate::wire::open;

/// The buffers of JavaScript's that are attached to a port.
pub(crate) struct Boxes {
    pub(crate) inbox: Buffer,
    pub(crate) ops: Buffer,
    pub(crate) out: Buffer,
    pub(crate) records: Buffer,
}

/// Tables by token or call: small numbers that nobody else chooses need no hash that resists attacks.
pub(crate) type ByNumber<T> = HashMap<u32, T, BuildHasherDefault<NumberHasher>>;

/// Spreads a number over the bits that a table looks at (Fibonacci hashing).
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}

/// A stream this port holds.
pub(crate) struct Held {
    pub(crate) stream: EventStream,
    /// Put an `id:` line in front of SSE frames.
    pub(crate) frame_ids: bool,
    /// Taken from the stream, but there was no room to hand it over; seldom, so it is kept elsewhere.
    pub(crate) stash: Option<Box<Event>>,
}

/// A subscription this port serves.
pub(crate) struct Served {
    pub(crate) subscription: Subscription,
    pub(crate) stash: Option<Payload>,
}

/// What a call ends with.
pub(crate) enum Reply {
    /// The answer as JSON.
    Json(String),
    /// A stream whose events come by themselves.
    Mailed {
        token: u32,
        flags: u32,
        stream: EventStream,
    },
    /// A stream that is read by asking.
    Pulled {
        token: u32,
        stream: EventStream,
    },
    Connected(Arc<Node>),
    /// A request of a session runs.
    Begun {
        token: u32,
        request: RequestGuard,
    },
    /// A tail of an event log is open.
    Tailed {
        token: u32,
        tail: Arc<EventTail>,
    },
    /// Sends that left together were answered, and this is to be told.
    Sent(Vec<Note>),
}

/// A call under way, which ends with a reply.
pub(crate) type Work = BoxFuture<'static, Result<Reply, Failure>>;

/// Something to tell JavaScript at the next exchange.
pub(crate) enum Note {
    Opened { token: u32, gap: bool, start: Option<Cursor> },
    OpenFailed { token: u32, failure: Failure },
    Receipt { call: u32, receipt: Receipt },
    Done { call: u32, json: String },
    Failed { call: u32, failure: Failure },
    Readable { token: u32 },
    Lost { failure: Failure },
}

/// A stream on its way to being open: its events may arrive before it does.
#[derive(Default)]
pub(crate) struct Early {
    pub(crate) items: Vec<MailItem>,
    /// Its reader went away meanwhile.
    pub(crate) released: bool,
}

/// Calls with this bit are not JavaScript's: nobody waits for them.
const UNAWAITED: u32 = 0x8000_0000;

/// What one JavaScript thread holds of one engine.
pub(crate) struct Port {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) streams: ByNumber<Held>,
    pub(crate) subscriptions: ByNumber<Served>,
    /// Of the registry and the event logs.
    pub(crate) kept: Kept,
    pub(crate) backlog: VecDeque<(u32, MailItem)>,
    pub(crate) notes: VecDeque<Note>,
    /// Taken out while they are used, so that the rest of the port can be used, too.
    pub(crate) boxes: Option<Boxes>,
    /// Streams that are on their way to being open, by token.
    pub(crate) early: ByNumber<Early>,
    calls: ByNumber<Work>,
    /// Streams that are on their way to being open, by call, so that a failure can name them.
    opening: ByNumber<u32>,
    /// What is sent with the next crossing of the core's border.
    batch: Batch,
    group: Option<Group>,
    unawaited: u32,
}

impl Port {
    pub(crate) fn new(signals: Arc<Signals>, boxes: Boxes) -> Self {
        let bell = signals.clone();
        Port {
            node: None,
            mailbox: Mailbox::new(move || bell.ring()),
            signals,
            streams: ByNumber::default(),
            subscriptions: ByNumber::default(),
            kept: Kept::default(),
            backlog: VecDeque::new(),
            notes: VecDeque::new(),
            boxes: Some(boxes),
            early: ByNumber::default(),
            calls: ByNumber::default(),
            opening: ByNumber::default(),
            batch: Batch::default(),
            group: None,
            unawaited: UNAWAITED,
        }
    }

    pub(crate) fn node(&self, operation: &'static str) -> Result<&Arc<Node>, Failure> {
        self.node.as_ref().ok_or_else(|| Failure::closed(operation))
    }

    /// Starts a call of JavaScript's; the answer, if it is there at once.
    pub(crate) fn start(&mut self, call: u32, work: Work) -> Option<Result<String, Failure>> {
        match self.poll(call, work)? {
            Ok(reply) => Some(Ok(self.settle(reply))),
            Err(failure) => Some(Err(failure)),
        }
    }

    /// Starts something nobody waits for: only its failure is told.
    pub(crate) fn start_unawaited(&mut self, opening: Option<u32>, work: Work) {
        self.unawaited = UNAWAITED | self.unawaited.wrapping_add(1);
        let call = self.unawaited;
        if let Some(token) = opening {
            self.opening.insert(call, token);
            self.early.insert(token, Early::default());
        }
        if let Some(result) = self.poll(call, work) {
            self.finish(call, result);
        }
    }

    /// From here on, until [`end_group`](Self::end_group), sends are waited for by this call.
    pub(crate) fn start_group(&mut self, call: u32) {
        self.end_group();
        self.group = Some(Group::new(call));
    }

    /// Puts an event into the batch; its receipt is told to `call`.
    pub(crate) fn start_send(&mut self, call: Option<u32>, event: Outgoing) {
        if let Err(event) = self.batch.add_event(call, event) {
            self.end_batch();
            let _ = self.batch.add_event(call, event);
        }
    }

    /// Puts a notification into the batch.
    pub(crate) fn start_notify(&mut self, call: u32, notification: &str) {
        if !self.batch.add_notification(call, notification) {
            self.end_batch();
            self.batch.add_notification(call, notification);
        }
    }

    /// What was put into the batch leaves, before anything that follows.
    pub(crate) fn end_batch(&mut self) {
        let Some(node) = self.node.clone() else { return };
        let Some(work) = std::mem::take(&mut self.batch).work(node) else { return };
        match &mut self.group {
            Some(group) => {
                let waker = self.signals.waker(Woken::Call(group.call()));
                group.start(work, &mut Context::from_waker(&waker));
            }
            None => self.start_unawaited(None, work),
        }
    }

    pub(crate) fn end_group(&mut self) {
        self.end_batch();
        let Some(group) = self.group.take() else { return };
        let call = group.call();
        match group.done() {
            Ok(notes) => self.finish(call, Ok(Reply::Sent(notes))),
            // They have all been polled: whatever woke them since is looked at when this port goes on.
            Err(mut group) => {
                let all = poll_fn(move |context| group.poll(context).map(|notes| Ok(Reply::Sent(notes))));
                self.calls.insert(call, Box::pin(all));
            }
        }
    }

    /// Starts what JavaScript may wait for: call 0 is nobody's.
    pub(crate) fn start_maybe_awaited(&mut self, call: u32, work: Result<Work, Failure>) {
        match work {
            Ok(work) if call == 0 => self.start_unawaited(None, work),
            Ok(work) => self.start_noted(call, work),
            Err(failure) if call == 0 => self.notes.push_back(Note::Lost { failure }),
            Err(failure) => self.notes.push_back(Note::Failed { call, failure }),
        }
    }

    /// The reader of a stream or subscription went away; what it held is given back by whoever gets it.
    pub(crate) fn release(&mut self, token: u32) -> Option<EventStream> {
        self.subscriptions.remove(&token);
        if let Some(early) = self.early.get_mut(&token) {
            early.released = true;
            early.items.clear();
        }
        self.streams.remove(&token).map(|held| held.stream)
    }

    /// Starts a send whose receipt is wanted.
    pub(crate) fn start_noted(&mut self, call: u32, work: Work) {
        if let Some(result) = self.poll(call, work) {
            self.finish(call, result);
        }
    }

    /// Goes on with what was woken.
    pub(crate) fn go_on(&mut self) {
        for woken in self.signals.take_woken() {
            match woken {
                Woken::Stream(token) => self.notes.push_back(Note::Readable { token }),
                Woken::Call(call) => {
                    let Some(work) = self.calls.remove(&call) else { continue };
                    if let Some(result) = self.poll(call, work) {
                        self.finish(call, result);
                    }
                }
            }
        }
    }

    /// This thread is the executor: a pending call rings the port's bell when it can go on.
    fn poll(&mut self, call: u32, mut work: Work) -> Option<Result<Reply, Failure>> {
        let waker = self.signals.waker(Woken::Call(call));
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => {
                self.calls.insert(call, work);
                None
            }
        }
    }

    fn finish(&mut self, call: u32, result: Result<Reply, Failure>) {
        let opening = self.opening.remove(&call);
        let early = opening.and_then(|token| self.early.remove(&token)).unwrap_or_default();
        if early.released {
            // Dropping the stream gives it back.
            return;
        }
        let awaited = call & UNAWAITED == 0;
        match (result, opening) {
            (Ok(Reply::Sent(notes)), _) => self.notes.extend(notes),
            (Ok(reply), _) => {
                let json = self.settle(reply);
                if awaited {
                    self.notes.push_back(Note::Done { call, json });
                }
                // They were put aside before anything that waits now arrived.
                if let Some(token) = opening {
                    early.items.into_iter().rev().for_each(|item| self.backlog.push_front((token, item)));
                }
            }
            (Err(failure), Some(token)) => self.notes.push_back(Note::OpenFailed { token, failure }),
            (Err(failure), None) if awaited => self.notes.push_back(Note::Failed { call, failure }),
            (Err(failure), None) => self.notes.push_back(Note::Lost { failure }),
        }
    }

    /// Keeps a stream whose events come by themselves.
    pub(crate) fn opened(&mut self, token: u32, flags: u32, stream: EventStream) {
        let (gap, tell_start) = (stream.gap(), flags & open::TELL_START != 0);
        // On an immediate backend no news is good news: ten thousand opens cost no record.
        let immediate = self.node.as_ref().is_some_and(|node| node.capability().immediate);
        if gap || tell_start || !immediate {
            let start = tell_start.then(|| stream.cursor());
            self.notes.push_back(Note::Opened { token, gap, start });
        }
        let frame_ids = flags & open::FRAME_IDS != 0;
        self.streams.insert(token, Held { stream, frame_ids, stash: None });
    }

    /// Keeps what a reply brings; returns what JavaScript is told.
    fn settle(&mut self, reply: Reply) -> String {
        match reply {
            Reply::Json(json) => json,
            Reply::Begun { token, request } => {
                self.kept.requests.insert(token, request);
                "null".to_owned()
            }
            Reply::Tailed { token, tail } => {
                let opened = format!("{{\"gap\":{}}}", tail.gap());
                self.kept.tails.insert(token, tail);
                opened
            }
            Reply::Mailed { token, flags, stream } => {
                self.opened(token, flags, stream);
                String::new()
            }
            Reply::Pulled { token, stream } => {
                let json = format!(r#"{{"gap":{},"cursor":"{}"}}"#, stream.gap(), stream.cursor().as_str());
                self.streams.insert(token, Held { stream, frame_ids: false, stash: None });
                json
            }
            Reply::Connected(node) => {
                node.join(&self.signals);
                self.node = Some(node);
                String::from("null")
            }
            Reply::Sent(_) => String::new(),
        }
    }

    /// A stream's or a subscription's next item, or a wake-up when there is one.
    pub(crate) fn next_of(&mut self, token: u32) -> Next {
        let waker = self.signals.waker(Woken::Stream(token));
        let context = &mut Context::from_waker(&waker);
        if let Some(held) = self.streams.get_mut(&token) {
            if let Some(event) = held.stash.take().map(|event| *event).or_else(|| held.stream.try_next()) {
                return Next::Event(event);
            }
            return match held.stream.poll_next_unpin(context) {
                Poll::Ready(Some(event)) => Next::Event(event),
                Poll::Ready(None) => Next::End(held.stream.end().map_or("closed", |end| end.as_str())),
                Poll::Pending => Next::Later,
            };
        }
        if let Some(served) = self.subscriptions.get_mut(&token) {
            if let Some(payload) = served.stash.take() {
                return Next::Notification(payload);
            }
            return match served.subscription.poll_next_unpin(context) {
                Poll::Ready(Some(payload)) => Next::Notification(payload),
                Poll::Ready(None) => {
                    Next::End(served.subscription.end().map_or("cancelled", |end| end.as_str()))
                }
                Poll::Pending => Next::Later,
            };
        }
        Next::End("closed")
    }

    /// A stream's next item if there is one already; never has the port woken.
    pub(crate) fn more_of(&mut self, token: u32) -> Next {
        let event = self.streams.get(&token).and_then(|held| held.stream.try_next());
        event.map_or(Next::Later, Next::Event)
    }

    /// There was no room for it: it is the next one again.
    pub(crate) fn put_back_event(&mut self, token: u32, event: Event) {
        if let Some(held) = self.streams.get_mut(&token) {
            held.stash = Some(Box::new(event));
        }
    }

    /// There was no room for it: it is the next one again.
    pub(crate) fn put_back_notification(&mut self, token: u32, payload: Payload) {
        if let Some(served) = self.subscriptions.get_mut(&token) {
            served.stash = Some(payload);
        }
    }

    /// Why a stream or a subscription ended; if it has not, the port is woken when it does.
    pub(crate) fn end_of(&mut self, token: u32) -> Option<&'static str> {
        let waker = self.signals.waker(Woken::Stream(token));
        let context = &mut Context::from_waker(&waker);
        if let Some(held) = self.streams.get_mut(&token) {
            return match held.stream.poll_ended(context) {
                Poll::Ready(end) => Some(end.as_str()),
                Poll::Pending => None,
            };
        }
        let served = self.subscriptions.get_mut(&token)?;
        match served.subscription.poll_ended(context) {
            Poll::Ready(end) => Some(end.as_str()),
            Poll::Pending => None,
        }
    }
}

/// What a stream that is read by asking answers.
pub(crate) enum Next {
    Event(Event),
    Notification(Payload),
    End(&'static str),
    /// The port is woken when there is something.
    Later,
}
