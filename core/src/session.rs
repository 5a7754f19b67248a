//! The names of things: sessions and nodes.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The name of one MCP session: 1 to 256 bytes, each visible ASCII (0x21–0x7E).
///
/// The rule is that of the MCP specification for `Mcp-Session-Id` (2025-03-26, Streamable HTTP,
/// session management) with an upper bound. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

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
            None => Ok(SessionId(id.into())),
        }
    }

    /// A new unguessable session id: 256 random bits, URL-safe.
    pub fn random() -> Self {
        use base64::Engine as _;
        let bytes: [u8; 32] = crate::runtime::random();
        SessionId(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for SessionId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
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
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

/// The name of one node: one engine in one process, random, never reused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node's id as another node wrote it.
    #[cfg(feature = "redis")]
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
