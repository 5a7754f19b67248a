//! Cloudflare: sessions in Durable Objects, for Workers and for native processes.
//!
//! ```text
//! native engine ── one WebSocket ──► Worker: gateway ──► Durable Objects: sync layers ──► their storage
//! ```
//!
//! The object's part ([`SyncLayer`]) is this crate's, compiled to wasm: a state machine over storage
//! that answers at once. Sessions are spread over several objects by hash, and each knows of its own
//! only: a broadcast goes to all of them, and each is one order of acceptance (a
//! [`Lane`](crate::backend::Lane)), in which a session's events and broadcasts are merged. The platform's part (sockets, storage, alarms) is behind [`Host`].
//!
//! Inside a Worker an I/O object of one request can't be used by another. So nothing is shared between
//! requests there: each stream is fed by a WebSocket of its own request, which hibernates at the
//! object's end. Whoever has a socket is a node. Its lease is the time it was last heard, and the
//! platform answers heartbeats by itself, so that an idle object sleeps.

mod layer;
mod wire;

#[cfg(feature = "cloudflare")]
mod address;
#[cfg(feature = "cloudflare")]
mod client;
#[cfg(feature = "cloudflare")]
mod link;
#[cfg(feature = "cloudflare")]
mod roots;
#[cfg(feature = "cloudflare")]
mod shards;
#[cfg(feature = "cloudflare")]
mod socket;

#[cfg(feature = "cloudflare")]
pub(crate) use address::{CloudflareAddress, is_cloudflare, parse};
#[cfg(feature = "cloudflare")]
pub(crate) use client::CloudflareBackend;
pub use layer::{Host, SyncLayer};
pub use wire::{PING, PONG, PROTOCOL};
