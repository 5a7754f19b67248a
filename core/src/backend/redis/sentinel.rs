//! Who the master is, as sentinels say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};

use super::address::{Access, Host, read_host};
use super::wire;
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// Sentinels that watch one master, and what they last said.
pub(super) struct Sentinels {
    seeds: Mutex<Vec<Host>>,
    name: String,
    ask: Access,
    to: Access,
    runtime: Runtime,
    last: Mutex<Option<Host>>,
    /// Goes up with each change of the master.
    mark: AtomicU64,
}

impl Sentinels {
    pub(super) fn new(seeds: Vec<Host>, name: String, ask: Access, to: Access, runtime: Runtime) -> Self {
        let (last, mark) = (Mutex::new(None), AtomicU64::new(0));
        Sentinels { seeds: Mutex::new(seeds), name, ask, to, runtime, last, mark }
    }

    /// Asks one sentinel after the other; the first that knows is asked first the next time.
    pub(super) async fn master(&self, limit: Duration) -> RedisResult<(Client, u64)> {
        let seeds = self.seeds.lock().clone();
        let each = limit / (seeds.len() as u32).max(1);
        let mut problem = None;
        for (n, seed) in seeds.iter().enumerate() {
            match self.named_by(seed, each).await {
                Ok(master) => {
                    self.seeds.lock().swap(0, n);
                    return Ok((self.client(&self.to, &master)?, self.note(master)));
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| refused("no sentinel is named")))
    }

    /// Whether nothing has changed since this mark: one link that finds a new master tells the others.
    pub(super) fn is_last(&self, mark: u64) -> bool {
        self.mark.load(Ordering::Acquire) == mark
    }

    fn note(&self, master: Host) -> u64 {
        let mut last = self.last.lock();
        if last.as_ref() != Some(&master) {
            *last = Some(master);
            self.mark.fetch_add(1, Ordering::AcqRel);
        }
        self.mark.load(Ordering::Acquire)
    }

    fn client(&self, access: &Access, host: &Host) -> RedisResult<Client> {
        access.client(host).map_err(|_| refused("a sentinel named a server that can't be connected to"))
    }

    async fn named_by(&self, seed: &Host, limit: Duration) -> RedisResult<Host> {
        let client = self.client(&self.ask, seed)?;
        let ask = Box::pin(async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(limit))
                .set_response_timeout(Some(limit));
            let mut sentinel = client.get_multiplexed_async_connection_with_config(&config).await?;
            let mut cmd = redis::cmd("SENTINEL");
            cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
            sentinel.send_packed_command(&cmd).await?.extract_error()
        });
        let answer = self.runtime.within(limit, ask).await;
        let answer = answer.ok_or_else(|| refused("a sentinel gave no answer in time"))??;
        let Some([name, port]) = wire::array(&answer) else {
            return Err(refused("the sentinels know no master of this name"));
        };
        let port = wire::string(port).and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let host = wire::string(name).zip(port).map(|(name, port)| Host { name: name.to_owned(), port });
        host.filter(|host| read_host(&host.to_string(), 1).is_some())
            .ok_or_else(|| refused("a sentinel's answer can't be read"))
    }
}

/// Fails on a replica: sentinels may be a moment behind.
pub(super) async fn is_master(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role = connection.send_packed_command(&redis::cmd("ROLE")).await?.extract_error()?;
    match wire::array(&role).and_then(|role| role.first()).and_then(wire::string) {
        Some("master") => Ok(()),
        _ => Err(refused("the server the sentinels named is no master")),
    }
}

fn refused(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Io, what))
}
