//! The servers that nodes share their state through.

use crate::postgres_server::PostgresServer;
use crate::process::signal;
use crate::redis_server::{RedisCluster, RedisSentinels, RedisServer, cli};
use crate::schedule::Kind;

/// Which backend, and how its servers are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// With these arguments.
    Redis(Vec<String>),
    /// With these arguments, and a replica that may be promoted.
    RedisPair(Vec<String>),
    /// A master, its replica, and three sentinels; nodes reach them past their proxies.
    Sentinels,
    /// Three masters, each with a replica; nodes reach them past their proxies.
    Cluster,
    /// With these settings.
    Postgres(Vec<String>),
    /// With these settings, and a standby that may be promoted.
    PostgresPair(Vec<String>),
}

pub enum Server {
    Redis { server: RedisServer, standby: Option<RedisServer> },
    Postgres { server: PostgresServer, standby: Option<PostgresServer> },
    Sentinels(RedisSentinels),
    Cluster(RedisCluster),
}

/// What ends the connections of nodes to Postgres.
pub fn terminate(kind: Kind) -> String {
    let which = match kind {
        Kind::Commands => "query not ilike '%listen%'",
        Kind::Pushes => "query ilike '%listen%'",
        Kind::Both => "true",
    };
    format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mcp-sessions' and {which}"
    )
}

impl Server {
    pub fn start(backend: &Backend) -> Result<Self, String> {
        let words: Vec<_> = backend.words().iter().map(String::as_str).collect();
        Ok(match backend {
            Backend::Redis(_) | Backend::RedisPair(_) => {
                let server = RedisServer::with(&words)?;
                let standby =
                    matches!(backend, Backend::RedisPair(_)).then(|| server.replica()).transpose()?;
                Server::Redis { server, standby }
            }
            Backend::Postgres(_) | Backend::PostgresPair(_) => {
                let server = PostgresServer::with(&words)?;
                let pair = matches!(backend, Backend::PostgresPair(_));
                let standby = pair.then(|| server.standby()).transpose()?;
                Server::Postgres { server, standby }
            }
            Backend::Sentinels => Server::Sentinels(RedisSentinels::start()?),
            Backend::Cluster => Server::Cluster(RedisCluster::start(1)?),
        })
    }

    /// Where proxies lead to.
    pub fn port(&self) -> u16 {
        match self {
            Server::Redis { server, .. } => server.port,
            Server::Postgres { server, .. } => server.port,
            Server::Sentinels(servers) => servers.servers[0].port,
            Server::Cluster(cluster) => cluster.servers[0].port,
        }
    }

    /// The URL for a node whose proxy is on this port.
    pub fn url(&self, proxy: u16) -> String {
        match self {
            Server::Redis { .. } => format!("redis://127.0.0.1:{proxy}"),
            Server::Postgres { .. } => format!("postgresql://postgres@127.0.0.1:{proxy}/postgres"),
            Server::Sentinels(servers) => servers.url(),
            Server::Cluster(cluster) => cluster.url(),
        }
    }

    pub fn kill(&mut self) {
        match self {
            Server::Redis { server, .. } => server.kill(),
            Server::Postgres { server, .. } => server.kill(),
            Server::Sentinels(_) | Server::Cluster(_) => {}
        }
    }

    pub fn restart(&mut self) -> Result<(), String> {
        match self {
            Server::Redis { server, .. } => server.restart(),
            Server::Postgres { server, .. } => server.restart(),
            Server::Sentinels(_) | Server::Cluster(_) => Ok(()),
        }
    }

    /// Stops the processes of the server, or lets them go on.
    pub fn signal(&self, name: &str) {
        match self {
            Server::Redis { server, .. } => signal(name, server.pid()),
            // The first of them comes first, so that it starts no other meanwhile.
            Server::Postgres { server, .. } => server.pids().into_iter().for_each(|pid| signal(name, pid)),
            Server::Sentinels(_) | Server::Cluster(_) => {}
        }
    }

    /// Closes connections of this kind from the side of a Postgres server; others are told by command.
    pub fn close_connections(&self, kind: Kind) -> bool {
        let Server::Postgres { server, .. } = self else { return false };
        // The server may be down: then there is nothing to close.
        let _ = server.sql(&terminate(kind));
        true
    }

    /// What is accepted from here on does not reach the standby.
    pub fn part(&mut self) -> Result<(), String> {
        match self {
            Server::Redis { standby: Some(standby), .. } => {
                cli(&["-p", &standby.port.to_string(), "replicaof", "no", "one"]).map(drop)
            }
            Server::Postgres { standby: Some(standby), .. } => standby.stop_following(),
            _ => Err("there is no standby".into()),
        }
    }

    /// The server dies, and its standby takes over as it is.
    pub fn promote(&mut self) -> Result<(), String> {
        self.kill();
        match self {
            Server::Redis { server, standby } => {
                *server = standby.take().ok_or("there is no standby")?;
            }
            Server::Postgres { server, standby } => {
                let next = standby.take().ok_or("there is no standby")?;
                next.promote()?;
                *server = next;
            }
            _ => return Err("there is no standby".into()),
        }
        Ok(())
    }

    /// Kills the master that sentinels name, or the first shard of a cluster. Returns which it was.
    pub fn kill_master(&mut self) -> Result<usize, String> {
        match self {
            Server::Sentinels(servers) => {
                let sentinel = servers.sentinels[0].port.to_string();
                let address = cli(&["-p", &sentinel, "sentinel", "get-master-addr-by-name", "mymaster"])?;
                let is_master =
                    |server: &RedisServer| address.lines().nth(1) == Some(&server.port.to_string());
                let n = servers.servers.iter().position(is_master).ok_or("the sentinels name no master")?;
                servers.servers[n].kill();
                Ok(n)
            }
            Server::Cluster(cluster) => {
                cluster.servers[0].kill();
                Ok(0)
            }
            _ => Err("nobody would take over".into()),
        }
    }

    /// Starts what was killed again; it finds out that another has taken over.
    pub fn bring_back(&mut self, n: usize) -> Result<(), String> {
        match self {
            Server::Sentinels(servers) => servers.servers[n].restart(),
            Server::Cluster(cluster) => cluster.servers[n].restart(),
            _ => Ok(()),
        }
    }

    /// What moves all slots of a cluster's first server to its last.
    pub fn slots_to_move(&self) -> Option<Vec<String>> {
        let Server::Cluster(cluster) = self else { return None };
        let id = |n: usize| cli(&["-p", &cluster.servers[n].port.to_string(), "cluster", "myid"]);
        let (from, to) = (id(0).ok()?, id(cluster.masters - 1).ok()?);
        let seed = format!("127.0.0.1:{}", cluster.servers[0].port);
        let words = format!(
            "--cluster reshard {seed} --cluster-from {} --cluster-to {} --cluster-slots 5461 --cluster-yes \
             --cluster-pipeline 10",
            from.trim(),
            to.trim()
        );
        Some(words.split(' ').map(ToOwned::to_owned).collect())
    }
}

impl Backend {
    fn words(&self) -> &[String] {
        match self {
            Backend::Redis(words) | Backend::RedisPair(words) => words,
            Backend::Postgres(words) | Backend::PostgresPair(words) => words,
            Backend::Sentinels | Backend::Cluster => &[],
        }
    }

    /// Whether nodes reach the server by their proxies.
    pub fn is_proxied(&self) -> bool {
        !matches!(self, Backend::Sentinels | Backend::Cluster)
    }

    /// Whether the order between a session's own events and the broadcasts is kept (G1): shards do not
    /// know of each other, and of a log that lost its end the rest is replayed as another one.
    pub fn merges(&self) -> bool {
        !matches!(self, Backend::Cluster | Backend::RedisPair(_))
    }
}
