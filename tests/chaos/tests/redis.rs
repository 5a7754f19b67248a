//! Each trouble by its name, and short seeded runs of them together, on real Redis servers.

use std::time::{Duration, Instant};

use chaos::dice::Dice;
use chaos::kit::{self, accepted, each, has, holds, lasts, next, open, seeded, send, steady, two_nodes};
use chaos::process::{Delivery, NodeProcess};
use chaos::protocol::{Answer, Ask, To};
use chaos::run::Traffic;
use chaos::schedule::{Kind, Planned, Trouble};
use chaos::server::Backend;
use chaos::world::{Setting, World};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn seed_7() {
    assert_eq!(seeded(Setting::small(), 7, 14, false).await.gaps, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_22() {
    assert_eq!(seeded(Setting::small(), 22, 14, false).await.gaps, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_3_on_a_server_that_loses_everything() {
    assert!(seeded(Setting::small().forgetful(), 3, 10, true).await.gaps > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_restarted_with_its_data() {
    lasts(steady(), &each(4_000, &[Trouble::KillServer { ms: 100 }, Trouble::KillServer { ms: 2_500 }]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_restarted_without_its_data() {
    let setting = Setting { wandering: false, ..Setting::small().forgetful() };
    let judged = holds(setting, &each(3_000, &[Trouble::KillServer { ms: 500 }, Trouble::Wipe]), 1).await;
    assert!(judged.gaps >= judged.sessions, "every client is told: {judged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_by_the_server() {
    let kinds = [Kind::Commands, Kind::Pushes, Kind::Both];
    lasts(
        steady(),
        &each(
            400,
            &[kinds, kinds, kinds].concat().into_iter().map(Trouble::KillConnections).collect::<Vec<_>>(),
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_for_longer_than_a_heartbeat_waits() {
    lasts(steady(), &each(200, &[Trouble::HalfOpen { node: 0, ms: 5_000 }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_heard() {
    lasts(steady(), &each(200, &[Trouble::Unanswered { node: 0, ms: 5_000 }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_reset_stalled_and_slow() {
    let slow = Trouble::Slow { node: 1, ms: 2_000, latency_ms: 40, jitter_ms: 60, bytes_a_second: 100_000 };
    lasts(
        steady(),
        &each(
            700,
            &[
                Trouble::Cut { node: 0, ms: 2_500 },
                slow,
                Trouble::Stall { node: 2, ms: 3_000 },
                Trouble::Reset { node: 1 },
            ],
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_move() {
    lasts(steady(), &each(4_000, &[Trouble::StopServer { ms: 300 }, Trouble::StopServer { ms: 2_500 }]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_move() {
    lasts(
        steady(),
        &each(3_500, &[Trouble::StopNode { node: 0, ms: 500 }, Trouble::StopNode { node: 1, ms: 3_000 }]),
    )
    .await;
}

/// A push connection that can't keep up is closed by the server; what it missed is in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_output_buffer() {
    let mut setting = steady();
    setting.sessions = 6;
    let limit = ["--client-output-buffer-limit", "pubsub", "200kb", "100kb", "1"];
    if let Backend::Redis(arguments) = &mut setting.server {
        arguments.extend(limit.map(Into::into));
    }
    let (dice, sessions) = (Dice::new(1), setting.sessions);
    let world = World::start(setting, 1).await.unwrap();
    let traffic = Traffic::start(&world, &dice).await.unwrap();
    let before = pushes(&world).await;
    world.places.iter().for_each(|place| place.proxy.stall());
    // Sent past the nodes that are stalled.
    let url = format!("redis://127.0.0.1:{}", world.port());
    let sender = NodeProcess::start(&url, &world.setting.options).await.unwrap();
    for n in 0..400 {
        let payload = format!("big-{n}-{}", "x".repeat(20_000));
        sender.ask(Ask::Send { to: To::All, payload, key: None }).await.unwrap();
    }
    let closed = async || pushes(&world).await.iter().all(|one| !before.contains(one));
    world.eventually("the server closes what can't keep up", closed).await.unwrap();
    world.places.iter().for_each(|place| place.proxy.restore());
    world.all_ready().await.unwrap();
    world.flush("of-all", &dice).await.unwrap();
    for session in world.sessions() {
        let big = (0..400).filter(|n| {
            let payload = format!("big-{n}-{}", "x".repeat(20_000));
            world.history.has(&session, &payload)
        });
        assert_eq!(big.count(), 400, "{session}");
    }
    assert_eq!(world.history.all_seen().len(), sessions);
    traffic.end().await;
}

/// The push connections that the server knows, by their ids.
async fn pushes(world: &World) -> Vec<String> {
    let list = world.command("CLIENT LIST TYPE pubsub").await.unwrap_or_default();
    let ids = list.lines().filter_map(|line| line.split(' ').find(|field| field.starts_with("id=")));
    ids.map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_while_it_holds_a_thousand_streams() {
    const STREAMS: u64 = 1_000;
    // The leases of the defaults: that is what six seconds are promised for (G7).
    let (world, a, b) = two_nodes(Setting::small(), Some("{}")).await;
    let mut cursors = Vec::new();
    for n in 0..STREAMS {
        let (mut deliveries, ..) = open(&a, n, &format!("s{n}"), None).await;
        assert_eq!(send(&b, &format!("s{n}"), &format!("m{n}"), None).await, accepted());
        cursors.push(next(&mut deliveries).await.1);
    }
    world.places[0].kill();
    let killed = Instant::now();
    let released = async || !has(&b, "s0").await;
    world.eventually("the others notice", released).await.unwrap();
    assert!(killed.elapsed() < Duration::from_secs(6), "noticed after {:?}", killed.elapsed());
    for n in 0..STREAMS {
        assert!(!has(&b, &format!("s{n}")).await, "s{n}");
        assert_eq!(send(&b, &format!("s{n}"), &format!("again-{n}"), None).await, accepted());
    }
    for (n, cursor) in (0..STREAMS).zip(cursors) {
        let (mut deliveries, _, gap) = open(&b, n, &format!("s{n}"), Some(cursor)).await;
        assert!(!gap, "s{n}");
        assert_eq!(next(&mut deliveries).await.0, format!("again-{n}"));
        assert!(has(&b, &format!("s{n}")).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_when_a_node_starts() {
    let (world, ..) = two_nodes(Setting::small(), None).await;
    world.kill_server();
    world.places[0].kill();
    let refused = world.start_node(0).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.retryable), ("unavailable", true), "{refused}");
    world.restart_server().unwrap();
    world.insist_on_node(0).await;
    world.all_ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stopped_for_longer_than_its_lease_is_fenced() {
    kit::is_fenced(Setting::small()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_failure_and_a_retry_with_the_same_key() {
    let (world, a, b) = two_nodes(Setting::small(), None).await;
    let (mut deliveries, ..) = open(&b, 1, "s1", None).await;
    // The server knows the script, or its only answer would be that it does not.
    assert_eq!(send(&a, "s1", "m0", None).await, accepted());
    assert_eq!(next(&mut deliveries).await.0, "m0");
    world.places[0].proxy.unanswered();
    let failed = send(&a, "s1", "m1", Some("k1")).await.unwrap_err();
    assert!(failed.outcome_unknown && failed.retryable, "{failed:?}");
    assert_eq!(next(&mut deliveries).await.0, "m1", "it happened all the same");
    let again = send(&b, "s1", "m1", Some("k1")).await;
    assert_eq!(again, Ok(Answer::Sent { accepted: 0, dropped: 0, duplicates: 1 }));
    world.places[0].proxy.restore();
    world.all_ready().await.unwrap();
    let again = send(&a, "s1", "m1", Some("k1")).await;
    assert_eq!(again, Ok(Answer::Sent { accepted: 0, dropped: 0, duplicates: 1 }));
    assert_eq!(send(&a, "s1", "m2", None).await, accepted());
    assert_eq!(next(&mut deliveries).await.0, "m2", "and only once");
}

/// A claim that happened, but whose answer was lost, must not hold the session for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_whose_answer_was_lost_gives_the_session_back() {
    // A lease that outlasts the operation: it must not be the lease's end that helps.
    let options = r#"{"lease": {"ttlMs": 20000, "renewMs": 1000}, "operationTimeoutMs": 1000}"#;
    let (world, a, b) = two_nodes(Setting::small(), Some(options)).await;
    // The server knows the script, or its only answer would be that it does not.
    open(&a, 0, "s0", None).await;
    world.places[0].proxy.unanswered();
    let lost = a.ask(Ask::Open { stream: 1, session: "s1".into(), after: None }).await.unwrap_err();
    assert!(lost.outcome_unknown, "{lost:?}");
    assert!(has(&b, "s1").await, "it was claimed all the same");
    world.places[0].proxy.restore();
    world.places[0].proxy.reset_all();
    world.all_ready().await.unwrap();
    world.eventually("the session is given back", async || !has(&b, "s1").await).await.unwrap();
    assert_eq!(send(&b, "s1", "m1", None).await, accepted());
    let (mut deliveries, _, gap) = open(&b, 2, "s1", None).await;
    assert_eq!((next(&mut deliveries).await.0.as_str(), gap), ("m1", false));
    // And what somebody else took meanwhile is left alone.
    world.places[0].proxy.unanswered();
    a.ask(Ask::Open { stream: 3, session: "s2".into(), after: None }).await.unwrap_err();
    let (mut deliveries, ..) = open(&b, 4, "s2", None).await;
    world.places[0].proxy.restore();
    world.places[0].proxy.reset_all();
    world.all_ready().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(send(&a, "s2", "m1", None).await, accepted());
    assert_eq!(next(&mut deliveries).await.0, "m1");
}

/// Nobody who was sent something that the new server lacks is left in the dark.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_promoted_without_the_last_writes() {
    // The holder is away while others reach the place again at which it was.
    let planned = [
        Planned { at_ms: 500, trouble: Trouble::Promote { ms: 1_000 } },
        Planned { at_ms: 1_300, trouble: Trouble::Cut { node: 0, ms: 4_000 } },
    ];
    let judged = holds(Setting::small().pair(), &planned, 1).await;
    assert!(judged.gaps > 0 && judged.excused > 0, "something was lost, and told: {judged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_sentinels() {
    let setting = Setting::small().on(Backend::Sentinels);
    holds(setting, &each(0, &[Trouble::FailOver { ms: 4_000 }]), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_fails_over() {
    let setting = Setting::small().on(Backend::Cluster);
    holds(setting, &each(0, &[Trouble::FailOver { ms: 5_000 }]), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_to_another_shard() {
    let setting = Setting { wandering: false, retries: true, ..Setting::small().on(Backend::Cluster) };
    lasts(setting, &each(0, &[Trouble::MoveSlots])).await;
}

/// An open that its client gave up may come to be after the one that it opened elsewhere: then it is
/// the newer one, and takes over.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_was_given_up_may_come_last() {
    let options = r#"{"lease": {"ttlMs": 40000, "renewMs": 1000}, "operationTimeoutMs": 30000}"#;
    let (world, a, b) = two_nodes(Setting::small(), Some(options)).await;
    world.places[0].proxy.stall();
    let mut late = a.listen(1);
    let ask = Ask::Open { stream: 1, session: "s1".into(), after: None };
    a.ask_within(Duration::from_millis(300), ask).await.unwrap_err();
    let (mut own, ..) = open(&b, 2, "s1", None).await;
    assert_eq!(send(&b, "s1", "m1", None).await, accepted());
    assert_eq!(next(&mut own).await.0, "m1");
    world.places[0].proxy.restore();
    assert_eq!(own.recv().await, Some(Delivery::End("replaced".into())));
    assert_eq!(send(&b, "s1", "m2", None).await, accepted());
    assert_eq!(next(&mut late).await.0, "m2");
}
