//! A cluster's servers: which has what slot, one connection each, and the way of a command to its own.
//!
//! The client library's own routing sends the commands of a pipeline to one server, tries again on
//! its own terms, and subscribes again without a word; here each batch's order, unknown outcomes and
//! missed messages have to be known, so commands are routed by hand over its connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, ServerError, ServerErrorKind, Value,
};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::address::{Access, Host, read_host};
use super::link::{Keeping, Link, Live, Way};
use super::scripts::Script;
use super::{fault, wire};
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;

const SLOTS: usize = 16_384;
/// A command waits this long for a slot that is on its way, or for a new master.
const PATIENCE_MS: u64 = 2_000;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// To ask one server who has what.
const ASK: Duration = Duration::from_millis(1_000);

/// A command on its way to the server that has its slot.
pub(super) struct Call {
    slot: u16,
    cmd: Cmd,
    script: Option<&'static Script>,
}

impl Call {
    pub(super) fn new(key: &str, cmd: Cmd) -> Self {
        Call { slot: slot_of(key.as_bytes()), cmd, script: None }
    }

    /// A script: its keys, all of one slot, and its arguments.
    pub(super) fn script<A: AsRef<[u8]>>(script: &'static Script, keys: &[String], arguments: &[A]) -> Self {
        let mut cmd = script.by_hash();
        cmd.arg(keys.len()).arg(keys);
        for argument in arguments {
            cmd.arg(argument.as_ref());
        }
        let slot = keys.first().map_or(0, |key| slot_of(key.as_bytes()));
        Call { slot, cmd, script: Some(script) }
    }

    fn bring_text(&mut self) {
        let Some(script) = self.script else { return };
        let mut cmd = script.by_text();
        for argument in self.cmd.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = argument {
                cmd.arg(bytes);
            }
        }
        self.cmd = cmd;
    }
}

/// Which server has what slot.
#[derive(Default)]
struct Map {
    hosts: Vec<Host>,
    /// An index into `hosts`, or none.
    owners: Vec<Option<u16>>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Host> {
        let at = (*self.owners.get(usize::from(slot))?)?;
        self.hosts.get(usize::from(at))
    }

    fn moved(&self, slot: u16, to: Host) -> Map {
        let mut map = Map { hosts: self.hosts.clone(), owners: self.owners.clone() };
        let at = map.hosts.iter().position(|host| *host == to).unwrap_or_else(|| {
            map.hosts.push(to);
            map.hosts.len() - 1
        });
        map.owners.resize(SLOTS, None);
        map.owners[usize::from(slot)] = Some(at as u16);
        map
    }

    /// Reads what `CLUSTER SLOTS` answers; a server without a name is the one that was asked.
    fn read(answer: &Value, asked: &Host) -> Option<Map> {
        let mut map = Map { hosts: Vec::new(), owners: vec![None; SLOTS] };
        for range in wire::array(answer)? {
            let [first, last, master, ..] = wire::array(range)? else { return None };
            let [name, port, ..] = wire::array(master)? else { return None };
            let name = wire::string(name).filter(|name| !matches!(*name, "" | "?")).unwrap_or(&asked.name);
            let host = Host { name: name.to_owned(), port: u16::try_from(wire::number(port)?).ok()? };
            let at = map.hosts.iter().position(|known| *known == host).unwrap_or_else(|| {
                map.hosts.push(host);
                map.hosts.len() - 1
            });
            let range =
                usize::try_from(wire::number(first)?).ok()?..=usize::try_from(wire::number(last)?).ok()?;
            map.owners.get_mut(range)?.fill(Some(at as u16));
        }
        (!map.hosts.is_empty()).then_some(map)
    }
}

/// The servers of a cluster.
pub(super) struct Cluster {
    seeds: Vec<Host>,
    to: Access,
    runtime: Runtime,
    /// How the connections to the shards are kept.
    links_kept: Keeping,
    map: Mutex<Arc<Map>>,
    links: Mutex<HashMap<Host, Arc<OnceCell<Link>>>>,
    refreshing: AsyncMutex<()>,
    /// The servers know channels of one slot.
    sharded: AtomicBool,
    closed: AtomicBool,
}

/// What to do after an answer.
enum Next {
    Done(Result<Value>),
    /// Once more, after the map was corrected, maybe by asking another server.
    Again {
        wait: bool,
        ask: Option<Host>,
    },
}

impl Cluster {
    /// Finds out who has what. Fails when no seed answers.
    pub(super) async fn connect(seeds: Vec<Host>, to: Access, links_kept: Keeping) -> Result<Arc<Self>> {
        let cluster = Cluster {
            seeds,
            to,
            runtime: links_kept.runtime.clone(),
            links_kept,
            map: Mutex::default(),
            links: Mutex::default(),
            refreshing: AsyncMutex::new(()),
            sharded: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        };
        cluster.refresh().await.map_err(|error| fault::not_connected(&error))?;
        Ok(Arc::new(cluster))
    }

    /// Whether channels belong to slots here (Redis 7), so that a message stays with one shard.
    pub(super) fn is_sharded(&self) -> bool {
        self.sharded.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.links.lock().clear();
    }

    /// The server that has a slot now, and its mark.
    pub(super) async fn server_of(&self, slot: u16) -> RedisResult<(Client, u64)> {
        // Whoever asks has just lost the last one.
        self.refresh().await?;
        let map = self.map.lock().clone();
        let host = map.owner(slot).ok_or_else(|| refused("no server of the cluster has this slot"))?;
        Ok((self.client(host)?, mark(host)))
    }

    pub(super) fn is_last(&self, slot: u16, at: u64) -> bool {
        self.map.lock().owner(slot).is_none_or(|host| mark(host) == at)
    }

    fn client(&self, host: &Host) -> RedisResult<Client> {
        self.to.client(host).map_err(|_| refused("the cluster named a server that can't be connected to"))
    }

    /// One command.
    pub(super) async fn run(&self, operation: &'static str, call: Call) -> Result<Value> {
        let mut answers = self.run_all(operation, vec![call]).await;
        answers.pop().unwrap_or_else(|| Err(fault::unreadable(operation)))
    }

    /// Several commands, each to its server, all servers at once; those for one server in this order.
    /// An answer may be a server's error. What got no answer is not sent again: its outcome is unknown.
    pub(super) async fn run_all(&self, operation: &'static str, mut calls: Vec<Call>) -> Vec<Result<Value>> {
        let mut answers: Vec<Option<Result<Value>>> = calls.iter().map(|_| None).collect();
        let mut asks: Vec<Option<Host>> = vec![None; calls.len()];
        let started = self.runtime.now_ms();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let mut groups: HashMap<Option<Host>, Vec<usize>> = HashMap::new();
            let map = self.map.lock().clone();
            for n in (0..calls.len()).filter(|n| answers[*n].is_none()) {
                let host = asks[n].clone().or_else(|| map.owner(calls[n].slot).cloned());
                groups.entry(host).or_default().push(n);
            }
            if groups.is_empty() {
                return answers.into_iter().flatten().collect();
            }
            let (calls_now, asks_now) = (&calls, &asks);
            let sent = groups.into_iter().map(|(host, group)| async move {
                let next = self.send_group(operation, host.as_ref(), calls_now, asks_now, &group).await;
                group.into_iter().zip(next).collect::<Vec<_>>()
            });
            let mut wait = false;
            for (n, next) in join_all(sent).await.into_iter().flatten() {
                asks[n] = None;
                match next {
                    Next::Done(Ok(Value::ServerError(error)))
                        if fault::is_no_script(&error) && calls[n].script.is_some() =>
                    {
                        calls[n].bring_text();
                    }
                    Next::Done(answer) => answers[n] = Some(answer),
                    Next::Again { wait: waits, ask } => {
                        wait |= waits;
                        asks[n] = ask;
                    }
                }
            }
            if !wait {
                continue;
            }
            if self.runtime.now_ms().saturating_sub(started) > PATIENCE_MS
                || self.closed.load(Ordering::Acquire)
            {
                return answers
                    .into_iter()
                    .map(|a| a.unwrap_or_else(|| Err(fault::down(operation))))
                    .collect();
            }
            self.runtime.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "the cluster can't be asked who has what");
            }
        }
    }

    async fn send_group(
        &self,
        operation: &'static str,
        host: Option<&Host>,
        calls: &[Call],
        asks: &[Option<Host>],
        group: &[usize],
    ) -> Vec<Next> {
        let again = || group.iter().map(|_| Next::Again { wait: true, ask: None }).collect();
        let Some(host) = host else { return again() };
        let Some(mut live) = self.live(host).await else { return again() };
        let mut commands = Vec::with_capacity(group.len());
        for n in group {
            commands.extend(asks[*n].is_some().then(|| redis::cmd("ASKING")));
            commands.push(calls[*n].cmd.clone());
        }
        let answers = match live.send_all(commands).await {
            Ok(answers) => answers,
            Err(error) => {
                let error = fault::lost(operation, error);
                return group.iter().map(|_| Next::Done(Err(error.duplicate()))).collect();
            }
        };
        let mut answers = answers.into_iter();
        group
            .iter()
            .map(|n| {
                if asks[*n].is_some() {
                    answers.next();
                }
                let answer = answers.next().unwrap_or(Value::Nil);
                self.next(calls[*n].slot, host, &live, answer)
            })
            .collect()
    }

    fn next(&self, slot: u16, host: &Host, live: &Live, answer: Value) -> Next {
        let Value::ServerError(error) = &answer else { return Next::Done(Ok(answer)) };
        match error.kind() {
            Some(ServerErrorKind::Moved) => match redirected(error, host) {
                Some(to) => {
                    let mut map = self.map.lock();
                    // The same owner again: two servers disagree for a moment.
                    let wait = to == *host;
                    *map = Arc::new(map.moved(slot, to));
                    Next::Again { wait, ask: None }
                }
                None => Next::Again { wait: true, ask: None },
            },
            Some(ServerErrorKind::Ask) => {
                let ask = redirected(error, host);
                Next::Again { wait: ask.is_none(), ask }
            }
            Some(
                ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading,
            ) => Next::Again { wait: true, ask: None },
            Some(ServerErrorKind::ReadOnly) => {
                live.give_up();
                Next::Again { wait: true, ask: None }
            }
            _ => Next::Done(Ok(answer)),
        }
    }

    async fn live(&self, host: &Host) -> Option<Live> {
        let cell = self.links.lock().entry(host.clone()).or_default().clone();
        let link = cell.get_or_try_init(|| async {
            let keeping = Keeping {
                way: Way::Fixed(Box::new(self.client(host)?)),
                first: ASK,
                ..self.links_kept.clone()
            };
            Link::open(keeping).await.map_err(|_| refused("a server of the cluster can't be reached"))
        });
        link.await.ok()?.live()
    }

    /// Asks the servers that are known, then the seeds; one refresh at a time serves all who wait.
    async fn refresh(&self) -> RedisResult<()> {
        let before = self.map.lock().clone();
        let _one_at_a_time = self.refreshing.lock().await;
        if !Arc::ptr_eq(&before, &self.map.lock()) {
            return Ok(());
        }
        let mut problem = None;
        let mut asked = before.hosts.clone();
        asked.extend(self.seeds.iter().filter(|seed| !before.hosts.contains(seed)).cloned());
        let tries = asked.iter().map(|host| Box::pin(self.ask(host)));
        // All at once: the dead ones would keep the others waiting.
        let mut tries: futures_util::stream::FuturesUnordered<_> = tries.collect();
        while let Some(answer) = futures_util::StreamExt::next(&mut tries).await {
            match answer {
                Ok(map) => {
                    self.links.lock().retain(|host, _| map.hosts.contains(host));
                    *self.map.lock() = Arc::new(map);
                    return Ok(());
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| refused("no server of the cluster is known")))
    }

    async fn ask(&self, host: &Host) -> RedisResult<Map> {
        let open = self.links.lock().get(host).and_then(|cell| cell.get()?.live());
        let slots = async {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg("SLOTS");
            if let Some(mut live) = open {
                return live.send(cmd).await?.extract_error();
            }
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(ASK))
                .set_response_timeout(Some(ASK));
            let mut connection =
                self.client(host)?.get_multiplexed_async_connection_with_config(&config).await?;
            let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
            self.sharded.store(knows_sharded_channels(&info), Ordering::Release);
            connection.send_packed_command(&cmd).await?.extract_error()
        };
        let answer = self.runtime.within(ASK, slots).await;
        let answer = answer.ok_or_else(|| refused("a server of the cluster gave no answer in time"))??;
        Map::read(&answer, host).ok_or_else(|| refused("the server is not part of a cluster that works"))
    }
}

fn knows_sharded_channels(info: &str) -> bool {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    version.and_then(|v| v.split('.').next()?.parse::<u32>().ok()).is_some_and(|major| major >= 7)
}

fn redirected(error: &ServerError, asked: &Host) -> Option<Host> {
    let to = error.details()?.split_ascii_whitespace().last()?;
    match to.rsplit_once(':')? {
        ("", port) => Some(Host { name: asked.name.clone(), port: port.parse().ok()? }),
        // An IPv6 address comes without brackets.
        (name, port) if name.contains(':') && !to.starts_with('[') => {
            Some(Host { name: name.to_owned(), port: port.parse().ok()? })
        }
        _ => read_host(to, 0),
    }
}

fn refused(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Io, what))
}

fn mark(host: &Host) -> u64 {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(host)
}

/// The slot of a key: of its hash tag, if it has one.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tagged = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tagged.unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = (n as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// A server's error as the engine's.
pub(super) fn settled(operation: &'static str, answer: Result<Value>) -> Result<Value> {
    match answer? {
        Value::ServerError(error) => Err(fault::refused(operation, &error)),
        value => Ok(value),
    }
}

/// The first error of many answers, or all of them.
pub(super) fn all_settled(operation: &'static str, answers: Vec<Result<Value>>) -> Result<Vec<Value>> {
    answers.into_iter().map(|answer| settled(operation, answer)).collect::<std::result::Result<_, Error>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // As `CLUSTER KEYSLOT` says.
        for (key, slot) in
            [("foo", 12182), ("123456789", 12739), ("a{foo}b", 12182), ("{}foo", slot_of(b"{}foo")), ("", 0)]
        {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_ne!(slot_of(b"{}foo"), slot_of(b"{}bar"), "an empty tag is none");
    }

    #[test]
    fn redirections() {
        let asked = Host { name: "asked".into(), port: 1 };
        for (text, name, port) in [
            ("3999 127.0.0.1:6381", "127.0.0.1", 6381),
            ("1 :7000", "asked", 7000),
            ("1 ::1:7000", "::1", 7000),
        ] {
            let reply = redis::parse_redis_value(format!("-MOVED {text}\r\n").as_bytes()).unwrap();
            let Value::ServerError(error) = reply else { panic!("{reply:?}") };
            assert_eq!(redirected(&error, &asked), Some(Host { name: name.into(), port }));
        }
    }
}
