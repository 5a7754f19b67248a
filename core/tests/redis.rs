//! What only a real Redis server shows: outages, lost scripts, foreign keys, what is left behind.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::time::{Duration, Instant};

use kit::{PATIENCE, ask, eventually, exactly_once, id, insist, numbered, open, raw, read, send};
use mcp_sessions::{
    EndReason, Engine, Error, LogLevel, OpenOptions, Options, Outgoing, RequestId, SendOptions, SessionId,
    SubscriptionFilter, SubscriptionKey, Target,
};
use redis::Connection;
use redis_server::RedisServer;
use tokio::time::{sleep, timeout};

async fn engine(server: &RedisServer, options: &str) -> Engine {
    Engine::connect(&server.url(), Options::from_json(options).unwrap()).await.unwrap()
}

fn keys(connection: &mut Connection) -> Vec<String> {
    let mut keys: Vec<String> = ask(connection, "KEYS *");
    keys.sort();
    keys
}

/// The connections of engines: each as its id and whether it is the one for pushes.
fn connections(connection: &mut Connection) -> Vec<(u64, bool)> {
    let me: u64 = ask(connection, "CLIENT ID");
    let list: String = ask(connection, "CLIENT LIST");
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=').map(ToOwned::to_owned))
    };
    list.lines()
        .map(|line| (field(line, "id").unwrap().parse().unwrap(), field(line, "sub").as_deref() != Some("0")))
        .filter(|(id, _)| *id != me)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_double_and_reorder_nothing() {
    let server = RedisServer::start().unwrap();
    let mut connection = raw(&server);
    let engines = (engine(&server, "{}").await, engine(&server, "{}").await);
    exactly_once(engines, (240, 40), async |turn| {
        for (client, pushes) in connections(&mut connection) {
            // The commands, the pushes, or both.
            if turn % 3 == 2 || pushes == (turn % 3 == 1) {
                let _: i64 = ask(&mut connection, &format!("CLIENT KILL ID {client}"));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_with_its_data_loses_nothing() {
    let persistent = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut server = RedisServer::with(&persistent).unwrap();
    let engines = (engine(&server, "{}").await, engine(&server, "{}").await);
    exactly_once(engines, (240, 40), async |turn| {
        if turn % 2 == 0 {
            server.kill();
            server.restart().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_open_through_a_short_outage() {
    let persistent = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut server = RedisServer::with(&persistent).unwrap();
    let a = engine(&server, "{}").await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    server.kill();
    eventually("the outage shows", async || !a.health().await.ready).await;
    let started = Instant::now();
    let refused = a.streams().send(Target::session(&s1), "never", SendOptions::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.retryable(), refused.outcome_unknown()),
        ("unavailable", true, false)
    );
    assert!(started.elapsed() < Duration::from_millis(500), "calls fail fast");
    server.restart().unwrap();
    let back = Instant::now();
    insist(&a, Target::session(&s1), "after").await;
    assert_eq!(read(&stream, 2).await, ["before", "after"]);
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(stream.end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_through_an_outage_if_they_are_told_to() {
    let persistent = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut server = RedisServer::with(&persistent).unwrap();
    let a = engine(&server, r#"{"outageWaitMs": 19000, "operationTimeoutMs": 20000}"#).await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    server.kill();
    eventually("the outage shows", async || !a.health().await.ready).await;
    let sends = numbered(20).into_iter().map(|payload| {
        let streams = a.streams().clone();
        let to = Target::session(&s1);
        async move { streams.send(to, payload, SendOptions::default()).await }
    });
    let sends = tokio::spawn(futures_util::future::join_all(sends));
    let (info, session) = (a.info().clone(), s1.clone());
    let level = tokio::spawn(async move { info.set_log_level(&session, LogLevel::Error).await });
    server.restart().unwrap();
    for sent in sends.await.unwrap() {
        assert_eq!(sent.unwrap().accepted, 1);
    }
    level.await.unwrap().unwrap();
    assert_eq!(read(&stream, 20).await, numbered(20));
    assert_eq!(a.info().log_level(&s1).await.unwrap(), LogLevel::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_outlast_an_outage_longer_than_the_lease() {
    const STREAMS: usize = 1_000;
    let persistent = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut server = RedisServer::with(&persistent).unwrap();
    let options = r#"{"lease": {"ttlMs": 1000, "renewMs": 200}}"#;
    let (a, b) = (engine(&server, options).await, engine(&server, options).await);
    let ids: Vec<_> = (0..STREAMS).map(|n| id(&format!("s{n}"))).collect();
    let mut streams = Vec::new();
    for session in &ids {
        streams.push(open(&a, session).await);
    }
    b.streams().send(Target::sessions(&ids), "m1", SendOptions::default()).await.unwrap();
    server.kill();
    eventually("the lease runs out", async || a.health().await.lease_left_ms == 0).await;
    server.restart().unwrap();
    let back = Instant::now();
    insist(&b, Target::all(), "m2").await;
    eventually("all are held again", async || a.streams().has(&ids[STREAMS - 1]).await.is_ok_and(|has| has))
        .await;
    let sent = b.streams().send(Target::sessions(&ids), "m3", SendOptions::default()).await.unwrap();
    assert_eq!(sent.accepted, STREAMS as u64);
    for stream in &streams {
        assert_eq!(read(stream, 3).await, ["m1", "m2", "m3"]);
        assert_eq!(stream.end(), None);
    }
    println!("{STREAMS} streams went on after {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_was_delivered_starts_over() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server, "{}").await, engine(&server, "{}").await);
    let mut connection = raw(&server);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    for payload in ["m1", "m2", "m3"] {
        send(&b, &s1, payload).await;
    }
    assert_eq!(read(&stream, 3).await, ["m1", "m2", "m3"]);
    let cursor = stream.cursor();
    // As a replica that is promoted without the last write.
    let _: () = ask(&mut connection, "HSET tmcp:session:{s1} n 2");
    let _: () = ask(&mut connection, "RPOP tmcp:log:{s1} 2");
    for (client, pushes) in connections(&mut connection) {
        if pushes {
            let _: i64 = ask(&mut connection, &format!("CLIENT KILL ID {client}"));
        }
    }
    assert_eq!(timeout(PATIENCE, stream.ended()).await.unwrap(), EndReason::Gap);
    send(&b, &s1, "m4").await;
    let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(again.gap(), "the offset of m3 is not given to m4");
    assert_eq!(read(&again, 1).await, ["m4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_everything_is_a_gap_then_all_is_well() {
    let mut server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server, "{}").await, engine(&server, "{}").await);
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    assert!(b.info().get(&s1).await.unwrap().is_some());
    let stream = open(&a, &s1).await;
    send(&b, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    server.kill();
    server.restart().unwrap();
    let end = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert_eq!(end, EndReason::Gap);
    let back = Instant::now();
    let mut again = None;
    eventually("the session opens again", async || {
        again = a.streams().open(&s1, OpenOptions::default().after(cursor)).await.ok();
        again.is_some()
    })
    .await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    let again = again.unwrap();
    assert!(again.gap());
    eventually("the other node is back, too", async || b.health().await.ready).await;
    assert!(b.info().get(&s1).await.unwrap().is_none(), "nothing cached is trusted after a reconnect");
    insist(&b, Target::session(&s1), "m1").await;
    insist(&b, Target::all(), "m2").await;
    assert_eq!(read(&again, 2).await, ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_is_a_gap_then_all_is_well() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    let _: () = ask(&mut raw(&server), "FLUSHALL");
    let end = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert_eq!(end, EndReason::Gap);
    assert!(a.streams().known(&s1).await.unwrap(), "what is sent meanwhile waits for the next stream");
    send(&a, &s1, "m1").await;
    let again = a.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(again.gap());
    a.streams().send(Target::all(), "m2", SendOptions::default()).await.unwrap();
    assert_eq!(read(&again, 2).await, ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_came_has_an_unknown_outcome() {
    let mut server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let _: () = ask(&mut raw(&server), "CLIENT PAUSE 10000 ALL");
    let streams = a.streams().clone();
    let to = Target::session(&s1);
    let sent = tokio::spawn(async move { streams.send(to, "m1", SendOptions::default()).await });
    // Long enough for the command to be written; the outcome would be known otherwise.
    sleep(Duration::from_millis(200)).await;
    server.kill();
    let lost = sent.await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.outcome_unknown()), ("unavailable", true));
    let refused = a.streams().send(Target::session(&s1), "m2", SendOptions::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.outcome_unknown()), ("unavailable", false));
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there() {
    let mut server = RedisServer::start().unwrap();
    server.kill();
    let refused = Engine::connect(&server.url(), Options::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.retryable()), ("unavailable", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_never_shown() {
    let server = RedisServer::with(&["--save", "", "--requirepass", "a-secret"]).unwrap();
    let connect = async |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{}", server.port);
        Engine::connect(&url, Options::default()).await
    };
    let refused = connect("wrong-secret").await.unwrap_err();
    assert_eq!(refused.code(), "unauthorized");
    assert!(!format!("{refused} {refused:?}").contains("secret"));
    let engine = connect("a-secret").await.unwrap();
    assert!(!format!("{engine:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_in_the_file_system() {
    let path = std::env::temp_dir().join(format!("mcp-sessions-{}.sock", std::process::id()));
    let path = path.to_str().unwrap();
    let server = RedisServer::with(&["--save", "", "--unixsocket", path]).unwrap();
    let url = format!("redis+unix://{path}?db=2&prefix=app:");
    let a = Engine::connect(&url, Options::default()).await.unwrap();
    let stream = open(&a, &id("s1")).await;
    send(&a, &id("s1"), "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
    drop(server);
    let _ = std::fs::remove_file(path);
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_prefixes_are_apart() {
    let server = RedisServer::start().unwrap();
    let s1 = id("s1");
    let mut nodes = Vec::new();
    for place in ["/0", "/1", "/0?prefix=app:"] {
        let url = format!("{}{place}", server.url());
        let engine = Engine::connect(&url, Options::default()).await.unwrap();
        let stream = open(&engine, &s1).await;
        nodes.push((place, engine, stream));
    }
    for (place, engine, _) in &nodes {
        engine.streams().send(Target::all(), *place, SendOptions::default()).await.unwrap();
        send(engine, &s1, "end").await;
    }
    for (place, _, stream) in &nodes {
        assert_eq!(read(stream, 2).await, [*place, "end"]);
        assert!(stream.try_next().is_none());
    }
}

/// Every operation of an engine, once.
async fn use_everything(engine: &Engine) -> Result<(), Error> {
    let s1 = id("s1");
    engine.info().set_log_level(&s1, LogLevel::Info).await?;
    engine.info().set_client_info(&s1, r#"{"name":"client"}"#).await?;
    assert_eq!(engine.info().log_level(&s1).await?, LogLevel::Info);
    assert!(engine.info().add_subscription(&s1, "file:///a").await?);
    assert_eq!(engine.info().subscribers("file:///a").await?, std::slice::from_ref(&s1));
    assert_eq!(engine.info().subscriptions(&s1).await?, ["file:///a"]);
    assert!(engine.info().remove_subscription(&s1, "file:///a").await?);
    let stream = engine.streams().open(&s1, OpenOptions::default()).await?;
    let receipt = engine.streams().send(Target::session(&s1), "m1", SendOptions::default()).await?;
    assert_eq!(receipt.accepted, 1);
    engine.streams().send(Target::all(), "m2", SendOptions::default()).await?;
    assert_eq!(read(&stream, 2).await, ["m1", "m2"]);
    assert!(engine.streams().has(&s1).await? && engine.streams().known(&s1).await?);
    let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged":true}"#)?;
    let subscription =
        engine.subscriptions().create(SubscriptionKey::new(RequestId::string("1"), "o"), filter)?.unwrap();
    engine.subscriptions().send(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await?;
    subscription.acknowledge();
    assert!(timeout(PATIENCE, subscription.next()).await.unwrap().is_some());
    stream.close().await;
    let stream = engine.streams().open(&s1, OpenOptions::default()).await?;
    assert!(engine.streams().close(&s1).await?);
    timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(engine.info().delete(&s1).await?);
    assert!(engine.streams().forget(&s1).await?);
    assert!(engine.health().await.ready);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_scripts_are_sent_again() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, r#"{"lease": {"ttlMs": 5000, "renewMs": 50}}"#).await;
    let mut connection = raw(&server);
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let flushes = tokio::spawn(async move {
        while is_done.try_recv().is_err() {
            let _: () = ask(&mut connection, "SCRIPT FLUSH");
            sleep(Duration::from_millis(1)).await;
        }
    });
    for _ in 0..20 {
        use_everything(&a).await.unwrap();
    }
    done.send(()).unwrap();
    flushes.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_corrupt_and_harms_nobody_else() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    let _: () = ask(&mut connection, "SET tmcp:session:{s1} nonsense");
    let send = || a.streams().send(Target::session(&s1), "m", SendOptions::default());
    assert_eq!(send().await.unwrap_err().code(), "corrupt");
    assert_eq!(a.streams().open(&s1, OpenOptions::default()).await.unwrap_err().code(), "corrupt");
    assert_eq!(a.info().set_log_level(&s1, LogLevel::Info).await.unwrap_err().code(), "corrupt");
    let _: () = ask(&mut connection, "DEL tmcp:session:{s1}");
    let stream = open(&a, &s1).await;
    let _: () = ask(&mut connection, "SET tmcp:log:{s1} nonsense");
    let error = send().await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown()), ("corrupt", false));
    let s2 = id("s2");
    let other = open(&a, &s2).await;
    assert_eq!(self::send(&a, &s2, "m2").await, 1);
    assert_eq!(read(&other, 1).await, ["m2"]);
    let _: () = ask(&mut connection, "DEL tmcp:log:{s1}");
    assert_eq!(send().await.unwrap().accepted, 1);
    assert_eq!(read(&stream, 1).await, ["m"], "what failed took no offset");
    let _: () = ask(&mut connection, "SET tmcp:client_info:s3 {no-json");
    assert_eq!(a.info().get(&id("s3")).await.unwrap_err().code(), "corrupt");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_a_node_and_one_small_key_an_idle_session() {
    const SESSIONS: usize = 200;
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let mut connection = raw(&server);
    let before = keys(&mut connection).len();
    let mut streams = Vec::new();
    for _ in 0..SESSIONS {
        streams.push(open(&a, &SessionId::random()).await);
    }
    let kinds: Vec<_> = connections(&mut connection).into_iter().map(|(_, pushes)| pushes).collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|pushes| **pushes).count(), 1);
    let channels: Vec<String> = ask(&mut connection, "PUBSUB CHANNELS");
    assert_eq!(channels.len(), 2, "{channels:?}");
    let all = keys(&mut connection);
    assert_eq!(all.len(), before + SESSIONS + 1, "a key a session, and what the node holds");
    let session = format!("tmcp:session:{{{}}}", streams[0].session());
    let size: usize = ask(&mut connection, &format!("MEMORY USAGE {session}"));
    let held: usize = ask(&mut connection, &format!("MEMORY USAGE tmcp:held:{}", a.node_id()));
    let idle = size + held / SESSIONS;
    println!("an idle session: {size} B and {} B in the holder's set", held / SESSIONS);
    assert!(idle <= 700, "{idle} B");
    drop(streams);
    a.shutdown(Duration::from_secs(5)).await.unwrap();
    eventually("its connections are closed", async || connections(&mut connection).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_ended() {
    let server = RedisServer::start().unwrap();
    let options = r#"{"sessionTtlMs": 1000, "retention": {"ageMs": 500}, "broadcastRetention": {"ageMs": 500},
        "lease": {"ttlMs": 1000, "renewMs": 100}}"#;
    let a = engine(&server, options).await;
    let b = engine(&server, options).await;
    let mut connection = raw(&server);
    let idle = keys(&mut connection);
    let mut streams = Vec::new();
    for n in 0..10 {
        let session = id(&format!("s{n}"));
        let key = SendOptions::default().idempotency_key("k");
        a.info().set_log_level(&session, LogLevel::Info).await.unwrap();
        a.info().add_subscription(&session, &format!("file:///{n}")).await.unwrap();
        let stream = open(if n % 2 == 0 { &a } else { &b }, &session).await;
        a.streams().send(Target::session(&session), "m", key).await.unwrap();
        streams.push(stream);
    }
    a.streams().send(Target::all(), "m", SendOptions::default().idempotency_key("k")).await.unwrap();
    for key in keys(&mut connection) {
        let ttl: i64 = ask(&mut connection, &format!("PTTL {key}"));
        assert!(ttl > 0, "{key} would stay for ever");
    }
    // Half in order, half by a kill; the node that stays cleans up.
    b.abandon();
    drop(streams.drain(..));
    eventually("only what live nodes need is left", async || {
        let all = keys(&mut connection);
        all.iter().all(|key| idle.contains(key))
    })
    .await;
    assert!(!keys(&mut connection).iter().any(|key| key.contains(b.node_id().as_str())));
    a.shutdown(Duration::from_secs(5)).await.unwrap();
    eventually("nothing is left", async || keys(&mut connection).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_noticed_within_six_seconds() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server, "{}").await, engine(&server, "{}").await);
    let s1 = id("s1");
    let _stream = open(&a, &s1).await;
    a.abandon();
    let died = Instant::now();
    assert!(b.streams().has(&s1).await.unwrap());
    eventually("has is false", async || !b.streams().has(&s1).await.unwrap()).await;
    assert!(died.elapsed() < Duration::from_secs(6), "{:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_sessions_is_one_round_trip() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let mut connection = raw(&server);
    let ids: Vec<_> = (0..500).map(|n| id(&format!("s{n}"))).collect();
    let mut streams = Vec::new();
    for session in &ids {
        streams.push(open(&a, session).await);
    }
    let reads = |connection: &mut Connection| -> u64 {
        let stats: String = ask(connection, "INFO stats");
        let line = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
        line.parse().unwrap()
    };
    let before = reads(&mut connection);
    let sent = a.streams().send(Target::sessions(&ids), "m1", SendOptions::default()).await.unwrap();
    assert_eq!(sent.accepted, 500);
    let spent = reads(&mut connection) - before;
    // A large write may arrive in several pieces; a round trip each would be 500.
    assert!(spent < 50, "{spent} reads");
    for stream in &streams {
        assert_eq!(read(stream, 1).await, ["m1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_for_many_sessions_is_in_order_and_one_that_is_broken_keeps_nothing_from_the_others() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server, "{}").await, engine(&server, "{}").await);
    let mut connection = raw(&server);
    let ids: Vec<_> = (0..100).map(|n| id(&format!("s{n}"))).collect();
    let mut streams = Vec::new();
    for (n, session) in ids.iter().enumerate() {
        // Held by both nodes, so that a batch has something for each.
        streams.push(open(if n % 3 == 0 { &a } else { &b }, session).await);
    }
    let broken = 5;
    let _: () = ask(&mut connection, "SET tmcp:log:{s5} nonsense");
    let _: () = ask(&mut connection, "SET tmcp:session:{other} nonsense");
    let outgoing =
        |target, payload: &str| Outgoing { target, payload: payload.into(), options: SendOptions::default() };
    let round = |payload: &str| {
        let all = ids.iter().map(|session| outgoing(Target::session(session), payload));
        all.collect::<Vec<_>>()
    };
    let mut events = round("1");
    events.push(outgoing(Target::session(&id("nobody")), "x"));
    events.push(outgoing(Target::session(&id("other")), "x"));
    events.extend(round("2"));
    events.push(outgoing(Target::all(), "3"));
    events.extend(round("4"));
    let own: Vec<_> = events.iter().map(|event| event.target.clone()).collect();
    let outcomes = a.streams().send_all(events).await;
    for (target, outcome) in own.iter().zip(&outcomes) {
        match outcome {
            Ok(receipt) if *target == Target::session(&id("nobody")) => assert_eq!(receipt.dropped, 1),
            Ok(receipt) => assert_eq!(receipt.accepted, 1, "{target:?}"),
            Err(error) => {
                let expected = [Target::session(&ids[broken]), Target::session(&id("other"))];
                assert!(expected.contains(target), "{target:?}: {error}");
                assert_eq!((error.code(), error.outcome_unknown()), ("corrupt", false), "{target:?}");
            }
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 4);
    for (n, stream) in streams.iter().enumerate() {
        let expected: &[&str] = if n == broken { &["3"] } else { &["1", "2", "3", "4"] };
        let first = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
        assert_eq!(first.payload().as_str(), expected[0]);
        assert_eq!(read(stream, expected.len() - 1).await, expected[1..]);
        if n % 10 == 0 {
            // What was kept is what was delivered.
            let resumed = b.streams().open(stream.session(), OpenOptions::default().after(first.cursor()));
            let resumed = resumed.await.unwrap();
            assert!(!resumed.gap());
            assert_eq!(read(&resumed, expected.len() - 1).await, expected[1..]);
        }
    }
    let _: () = ask(&mut connection, "DEL tmcp:log:{s5}");
    assert_eq!(send(&a, &ids[broken], "5").await, 1);
    assert_eq!(read(&streams[broken], 1).await, ["5"], "what failed took no offset");
}
