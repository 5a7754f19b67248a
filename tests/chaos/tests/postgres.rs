//! Each trouble by its name, and a short seeded run of them together, on real PostgreSQL servers.

use chaos::kit::{self, each, holds, lasts, seeded};
use chaos::schedule::{Kind, Planned, Trouble};
use chaos::server::Backend;
use chaos::world::Setting;

/// Clients that stay where they are, so that every stream has to last.
fn steady() -> Setting {
    Setting { wandering: false, ..Setting::postgres() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_restarted() {
    let kills = [Trouble::KillServer { ms: 100 }, Trouble::KillServer { ms: 2_500 }];
    lasts(steady(), &each(5_000, &kills)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_move() {
    let stops = [Trouble::StopServer { ms: 300 }, Trouble::StopServer { ms: 2_500 }];
    lasts(steady(), &each(3_000, &stops)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_terminated_by_the_server() {
    let kinds = [Kind::Commands, Kind::Pushes, Kind::Both].map(Trouble::KillConnections);
    lasts(steady(), &each(500, &[kinds, kinds].concat())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_for_longer_than_a_heartbeat_waits() {
    lasts(steady(), &each(0, &[Trouble::HalfOpen { node: 0, ms: 5_000 }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_move() {
    lasts(steady(), &each(0, &[Trouble::StopNode { node: 0, ms: 3_000 }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stopped_for_longer_than_its_lease_is_fenced() {
    kit::is_fenced(Setting::postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_the_rows_of_some_sessions() {
    lasts(steady(), &each(0, &[Trouble::LockRows { ms: 3_000 }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_for_a_while() {
    lasts(steady(), &each(0, &[Trouble::ReadOnly { ms: 2_500 }])).await;
}

/// Every connection there is, those of the nodes included, is taken by others.
#[tokio::test(flavor = "multi_thread")]
async fn max_connections_reached() {
    let server = Backend::Postgres(["fsync=off", "max_connections=24"].map(Into::into).to_vec());
    lasts(Setting { server, ..steady() }, &each(0, &[Trouble::Crowd { ms: 4_000 }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_that_holds_the_queue_of_notifications() {
    lasts(steady(), &each(0, &[Trouble::HoldNotices { ms: 5_000 }])).await;
}

/// Nobody who was sent something that the new server lacks is left in the dark.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_promoted_without_the_last_transactions() {
    // The holder is away while others reach the place again at which it was.
    let planned = [
        Planned { at_ms: 500, trouble: Trouble::Promote { ms: 1_000 } },
        Planned { at_ms: 1_300, trouble: Trouble::Cut { node: 0, ms: 4_000 } },
    ];
    let judged = holds(Setting::postgres().pair(), &planned, 1).await;
    assert!(judged.gaps > 0 && judged.excused > 0, "something was lost, and told: {judged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_7() {
    assert_eq!(seeded(Setting::postgres(), 7, 12, false).await.gaps, 0);
}
