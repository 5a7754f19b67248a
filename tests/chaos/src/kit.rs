//! What the tests by name have in common.
#![allow(clippy::missing_panics_doc, reason = "tests call it")]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::checker::Judged;
use crate::dice::Dice;
use crate::process::{Delivery, NodeProcess};
use crate::protocol::{Answer, Ask, Failure, To};
use crate::run::run;
use crate::schedule::{Bounds, Planned, Trouble, plan};
use crate::world::{Setting, World};

const PATIENCE: Duration = Duration::from_secs(40);

/// Clients that stay where they are, so that every stream has to last.
pub fn steady() -> Setting {
    Setting { wandering: false, ..Setting::small() }
}

/// Troubles one after the other, so many milliseconds apart.
pub fn each(apart_ms: u64, troubles: &[Trouble]) -> Vec<Planned> {
    let at = |n: usize| 500 + n as u64 * apart_ms;
    troubles.iter().enumerate().map(|(n, trouble)| Planned { at_ms: at(n), trouble: *trouble }).collect()
}

pub async fn holds(setting: Setting, planned: &[Planned], seed: u64) -> Judged {
    let judged = run(setting, planned, seed).await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    println!("{judged:?}");
    assert!(judged.accepted > 20 && judged.received > 20, "too little happened: {judged:?}");
    judged
}

/// Nothing is lost, and no stream ends.
pub async fn lasts(setting: Setting, troubles: &[Planned]) {
    let sessions = setting.sessions;
    let judged = holds(setting, troubles, 1).await;
    assert_eq!((judged.streams, judged.gaps), (sessions, 0), "every stream stays open: {judged:?}");
}

pub async fn seeded(setting: Setting, seed: u64, seconds: u64, wipes: bool) -> Judged {
    let bounds = Bounds {
        nodes: setting.nodes,
        total_ms: seconds * 1_000,
        longest_ms: 3_000,
        half_open_ms: 4_000,
        wipes,
    };
    let planned = plan(bounds, &Dice::new(seed));
    planned.iter().for_each(|one| println!("{one}"));
    holds(setting, &planned, seed).await
}

/// Two nodes behind their proxies, and nobody else.
pub async fn two_nodes(
    setting: Setting,
    options: Option<&str>,
) -> (Arc<World>, Arc<NodeProcess>, Arc<NodeProcess>) {
    let options = options.map_or(setting.options.clone(), ToOwned::to_owned);
    let world = World::start(Setting { nodes: 2, sessions: 0, options, ..setting }, 1).await.unwrap();
    let [a, b] = [0, 1].map(|n| world.places[n].process().unwrap());
    (world, a, b)
}

pub async fn open(
    node: &NodeProcess,
    stream: u64,
    session: &str,
    after: Option<String>,
) -> (UnboundedReceiver<Delivery>, String, bool) {
    let deliveries = node.listen(stream);
    match node.ask(Ask::Open { stream, session: session.to_owned(), after }).await {
        Ok(Answer::Opened { gap, cursor }) => (deliveries, cursor, gap),
        other => panic!("{session}: {other:?}"),
    }
}

pub async fn send(
    node: &NodeProcess,
    session: &str,
    payload: &str,
    key: Option<&str>,
) -> Result<Answer, Failure> {
    let to = To::Session(session.to_owned());
    node.ask(Ask::Send { to, payload: payload.to_owned(), key: key.map(ToOwned::to_owned) }).await
}

pub fn accepted() -> Result<Answer, Failure> {
    Ok(Answer::Sent { accepted: 1, dropped: 0, duplicates: 0 })
}

/// The next event's payload and cursor.
pub async fn next(deliveries: &mut UnboundedReceiver<Delivery>) -> (String, String) {
    match timeout(PATIENCE, deliveries.recv()).await {
        Ok(Some(Delivery::Event { payload, cursor })) => (payload, cursor),
        other => panic!("no event but {other:?}"),
    }
}

pub async fn has(node: &NodeProcess, session: &str) -> bool {
    node.ask(Ask::Has { session: session.to_owned() }).await == Ok(Answer::Yes(true))
}

/// A node that was stopped for longer than its lease delivers nothing that another has taken.
pub async fn is_fenced(setting: Setting) {
    let (world, a, b) = two_nodes(setting, None).await;
    let (mut taken, cursor, _) = open(&a, 1, "taken", None).await;
    let (mut kept, ..) = open(&a, 2, "kept", None).await;
    world.places[0].stop();
    for session in ["taken", "kept"] {
        // Signalled to a node that does not move: they wait in its socket.
        assert_eq!(send(&b, session, "m1", None).await, accepted());
    }
    world.eventually("the lease runs out", async || !has(&b, "taken").await).await.unwrap();
    let (mut new, _, gap) = open(&b, 3, "taken", Some(cursor)).await;
    assert!(!gap);
    assert_eq!(next(&mut new).await.0, "m1");
    world.places[0].wake();
    let end = timeout(PATIENCE, taken.recv()).await.unwrap();
    assert_eq!(end, Some(Delivery::End("fenced".into())), "the old stream brings nothing any more");
    assert_eq!(next(&mut kept).await.0, "m1", "what nobody took goes on");
    for session in ["taken", "kept"] {
        assert_eq!(send(&a, session, "m2", None).await, accepted());
    }
    assert_eq!(next(&mut new).await.0, "m2");
    assert_eq!(next(&mut kept).await.0, "m2");
    assert!(has(&a, "kept").await);
}
