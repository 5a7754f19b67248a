//! The names of things: sessions and nodes.

use std::cmp::Ordering;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// The name of one MCP session: 1 to 256 bytes, each visible ASCII (0x21–0x7E).
///
/// The rule is that of the MCP specification for `Mcp-Session-Id` (2025-03-26, Streamable HTTP,
/// session management) with an upper bound. Cloning is cheap.
#[derive(Clone)]
pub struct SessionId {
    text: Arc<str>,
    /// Every table on the way of an event asks for it, so it is made once. Keyed anew in each
    /// process: whoever chooses session ids can't choose which ones collide.
    hash: u64,
}

impl SessionId {
    /// The longest session id, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Checks and takes a session id. Fails with `invalid_input`.
    pub fn new(id: impl AsRef<str>) -> Result<Self> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > Self::MAX_BYTES {
            return Err(Error::invalid(
                "session id",
                format!("a session id has 1 to {} bytes, this one has {}", Self::MAX_BYTES, id.len()),
            ));
        }
        match id.bytes().position(|b| !(0x21..=0x7e).contains(&b)) {
            Some(at) => Err(Error::invalid(
                "session id",
                format!("a session id is visible ASCII (0x21 to 0x7E), byte {at} is not"),
            )),
            None => Ok(SessionId::checked(id.into())),
        }
    }

    /// A new unguessable session id: 256 random bits, URL-safe.
    pub fn random() -> Self {
        use base64::Engine as _;
        let bytes: [u8; 32] = crate::runtime::random();
        SessionId::checked(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into())
    }

    fn checked(text: Arc<str>) -> Self {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let hash = KEY.get_or_init(RandomState::new).hash_one(&*text);
        SessionId { text, hash }
    }

    /// Between a scope and the name of a log in it. No session id has it, and no separator of a
    /// backend's messages is it.
    const LOG: char = '\u{7f}';

    /// The name of a log within a session's scope.
    pub(crate) fn of_log(scope: &SessionId, name: &str) -> Self {
        SessionId::checked(format!("{scope}{}{name}", Self::LOG).into())
    }

    /// A session id or the name of a log, as a node wrote it into a backend.
    #[cfg(any(feature = "redis", feature = "postgres", feature = "cloudflare"))]
    pub(crate) fn stored(text: &str) -> Option<Self> {
        match text.split_once(Self::LOG) {
            Some((scope, name)) => {
                Some(Self::of_log(&SessionId::new(scope).ok()?, SessionId::new(name).ok()?.as_str()))
            }
            None => SessionId::new(text).ok(),
        }
    }

    /// The scope and the name of a log, if this is one.
    pub(crate) fn as_log(&self) -> Option<(&str, &str)> {
        self.text.split_once(Self::LOG)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which of `n` shards of a table is its own. Not from the bits by which a table finds its bucket.
    pub(crate) fn shard(&self, n: usize) -> usize {
        (self.hash >> 32) as usize % n
    }
}

/// A table of sessions.
pub(crate) type SessionMap<V> = HashMap<SessionId, V, BuildHasherDefault<MadeHash>>;
/// A set of sessions.
pub(crate) type SessionSet = HashSet<SessionId, BuildHasherDefault<MadeHash>>;

/// Takes the hash that a session id brings as it is.
#[derive(Default)]
pub(crate) struct MadeHash(u64);

impl Hasher for MadeHash {
    fn write(&mut self, bytes: &[u8]) {
        // Only session ids are hashed with it, and they write one number.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl AsRef<str> for SessionId {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl TryFrom<&str> for SessionId {
    type Error = Error;
    fn try_from(id: &str) -> Result<Self> {
        SessionId::new(id)
    }
}

impl std::str::FromStr for SessionId {
    type Err = Error;
    fn from_str(id: &str) -> Result<Self> {
        SessionId::new(id)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.text)
    }
}

/// The name of one node: one engine in one process, random, never reused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node's id as another node wrote it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fine = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        fine.then(|| NodeId(text.into()))
    }

    pub(crate) fn random() -> Self {
        NodeId(
            uuid::Builder::from_random_bytes(crate::runtime::random())
                .into_uuid()
                .simple()
                .to_string()
                .into(),
        )
    }

    /// The id as text: 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for NodeId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        NodeId::parse(text).ok_or_else(|| Error::invalid("node id", "a node id is 32 hexadecimal digits"))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}
