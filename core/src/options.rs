//! What can be set on an engine, and the defaults.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Recorder, SharedRecorder};

/// How much of a log is kept for replay; whichever bound is met first trims it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Retention {
    /// Events kept; 0 turns history off, and delivery is live only.
    pub events: usize,
    /// Payload bytes kept.
    pub bytes: usize,
    /// Milliseconds an event is kept, and a session is remembered after its last stream.
    pub age_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { events: 256, bytes: 1 << 20, age_ms: 300_000 }
    }
}

impl Retention {
    /// The defaults for what is sent to all: 1,024 events, 4 MiB, 5 minutes.
    pub fn for_broadcasts() -> Self {
        Retention { events: 1_024, bytes: 4 << 20, age_ms: 300_000 }
    }

    /// No history: delivery is live only.
    pub fn off() -> Self {
        Retention { events: 0, ..Retention::default() }
    }
}

/// How much may wait for one slow reader before its stream ends with `overflow` (G10).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct QueueLimits {
    /// Events that wait.
    pub events: usize,
    /// Payload bytes that wait.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { events: 1_024, bytes: 4 << 20 }
    }
}

/// The lease of a node: how soon the others notice that it died (G7).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Lease {
    /// Milliseconds a lease lives without renewal.
    pub ttl_ms: u64,
    /// Milliseconds between renewals.
    pub renew_ms: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Lease { ttl_ms: 5_000, renew_ms: 2_000 }
    }
}

/// The registry: when a session is stale, and how owners' tokens are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// Milliseconds without access and without an active request after which a session is stale.
    pub stale_ms: u64,
    /// Milliseconds between the sweeps that close stale sessions.
    pub sweep_ms: u64,
    /// Milliseconds a closed session's id can't be used again.
    pub tombstone_ms: u64,
    /// The largest metadata of a session, in bytes of JSON.
    pub max_metadata_bytes: usize,
    /// What owners' tokens are hashed with, the same on all nodes; without it, the backend keeps a
    /// random one for all of them.
    pub owner_key: Option<OwnerKey>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions {
            stale_ms: 1_800_000,
            sweep_ms: 60_000,
            tombstone_ms: 300_000,
            max_metadata_bytes: 16 << 10,
            owner_key: None,
        }
    }
}

/// A secret that owners' tokens are hashed with; it never shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct OwnerKey(String);

impl OwnerKey {
    /// The shortest key, in bytes.
    pub const MIN_BYTES: usize = 16;

    /// A key; at least 16 bytes that nobody can guess.
    pub fn new(key: impl Into<String>) -> Self {
        OwnerKey(key.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey(…)")
    }
}

/// The options of an engine; in JSON (camelCase) they are the same in every language.
///
/// ```
/// use mcp_sessions::Options;
/// let options = Options::from_json(r#"{"retention": {"events": 1000}, "queue": {"bytes": 65536}}"#)?;
/// assert_eq!(options.retention.events, 1000);
/// # Ok::<(), mcp_sessions::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Options {
    /// What is kept of a session's own events.
    pub retention: Retention,
    /// What is kept of events sent to all.
    #[serde(deserialize_with = "broadcast_retention")]
    pub broadcast_retention: Retention,
    /// What may wait for one slow reader.
    pub queue: QueueLimits,
    /// The lease of this node.
    pub lease: Lease,
    /// The session registry.
    pub registry: RegistryOptions,
    /// Milliseconds a session's info is kept without being touched (sliding).
    pub session_ttl_ms: u64,
    /// The largest payload of one event, in bytes.
    pub max_payload_bytes: usize,
    /// The longest resource URI, in bytes.
    pub max_uri_bytes: usize,
    /// The largest info value (client info, capabilities, params), in bytes of JSON.
    pub max_info_bytes: usize,
    /// The most resource subscriptions of one session.
    pub max_subscriptions: usize,
    /// Milliseconds an operation may take before it fails with `timeout`.
    pub operation_timeout_ms: u64,
    /// Milliseconds an operation waits, in an outage, for the backend to come back before it fails with
    /// `unavailable`; 0 fails at once. What may have happened already is not tried again: it fails as
    /// without this, and the caller may retry with the same idempotency key.
    pub outage_wait_ms: u64,
    /// The most bytes of payload that wait for the backend before `send` waits, too (G10).
    pub max_pending_bytes: usize,
    /// Whether bindings put an `id:` line with the cursor in front of SSE frames.
    pub frame_ids: bool,
    /// Who hears of what is counted and measured; not in JSON.
    #[serde(skip)]
    pub recorder: Option<SharedRecorder>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            retention: Retention::default(),
            broadcast_retention: Retention::for_broadcasts(),
            queue: QueueLimits::default(),
            lease: Lease::default(),
            registry: RegistryOptions::default(),
            session_ttl_ms: 24 * 3_600_000,
            max_payload_bytes: 4 << 20,
            max_uri_bytes: 8 << 10,
            max_info_bytes: 64 << 10,
            max_subscriptions: 10_000,
            operation_timeout_ms: 10_000,
            outage_wait_ms: 0,
            max_pending_bytes: 64 << 20,
            frame_ids: true,
            recorder: None,
        }
    }
}

/// What JSON leaves out has the default for broadcasts, not the one for sessions.
fn broadcast_retention<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Retention, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Given {
        events: Option<usize>,
        bytes: Option<usize>,
        age_ms: Option<u64>,
    }
    let given = Given::deserialize(from)?;
    let defaults = Retention::for_broadcasts();
    Ok(Retention {
        events: given.events.unwrap_or(defaults.events),
        bytes: given.bytes.unwrap_or(defaults.bytes),
        age_ms: given.age_ms.unwrap_or(defaults.age_ms),
    })
}

impl Options {
    /// Options from JSON, as the bindings pass them; unknown names are `config` errors.
    pub fn from_json(json: &str) -> Result<Self> {
        let options: Options = serde_json::from_str(json)
            .map_err(|cause| Error::new(ErrorKind::Config, "options", format!("not understood: {cause}")))?;
        options.checked()
    }

    /// These options, with a [`Recorder`] that hears of what the engine counts and measures.
    pub fn with_recorder(mut self, recorder: impl Recorder) -> Self {
        self.recorder = Some(SharedRecorder::new(recorder));
        self
    }

    /// The options, or a `config` error that names the one that makes no sense.
    pub fn checked(self) -> Result<Self> {
        let rules = [
            (self.lease.renew_ms > 0, "lease.renewMs is at least 1"),
            (
                self.lease.ttl_ms > self.lease.renew_ms,
                "lease.ttlMs is longer than lease.renewMs, or the node loses its lease between renewals",
            ),
            (self.queue.events > 0 && self.queue.bytes > 0, "queue.events and queue.bytes are at least 1"),
            (self.retention.age_ms > 0, "retention.ageMs is at least 1"),
            (self.broadcast_retention.age_ms > 0, "broadcastRetention.ageMs is at least 1"),
            (self.registry.stale_ms > 0, "registry.staleMs is at least 1"),
            (self.registry.sweep_ms > 0, "registry.sweepMs is at least 1"),
            (self.registry.tombstone_ms > 0, "registry.tombstoneMs is at least 1"),
            (
                self.registry
                    .owner_key
                    .as_ref()
                    .is_none_or(|key| key.as_bytes().len() >= OwnerKey::MIN_BYTES),
                "registry.ownerKey has at least 16 bytes, or tokens could be found by trying keys",
            ),
            (self.session_ttl_ms > 0, "sessionTtlMs is at least 1"),
            (self.operation_timeout_ms > 0, "operationTimeoutMs is at least 1"),
            (
                self.outage_wait_ms < self.operation_timeout_ms,
                "outageWaitMs is shorter than operationTimeoutMs, which bounds the whole operation",
            ),
            (self.max_payload_bytes > 0, "maxPayloadBytes is at least 1"),
            (self.max_pending_bytes > 0, "maxPendingBytes is at least 1"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Error::new(ErrorKind::Config, "options", *rule)),
            None => Ok(self),
        }
    }

    pub(crate) fn operation_timeout(&self) -> Duration {
        Duration::from_millis(self.operation_timeout_ms)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_json_leaves_out_has_its_own_default() {
        let options =
            Options::from_json(r#"{"broadcastRetention": {"ageMs": 9}, "retention": {"ageMs": 8}}"#).unwrap();
        assert_eq!(options.broadcast_retention, Retention { age_ms: 9, ..Retention::for_broadcasts() });
        assert_eq!(options.retention, Retention { age_ms: 8, ..Retention::default() });
    }

    #[test]
    fn the_owner_key_never_shows() {
        let options = Options::from_json(r#"{"registry": {"ownerKey": "correct horse battery"}}"#).unwrap();
        assert!(!format!("{options:?}").contains("horse"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (json, name) in [
            (r#"{"retentoin": {}}"#, "retentoin"),
            (r#"{"lease": {"ttlMs": 10, "renewMs": 10}}"#, "lease.ttlMs"),
            (r#"{"queue": {"events": 0}}"#, "queue.events"),
            (r#"{"operationTimeoutMs": 0}"#, "operationTimeoutMs"),
            (r#"{"outageWaitMs": 10000}"#, "outageWaitMs"),
            (r#"{"registry": {"staleMs": 0}}"#, "registry.staleMs"),
            (r#"{"registry": {"ownerKey": "short"}}"#, "registry.ownerKey"),
        ] {
            let error = Options::from_json(json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
