//! What only a real workerd shows: who may come in, objects that sleep, crash and restart, what is
//! left in their storage.

#[path = "support/workerd.rs"]
mod workerd;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use mcp_sessions::{
    Engine, ErrorKind, EventStream, LogLevel, OpenOptions, Options, Outgoing, SendOptions, SessionId, Target,
};
use tokio::time::{sleep, timeout};
use workerd::{TOKEN, Workerd};

const PATIENCE: Duration = Duration::from_secs(60);

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

async fn engine(server: &Workerd, prefix: &str, options: &str) -> Engine {
    let url = format!("{}&prefix={prefix}", server.url());
    Engine::connect(&url, Options::from_json(options).unwrap()).await.unwrap()
}

async fn send(engine: &Engine, to: &SessionId, payload: &str) {
    let target = Target::session(to);
    let receipt = engine.streams().send(target, payload, SendOptions::default()).await.unwrap();
    assert_eq!(receipt.accepted, 1);
}

async fn open(engine: &Engine, session: &SessionId) -> EventStream {
    engine.streams().open(session, OpenOptions::default()).await.unwrap()
}

async fn next(stream: &EventStream) -> String {
    let event = timeout(PATIENCE, stream.next()).await.expect("an event in time");
    event.expect("the stream is open").payload().as_str().to_owned()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(reached.await.is_ok(), "not in time: {what}");
}

/// The answer of a test's page.
fn page(server: &Workerd, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    body.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// For each object a letter for each row of its storage: what kind of row it is.
fn rows(server: &Workerd, prefix: &str) -> Vec<String> {
    let page = page(server, &format!("/test/rows?prefix={prefix}"));
    page.trim_matches(['[', ']']).split(',').map(|rows| rows.trim_matches('"').to_owned()).collect()
}

/// How often objects were brought to life.
fn lives(server: &Workerd) -> u64 {
    page(server, "/test/life?prefix=a:").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_knows_the_secret_comes_in() {
    let server = Workerd::start().unwrap();
    let right = server.url();
    for wrong in [right.replace(TOKEN, "guess"), right.replace(&format!("&token={TOKEN}"), "")] {
        let error = Engine::connect(&wrong, Options::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(!format!("{error:?} {error}").contains("guess"));
    }
    let url = right.replace(&server.port.to_string(), "1");
    assert_eq!(Engine::connect(&url, Options::default()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(Engine::connect(&right, Options::default()).await.unwrap().health().await.ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_when_workerd_restarts() {
    let mut server = Workerd::start().unwrap();
    let (a, b) = (engine(&server, "a:", "{}").await, engine(&server, "a:", "{}").await);
    let session = id("s1");
    let stream = open(&a, &session).await;
    send(&b, &session, "one").await;
    assert_eq!(next(&stream).await, "one");
    let large = "x".repeat(3 << 20);
    send(&b, &session, &large).await;
    server.stop();
    server.restart().unwrap();
    eventually("both are back", async || a.health().await.ready && b.health().await.ready).await;
    send(&b, &session, "two").await;
    assert_eq!(next(&stream).await, large);
    assert_eq!(next(&stream).await, "two");
    assert_eq!(stream.end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_has_broadcasts_in_order_with_its_own_events() {
    let mut server = Workerd::start().unwrap();
    let (a, b) = (engine(&server, "a:", "{}").await, engine(&server, "a:", "{}").await);
    let sessions: Vec<_> = (0..32).map(|n| id(&format!("s{n}"))).collect();
    let mut streams = Vec::new();
    for session in &sessions {
        streams.push(open(&a, session).await);
    }
    for round in 0..4 {
        let own = sessions.iter().map(|it| Outgoing {
            target: Target::session(it),
            payload: format!("own {round}").into(),
            options: SendOptions::default(),
        });
        for receipt in b.streams().send_all(own).await {
            assert_eq!(receipt.unwrap().accepted, 1);
        }
        let to_all = async |key: &str| {
            let options = SendOptions::default().idempotency_key(key);
            b.streams().send(Target::all(), format!("all {round}"), options).await.unwrap()
        };
        let first = to_all(&format!("k{round}")).await;
        assert_eq!((first.accepted, first.duplicates), (1, 0));
        let again = to_all(&format!("k{round}")).await;
        assert_eq!((again.accepted, again.duplicates), (0, 1));
        if round == 1 {
            server.stop();
            server.restart().unwrap();
            eventually("both are back", async || a.health().await.ready && b.health().await.ready).await;
        }
    }
    for stream in &streams {
        for round in 0..4 {
            assert_eq!(next(stream).await, format!("own {round}"));
            assert_eq!(next(stream).await, format!("all {round}"));
        }
        assert_eq!(stream.end(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_when_the_object_crashes() {
    let server = Workerd::start().unwrap();
    let (a, b) = (engine(&server, "a:", "{}").await, engine(&server, "a:", "{}").await);
    let session = id("s1");
    let stream = open(&a, &session).await;
    for round in 0..5 {
        page(&server, "/test/abort?prefix=a:");
        let sent = async || {
            let options = SendOptions::default().idempotency_key(format!("k{round}"));
            b.streams().send(Target::session(&session), round.to_string(), options).await.is_ok()
        };
        eventually("it is accepted", sent).await;
        assert_eq!(next(&stream).await, round.to_string());
    }
    assert_eq!(stream.try_next().map(|event| event.payload().to_string()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_object_sleeps_and_its_streams_do_not_notice() {
    let server = Workerd::start().unwrap();
    let (a, b) = (engine(&server, "a:", "{}").await, engine(&server, "a:", "{}").await);
    let session = id("s1");
    let stream = open(&a, &session).await;
    send(&b, &session, "one").await;
    assert_eq!(next(&stream).await, "one");
    // The platform lets an object sleep after some ten seconds without a message; heartbeats are none.
    // It is brought to life again by the next message only.
    let life = lives(&server);
    eventually("it slept", async || {
        sleep(Duration::from_secs(12)).await;
        send(&b, &session, "again").await;
        assert_eq!(next(&stream).await, "again");
        lives(&server) > life
    })
    .await;
    assert_eq!(stream.end(), None);
    assert!(b.streams().has(&session).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_its_time() {
    let server = Workerd::start().unwrap();
    let options =
        r#"{"retention": {"ageMs": 300}, "broadcastRetention": {"ageMs": 300}, "sessionTtlMs": 500}"#;
    let engine = engine(&server, "a:", options).await;
    for n in 0..40 {
        let session = id(&format!("s{n}"));
        let stream = open(&engine, &session).await;
        engine.info().set_log_level(&session, LogLevel::Info).await.unwrap();
        engine.info().add_subscription(&session, "file:///x").await.unwrap();
        let options = SendOptions::default().idempotency_key("k");
        engine.streams().send(Target::session(&session), "x".repeat(1500), options).await.unwrap();
        stream.close().await;
    }
    engine.streams().send(Target::all(), "to all", SendOptions::default()).await.unwrap();
    assert!(rows(&server, "a:").concat().len() > 40);
    engine.shutdown(PATIENCE).await.unwrap();
    // Two topics and the count of owner epochs stay; an alarm that is set for a node that left may be
    // there for a minute yet.
    let left = async || rows(&server, "a:").iter().all(|rows| rows.trim_start_matches('A') == "ESS");
    eventually("all else is gone", left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_loses_its_sessions() {
    let server = Workerd::start().unwrap();
    let short = r#"{"lease": {"ttlMs": 1000, "renewMs": 200}}"#;
    let (a, b) = (engine(&server, "a:", short).await, engine(&server, "a:", short).await);
    let session = id("s1");
    let stream = open(&a, &session).await;
    assert!(b.streams().has(&session).await.unwrap());
    a.abandon();
    eventually("nobody has it", async || !b.streams().has(&session).await.unwrap()).await;
    drop((a, stream));
    send(&b, &session, "early").await;
    assert_eq!(next(&open(&b, &session).await).await, "early");
}
