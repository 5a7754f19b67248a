//! A port: what one JavaScript thread holds of one engine.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mcp_sessions::{
    BoxFuture, Cursor, Event, EventStream, MailItem, Mailbox, Payload, Receipt, Subscription,
};
use napi::bindgen_prelude::Buffer;

use crate::failure::Failure;
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
    /// Taken from the stream, but there was no room to hand it over.
    pub(crate) stash: Option<Event>,
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
    Receipt(Receipt),
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

/// Calls with this bit are not JavaScript's: nobody waits for them.
const UNAWAITED: u32 = 0x8000_0000;

/// What one JavaScript thread holds of one engine.
pub(crate) struct Port {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) streams: ByNumber<Held>,
    pub(crate) subscriptions: ByNumber<Served>,
    pub(crate) backlog: VecDeque<(u32, MailItem)>,
    pub(crate) notes: VecDeque<Note>,
    /// Taken out while they are used, so that the rest of the port can be used, too.
    pub(crate) boxes: Option<Boxes>,
    calls: ByNumber<Work>,
    /// Streams that are on their way to being open, by call, so that a failure can name them.
    opening: ByNumber<u32>,
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
            backlog: VecDeque::new(),
            notes: VecDeque::new(),
            boxes: Some(boxes),
            calls: ByNumber::default(),
            opening: ByNumber::default(),
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
        }
        if let Some(result) = self.poll(call, work) {
            self.finish(call, result);
        }
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
        let awaited = call & UNAWAITED == 0;
        match (result, opening) {
            (Ok(Reply::Receipt(receipt)), _) if awaited => {
                self.notes.push_back(Note::Receipt { call, receipt })
            }
            (Ok(reply), _) => {
                let json = self.settle(reply);
                if awaited {
                    self.notes.push_back(Note::Done { call, json });
                }
            }
            (Err(failure), Some(token)) => self.notes.push_back(Note::OpenFailed { token, failure }),
            (Err(failure), None) if awaited => self.notes.push_back(Note::Failed { call, failure }),
            (Err(failure), None) => self.notes.push_back(Note::Lost { failure }),
        }
    }

    /// Keeps what a reply brings; returns what JavaScript is told.
    fn settle(&mut self, reply: Reply) -> String {
        match reply {
            Reply::Json(json) => json,
            Reply::Receipt(receipt) => receipt_json(receipt),
            Reply::Mailed { token, flags, stream } => {
                let (gap, tell_start) = (stream.gap(), flags & open::TELL_START != 0);
                // On an immediate backend no news is good news: ten thousand opens cost no record.
                let immediate = self.node.as_ref().is_some_and(|node| node.capability().immediate);
                if gap || tell_start || !immediate {
                    let start = tell_start.then(|| stream.cursor());
                    self.notes.push_back(Note::Opened { token, gap, start });
                }
                let frame_ids = flags & open::FRAME_IDS != 0;
                self.streams.insert(token, Held { stream, frame_ids, stash: None });
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
        }
    }

    /// A stream's or a subscription's next item, or a wake-up when there is one.
    pub(crate) fn next_of(&mut self, token: u32) -> Next {
        let waker = self.signals.waker(Woken::Stream(token));
        let context = &mut Context::from_waker(&waker);
        if let Some(held) = self.streams.get_mut(&token) {
            if let Some(event) = held.stash.take().or_else(|| held.stream.try_next()) {
                return Next::Event(event);
            }
            return match pin!(held.stream.next()).poll(context) {
                Poll::Ready(Some(event)) => Next::Event(event),
                Poll::Ready(None) => Next::End(held.stream.end().map_or("closed", |end| end.as_str())),
                Poll::Pending => Next::Later,
            };
        }
        if let Some(served) = self.subscriptions.get_mut(&token) {
            if let Some(payload) = served.stash.take() {
                return Next::Notification(payload);
            }
            return match pin!(served.subscription.next()).poll(context) {
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
            held.stash = Some(event);
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
        if let Some(held) = self.streams.get(&token) {
            return match pin!(held.stream.ended()).poll(context) {
                Poll::Ready(end) => Some(end.as_str()),
                Poll::Pending => None,
            };
        }
        let served = self.subscriptions.get(&token)?;
        match pin!(served.subscription.ended()).poll(context) {
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

pub(crate) fn receipt_json(receipt: Receipt) -> String {
    format!(
        r#"{{"accepted":{},"dropped":{},"duplicates":{}}}"#,
        receipt.accepted, receipt.dropped, receipt.duplicates
    )
}
