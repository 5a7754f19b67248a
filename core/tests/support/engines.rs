//! What the suites of real servers say to engines again and again.
#![allow(dead_code)]

use std::time::Duration;

use mcp_sessions::{Engine, EventStream, OpenOptions, Options, SendOptions, SessionId, Target};
use tokio::time::{sleep, timeout};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

pub async fn connect(url: &str) -> Engine {
    Engine::connect(url, Options::default()).await.unwrap()
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub async fn send(engine: &Engine, to: &SessionId, payload: &str) -> u64 {
    let sent = engine.streams().send(Target::session(to), payload, SendOptions::default()).await;
    sent.unwrap().accepted
}

pub async fn send_all(engine: &Engine, payload: &str) {
    engine.streams().send(Target::all(), payload, SendOptions::default()).await.unwrap();
}

pub async fn open(engine: &Engine, session: &SessionId) -> EventStream {
    engine.streams().open(session, OpenOptions::default()).await.unwrap()
}

/// Opens as soon as that works again.
pub async fn reopen(engine: &Engine, session: &SessionId, cursor: &str) -> EventStream {
    let mut stream = None;
    eventually("the session opens again", async || {
        stream = engine.streams().open(session, OpenOptions::default().after(cursor)).await.ok();
        stream.is_some()
    })
    .await;
    stream.unwrap()
}

pub async fn read(stream: &EventStream, n: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < n {
        let next =
            timeout(PATIENCE, stream.next()).await.unwrap_or_else(|_| panic!("only {} of {n}", read.len()));
        let event = next.unwrap_or_else(|| panic!("{:?} after {} of {n}", stream.end(), read.len()));
        read.push(event.payload().to_string());
    }
    read
}

/// Sends until it is accepted, under one key (G5).
pub async fn insist(engine: &Engine, to: Target, payload: &str) {
    let options = SendOptions::default().idempotency_key(payload);
    loop {
        match engine.streams().send(to.clone(), payload, options.clone()).await {
            Ok(receipt) => {
                return assert_eq!(receipt.accepted + receipt.duplicates, 1, "{payload}: {receipt:?}");
            }
            Err(error) if error.retryable() => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{payload}: {error} {error:?}"),
        }
    }
}

/// Reads as a client does, that comes back with its cursor whenever its stream ends. Returns how many
/// gaps it was told of, too.
pub async fn follow(
    engine: Engine,
    session: SessionId,
    mut cursor: Option<String>,
    n: usize,
) -> (Vec<String>, usize) {
    let (mut got, mut gaps) = (Vec::new(), 0);
    while got.len() < n {
        let options = cursor.iter().fold(OpenOptions::default(), |options, cursor| options.after(cursor));
        let Ok(stream) = engine.streams().open(&session, options).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        gaps += usize::from(stream.gap());
        cursor = Some(stream.cursor().to_string());
        while got.len() < n
            && let Ok(Some(event)) = timeout(PATIENCE, stream.next()).await
        {
            got.push(event.payload().to_string());
            cursor = Some(event.cursor().to_string());
        }
    }
    (got, gaps)
}

pub fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("m{n}")).collect()
}

/// `n` directed and broadcast events from `b` to a client of `a`, while `trouble` strikes `every` so many
/// of them: each comes once, in order, and no gap is told.
pub async fn exactly_once(
    (a, b): (Engine, Engine),
    (n, every): (usize, usize),
    mut trouble: impl AsyncFnMut(usize),
) {
    let (sent, s1) = (numbered(n), id("s1"));
    let cursor = open(&a, &s1).await.cursor().to_string();
    let reader = tokio::spawn(follow(a.clone(), s1.clone(), Some(cursor), n));
    for (n, payload) in sent.iter().enumerate() {
        if n % every == every / 2 {
            trouble(n / every).await;
        }
        let to = if n % 3 == 0 { Target::all() } else { Target::session(&s1) };
        insist(&b, to, payload).await;
    }
    let (got, gaps) = timeout(PATIENCE, reader).await.expect("everything arrives").unwrap();
    let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent).unwrap_or(0);
    assert_eq!((&got[wrong..], gaps), (&sent[wrong..], 0));
}
