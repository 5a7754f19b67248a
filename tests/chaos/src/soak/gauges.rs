//! How much memory processes have, and what a server holds.

use crate::redis_server::cli;
use crate::server::Server;

const MIB: u64 = 1 << 20;

/// What a server holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Of all its processes, what they share counted once, in bytes.
    pub memory: u64,
    /// Bytes of data: of keys, or of tables and indexes.
    pub data: u64,
    /// Keys, or rows of all tables.
    pub items: u64,
    /// Rows that were deleted and are not cleaned up yet.
    pub dead: u64,
    pub channels: u64,
    /// Connections of nodes.
    pub connections: u64,
}

/// The tables that are empty but for what no session owns.
const LASTING: &str = "'tmcp_meta', 'tmcp_canary', 'tmcp_topics', 'tmcp_notes'";

/// Resident memory of a process in bytes; 0 when it is gone.
pub fn memory(pid: u32) -> u64 {
    kib(&format!("/proc/{pid}/status"), "VmRSS:") * 1024
}

/// The same, with its part of what it shares with others.
fn own_memory(pid: u32) -> u64 {
    let own = kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:") * 1024;
    if own > 0 { own } else { memory(pid) }
}

fn kib(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Gauge {
    pub fn read(server: &Server) -> Result<Self, String> {
        match server {
            Server::Redis { server, .. } => {
                let port = server.port.to_string();
                let ask = |command: &str| {
                    cli(&[&["-p", &port], &command.split(' ').collect::<Vec<_>>()[..]].concat())
                };
                let field = |text: &str, name: &str| -> u64 {
                    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
                };
                let clients = ask("client list")?;
                Ok(Gauge {
                    memory: memory(server.pid()),
                    data: field(&ask("info memory")?, "used_memory"),
                    items: ask("dbsize")?.trim().parse().unwrap_or(0),
                    dead: 0,
                    channels: lines(&ask("pubsub channels")?),
                    connections: lines(&clients).saturating_sub(1),
                })
            }
            Server::Postgres { server, .. } => {
                let number = |question: &str| -> Result<u64, String> {
                    Ok(server.sql(question)?.parse::<f64>().unwrap_or(0.0) as u64)
                };
                let of_tables = |sum: &str| {
                    format!(
                        "select coalesce(sum({sum}), 0) from pg_stat_user_tables where relname like 'tmcp%'"
                    )
                };
                Ok(Gauge {
                    memory: server.pids().into_iter().map(own_memory).sum(),
                    data: number(&of_tables("pg_total_relation_size(relid)"))?,
                    items: number(&of_tables("n_live_tup"))?,
                    dead: number(&of_tables("n_dead_tup"))?,
                    channels: 0,
                    connections: number(
                        "select count(*) from pg_stat_activity where application_name = 'mcp-sessions'",
                    )?,
                })
            }
            Server::Sentinels(_) | Server::Cluster(_) => Err("a soak is on one server".into()),
        }
    }
}

fn lines(text: &str) -> u64 {
    text.lines().filter(|line| !line.is_empty()).count() as u64
}

/// What is left on a server that belongs to a session or a node, each in words.
pub fn left_over(server: &Server) -> Result<Vec<String>, String> {
    match server {
        Server::Redis { server, .. } => {
            let port = server.port.to_string();
            let keys = cli(&["-p", &port, "keys", "*"])?;
            let channels = cli(&["-p", &port, "pubsub", "channels"])?;
            let named = |kind: &str, names: &str| {
                let named: Vec<_> = names.lines().filter(|name| !name.is_empty()).collect();
                let some = named.iter().take(5).copied().collect::<Vec<_>>().join(" ");
                (!named.is_empty()).then(|| format!("{} {kind}: {some} …", named.len()))
            };
            Ok(named("keys", &keys).into_iter().chain(named("channels", &channels)).collect())
        }
        Server::Postgres { server, .. } => {
            let tables = server.sql(&format!(
                "select relname from pg_class where relname like 'tmcp%' and relkind = 'r' \
                 and relname not in ({LASTING})"
            ))?;
            let mut left = Vec::new();
            for table in tables.lines() {
                let rows = server.sql(&format!("select count(*) from {table}"))?;
                if rows != "0" {
                    left.push(format!("{rows} rows in {table}"));
                }
            }
            Ok(left)
        }
        Server::Sentinels(_) | Server::Cluster(_) => Err("a soak is on one server".into()),
    }
}

pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB as f64)
}
