//! History off on a real server: nothing is written, and what was accepted was taken by the holder.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::time::Duration;

use kit::{PATIENCE, ask, eventually, id, open, raw, read, send};
use mcp_sessions::{Engine, OpenOptions, Options, Receipt, SendOptions, SessionId, Target};
use redis::Connection;
use redis_server::RedisServer;
use tokio::time::timeout;

const OFF: &str = r#"{"retention": {"events": 0}, "lease": {"ttlMs": 2000, "renewMs": 200}}"#;

async fn engine(server: &RedisServer) -> Engine {
    Engine::connect(&server.url(), Options::from_json(OFF).unwrap()).await.unwrap()
}

async fn receipt(engine: &Engine, to: &SessionId, payload: &str, key: Option<&str>) -> Receipt {
    let options = key.into_iter().fold(SendOptions::default(), |options, key| options.idempotency_key(key));
    engine.streams().send(Target::session(to), payload, options).await.unwrap()
}

fn calls(connection: &mut Connection, command: &str) -> u64 {
    let stats: String = ask(connection, "INFO commandstats");
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_session_costs_two_publishes_a_batch_and_no_key() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server).await, engine(&server).await);
    let mut connection = raw(&server);
    let streams: Vec<_> = (0..20).map(|n| id(&format!("s{n}"))).collect();
    let mut open_streams = Vec::new();
    for session in &streams {
        open_streams.push(open(&a, session).await);
        assert_eq!(send(&b, session, "first").await, 1);
    }
    let keys: Vec<String> = ask(&mut connection, "KEYS *");
    let (publishes, scripts) = (calls(&mut connection, "publish"), calls(&mut connection, "evalsha"));
    let sent = b.streams().send(Target::sessions(&streams), "second", SendOptions::default()).await.unwrap();
    assert_eq!(sent.accepted, 20);
    for stream in &open_streams {
        assert_eq!(read(stream, 2).await, ["first", "second"]);
    }
    assert_eq!(calls(&mut connection, "publish") - publishes, 2, "the events, and the answer");
    // Leases are renewed meanwhile, by two scripts a node.
    assert!(calls(&mut connection, "evalsha") - scripts < 20);
    assert_eq!(ask::<Vec<String>>(&mut connection, "KEYS *").len(), keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_says_what_happened_to_a_session_that_moves() {
    let server = RedisServer::start().unwrap();
    let (a, b, c) = (engine(&server).await, engine(&server).await, engine(&server).await);
    let s1 = id("s1");
    assert_eq!(receipt(&b, &s1, "nobody", None).await.dropped, 1);
    let on_a = open(&a, &s1).await;
    assert_eq!(receipt(&b, &s1, "m1", None).await.accepted, 1);
    assert_eq!(read(&on_a, 1).await, ["m1"]);
    let on_c = open(&c, &s1).await;
    assert_eq!(receipt(&b, &s1, "m2", None).await.accepted, 1, "b remembered the other holder");
    assert_eq!(read(&on_c, 1).await, ["m2"]);
    on_c.close().await;
    let again = open(&a, &s1).await;
    assert!(!again.gap(), "everything was delivered");
    again.close().await;
    assert_eq!(receipt(&b, &s1, "closed", None).await.dropped, 1, "b remembered a holder");
    let again = open(&a, &s1).await;
    assert!(again.gap(), "what was dropped is missing");
    assert_eq!(receipt(&b, &s1, "m3", None).await.accepted, 1);
    assert_eq!(read(&again, 1).await, ["m3"]);
    let cursor = again.cursor();
    again.close().await;
    let exact = c.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(!exact.gap());
    assert_eq!(receipt(&b, &s1, "m4", None).await.accepted, 1);
    // Nobody but the holder knows of the fourth, so the old cursor can't be exact on another node.
    let taken_over = a.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(taken_over.gap());
    assert_eq!(receipt(&b, &s1, "m5", None).await.accepted, 1);
    assert_eq!(read(&taken_over, 1).await, ["m5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_noted_for_what_was_taken() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server).await, engine(&server).await);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    assert_eq!(receipt(&b, &s1, "m1", Some("k1")).await.accepted, 1);
    assert_eq!(receipt(&b, &s1, "m1", Some("k1")).await.duplicates, 1);
    assert_eq!(receipt(&b, &s1, "m2", None).await.accepted, 1);
    assert_eq!(read(&stream, 2).await, ["m1", "m2"]);
    stream.close().await;
    assert_eq!(receipt(&b, &s1, "m3", Some("k3")).await.dropped, 1);
    let stream = open(&a, &s1).await;
    assert_eq!(receipt(&b, &s1, "m3", Some("k3")).await.accepted, 1, "a dropped event's key is free");
    assert_eq!(read(&stream, 1).await, ["m3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_while_a_session_moves_arrives_once_and_in_order() {
    const N: usize = 400;
    let server = RedisServer::start().unwrap();
    let (a, b, c) = (engine(&server).await, engine(&server).await, engine(&server).await);
    let s1 = id("s1");
    let mut stream = open(&a, &s1).await;
    let sender = tokio::spawn({
        let s1 = s1.clone();
        async move {
            let mut accepted = Vec::new();
            for n in 0..N {
                let payload = format!("m{n}");
                // Moving faster than an event can follow is no harm: nothing happened to it.
                while let Err(error) =
                    b.streams().send(Target::session(&s1), payload.as_str(), SendOptions::default()).await
                {
                    assert!(error.retryable() && !error.outcome_unknown(), "{error}");
                }
                accepted.push(payload);
            }
            (b, accepted)
        }
    });
    let mut got = Vec::new();
    for turn in 0.. {
        // A reader that has read all of the old stream, then takes over on the other node.
        let next = open(if turn % 2 == 0 { &c } else { &a }, &s1).await;
        timeout(PATIENCE, stream.ended()).await.unwrap();
        while let Some(event) = stream.try_next() {
            got.push(event.payload().to_string());
        }
        stream = next;
        if sender.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (b, accepted) = sender.await.unwrap();
    assert_eq!(receipt(&b, &s1, "end", None).await.accepted, 1);
    while got.last().map(String::as_str) != Some("end") {
        let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
        got.push(event.payload().to_string());
    }
    got.pop();
    // A stream that is taken over drops what its reader did not read in time; nothing else is missing.
    let mut sent = accepted.iter();
    for payload in &got {
        assert!(sent.any(|sent| sent == payload), "{payload} is doubled or out of order");
    }
    assert_eq!(accepted.len(), N);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_does_not_listen_is_unavailable_and_then_is_there_again() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server).await, engine(&server).await);
    let mut connection = raw(&server);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    assert_eq!(receipt(&b, &s1, "m0", None).await.accepted, 1);
    let _: i64 = ask(&mut connection, "CLIENT KILL TYPE pubsub");
    let mut accepted = vec!["m0".to_owned()];
    eventually("it is accepted again", async || {
        let payload = format!("m{}", accepted.len());
        match b.streams().send(Target::session(&s1), payload.as_str(), SendOptions::default()).await {
            Ok(receipt) => {
                assert_eq!(receipt.accepted, 1, "the session is held all the time");
                accepted.push(payload);
                true
            }
            Err(error) => {
                assert!(error.retryable(), "{error}");
                error.outcome_unknown() && { panic!("{error}") }
            }
        }
    })
    .await;
    assert_eq!(read(&stream, accepted.len()).await, accepted);
    assert_eq!(stream.end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_holder_takes_nothing() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server).await, engine(&server).await);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    assert_eq!(receipt(&b, &s1, "m0", None).await.accepted, 1);
    assert_eq!(read(&stream, 1).await, ["m0"]);
    let cursor = stream.cursor();
    a.abandon();
    eventually("its lease ends", async || !b.streams().has(&s1).await.unwrap()).await;
    assert_eq!(receipt(&b, &s1, "m1", None).await.dropped, 1);
    let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(again.gap(), "what it took last is not known");
    assert_eq!(receipt(&b, &s1, "m2", None).await.accepted, 1);
    assert_eq!(read(&again, 1).await, ["m2"]);
    b.shutdown(Duration::from_secs(5)).await.unwrap();
}
