//! Owners: their tokens are hashed with a key at the door, and go no further (§8).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::{Error, Result};
use crate::options::OwnerKey;
use crate::runtime::random;
use crate::streams::hub::Hub;

/// The longest owner's token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// An owner, as it is stored: a keyed hash of the token (HMAC-SHA-256, 128 bits of it).
///
/// Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy)]
pub struct OwnerHash([u8; OwnerHash::BYTES]);

impl OwnerHash {
    /// Its length.
    pub const BYTES: usize = 16;

    pub(crate) fn of(token: &str, key: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
        mac.update(b"mcp-sessions owner");
        mac.update(token.as_bytes());
        let mut hash = [0; Self::BYTES];
        hash.copy_from_slice(&mac.finalize().into_bytes()[..Self::BYTES]);
        OwnerHash(hash)
    }

    /// The hash as a backend stores it: 32 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`to_hex`](Self::to_hex) wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut hash = [0; Self::BYTES];
        for (byte, at) in hash.iter_mut().zip((0..digits.len()).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(OwnerHash(hash))
    }
}

impl PartialEq for OwnerHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for OwnerHash {}

impl std::hash::Hash for OwnerHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for OwnerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for OwnerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerHash({self})")
    }
}

/// On whose behalf a session is asked for.
#[derive(Clone, Copy)]
pub enum Caller<'a> {
    /// The owner of this token.
    Owner(&'a str),
    /// Somebody without a token: only sessions without an owner are theirs.
    Nobody,
    /// The server itself, which has checked already, or need not.
    Trusted,
}

impl<'a> From<&'a str> for Caller<'a> {
    fn from(token: &'a str) -> Self {
        Caller::Owner(token)
    }
}

impl<'a> From<Option<&'a str>> for Caller<'a> {
    fn from(token: Option<&'a str>) -> Self {
        token.map_or(Caller::Nobody, Caller::Owner)
    }
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Caller::Owner(_) => "Owner(…)",
            Caller::Nobody => "Nobody",
            Caller::Trusted => "Trusted",
        })
    }
}

/// Hashes a token with the deployment's key.
pub(super) async fn hashed(hub: &Hub, operation: &'static str, token: &str) -> Result<OwnerHash> {
    if token.is_empty() {
        return Err(Error::invalid(operation, "an owner's token is not empty"));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Error::too_large(operation, "the owner's token", token.len(), MAX_TOKEN_BYTES));
    }
    Ok(OwnerHash::of(token, &key(hub, operation).await?))
}

async fn key(hub: &Hub, operation: &'static str) -> Result<[u8; 32]> {
    if let Some(key) = &hub.options.registry.owner_key {
        return Ok(derived(key));
    }
    if let Some(key) = *hub.registry.owner_key.lock() {
        return Ok(key);
    }
    let key = hub.run(operation, hub.backend.registry_key(random())).await?;
    *hub.registry.owner_key.lock() = Some(key);
    Ok(key)
}

/// A backend that lost its key gets it from the first node that still has it; the others take it over.
pub(super) async fn agree_on_key(hub: &Hub) -> Result<()> {
    let Some(known) = *hub.registry.owner_key.lock() else { return Ok(()) };
    let key = hub.run("registry.sweep", hub.backend.registry_key(known)).await?;
    *hub.registry.owner_key.lock() = Some(key);
    Ok(())
}

fn derived(key: &OwnerKey) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hex_is_read_as_written(token in ".{1,40}", key in any::<[u8; 32]>()) {
            let hash = OwnerHash::of(&token, &key);
            prop_assert_eq!(OwnerHash::from_hex(&hash.to_hex()), Some(hash));
        }

        #[test]
        fn other_tokens_and_other_keys_differ(a in ".{1,40}", b in ".{1,40}", key in any::<[u8; 32]>()) {
            prop_assume!(a != b);
            prop_assert_ne!(OwnerHash::of(&a, &key), OwnerHash::of(&b, &key));
            let mut other = key;
            other[0] ^= 1;
            prop_assert_ne!(OwnerHash::of(&a, &key), OwnerHash::of(&a, &other));
        }

        #[test]
        fn noise_is_no_hash(text in ".{0,40}") {
            prop_assume!(text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()));
            prop_assert!(OwnerHash::from_hex(&text).is_none());
        }
    }

    #[test]
    fn a_token_never_shows() {
        assert!(!format!("{:?}", Caller::from("secret")).contains("secret"));
    }
}
