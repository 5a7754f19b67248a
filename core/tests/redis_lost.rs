//! What Redis lost, or another program spoiled: evicted, deleted, flushed, failed over, of another
//! type. It is told (`gap`, `corrupt`), and then all is well again.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use kit::{PATIENCE, ask, connect, eventually, id, insist, open, raw, read, reopen, send, send_all};
use mcp_sessions::{EndReason, Engine, Error, ErrorKind, LogLevel, Options, SendOptions, Target};
use redis_server::RedisServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// A `corrupt` error says which key it is about, and what to do.
fn names(error: &Error, key: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
    assert!(text.contains(&format!("{key} ")) && text.contains("delete the key"), "{key}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_named_and_healed_by_deleting_it() {
    let server = RedisServer::start().unwrap();
    let a = connect(&server.url()).await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    let to = || Target::session(&s1);

    let _: () = ask(&mut connection, "SET tmcp:session:{s1} nonsense");
    let failed = a.streams().send(to(), "m", SendOptions::default()).await.unwrap_err();
    names(&failed, "tmcp:session:{s1}");
    names(&a.streams().has(&s1).await.unwrap_err(), "tmcp:session:{s1}");
    names(&a.streams().open(&s1, Default::default()).await.unwrap_err(), "tmcp:session:{s1}");
    names(&a.info().get(&s1).await.unwrap_err(), "tmcp:session:{s1}");
    let _: () = ask(&mut connection, "DEL tmcp:session:{s1}");

    let stream = open(&a, &s1).await;
    let _: () = ask(&mut connection, "SET tmcp:log:{s1} nonsense");
    names(&a.streams().send(to(), "m", SendOptions::default()).await.unwrap_err(), "tmcp:log:{s1}");
    let _: () = ask(&mut connection, "DEL tmcp:log:{s1}");
    let _: () = ask(&mut connection, "SET tmcp:keys:{s1} nonsense");
    let keyed = SendOptions::default().idempotency_key("k");
    names(&a.streams().send(to(), "m", keyed.clone()).await.unwrap_err(), "tmcp:keys:{s1}");
    let _: () = ask(&mut connection, "DEL tmcp:keys:{s1}");
    assert_eq!(a.streams().send(to(), "m", keyed).await.unwrap().accepted, 1);
    assert_eq!(read(&stream, 1).await, ["m"], "what failed took no offset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_another_type_is_not_a_missing_one() {
    let server = RedisServer::start().unwrap();
    let a = connect(&server.url()).await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    for name in ["client_info", "client_capabilities", "protocol_version", "initialize_params"] {
        let key = format!("tmcp:{name}:s1");
        let _: () = ask(&mut connection, &format!("LPUSH {key} nonsense"));
        // Another program's write need not have been told.
        let fresh = connect(&server.url()).await;
        names(&fresh.info().get(&s1).await.unwrap_err(), &key);
        let _: () = ask(&mut connection, &format!("DEL {key}"));
        assert_eq!(fresh.info().log_level(&s1).await.unwrap(), LogLevel::Info);
    }
    let _: () = ask(&mut connection, "SET tmcp:client_info:s3 {no-json");
    names(&a.info().get(&id("s3")).await.unwrap_err(), "tmcp:client_info:s3");
    a.info().set_client_info(&id("s3"), "{}").await.unwrap();
    assert_eq!(a.info().client_info(&id("s3")).await.unwrap().as_str(), "{}", "setting it again heals it");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_of_another_type_are_named() {
    let server = RedisServer::start().unwrap();
    let a = connect(&server.url()).await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    let _: () = ask(&mut connection, "SET tmcp:subscriptions:file:///a nonsense");
    names(&a.info().subscribers("file:///a").await.unwrap_err(), "tmcp:subscriptions:file:///a");
    let _: () = ask(&mut connection, "DEL tmcp:subscriptions:file:///a");
    let _: () = ask(&mut connection, "SET tmcp:uris:{s1} nonsense");
    names(&a.info().add_subscription(&s1, "file:///a").await.unwrap_err(), "tmcp:uris:{s1}");
    names(&a.info().delete(&s1).await.unwrap_err(), "tmcp:uris:{s1}");
    let _: () = ask(&mut connection, "DEL tmcp:uris:{s1}");
    a.info().add_subscription(&s1, "file:///a").await.unwrap();
    assert_eq!(a.info().subscribers("file:///a").await.unwrap(), [s1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_nodes_share_is_named_and_the_engine_recovers() {
    let server = RedisServer::start().unwrap();
    let options = Options::from_json(r#"{"lease": {"ttlMs": 1000, "renewMs": 100}}"#).unwrap();
    let a = Engine::connect(&server.url(), options).await.unwrap();
    let mut connection = raw(&server);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let _: () = ask(&mut connection, "DEL tmcp:topic:{all}b");
    let _: () = ask(&mut connection, "SET tmcp:topic:{all}b nonsense");
    let failed = a.streams().send(Target::all(), "m", SendOptions::default()).await.unwrap_err();
    names(&failed, "tmcp:topic:{all}b");
    let _: () = ask(&mut connection, "DEL tmcp:topic:{all}b");
    // Every broadcast before is lost, which a stream is told once there is another.
    send_all(&a, "m1").await;
    assert_eq!(timeout(PATIENCE, stream.ended()).await.unwrap(), EndReason::Gap);
    let cursor = stream.cursor();
    let again = reopen(&a, &s1, &cursor).await;
    assert!(again.gap());

    let _: () = ask(&mut connection, "DEL tmcp:nodes:{all}");
    let _: () = ask(&mut connection, "SET tmcp:nodes:{all} nonsense");
    eventually("the lease runs out", async || !a.health().await.ready).await;
    let _: () = ask(&mut connection, "DEL tmcp:nodes:{all}");
    eventually("the node is back", async || a.health().await.ready).await;
    insist(&a, Target::session(&s1), "m2").await;
    insist(&a, Target::all(), "m3").await;
    // It may have been told of m1 before the gap, and is again; the stream is back a moment after its node.
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "m3") {
        got.extend(read(&again, 1).await);
    }
    got.retain(|payload| payload != "m1");
    assert_eq!(got, ["m2", "m3"]);
}

/// What is there without waiting.
fn read_all(stream: &mcp_sessions::EventStream) -> Vec<String> {
    std::iter::from_fn(|| stream.try_next()).map(|event| event.payload().to_string()).collect()
}

/// Whoever holds a session whose keys are gone is told by the next event for it.
async fn gone_is_a_gap(server: &RedisServer, lose: impl FnOnce(&mut redis::Connection)) {
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut connection = raw(server);
    let (s1, s2) = (id("s1"), id("s2"));
    let (stream, other) = (open(&a, &s1).await, open(&a, &s2).await);
    send(&b, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    lose(&mut connection);
    eventually("the holder is told", async || {
        let sent = b.streams().send(Target::session(&s1), "lost", SendOptions::default()).await;
        sent.is_ok_and(|sent| sent.dropped == 1) && stream.end().is_some()
    })
    .await;
    assert_eq!(stream.end(), Some(EndReason::Gap));
    let again = reopen(&a, &s1, &cursor).await;
    assert!(again.gap());
    insist(&b, Target::session(&s1), "m1").await;
    insist(&b, Target::all(), "m2").await;
    assert_eq!(read(&again, 2).await, ["m1", "m2"]);
    insist(&b, Target::session(&s2), "m3").await;
    assert_eq!(read(&other, 2).await, ["m2", "m3"], "nobody else is harmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_keys_are_gone_is_a_gap() {
    let server = RedisServer::start().unwrap();
    gone_is_a_gap(&server, |connection| {
        let _: i64 = ask(connection, "DEL tmcp:session:{s1} tmcp:log:{s1} tmcp:keys:{s1}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_session_that_is_gone_is_noticed_without_an_event() {
    let server = RedisServer::start().unwrap();
    // The renewals look at what is held, a part at a time: here all of it each time.
    let options = Options::from_json(r#"{"lease": {"ttlMs": 5000, "renewMs": 50}}"#).unwrap();
    let a = Engine::connect(&server.url(), options).await.unwrap();
    let stream = open(&a, &id("s1")).await;
    let _: i64 = ask(&mut raw(&server), "DEL tmcp:session:{s1}");
    assert_eq!(timeout(PATIENCE, stream.ended()).await.unwrap(), EndReason::Gap);
    let held: bool = ask(&mut raw(&server), &format!("SISMEMBER tmcp:held:{} s1", a.node_id()));
    assert!(!held, "it is no longer looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_gone_is_a_gap_to_those_who_were_away() {
    let server = RedisServer::start().unwrap();
    let a = connect(&server.url()).await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let cursor = stream.cursor();
    for payload in ["m1", "m2"] {
        send(&a, &s1, payload).await;
    }
    assert_eq!(read(&stream, 2).await, ["m1", "m2"]);
    let _: i64 = ask(&mut raw(&server), "DEL tmcp:log:{s1}");
    send(&a, &s1, "m3").await;
    assert_eq!(read(&stream, 1).await, ["m3"], "the live stream misses nothing");
    let again = reopen(&a, &s1, &cursor).await;
    assert!(again.gap());
    assert_eq!(read(&again, 1).await, ["m3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_is_a_gap_then_all_is_well() {
    let server = RedisServer::start().unwrap();
    let a = connect(&server.url()).await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    assert!(a.info().get(&s1).await.unwrap().is_some());
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    let used: String = ask(&mut connection, "INFO memory");
    let used: u64 = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap();
    let _: () = ask(&mut connection, "CONFIG SET maxmemory-policy allkeys-lru");
    let _: () = ask(&mut connection, &format!("CONFIG SET maxmemory {}", used + 1_000_000));
    let junk = "x".repeat(1_000);
    let mut n = 0;
    while ask::<u64>(&mut connection, "EXISTS tmcp:session:{s1}") == 1 {
        let _: () = redis::cmd("SET").arg(format!("junk:{n}")).arg(&junk).query(&mut connection).unwrap();
        n += 1;
        assert!(n < 1_000_000, "it is never evicted");
    }
    let _: () = ask(&mut connection, "CONFIG SET maxmemory 0");
    let streams = a.streams();
    eventually("the holder is told", async || {
        // The node's lease may have gone, too.
        let _ = streams.send(Target::session(&s1), "lost", SendOptions::default()).await;
        stream.end().is_some()
    })
    .await;
    assert!(matches!(stream.end(), Some(EndReason::Gap | EndReason::Fenced)), "{:?}", stream.end());
    let again = reopen(&a, &s1, &cursor).await;
    assert!(again.gap());
    let _ = read_all(&again);
    insist(&a, Target::session(&s1), "m1").await;
    insist(&a, Target::all(), "m2").await;
    assert_eq!(read(&again, 2).await, ["m1", "m2"]);
    a.info().set_log_level(&s1, LogLevel::Error).await.unwrap();
    assert_eq!(a.info().log_level(&s1).await.unwrap(), LogLevel::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flush_took_is_not_in_any_cache() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    assert_eq!(b.info().log_level(&s1).await.unwrap(), LogLevel::Info);
    let stream = open(&a, &s1).await;
    send(&b, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    let _: () = ask(&mut raw(&server), "FLUSHALL");
    let end = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(matches!(end, EndReason::Gap | EndReason::Fenced), "{end}");
    let again = reopen(&a, &s1, &cursor).await;
    assert!(again.gap());
    eventually("the other node sees that it is gone", async || {
        b.info().get(&s1).await.unwrap().is_none_or(|info| info.log_level.is_none())
    })
    .await;
    insist(&b, Target::session(&s1), "m1").await;
    assert_eq!(read(&again, 1).await, ["m1"]);
}

/// Passes connections on to the server of the moment, as a failover of a provider does.
struct Switch {
    port: u16,
    target: Arc<AtomicU16>,
    cut: watch::Sender<()>,
}

impl Switch {
    async fn to(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(server.port));
        let (cut, cuts) = watch::channel(());
        let upstream = target.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (port, mut cut) = (upstream.load(Ordering::SeqCst), cuts.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let through = tokio::io::copy_bidirectional(&mut client, &mut server);
                    tokio::select! { _ = through => {}, _ = cut.changed() => {} }
                });
            }
        });
        Switch { port, target, cut }
    }

    fn fail_over(&self, to: &RedisServer) {
        self.target.store(to.port, Ordering::SeqCst);
        self.cut.send_replace(());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_promoted_without_the_last_writes_is_a_gap() {
    let (primary, replica) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    let mut second = raw(&replica);
    let _: () = ask(&mut second, &format!("REPLICAOF 127.0.0.1 {}", primary.port));
    eventually("the replica follows", async || {
        ask::<String>(&mut second, "INFO replication").contains("master_link_status:up")
    })
    .await;
    let switch = Switch::to(&primary).await;
    let url = format!("redis://127.0.0.1:{}", switch.port);
    let (a, b) = (connect(&url).await, connect(&url).await);
    let (s1, s2) = (id("s1"), id("s2"));
    let (stream, other) = (open(&a, &s1).await, open(&a, &s2).await);
    send(&b, &s1, "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
    let mut first = raw(&primary);
    let acknowledged: i64 = ask(&mut first, "WAIT 1 10000");
    assert_eq!(acknowledged, 1);
    // The link stands still from here on: what follows is accepted, and lost by the promotion.
    let _: () = ask(&mut second, "REPLICAOF NO ONE");
    send(&b, &s1, "m2").await;
    assert_eq!(read(&stream, 1).await, ["m2"]);
    let cursor = stream.cursor();
    switch.fail_over(&replica);
    assert_eq!(timeout(PATIENCE, stream.ended()).await.unwrap(), EndReason::Gap);
    let again = reopen(&a, &s1, &cursor).await;
    assert!(again.gap());
    let replayed = read_all(&again);
    insist(&b, Target::session(&s1), "m3").await;
    assert_eq!(read(&again, 1).await, ["m3"], "after {replayed:?}");
    insist(&b, Target::session(&s2), "m4").await;
    assert_eq!(read(&other, 1).await, ["m4"], "who lost nothing goes on");
    assert_eq!(other.end(), None);
}

/// A server, a replica of it that does not follow any more, and two nodes that another takes over for.
struct Pair {
    primary: RedisServer,
    replica: RedisServer,
    switch: Switch,
}

impl Pair {
    async fn start() -> Self {
        let primary = RedisServer::start().unwrap();
        let replica = primary.replica().unwrap();
        let switch = Switch::to(&primary).await;
        Pair { primary, replica, switch }
    }

    async fn connect(&self) -> Engine {
        connect(&format!("redis://127.0.0.1:{}", self.switch.port)).await
    }

    /// What was written so far is on the replica, and nothing that is written from here on.
    fn part(&self) {
        let acknowledged: i64 = ask(&mut raw(&self.primary), "WAIT 1 10000");
        assert_eq!(acknowledged, 1);
        let _: () = ask(&mut raw(&self.replica), "REPLICAOF NO ONE");
    }
}

/// The positions of what was lost are those of other events by the time that its clients come back.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_place_of_lost_events_is_a_gap() {
    let pair = Pair::start().await;
    let (a, b) = (pair.connect().await, pair.connect().await);
    let [s1, s2] = ["s1", "s2"].map(id);
    let [lost, kept] = [open(&a, &s1).await, open(&a, &s2).await];
    send(&b, &s1, "m1").await;
    send(&b, &s2, "m1").await;
    send_all(&b, "b1").await;
    assert_eq!(read(&lost, 2).await, ["m1", "b1"]);
    assert_eq!(read(&kept, 2).await, ["m1", "b1"]);
    let [lost, kept] = [lost, kept].map(|stream| stream.cursor());
    eventually("they are given back", async || !b.streams().has(&s1).await.unwrap()).await;
    let stream = reopen(&a, &s1, &lost).await;
    pair.part();
    send(&b, &s1, "m2").await;
    assert_eq!(read(&stream, 1).await, ["m2"]);
    let lost = stream.cursor();
    drop(stream);
    a.abandon();
    pair.switch.fail_over(&pair.replica);
    for payload in ["m2'", "m3'"] {
        insist(&b, Target::session(&s1), payload).await;
        insist(&b, Target::session(&s2), payload).await;
    }
    let again = reopen(&b, &s1, &lost).await;
    assert!(again.gap(), "m2' took the place of m2");
    assert_eq!(read(&again, 3).await, ["m1", "m2'", "m3'"]);
    let again = reopen(&b, &s2, &kept).await;
    assert!(!again.gap(), "nothing of it was lost");
    assert_eq!(read(&again, 2).await, ["m2'", "m3'"]);
    insist(&b, Target::session(&s2), "m4'").await;
    assert_eq!(read(&again, 1).await, ["m4'"]);
    // And once more, with what was given in the run before.
    let cursor = again.cursor();
    drop(again);
    insist(&b, Target::session(&s2), "m5'").await;
    let again = reopen(&b, &s2, &cursor).await;
    assert_eq!((read(&again, 1).await, again.gap()), (vec!["m5'".to_owned()], false));
}

/// The same for streams that stay, and for broadcasts.
#[tokio::test(flavor = "multi_thread")]
async fn lost_broadcasts_are_a_gap_to_those_who_had_them() {
    let pair = Pair::start().await;
    let (a, b) = (pair.connect().await, pair.connect().await);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send_all(&b, "b1").await;
    send(&b, &s1, "m1").await;
    assert_eq!(read(&stream, 2).await, ["b1", "m1"]);
    pair.part();
    send_all(&b, "b2").await;
    assert_eq!(read(&stream, 1).await, ["b2"]);
    let cursor = stream.cursor();
    a.abandon();
    drop(stream);
    pair.switch.fail_over(&pair.replica);
    for payload in ["b2'", "b3'"] {
        insist(&b, Target::all(), payload).await;
    }
    let again = reopen(&b, &s1, &cursor).await;
    assert!(again.gap(), "b2' took the place of b2");
    assert_eq!(read(&again, 3).await, ["b1", "b2'", "b3'"]);
}

/// A restart that lost nothing is no gap: neither to a stream that stays, nor to a cursor.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_without_loss_are_no_gaps() {
    let mut server =
        RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always", "--save", ""]).unwrap();
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    let [s1, s2] = ["s1", "s2"].map(id);
    let stays = open(&a, &s1).await;
    let cursor = open(&a, &s2).await.cursor();
    let mut sent = Vec::new();
    for n in 0..3 {
        let payload = format!("m{n}");
        for session in [&s1, &s2] {
            insist(&b, Target::session(session), &payload).await;
        }
        assert_eq!(read(&stays, 1).await, std::slice::from_ref(&payload));
        sent.push(payload);
        server.kill();
        server.restart().unwrap();
        insist(&b, Target::all(), &format!("b{n}")).await;
        assert_eq!(read(&stays, 1).await, [format!("b{n}")]);
        sent.push(format!("b{n}"));
    }
    assert_eq!(stays.end(), None);
    let again = reopen(&b, &s2, &cursor).await;
    assert!(!again.gap());
    assert_eq!(read(&again, sent.len()).await, sent, "both logs in the order of acceptance");
}
