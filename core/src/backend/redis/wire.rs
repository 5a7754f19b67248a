//! Positions, log entries and messages as bytes: what the scripts write and this node reads.

use redis::Value;

use crate::backend::{Acceptance, Lane, LogEntry, Signal, Tail, Topic, TopicEntry, TopicTail};
use crate::session::{NodeId, SessionId};
use crate::streams::{EndReason, Payload, Position, Positions};

/// The largest offset that is written; no log ever gets there.
const MAX_OFFSET: u64 = (1 << 48) - 1;

/// Takes bytes off the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn position(&mut self) -> Option<Position> {
        let epoch = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        Some(Position { epoch, offset: self.number(6)? })
    }

    fn session(&mut self) -> Option<SessionId> {
        let len = self.number(2)? as usize;
        SessionId::stored(text(self.take(len)?)?)
    }

    fn topic(&mut self) -> Option<Topic> {
        let name = self.take(1)?;
        Topic::ALL.into_iter().find(|topic| topic_name(*topic).as_bytes() == name)
    }

    fn payload(&mut self) -> Option<Payload> {
        let len = self.number(4)? as usize;
        Some(text(self.take(len)?)?.into())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub(super) fn epoch(epoch: u64) -> [u8; 8] {
    epoch.to_le_bytes()
}

pub(super) fn position(position: Position) -> Vec<u8> {
    let mut bytes = epoch(position.epoch).to_vec();
    // A forged cursor may name an offset far beyond any head; so does the largest one.
    bytes.extend_from_slice(&position.offset.min(MAX_OFFSET).to_be_bytes()[2..]);
    bytes
}

pub(super) fn positions(at: Positions) -> Vec<u8> {
    [position(at.session), position(at.broadcast)].concat()
}

pub(super) fn read_position(value: &Value) -> Option<Position> {
    Bytes(bytes(value)?).position()
}

pub(super) fn read_positions(value: &Value) -> Option<Positions> {
    let mut bytes = Bytes(bytes(value)?);
    Some(Positions { session: bytes.position()?, broadcast: bytes.position()? })
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn string(value: &Value) -> Option<&str> {
    text(bytes(value)?)
}

pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        _ => None,
    }
}

pub(super) fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) | Value::Set(values) => Some(values),
        _ => None,
    }
}

/// The session ids of a list; what is none is passed over.
pub(super) fn sessions(value: &Value) -> impl Iterator<Item = SessionId> {
    let ids = array(value).unwrap_or_default();
    ids.iter().filter_map(string).filter_map(SessionId::stored)
}

/// What became of a part of a submission, by the letter that a script has for it.
pub(super) fn counted(letter: u8) -> Acceptance {
    match letter {
        b'a' => Acceptance { accepted: 1, ..Acceptance::default() },
        b'd' => Acceptance { duplicates: 1, ..Acceptance::default() },
        _ => Acceptance { dropped: 1, ..Acceptance::default() },
    }
}

pub(super) const fn topic_name(topic: Topic) -> &'static str {
    match topic {
        Topic::Broadcasts => "b",
        Topic::Notifications => "n",
    }
}

/// What [`super::scripts::READ`] and the end of a claim answer: start, gap, own events, broadcasts, and
/// the epochs those had before.
pub(super) fn tail(values: &[Value]) -> Option<Tail> {
    let [start, gap, own, broadcasts, before] = values else { return None };
    let start = read_positions(start)?;
    let own = entries(own)?.zip(start.session.offset + 1..).map(|(entry, offset)| log_entry(entry, offset));
    let mut tail = Tail {
        start,
        gap: number(gap)? != 0,
        own: own.collect::<Option<_>>()?,
        broadcasts: topic_entries(broadcasts, start.broadcast)?,
    };
    note_epochs(&mut tail, &epochs(before)?);
    Some(tail)
}

/// And the epochs that the topic had before.
pub(super) fn topic_tail(value: &Value) -> Option<(TopicTail, Vec<Position>)> {
    let [start, gap, entries, before] = array(value)? else { return None };
    let start = read_position(start)?;
    let tail = TopicTail { start, gap: number(gap)? != 0, entries: topic_entries(entries, start)? };
    Some((tail, epochs(before)?))
}

/// Epochs that a log had before, each with the head it had.
fn epochs(value: &Value) -> Option<Vec<Position>> {
    let mut rest = Bytes(bytes(value)?);
    let mut epochs = Vec::new();
    while !rest.0.is_empty() {
        epochs.push(rest.position()?);
    }
    Some(epochs)
}

/// Events note the broadcast they came after: in an epoch that is over it is told in that of the tail, so
/// that both are merged (G1).
pub(super) fn note_epochs(tail: &mut Tail, before: &[Position]) {
    for entry in &mut tail.own {
        let at = &mut entry.after_broadcast;
        if before.iter().any(|head| head.epoch == at.epoch && at.offset <= head.offset) {
            at.epoch = tail.start.broadcast.epoch;
        }
    }
}

/// Two elements an event: what is noted of it, and its payload.
fn entries(value: &Value) -> Option<impl Iterator<Item = &[Value]>> {
    let values = array(value)?;
    (values.len() % 2 == 0).then(|| values.chunks_exact(2))
}

fn log_entry(entry: &[Value], offset: u64) -> Option<LogEntry> {
    let [note, payload] = entry else { return None };
    let mut note = Bytes(bytes(note)?);
    // When, and how many bytes before it.
    note.take(12)?;
    let broadcast = note.number(6)?;
    let epoch = u64::from_le_bytes(note.take(8)?.try_into().ok()?);
    let after_broadcast = Position { epoch, offset: broadcast };
    Some(LogEntry { offset, after_broadcast, payload: string(payload)?.into() })
}

fn topic_entries(value: &Value, start: Position) -> Option<Vec<TopicEntry>> {
    let entry =
        |(entry, offset): (&[Value], u64)| Some(TopicEntry { offset, payload: string(&entry[1])?.into() });
    entries(value)?.zip(start.offset + 1..).map(entry).collect()
}

/// A message with events of a session, from this position on.
pub(super) fn events<'a>(
    session: &SessionId,
    first: &[u8],
    payloads: impl Iterator<Item = &'a Payload>,
) -> Vec<u8> {
    let mut message = message_head(session);
    message.extend_from_slice(first);
    payloads.for_each(|payload| put_payload(&mut message, payload));
    message
}

/// A message that a session closes.
pub(super) fn closing(session: &SessionId, reason: &str) -> Vec<u8> {
    let mut message = message_head(session);
    message[0] = b'K';
    message.extend_from_slice(reason.as_bytes());
    message
}

/// A message with events of a topic.
pub(super) fn topic_events<'a>(
    topic: Topic,
    first: &[u8],
    payloads: impl Iterator<Item = &'a Payload>,
) -> Vec<u8> {
    let mut message = [b"T", topic_name(topic).as_bytes(), first].concat();
    payloads.for_each(|payload| put_payload(&mut message, payload));
    message
}

/// A message that says where a session's log ends.
pub(super) fn doorbell(session: &SessionId, head: &[u8]) -> Vec<u8> {
    let mut message = message_head(session);
    message[0] = b'D';
    message.extend_from_slice(head);
    message
}

/// A message that says where a topic's log ends.
pub(super) fn topic_doorbell(topic: Topic, head: &[u8]) -> Vec<u8> {
    [b"B", topic_name(topic).as_bytes(), head].concat()
}

/// Events for sessions that one node holds, without positions.
pub(super) struct LiveEvents {
    pub(super) sender: String,
    pub(super) number: u64,
    pub(super) events: Vec<(SessionId, Payload)>,
}

/// A message of this number with events for sessions that one node holds.
pub(super) fn live_events<'a>(
    sender: &str,
    number: u64,
    events: impl Iterator<Item = (&'a SessionId, &'a Payload)> + Clone,
) -> Vec<u8> {
    let bytes: usize =
        events.clone().map(|(session, payload)| 6 + session.as_str().len() + payload.len()).sum();
    let mut message = Vec::with_capacity(41 + bytes);
    message.push(b'L');
    message.extend_from_slice(sender.as_bytes());
    message.extend_from_slice(&number.to_be_bytes());
    for (session, payload) in events {
        let id = session.as_str().as_bytes();
        message.extend_from_slice(&(id.len() as u16).to_be_bytes());
        message.extend_from_slice(id);
        put_payload(&mut message, payload);
    }
    message
}

pub(super) fn live(message: &[u8]) -> Option<LiveEvents> {
    let mut message = Bytes(message.strip_prefix(b"L")?);
    let sender = NodeId::parse(text(message.take(32)?)?)?.to_string();
    let mut live = LiveEvents { sender, number: message.number(8)?, events: Vec::new() };
    while !message.0.is_empty() {
        live.events.push((message.session()?, message.payload()?));
    }
    Some(live)
}

/// The answer to a message: which of its events were not taken.
pub(super) fn live_answer(number: u64, taken: &[bool]) -> Vec<u8> {
    let mut answer = vec![b'A'];
    answer.extend_from_slice(&number.to_be_bytes());
    let not_taken = taken.iter().enumerate().filter(|(_, taken)| !**taken);
    not_taken.for_each(|(at, _)| answer.extend_from_slice(&(at as u32).to_be_bytes()));
    answer
}

pub(super) fn read_live_answer(answer: &[u8]) -> Option<(u64, Vec<usize>)> {
    let mut answer = Bytes(answer.strip_prefix(b"A")?);
    let number = answer.number(8)?;
    let mut not_taken = Vec::new();
    while !answer.0.is_empty() {
        not_taken.push(answer.number(4)? as usize);
    }
    Some((number, not_taken))
}

fn put_payload(message: &mut Vec<u8>, payload: &Payload) {
    message.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    message.extend_from_slice(payload.as_str().as_bytes());
}

/// How a message for a session begins.
pub(super) fn message_head(session: &SessionId) -> Vec<u8> {
    let id = session.as_str().as_bytes();
    let mut head = Vec::with_capacity(3 + id.len());
    head.push(b'E');
    head.extend_from_slice(&(id.len() as u16).to_be_bytes());
    head.extend_from_slice(id);
    head
}

pub(super) const fn reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Closed => "c",
        EndReason::Replaced => "r",
        EndReason::Overflow => "o",
        EndReason::Gap => "g",
        EndReason::Fenced => "f",
        EndReason::Terminated => "t",
        EndReason::Shutdown => "s",
    }
}

fn read_reason(byte: u8) -> Option<EndReason> {
    Some(match byte {
        b'c' => EndReason::Closed,
        b'r' => EndReason::Replaced,
        b'o' => EndReason::Overflow,
        b'g' => EndReason::Gap,
        b'f' => EndReason::Fenced,
        b't' => EndReason::Terminated,
        b's' => EndReason::Shutdown,
        _ => return None,
    })
}

/// Reads a message of a channel, and gives what it says to `tell`; `None` when it makes no sense.
pub(super) fn message(message: &[u8], me: &NodeId, tell: &mut dyn FnMut(Signal)) -> Option<()> {
    let mut message = Bytes(message);
    match message.take(1)? {
        b"E" => {
            let session = message.session()?;
            let mut position = message.position()?;
            while !message.0.is_empty() {
                let payload = message.payload()?;
                tell(Signal::Event { session: session.clone(), position, payload });
                position.offset += 1;
            }
        }
        b"M" => {
            // Those of many sessions, each as if it had come alone.
            while !message.0.is_empty() {
                let len = message.number(4)? as usize;
                self::message(message.take(len)?, me, tell)?;
            }
        }
        b"D" => tell(Signal::Doorbell { session: message.session()?, head: message.position()? }),
        b"B" => tell(Signal::TopicDoorbell {
            topic: message.topic()?,
            lane: Lane::default(),
            head: message.position()?,
        }),
        b"T" => {
            let topic = message.topic()?;
            let mut position = message.position()?;
            while !message.0.is_empty() {
                let payload = message.payload()?;
                tell(Signal::Topic { topic, lane: Lane::default(), position, payload });
                position.offset += 1;
            }
        }
        b"X" => {
            let session = message.session()?;
            let owner_epoch = message.number(8)?;
            let reason = read_reason(*message.take(1)?.first()?)?;
            tell(Signal::Ended { session, owner_epoch, reason });
        }
        b"Q" => tell(Signal::Doubtful { session: SessionId::new(text(message.0)?).ok()? }),
        b"K" => {
            let session = message.session()?;
            let reason = text(message.0)?;
            tell(Signal::SessionClosing { session, reason: reason.into() });
        }
        b"I" => {
            let sender = message.take(32)?;
            let session = SessionId::new(text(message.0)?).ok()?;
            if sender != me.as_str().as_bytes() {
                tell(Signal::InfoChanged { session });
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_are_read_as_written(a in any::<[u64; 2]>(), b in any::<[u64; 2]>()) {
            let at = |[epoch, offset]: [u64; 2]| Position { epoch, offset: offset % MAX_OFFSET };
            let both = Positions { session: at(a), broadcast: at(b) };
            prop_assert_eq!(read_positions(&Value::BulkString(positions(both))), Some(both));
        }

        #[test]
        fn live_messages_are_read_as_written(payloads in proptest::collection::vec(".{0,20}", 0..9)) {
            let (me, session) = (NodeId::random(), SessionId::new("s1").unwrap());
            let payloads: Vec<Payload> = payloads.iter().map(|text| text.as_str().into()).collect();
            let events = payloads.iter().map(|payload| (&session, payload));
            let read = live(&live_events(me.as_str(), 7, events)).unwrap();
            prop_assert_eq!((read.sender.as_str(), read.number), (me.as_str(), 7));
            let read: Vec<_> = read.events.into_iter().map(|(_, payload)| payload).collect();
            prop_assert_eq!(&read, &payloads);
            let taken: Vec<bool> = (0..payloads.len()).map(|n| n % 3 == 0).collect();
            let not_taken: Vec<usize> = (0..payloads.len()).filter(|n| n % 3 != 0).collect();
            prop_assert_eq!(read_live_answer(&live_answer(9, &taken)), Some((9, not_taken)));
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in "[ETXQIDB]") {
            let me = NodeId::random();
            let _ = message(&bytes, &me, &mut |_| {});
            let _ = message(&[kind.as_bytes(), &bytes].concat(), &me, &mut |_| {});
            let _ = live(&[b"L", &bytes[..]].concat());
            let _ = read_live_answer(&[b"A", &bytes[..]].concat());
            let value = Value::BulkString(bytes);
            let _ = log_entry(&[value.clone(), value.clone()], 1);
            let _ = topic_tail(&Value::Array(vec![value.clone(), Value::Int(0), Value::Array(vec![value])]));
        }
    }
}
