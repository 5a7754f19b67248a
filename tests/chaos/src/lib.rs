//! Outages, and what clients get through them.
//!
//! A [`World`](world::World) is a real server, a fault [`proxy`] for each node, node processes that can
//! be stopped and killed, and clients that hold streams and resume with their cursors wherever a
//! node is left. Everything that is sent and received goes into a [`history`], which the
//! [`checker`] judges.
//!
//! A [`soak`] is another thing: many sessions, no trouble, and what is left of them.
#![allow(missing_docs, reason = "nobody but this crate's own tests and its binary uses it")]

pub mod checker;
pub mod console;
pub mod dice;
pub mod history;
pub mod kit;
pub mod node;
#[path = "../../../core/tests/support/postgres_server.rs"]
pub mod postgres_server;
pub mod process;
pub mod protocol;
pub mod proxy;
#[path = "../../../core/tests/support/redis_server.rs"]
pub mod redis_server;
pub mod run;
pub mod schedule;
pub mod server;
pub mod soak;
pub mod world;
