//! Cursors: opaque, versioned, checked, bound to their session.
//!
//! Layout before base64url: version (1 byte), the session log's epoch (8) and offset (varint), the
//! broadcast log's epoch (8) and offset (varint), a check (8) keyed by the session's id. The check
//! is no secret: a cursor is only ever applied to the session it comes with, so a forged one can
//! name no events but those of its own session (G12).

use std::fmt;
use std::hash::Hasher;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13Wide};

use crate::error::{Error, Result};
use crate::session::SessionId;
use crate::streams::event::{Position, Positions};

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;
const EPOCH_BYTES: usize = 8;
const MAX_VARINT: usize = 10;
const MAX_BYTES: usize = 1 + 2 * (EPOCH_BYTES + MAX_VARINT) + CHECK_BYTES;

/// What binds a session's cursors to it; made once a stream, used for each event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CursorKey(u64, u64);

impl CursorKey {
    /// The key of a session.
    pub fn of(session: &SessionId) -> Self {
        let mut hasher = SipHasher13Wide::new_with_keys(0x6d63_702d_7365_7373, u64::from(VERSION));
        hasher.write(session.as_str().as_bytes());
        let hash = hasher.finish128();
        CursorKey(hash.h1, hash.h2)
    }

    fn check(self, body: &[u8]) -> [u8; CHECK_BYTES] {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(body);
        hasher.finish().to_le_bytes()
    }
}

/// What a client holds after an event: opaque, URL-safe, at most 64 bytes.
///
/// It goes into the `id:` field of an SSE frame and comes back as `Last-Event-ID` (MCP
/// specification 2025-03-26 and later, "Resumability and Redelivery").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    text: [u8; Cursor::MAX_BYTES],
    len: u8,
}

impl Cursor {
    /// The longest cursor, in bytes.
    pub const MAX_BYTES: usize = 64;

    pub(crate) fn encode(positions: Positions, key: CursorKey) -> Self {
        let mut bytes = [0u8; MAX_BYTES];
        bytes[0] = VERSION;
        let mut at = 1;
        for position in [positions.session, positions.broadcast] {
            bytes[at..at + EPOCH_BYTES].copy_from_slice(&position.epoch.to_le_bytes());
            at += EPOCH_BYTES;
            at += put_varint(&mut bytes[at..], position.offset);
        }
        let check = key.check(&bytes[..at]);
        bytes[at..at + CHECK_BYTES].copy_from_slice(&check);
        at += CHECK_BYTES;
        let mut text = [0u8; Cursor::MAX_BYTES];
        let len =
            URL_SAFE_NO_PAD.encode_slice(&bytes[..at], &mut text).expect("45 bytes fit in 64 characters");
        Cursor { text, len: len as u8 }
    }

    /// Reads a client's cursor for `session`. Anything random, cut, edited or of another session is
    /// `invalid_input` (G12).
    pub(crate) fn decode(text: &str, session: &SessionId) -> Result<Positions> {
        let refuse = |why: &str| {
            Error::invalid(
                "cursor",
                format!(
                    "this is no cursor of this session ({why}); open without one, or with the one its stream gave"
                ),
            )
        };
        if text.len() > Cursor::MAX_BYTES {
            return Err(refuse("too long"));
        }
        let mut bytes = [0u8; 48];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| refuse("not base64url"))?;
        let bytes = &bytes[..len];
        if bytes.len() < 1 + 2 * (EPOCH_BYTES + 1) + CHECK_BYTES {
            return Err(refuse("too short"));
        }
        if bytes[0] != VERSION {
            return Err(refuse("another version"));
        }
        let (body, check) = bytes.split_at(bytes.len() - CHECK_BYTES);
        if CursorKey::of(session).check(body) != check {
            return Err(refuse("the check does not match"));
        }
        let (own, rest) = take_position(&body[1..]).ok_or_else(|| refuse("cut"))?;
        let (broadcast, rest) = take_position(rest).ok_or_else(|| refuse("cut"))?;
        if !rest.is_empty() {
            return Err(refuse("too long"));
        }
        Ok(Positions { session: own, broadcast })
    }

    /// Whether `text` is a cursor of `session` by its form; what it names may be gone all the same.
    ///
    /// Fails with `invalid_input`, so that a server can refuse a `Last-Event-ID` before it opens.
    pub fn check(text: &str, session: &SessionId) -> Result<()> {
        Cursor::decode(text, session).map(drop)
    }

    /// The cursor as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or_default()
    }
}

pub(crate) fn put_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = (value as u8) | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

pub(crate) fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(MAX_VARINT) {
        let low = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if at == MAX_VARINT - 1 && low > 1 {
            return None;
        }
        value |= low << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

fn take_position(bytes: &[u8]) -> Option<(Position, &[u8])> {
    let (epoch, rest) = bytes.split_first_chunk::<EPOCH_BYTES>()?;
    let (offset, rest) = take_varint(rest)?;
    Some((Position { epoch: u64::from_le_bytes(*epoch), offset }, rest))
}

impl Deref for Cursor {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Cursor {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> String {
        cursor.as_str().to_owned()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({})", self.as_str())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(name: &str) -> SessionId {
        SessionId::new(name).unwrap()
    }

    prop_compose! {
        fn positions()(a in any::<[u64; 4]>()) -> Positions {
            Positions {
                session: Position { epoch: a[0], offset: a[1] },
                broadcast: Position { epoch: a[2], offset: a[3] },
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(positions in positions(), name in "[!-~]{1,256}") {
            let id = session(&name);
            let cursor = Cursor::encode(positions, CursorKey::of(&id));
            prop_assert!(cursor.len() <= Cursor::MAX_BYTES);
            prop_assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(Cursor::decode(&cursor, &id).unwrap(), positions);
        }

        #[test]
        fn another_session_refuses_it(positions in positions(), a in "[!-~]{1,64}", b in "[!-~]{1,64}") {
            prop_assume!(a != b);
            let cursor = Cursor::encode(positions, CursorKey::of(&session(&a)));
            prop_assert!(Cursor::decode(&cursor, &session(&b)).is_err());
        }

        #[test]
        fn an_edit_is_refused(positions in positions(), at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let id = session("s1");
            let cursor = Cursor::encode(positions, CursorKey::of(&id));
            let mut text = cursor.as_str().to_owned();
            let at = at.index(text.len());
            text.replace_range(at..=at, &to);
            prop_assume!(text != cursor.as_str());
            prop_assert!(Cursor::decode(&text, &id).is_err());
        }

        #[test]
        fn a_cut_is_refused(positions in positions(), at in any::<prop::sample::Index>()) {
            let id = session("s1");
            let cursor = Cursor::encode(positions, CursorKey::of(&id));
            let at = at.index(cursor.len());
            prop_assert!(Cursor::decode(&cursor[..at], &id).is_err());
        }

        #[test]
        fn noise_never_panics(text in ".{0,80}") {
            prop_assert!(Cursor::decode(&text, &session("s1")).is_err());
        }
    }
}
