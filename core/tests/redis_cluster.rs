//! What only a real cluster, and real sentinels, show: keys in their slots, slots that move, masters
//! that die.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::collections::BTreeSet;
use std::time::Duration;

use kit::{PATIENCE, ask, eventually, follow, id, insist, open, read};
use mcp_sessions::{Engine, LogLevel, OpenOptions, Options, SendOptions, SessionId, Target};
use redis::Connection;
use redis_server::{RedisCluster, RedisSentinels, cli};
use tokio::time::{sleep, timeout};

async fn engine(url: &str, options: &str) -> Engine {
    Engine::connect(url, Options::from_json(options).unwrap()).await.unwrap()
}

fn connections(cluster: &RedisCluster) -> Vec<Connection> {
    let raw = |server: &redis_server::RedisServer| {
        redis::Client::open(server.url()).unwrap().get_connection().unwrap()
    };
    cluster.servers[..cluster.masters].iter().map(raw).collect()
}

fn all_keys(cluster: &mut [Connection]) -> BTreeSet<String> {
    cluster.iter_mut().flat_map(|shard| ask::<Vec<String>>(shard, "KEYS *")).collect()
}

/// Directed and broadcast events to sessions in many slots, while `trouble` strikes; each session gets
/// each of its events once and in order.
async fn exactly_once(url: &str, mut trouble: impl AsyncFnMut(usize)) {
    const ROUNDS: usize = 60;
    const SESSIONS: usize = 6;
    let (a, b) = (engine(url, "{}").await, engine(url, "{}").await);
    let ids: Vec<_> = (0..SESSIONS).map(|n| id(&format!("s{n}"))).collect();
    let mut readers = Vec::new();
    for session in &ids {
        let stream = open(&a, session).await;
        let cursor = stream.cursor().to_string();
        drop(stream);
        readers.push(tokio::spawn(follow(a.clone(), session.clone(), Some(cursor), ROUNDS)));
    }
    for round in 0..ROUNDS {
        trouble(round).await;
        let payload = format!("m{round}");
        if round % 4 == 3 {
            insist(&b, Target::all(), &payload).await;
        } else {
            for session in &ids {
                insist(&b, Target::session(session), &payload).await;
            }
        }
    }
    let sent: Vec<_> = (0..ROUNDS).map(|round| format!("m{round}")).collect();
    for (session, reader) in ids.iter().zip(readers) {
        let (got, gaps) = timeout(3 * PATIENCE, reader).await.expect("everything arrives").unwrap();
        assert_eq!((got, gaps), (sent.clone(), 0), "{session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_a_shard_and_one_for_pushes() {
    let cluster = RedisCluster::start(0).unwrap();
    let mut shards = connections(&cluster);
    let idle = |shards: &mut [Connection]| -> usize {
        shards.iter_mut().map(|shard| ask::<String>(shard, "CLIENT LIST").lines().count()).sum()
    };
    let before = idle(&mut shards);
    let a = engine(&cluster.url(), "{}").await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(open(&a, &SessionId::random()).await);
    }
    let ids: Vec<_> = streams.iter().map(|stream| stream.session().clone()).collect();
    a.streams().send(Target::sessions(&ids), "m1", SendOptions::default()).await.unwrap();
    for stream in &streams {
        assert_eq!(read(stream, 1).await, ["m1"]);
    }
    eventually("the seeds' connections are closed", async || idle(&mut shards) == before + 3 + 1).await;
    let channels: usize = shards
        .iter_mut()
        .map(|shard| {
            ask::<Vec<String>>(shard, "PUBSUB CHANNELS").len()
                + ask::<Vec<String>>(shard, "PUBSUB SHARDCHANNELS").len()
        })
        .sum();
    assert_eq!(channels, 1, "a channel a node, whatever the number of sessions");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_ended() {
    let cluster = RedisCluster::start(0).unwrap();
    let mut shards = connections(&cluster);
    let options = r#"{"sessionTtlMs": 2000, "retention": {"ageMs": 500}, "broadcastRetention": {"ageMs": 500},
        "lease": {"ttlMs": 2000, "renewMs": 200}}"#;
    let (a, b) = (engine(&cluster.url(), options).await, engine(&cluster.url(), options).await);
    let idle = all_keys(&mut shards);
    let mut streams = Vec::new();
    for n in 0..10 {
        let session = id(&format!("s{n}"));
        a.info().set_log_level(&session, LogLevel::Info).await.unwrap();
        assert!(b.info().add_subscription(&session, &format!("file:///{n}")).await.unwrap());
        let subscribers = a.info().subscribers(&format!("file:///{n}")).await.unwrap();
        assert_eq!(subscribers, std::slice::from_ref(&session));
        let stream = open(if n % 2 == 0 { &a } else { &b }, &session).await;
        // Taken over, so that what the first holder holds has to be taken back.
        let stream = if n % 3 == 0 { open(&a, &session).await } else { stream };
        let key = SendOptions::default().idempotency_key("k");
        a.streams().send(Target::session(&session), "m", key).await.unwrap();
        streams.push(stream);
    }
    a.streams().send(Target::all(), "m", SendOptions::default().idempotency_key("k")).await.unwrap();
    for shard in &mut shards {
        for key in ask::<Vec<String>>(shard, "KEYS *") {
            let ttl: i64 = ask(shard, &format!("PTTL {key}"));
            assert!(ttl > 0 || ttl == -2, "{key} would stay for ever");
        }
    }
    assert!(a.info().delete(&id("s1")).await.unwrap());
    assert!(a.info().subscribers("file:///1").await.unwrap().is_empty());
    assert!(a.info().remove_subscription(&id("s2"), "file:///2").await.unwrap());
    // Half in order, half by a kill; the node that stays cleans up.
    b.abandon();
    drop(streams.drain(..));
    eventually("only what live nodes need is left", async || {
        all_keys(&mut shards).iter().all(|key| idle.contains(key))
    })
    .await;
    a.shutdown(Duration::from_secs(5)).await.unwrap();
    eventually("nothing is left", async || all_keys(&mut shards).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_killed_holder() {
    let cluster = RedisCluster::start(0).unwrap();
    let options = r#"{"lease": {"ttlMs": 2000, "renewMs": 200}}"#;
    let (a, b) = (engine(&cluster.url(), options).await, engine(&cluster.url(), options).await);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    insist(&b, Target::session(&s1), "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
    let cursor = stream.cursor();
    a.abandon();
    eventually("it is unheld", async || !b.streams().has(&s1).await.unwrap()).await;
    insist(&b, Target::session(&s1), "m2").await;
    let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(!again.gap());
    assert_eq!(read(&again, 1).await, ["m2"]);
}

/// The id of a server in its cluster.
fn name_of(port: u16) -> String {
    cli(&["-p", &port.to_string(), "cluster", "myid"]).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_lose_double_and_reorder_nothing() {
    let cluster = RedisCluster::start(0).unwrap();
    let ports: Vec<_> = cluster.servers.iter().map(|server| server.port).collect();
    let (first, last) = (format!("127.0.0.1:{}", ports[0]), name_of(ports[2]));
    let moves = tokio::task::spawn_blocking({
        let from = [name_of(ports[0]), name_of(ports[1])];
        move || {
            // Every slot of the first two servers goes to the third, the sessions' with them.
            for from in &from {
                cli(&[
                    "--cluster",
                    "reshard",
                    &first,
                    "--cluster-from",
                    from,
                    "--cluster-to",
                    &last,
                    "--cluster-slots",
                    "5462",
                    "--cluster-yes",
                    "--cluster-pipeline",
                    "3",
                ])
                .unwrap();
            }
        }
    });
    let mut moves = Some(moves);
    exactly_once(&cluster.url(), async |round| {
        // The rest is sent once all has moved.
        if round == 50 {
            moves.take().unwrap().await.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_fails_over_loses_doubles_and_reorders_nothing() {
    let mut cluster = RedisCluster::start(1).unwrap();
    let url = cluster.url();
    exactly_once(&url, async |round| {
        if round == 20 {
            // What was accepted has reached the replicas; what has not is Redis's to lose.
            for server in &cluster.servers[..3] {
                cli(&["-p", &server.port.to_string(), "wait", "1", "5000"]).unwrap();
            }
            cluster.servers[0].kill();
        }
    })
    .await;
}

/// Which of the masters has a key.
fn owner_of(cluster: &RedisCluster, key: &str) -> usize {
    let port = cluster.servers[0].port.to_string();
    match cli(&["-p", &port, "cluster", "keyslot", key]).unwrap().trim().parse::<u16>().unwrap() {
        0..=5460 => 0,
        5461..=10922 => 1,
        _ => 2,
    }
}

/// A list whose sessions are on two shards, one of which is down.
#[tokio::test(flavor = "multi_thread")]
async fn what_part_of_a_list_got_is_not_sent_again() {
    let mut cluster = RedisCluster::start(0).unwrap();
    for server in &cluster.servers {
        // What is left goes on without the other.
        cli(&["-p", &server.port.to_string(), "config", "set", "cluster-require-full-coverage", "no"])
            .unwrap();
    }
    let on = |n: usize| {
        let mut names = (0..).map(|n| format!("s{n}"));
        id(&names.find(|name| owner_of(&cluster, &format!("{{{name}}}")) == n).unwrap())
    };
    let shared = owner_of(&cluster, "{all}");
    let down = (shared + 1) % 3;
    let (here, away) = (on(shared), on(down));
    let mut shard = connections(&cluster).remove(shared);
    let a = engine(&cluster.url(), "{}").await;
    let waits = engine(&cluster.url(), r#"{"outageWaitMs": 9000}"#).await;
    for session in [&here, &away] {
        a.info().set_log_level(session, LogLevel::Info).await.unwrap();
    }
    cluster.servers[down].kill();
    for (n, sender) in (1..).zip([&a, &waits]) {
        // That the connection is lost shows to the first who use it: for them the outcome is unknown.
        let alone = || a.streams().send(Target::session(&away), "m", SendOptions::default());
        eventually("nothing happens there", async || !alone().await.unwrap_err().outcome_unknown()).await;
        let list = Target::sessions([&here, &away]);
        let error = sender.streams().send(list, "m", SendOptions::default()).await.unwrap_err();
        assert_eq!((error.code(), error.outcome_unknown()), ("unavailable", true), "{error}");
        let entries: usize = ask(&mut shard, &format!("LLEN tmcp:log:{{{here}}}"));
        assert_eq!(entries, 2 * n, "once each");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_name_the_new_master() {
    let mut servers = RedisSentinels::start().unwrap();
    let url = servers.url();
    exactly_once(&url, async |round| {
        if round == 20 {
            let master = servers.servers[0].port.to_string();
            cli(&["-p", &master, "wait", "1", "5000"]).unwrap();
            servers.servers[0].kill();
        }
    })
    .await;
    let refused = Engine::connect(&url.replace("mymaster", "another"), Options::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.retryable()), ("unavailable", true));
}
