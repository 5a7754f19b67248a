//! Messages and stored text: what the functions write and this node reads.

use std::borrow::Cow;

use crate::backend::{Lane, Signal, Topic};
use crate::session::SessionId;
use crate::streams::{EndReason, Position};

/// Marks text that holds what Postgres can't store as it is.
const ESCAPE: char = '\u{1}';
/// No log ever gets there; what a forged cursor says beyond is as good.
const MAX_OFFSET: u64 = 1 << 48;

/// Text as it is stored: Postgres knows no U+0000.
pub(super) fn stored(text: &str) -> Cow<'_, str> {
    if !text.starts_with(ESCAPE) && memchr::memchr(0, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    escaped.push(ESCAPE);
    for c in text.chars() {
        match c {
            ESCAPE => escaped.push_str("\u{1}1"),
            '\0' => escaped.push_str("\u{1}0"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// What [`stored`] was given.
pub(super) fn restored(text: &str) -> Cow<'_, str> {
    let Some(escaped) = text.strip_prefix(ESCAPE) else { return Cow::Borrowed(text) };
    let mut plain = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match (c, c == ESCAPE) {
            (_, true) => plain.push(if chars.next() == Some('0') { '\0' } else { ESCAPE }),
            (c, false) => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// A number of ours as Postgres has it.
pub(super) fn signed(epoch: u64) -> i64 {
    epoch as i64
}

pub(super) fn offset(offset: u64) -> i64 {
    offset.min(MAX_OFFSET) as i64
}

pub(super) fn position(epoch: i64, offset: i64) -> Position {
    Position { epoch: epoch as u64, offset: offset.max(0) as u64 }
}

pub(super) const fn topic_name(topic: Topic) -> &'static str {
    match topic {
        Topic::Broadcasts => "b",
        Topic::Notifications => "n",
    }
}

fn topic(name: &str) -> Option<Topic> {
    Topic::ALL.into_iter().find(|topic| topic_name(*topic) == name)
}

fn reason(name: &str) -> Option<EndReason> {
    use EndReason::{Closed, Fenced, Gap, Overflow, Replaced, Shutdown, Terminated};
    [Closed, Replaced, Overflow, Gap, Fenced, Terminated, Shutdown]
        .into_iter()
        .find(|reason| reason.as_str() == name)
}

/// What a message says.
pub(super) enum Said {
    Signal(Signal),
    /// A message waits in the mail under this number.
    Mail(i64),
    /// The listener was reached.
    Echo,
}

/// A piece of a message that is too long for one notification.
pub(super) struct Piece<'a> {
    /// Of the message.
    pub(super) id: &'a str,
    /// From 1 on.
    pub(super) nth: u32,
    pub(super) last: bool,
    pub(super) text: &'a str,
}

/// The piece that a notification is, if it is one.
pub(super) fn piece(message: &str) -> Option<Piece<'_>> {
    let (id, rest) = message.strip_prefix('f')?.split_once(' ')?;
    let (nth, rest) = rest.split_once(' ')?;
    let (last, text) = rest.split_once(':')?;
    Some(Piece { id, nth: nth.parse().ok()?, last: last == "1", text })
}

/// Takes fields off the front of a message; each ends with a space.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (field, rest) = self.0.split_once(' ')?;
        self.0 = rest;
        Some(field)
    }

    fn session(&mut self) -> Option<SessionId> {
        SessionId::stored(self.next()?)
    }

    fn position(&mut self) -> Option<Position> {
        let epoch = self.next()?.parse().ok()?;
        Some(position(epoch, self.next()?.parse().ok()?))
    }

    fn payload(&mut self) -> Option<&'a str> {
        let (len, rest) = self.0.split_once(':')?;
        let (payload, rest) = rest.split_at_checked(len.parse().ok()?)?;
        self.0 = rest;
        Some(payload)
    }
}

/// Reads a message, and gives what it says to `tell`; `None` when it makes no sense. `me` is this
/// node, as the server writes it.
pub(super) fn message(message: &str, me: &str, tell: &mut dyn FnMut(Said)) -> Option<()> {
    let mut fields = Fields(message);
    while let Some(kind) = fields.0.chars().next() {
        fields.0 = &fields.0[kind.len_utf8()..];
        let signal = match kind {
            'e' => {
                let (session, position) = (fields.session()?, fields.position()?);
                let payload = restored(fields.payload()?).as_ref().into();
                Signal::Event { session, position, payload }
            }
            't' => {
                let (topic, position) = (topic(fields.next()?)?, fields.position()?);
                let payload = restored(fields.payload()?).as_ref().into();
                Signal::Topic { topic, lane: Lane::default(), position, payload }
            }
            'x' => Signal::Ended {
                session: fields.session()?,
                owner_epoch: fields.next()?.parse().ok()?,
                reason: reason(fields.next()?)?,
            },
            'k' => Signal::SessionClosing { session: fields.session()?, reason: fields.next()?.into() },
            'i' => {
                let sender = fields.next()?;
                let session = fields.session()?;
                if sender == me {
                    continue;
                }
                Signal::InfoChanged { session }
            }
            'm' => {
                tell(Said::Mail(fields.next()?.parse().ok()?));
                continue;
            }
            'h' => {
                tell(Said::Echo);
                continue;
            }
            _ => return None,
        };
        tell(Said::Signal(signal));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Vec<Signal>, bool) {
        let mut signals = Vec::new();
        let fine = message(text, "me", &mut |said| {
            if let Said::Signal(signal) = said {
                signals.push(signal);
            }
        });
        (signals, fine.is_some())
    }

    #[test]
    fn a_message_holds_many() {
        let text = "es1 -5 1 5:a béxs1 12 replaced iyou s3 ime s4 tb 1 2 1:x";
        let (signals, fine) = read(text);
        assert!(fine && signals.len() == 4, "{signals:?}");
        let Signal::Event { position, payload, .. } = &signals[0] else { panic!("{signals:?}") };
        assert_eq!((position.epoch as i64, position.offset, payload.as_str()), (-5, 1, "a bé"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in ".{0,20}|[\\x00-\\x02]{0,6}") {
            let stored = stored(&text);
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(restored(&stored).into_owned(), text.clone());
        }

        #[test]
        fn noise_never_panics(text in "[etxkimh]?.{0,40}") {
            let _ = read(&text);
            let _ = restored(&text);
        }
    }
}
