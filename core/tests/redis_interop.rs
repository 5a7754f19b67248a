//! One fleet of this library and `@tmcp/session-manager-redis`: each reaches the other's sessions, and
//! no event comes twice.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/tmcp_peer.rs"]
mod tmcp_peer;

use kit::{PATIENCE, ask, connect, eventually, id, open, raw, read, send, send_all};
use mcp_sessions::{
    Conflict, EndReason, Engine, EventStream, LogLevel, OpenOptions, RequestId, SendOptions,
    SubscriptionFilter, SubscriptionKey, Target,
};
use redis_server::RedisServer;
use serde_json::json;
use tmcp_peer::Peer;
use tokio::time::timeout;

struct Fleet {
    /// The first to go: it does not survive the end of the server.
    peer: Peer,
    a: Engine,
    b: Engine,
    server: RedisServer,
}

impl Fleet {
    async fn start() -> Self {
        let server = RedisServer::start().unwrap();
        let url = format!("{}?interop=tmcp", server.url());
        let (a, b, peer) = (connect(&url).await, connect(&url).await, Peer::start(&server.url()).await);
        Fleet { server, a, b, peer }
    }

    /// tmcp's manager opens a stream; it does not say when it is subscribed.
    async fn peer_opens(&self, session: &str) {
        self.peer.ask("create", json!([session])).await.unwrap();
        self.subscribed(&format!("delete:session:{session}"), 1).await;
    }

    async fn subscribed(&self, channel: &str, n: u64) {
        let mut connection = raw(&self.server);
        eventually(&format!("{n} on {channel}"), async || {
            let (_, count): (String, u64) = ask(&mut connection, &format!("PUBSUB NUMSUB {channel}"));
            count == n
        })
        .await;
    }

    async fn peer_sends(&self, session: &str, payload: &str) {
        self.peer.ask("send", json!([[session], payload])).await.unwrap();
    }

    async fn peer_has(&self, session: &str) -> bool {
        self.peer.ask("has", json!([session])).await.unwrap() == true
    }
}

async fn end(stream: &EventStream) -> EndReason {
    timeout(PATIENCE, stream.ended()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_tmcps_manager_is_reached_and_closed() {
    let fleet = Fleet::start().await;
    let Fleet { a, b, peer, .. } = &fleet;
    let s1 = id("s1");
    assert!(!a.streams().has(&s1).await.unwrap());
    fleet.peer_opens("s1").await;
    assert!(a.streams().has(&s1).await.unwrap() && a.streams().known(&s1).await.unwrap());
    assert_eq!(send(a, &s1, "m1").await, 1, "handed to the stream, live only");
    assert_eq!(send(b, &s1, "m2").await, 1);
    let keyed = SendOptions::default().idempotency_key("k");
    for (accepted, duplicates) in [(1, 0), (0, 1)] {
        let receipt = a.streams().send(Target::session(&s1), "m3", keyed.clone()).await.unwrap();
        assert_eq!((receipt.accepted, receipt.duplicates), (accepted, duplicates));
    }
    send_all(b, "m4").await;
    fleet.peer_sends("s1", "m5").await;
    // It renews its key too late, so that it is gone under many a live stream.
    let _: i64 = ask(&mut raw(&fleet.server), "DEL available:session:s1");
    assert!(!fleet.peer_has("s1").await && a.streams().has(&s1).await.unwrap());
    send_all(b, "m6").await;
    assert_eq!(peer.reads("s1", 6).await, ["m1", "m2", "m3", "m4", "m5", "m6"]);
    let refused = OpenOptions::default().conflict(Conflict::Reject);
    assert_eq!(a.streams().open(&s1, refused).await.unwrap_err().code(), "conflict");
    assert!(a.streams().close(&s1).await.unwrap());
    peer.closes("s1").await;
    assert!(!a.streams().has(&s1).await.unwrap() && !b.streams().close(&s1).await.unwrap());
    eventually("tmcp's manager knows", async || !fleet.peer_has("s1").await).await;
    // Its subscription is left, and what came there now would end the process.
    let late = a.streams().send(Target::session(&s1), "late", SendOptions::default()).await.unwrap();
    assert_eq!((late.accepted, late.dropped), (0, 1));
    send_all(a, "late").await;
    assert!(!fleet.peer_has("s1").await && peer.is_alive().await);
    assert_eq!(peer.read("s1").len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_this_library_is_reached_and_closed() {
    let fleet = Fleet::start().await;
    let Fleet { a, b, peer, .. } = &fleet;
    let s1 = id("s1");
    assert!(!fleet.peer_has("s1").await);
    let stream = open(a, &s1).await;
    let cursor = stream.cursor();
    assert!(fleet.peer_has("s1").await, "as soon as it is open");
    for n in 0..20 {
        match n % 4 {
            0 => fleet.peer_sends("s1", &format!("m{n}")).await,
            1 => assert_eq!(send(b, &s1, &format!("m{n}")).await, 1),
            2 => drop(peer.ask("send", json!([null, format!("m{n}")])).await.unwrap()),
            _ => send_all(b, &format!("m{n}")).await,
        }
        // One after the other, so that the order is known.
        assert_eq!(read(&stream, 1).await, [format!("m{n}")]);
    }
    // What tmcp's manager sent is in the log as everything else (G2).
    let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert_eq!(end(&stream).await, EndReason::Replaced);
    let all: Vec<_> = (0..20).map(|n| format!("m{n}")).collect();
    assert_eq!(read(&again, 20).await, all);
    assert!(!again.gap() && fleet.peer_has("s1").await);
    peer.ask("deleteElsewhere", json!(["s1"])).await.unwrap();
    assert_eq!(end(&again).await, EndReason::Closed);
    eventually("tmcp's manager sees it", async || !fleet.peer_has("s1").await).await;
    assert!(!a.streams().has(&s1).await.unwrap());
    fleet.subscribed("session:s1", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_doubled_or_lost_while_a_session_moves_among_this_librarys_nodes() {
    const MOVES: usize = 20;
    const EACH: usize = 10;
    let fleet = Fleet::start().await;
    let s1 = id("s1");
    let mut stream = open(&fleet.a, &s1).await;
    let cursor = stream.cursor();
    let mut sent = Vec::new();
    for turn in 0..MOVES {
        let to = if turn % 3 == 0 { &fleet.b } else { &fleet.a };
        let opens = to.streams().open(&s1, OpenOptions::default().after(cursor));
        let sends = async {
            for n in 0..EACH {
                let payload = format!("m{turn}-{n}");
                fleet.peer.tell("send", json!([["s1"], payload])).await;
                sent.push(payload);
                tokio::task::yield_now().await;
            }
        };
        stream = tokio::join!(opens, sends).0.unwrap();
    }
    assert!(!stream.gap());
    let mut got = read(&stream, MOVES * EACH).await;
    // The end: whatever came twice would have come before.
    fleet.peer_sends("s1", "end").await;
    assert_eq!(read(&stream, 1).await, ["end"]);
    got.sort_unstable();
    sent.sort_unstable();
    assert_eq!(got, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_over_from_tmcps_manager() {
    let fleet = Fleet::start().await;
    let Fleet { a, b, peer, .. } = &fleet;
    let s1 = id("s1");
    // It is known here, too, so that what is sent would wait in its log.
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    fleet.peer_opens("s1").await;
    send(a, &s1, "m1").await;
    send_all(b, "m2").await;
    assert_eq!(peer.reads("s1", 2).await, ["m1", "m2"]);
    let stream = open(a, &s1).await;
    peer.closes("s1").await;
    send(b, &s1, "m3").await;
    send_all(b, "m4").await;
    assert_eq!(read(&stream, 2).await, ["m3", "m4"], "what the other stream had does not come again");
    eventually("it is announced, though tmcp's manager took its key away", async || {
        fleet.peer_has("s1").await
    })
    .await;
    assert_eq!(peer.read("s1").len(), 2);
    assert!(peer.is_alive().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_holder_dies_is_taken_over_by_this_library() {
    let fleet = Fleet::start().await;
    let s1 = id("s1");
    fleet.peer_opens("s1").await;
    assert_eq!(send(&fleet.a, &s1, "m1").await, 1);
    fleet.peer.reads("s1", 1).await;
    fleet.peer.kill().await;
    eventually("it is seen at once", async || !fleet.a.streams().has(&s1).await.unwrap()).await;
    let stream = open(&fleet.a, &s1).await;
    send(&fleet.b, &s1, "m2").await;
    assert_eq!(read(&stream, 1).await, ["m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_holder_dies_is_taken_over_by_tmcps_manager() {
    let fleet = Fleet::start().await;
    let Fleet { a, b, peer, .. } = &fleet;
    let s1 = id("s1");
    let stream = open(a, &s1).await;
    send(b, &s1, "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
    a.abandon();
    eventually("tmcp's manager sees that it is free", async || !fleet.peer_has("s1").await).await;
    fleet.peer_opens("s1").await;
    // An event that waited for the next stream would be this library's to deliver.
    eventually("the lease of the dead node is over", async || {
        let sent = b.streams().send(Target::session(&s1), "m2", SendOptions::default()).await.unwrap();
        assert_eq!(sent.accepted, 1);
        !peer.read("s1").is_empty()
    })
    .await;
    assert!(b.streams().has(&s1).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_tmcps_manager_takes_ends_here() {
    let fleet = Fleet::start().await;
    let s1 = id("s1");
    let stream = open(&fleet.a, &s1).await;
    // Its transport asks `has` first, and this one does not.
    fleet.peer_opens("s1").await;
    assert_eq!(end(&stream).await, EndReason::Replaced);
    assert_eq!(send(&fleet.b, &s1, "m1").await, 1);
    assert_eq!(fleet.peer.reads("s1", 1).await, ["m1"]);
    assert!(fleet.peer_has("s1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn info_of_either_is_read_by_the_other() {
    let fleet = Fleet::start().await;
    let Fleet { a, b, peer, .. } = &fleet;
    let s1 = id("s1");
    peer.ask("info.setClientInfo", json!(["s1", {"name": "client", "version": "1"}])).await.unwrap();
    peer.ask("info.setClientCapabilities", json!(["s1", {"sampling": {}}])).await.unwrap();
    peer.ask("info.setLogLevel", json!(["s1", "warning"])).await.unwrap();
    assert_eq!(a.info().client_info(&s1).await.unwrap().value()["name"], "client");
    assert_eq!(a.info().client_capabilities(&s1).await.unwrap().value(), json!({"sampling": {}}));
    assert_eq!(a.info().log_level(&s1).await.unwrap(), LogLevel::Warning);
    // What it writes over what is cached here is seen.
    peer.ask("info.setLogLevel", json!(["s1", "error"])).await.unwrap();
    eventually("the other level", async || a.info().log_level(&s1).await.unwrap() == LogLevel::Error).await;
    a.info().set_log_level(&s1, LogLevel::Alert).await.unwrap();
    a.info().set_client_info(&s1, r#"{"name":"other"}"#).await.unwrap();
    assert_eq!(peer.ask("info.getLogLevel", json!(["s1"])).await.unwrap(), "alert", "as it can read it");
    assert_eq!(peer.ask("info.getClientInfo", json!(["s1"])).await.unwrap(), json!({"name": "other"}));
    // An event for a session that tmcp's manager made known waits for its stream (G4).
    peer.ask("info.setClientInfo", json!(["s2", {}])).await.unwrap();
    assert!(b.streams().known(&id("s2")).await.unwrap());
    assert_eq!(send(b, &id("s2"), "early").await, 1);
    assert_eq!(read(&open(a, &id("s2")).await, 1).await, ["early"]);
    peer.ask("info.delete", json!(["s1"])).await.unwrap();
    eventually("it is gone", async || a.info().client_info(&s1).await.is_err()).await;
    assert_eq!(a.info().client_info(&s1).await.unwrap_err().code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_subscriptions_are_shared() {
    let fleet = Fleet::start().await;
    let Fleet { a, peer, .. } = &fleet;
    let uri = "file:///a";
    let (s1, s2) = (id("s1"), id("s2"));
    a.info().set_client_info(&s1, "{}").await.unwrap();
    a.info().add_subscription(&s1, uri).await.unwrap();
    peer.ask("info.setClientInfo", json!(["s2", {}])).await.unwrap();
    peer.ask("info.addSubscription", json!(["s2", uri])).await.unwrap();
    let mut here = a.info().subscribers(uri).await.unwrap();
    here.sort_unstable();
    assert_eq!(here, [s1.clone(), s2.clone()]);
    let there = peer.ask("info.getSubscriptions", json!([uri])).await.unwrap();
    assert_eq!(there.as_array().unwrap().len(), 2);
    assert_eq!(ask::<i64>(&mut raw(&fleet.server), "PTTL tmcp:subscriptions:file:///a"), -1);
    // What is left of a session that is deleted goes where it is met.
    a.info().delete(&s2).await.unwrap();
    assert_eq!(a.info().subscribers(uri).await.unwrap(), [s1]);
    assert_eq!(peer.ask("info.getSubscriptions", json!([uri])).await.unwrap(), json!(["s1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_cross_both_ways_once() {
    let fleet = Fleet::start().await;
    let Fleet { a, b, peer, .. } = &fleet;
    fleet.subscribed("tmcp:subscriptions", 3).await;
    let listen = |engine: &Engine, name: &str| {
        let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged":true}"#).unwrap();
        let key = SubscriptionKey::new(RequestId::string(name), "o");
        let subscription = engine.subscriptions().create(key, filter).unwrap().unwrap();
        subscription.acknowledge();
        subscription
    };
    let (here, there) = (listen(a, "1"), listen(b, "2"));
    peer.ask("listen", json!(["3", {"toolsListChanged": true}])).await.unwrap();
    let notification =
        |n: u32| json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"n": n}});
    a.subscriptions().send(&notification(1).to_string()).await.unwrap();
    assert_eq!(peer.hears("3").await, notification(1));
    peer.ask("notify", json!([notification(2)])).await.unwrap();
    for subscription in [&here, &there] {
        for n in [1, 2] {
            let next = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(next.as_str()).unwrap(), notification(n));
        }
    }
    a.subscriptions().send(&notification(3).to_string()).await.unwrap();
    for subscription in [&here, &there] {
        let next = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
        assert!(next.as_str().contains("3"), "nothing came twice: {}", next.as_str());
    }
    eventually("tmcp's manager has all three", async || peer.heard("3") == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_up_for() {
    let fleet = Fleet::start().await;
    let s1 = id("s1");
    let stream = open(&fleet.a, &s1).await;
    let mut connection = raw(&fleet.server);
    let _: i64 = ask(&mut connection, "CLIENT KILL TYPE pubsub");
    // tmcp's manager does not survive that; another does its work.
    let peer = Peer::start(&fleet.server.url()).await;
    fleet.subscribed("session:s1", 1).await;
    eventually("it is heard again", async || {
        peer.ask("send", json!([["s1"], "m"])).await.unwrap();
        stream.try_next().is_some()
    })
    .await;
    assert!(peer.ask("has", json!(["s1"])).await.unwrap() == true);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_there_when_it_is_off_or_over() {
    let server = RedisServer::start().unwrap();
    let a = connect(&server.url()).await;
    let mut connection = raw(&server);
    let stream = open(&a, &id("s1")).await;
    let traces = |connection: &mut redis::Connection| {
        let keys: Vec<String> = ask(connection, "KEYS available:*");
        let channels: Vec<String> = ask(connection, "PUBSUB CHANNELS *session:*");
        let patterns: u64 = ask(connection, "PUBSUB NUMPAT");
        (keys.len(), channels.len(), patterns)
    };
    assert_eq!(traces(&mut connection), (0, 0, 0));
    drop(stream);
    let b = connect(&format!("{}?interop=tmcp", server.url())).await;
    let streams = [open(&b, &id("s1")).await, open(&b, &id("s2")).await, open(&b, &id("s3")).await];
    assert_eq!(traces(&mut connection), (3, 3, 1));
    let [s1, s2, s3] = streams;
    drop(s1);
    b.streams().close(&id("s2")).await.unwrap();
    b.streams().forget(&id("s3")).await.unwrap();
    eventually("only the pattern is left", async || traces(&mut connection) == (0, 0, 1)).await;
    drop((s2, s3));
    b.shutdown(PATIENCE).await.unwrap();
    eventually("nothing is left", async || traces(&mut connection) == (0, 0, 0)).await;
}
