//! Positions, log entries and messages as bytes: what the scripts write and this node reads.

use redis::Value;

use crate::backend::{LogEntry, Signal, Tail, Topic, TopicEntry, TopicTail};
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
        SessionId::new(text(self.take(len)?)?).ok()
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

fn read_positions(value: &Value) -> Option<Positions> {
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

pub(super) const fn topic_name(topic: Topic) -> &'static str {
    match topic {
        Topic::Broadcasts => "b",
        Topic::Notifications => "n",
    }
}

/// What [`super::scripts::READ`] and the end of a claim answer: start, gap, own events, broadcasts.
pub(super) fn tail(values: &[Value]) -> Option<Tail> {
    let [start, gap, own, broadcasts] = values else { return None };
    let start = read_positions(start)?;
    let own = entries(own)?.zip(start.session.offset + 1..).map(|(entry, offset)| log_entry(entry, offset));
    Some(Tail {
        start,
        gap: number(gap)? != 0,
        own: own.collect::<Option<_>>()?,
        broadcasts: topic_entries(broadcasts, start.broadcast)?,
    })
}

pub(super) fn topic_tail(value: &Value) -> Option<TopicTail> {
    let [start, gap, entries] = array(value)? else { return None };
    let start = read_position(start)?;
    Some(TopicTail { start, gap: number(gap)? != 0, entries: topic_entries(entries, start)? })
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
        b"T" => {
            let name = message.take(1)?;
            let topic = Topic::ALL.into_iter().find(|topic| topic_name(*topic).as_bytes() == name)?;
            let mut position = message.position()?;
            while !message.0.is_empty() {
                let payload = message.payload()?;
                tell(Signal::Topic { topic, position, payload });
                position.offset += 1;
            }
        }
        b"X" => {
            let session = message.session()?;
            let owner_epoch = message.number(8)?;
            let reason = read_reason(*message.take(1)?.first()?)?;
            tell(Signal::Ended { session, owner_epoch, reason });
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
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in "[ETXI]") {
            let me = NodeId::random();
            let _ = message(&bytes, &me, &mut |_| {});
            let _ = message(&[kind.as_bytes(), &bytes].concat(), &me, &mut |_| {});
            let value = Value::BulkString(bytes);
            let _ = log_entry(&[value.clone(), value.clone()], 1);
            let _ = topic_tail(&Value::Array(vec![value.clone(), Value::Int(0), Value::Array(vec![value])]));
        }
    }
}
