//! Event ids: URL-safe, unique, checked, bound to their scope; each names its stream.
//!
//! Layout before base64url: version (1 byte), the log's epoch (8) and offset (varint), the stream's
//! name, a check (8) keyed by the scope. Like a cursor's, the check is no secret: an id is only ever
//! applied within the scope it comes with, so a forged one names no events but that scope's (G12).

use std::fmt;
use std::hash::Hasher as _;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher13;

use crate::error::{Error, Result};
use crate::session::SessionId;
use crate::streams::Position;
use crate::streams::cursor::{put_varint, take_varint};

const VERSION: u8 = 1;
const EPOCH_BYTES: usize = 8;
const CHECK_BYTES: usize = 8;
const MAX_VARINT: usize = 10;
/// The longest name of a stream, in bytes.
pub(super) const MAX_STREAM_BYTES: usize = 128;

/// The id of an event: opaque, URL-safe, at most 208 bytes. It goes into the `id:` field of an SSE
/// frame and comes back as `Last-Event-ID`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Box<str>);

impl EventId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 208;

    pub(super) fn encode(scope: &SessionId, stream: &str, at: Position) -> Self {
        let mut bytes = vec![VERSION];
        bytes.extend(at.epoch.to_le_bytes());
        let mut varint = [0; MAX_VARINT];
        let len = put_varint(&mut varint, at.offset);
        bytes.extend(&varint[..len]);
        bytes.extend(stream.as_bytes());
        bytes.extend(check(scope, &bytes));
        EventId(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// The stream and the position an id names. Anything random, edited or of another scope is
    /// `invalid_input`.
    pub(super) fn decode(text: &str, scope: &SessionId) -> Result<(String, Position)> {
        Self::read(text, scope).ok_or_else(|| {
            Error::invalid("event id", "this is no event id of this session; replay without it")
        })
    }

    fn read(text: &str, scope: &SessionId) -> Option<(String, Position)> {
        if text.len() > Self::MAX_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, given) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if check(scope, body) != *given {
            return None;
        }
        let (version, rest) = body.split_first()?;
        let (epoch, rest) = rest.split_first_chunk::<EPOCH_BYTES>()?;
        let (offset, stream) = take_varint(rest)?;
        let fine = *version == VERSION && (1..=MAX_STREAM_BYTES).contains(&stream.len());
        let stream = std::str::from_utf8(stream).ok().filter(|_| fine)?;
        Some((stream.to_owned(), Position { epoch: u64::from_le_bytes(*epoch), offset }))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(scope: &SessionId, body: &[u8]) -> [u8; CHECK_BYTES] {
    // Keyed apart from cursors, so that neither is ever taken for the other.
    let mut hasher = SipHasher13::new_with_keys(0x6d63_702d_6576_656e, u64::from(VERSION));
    hasher.write(scope.as_str().as_bytes());
    hasher.write(b" ");
    hasher.write(body);
    hasher.finish().to_le_bytes()
}

impl Deref for EventId {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for EventId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> String {
        id.0.into()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({})", self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::streams::cursor::{Cursor, CursorKey};
    use proptest::prelude::*;

    fn scope(name: &str) -> SessionId {
        SessionId::new(name).unwrap()
    }

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            epoch: u64, offset: u64, session in "[!-~]{1,256}", stream in "\\PC{1,32}",
        ) {
            let id = EventId::encode(&scope(&session), &stream, at(epoch, offset));
            prop_assert!(id.len() <= EventId::MAX_BYTES);
            prop_assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(EventId::decode(&id, &scope(&session)).unwrap(), (stream, at(epoch, offset)));
        }

        #[test]
        fn another_scope_refuses_it(offset: u64, a in "[!-~]{1,64}", b in "[!-~]{1,64}", stream in "[a-z]{1,9}") {
            prop_assume!(a != b);
            let id = EventId::encode(&scope(&a), &stream, at(1, offset));
            prop_assert!(EventId::decode(&id, &scope(&b)).is_err());
        }

        #[test]
        fn an_edit_is_refused(offset: u64, index in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let id = EventId::encode(&scope("s1"), "_GET_stream", at(7, offset));
            let mut text = id.to_string();
            let index = index.index(text.len());
            text.replace_range(index..=index, &to);
            prop_assume!(text != *id);
            prop_assert!(EventId::decode(&text, &scope("s1")).is_err());
        }

        #[test]
        fn ids_are_unique(a: (u64, u64), b: (u64, u64), x in "[a-c]{1,3}", y in "[a-c]{1,3}") {
            prop_assume!((a, &x) != (b, &y));
            let one = EventId::encode(&scope("s1"), &x, at(a.0, a.1));
            prop_assert_ne!(one, EventId::encode(&scope("s1"), &y, at(b.0, b.1)));
        }

        #[test]
        fn noise_never_panics(text in ".{0,220}") {
            prop_assert!(EventId::decode(&text, &scope("s1")).is_err());
        }
    }

    #[test]
    fn the_longest_fits() {
        let stream = "x".repeat(MAX_STREAM_BYTES);
        let id = EventId::encode(&scope("s1"), &stream, at(u64::MAX, u64::MAX));
        assert!(id.len() <= EventId::MAX_BYTES, "{}", id.len());
        assert_eq!(EventId::decode(&id, &scope("s1")).unwrap().0, stream);
    }

    #[test]
    fn a_cursor_is_no_event_id() {
        let session = scope("s1");
        let cursor = Cursor::encode(Default::default(), CursorKey::of(&session));
        assert!(EventId::decode(&cursor, &session).is_err());
        let id = EventId::encode(&session, "s", at(1, 1));
        assert!(Cursor::check(&id, &session).is_err());
    }
}
