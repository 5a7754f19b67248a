//! What goes wrong and when, decided by a seed before anything starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::console::Console;
use crate::dice::Dice;
use crate::proxy::{Way, Weather};
use crate::server::terminate;
use crate::world::World;

/// Which connections the server closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Commands,
    Pushes,
    Both,
}

/// One trouble, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    KillConnections(Kind),
    Cut {
        node: usize,
        ms: u64,
    },
    Reset {
        node: usize,
    },
    Stall {
        node: usize,
        ms: u64,
    },
    HalfOpen {
        node: usize,
        ms: u64,
    },
    /// What the server is told is done, and not answered.
    Unanswered {
        node: usize,
        ms: u64,
    },
    Slow {
        node: usize,
        ms: u64,
        latency_ms: u64,
        jitter_ms: u64,
        bytes_a_second: u64,
    },
    StopNode {
        node: usize,
        ms: u64,
    },
    KillNode {
        node: usize,
        ms: u64,
    },
    KillServer {
        ms: u64,
    },
    StopServer {
        ms: u64,
    },
    ForgetScripts,
    /// `FLUSHALL`.
    Wipe,
    /// The standby stops following, and then takes over: what was accepted meanwhile is lost.
    Promote {
        ms: u64,
    },
    /// A master is killed and another elected; it comes back when it was away for so long.
    FailOver {
        ms: u64,
    },
    /// All slots of a shard move to another one.
    MoveSlots,
    /// Postgres: somebody holds a lock on some sessions' rows.
    LockRows {
        ms: u64,
    },
    /// Postgres: the database takes no writes, as with a full disk.
    ReadOnly {
        ms: u64,
    },
    /// Postgres: others take every connection there is, and the nodes' too.
    Crowd {
        ms: u64,
    },
    /// Postgres: a long transaction keeps the queue of notifications from being emptied.
    HoldNotices {
        ms: u64,
    },
}

/// A trouble and the millisecond at which it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub at_ms: u64,
    pub trouble: Trouble,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} ms  {:?}", self.at_ms, self.trouble)
    }
}

/// What may be planned.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub nodes: usize,
    pub total_ms: u64,
    /// The longest trouble.
    pub longest_ms: u64,
    /// One half-open connection lasts so long, if there is time for it.
    pub half_open_ms: u64,
    /// The server may lose everything.
    pub wipes: bool,
}

/// Plans troubles one after the other, some of them at the same time, never all nodes at once.
pub fn plan(bounds: Bounds, dice: &Dice) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut busy_until = vec![0; bounds.nodes];
    let mut server_busy_until = 0;
    let mut half_opened = false;
    let mut at_ms = 500;
    while at_ms + 500 < bounds.total_ms {
        let left = bounds.total_ms - at_ms;
        let ms = dice.between(100, bounds.longest_ms.min(left));
        let free: Vec<usize> = (0..bounds.nodes).filter(|node| busy_until[*node] <= at_ms).collect();
        // One node is always left in peace.
        let node = (free.len() > 1).then(|| free[dice.below(free.len())]);
        let server_free = server_busy_until <= at_ms;
        let kind = [Kind::Commands, Kind::Pushes, Kind::Both][dice.below(3)];
        let long = !half_opened && left > bounds.half_open_ms + 1_000;
        let trouble = match (dice.below(16), node) {
            (0 | 1, _) if server_free => Some(Trouble::KillConnections(kind)),
            (2, _) if server_free => Some(Trouble::KillServer { ms }),
            (3, _) if server_free => Some(Trouble::StopServer { ms }),
            (4, _) if server_free && bounds.wipes => Some(Trouble::Wipe),
            (4, _) if server_free => Some(Trouble::ForgetScripts),
            (5 | 6, Some(node)) => Some(Trouble::Cut { node, ms }),
            (7, Some(node)) => Some(Trouble::Reset { node }),
            (8, Some(node)) => Some(Trouble::Stall { node, ms }),
            (9, Some(node)) if long => Some(Trouble::HalfOpen { node, ms: bounds.half_open_ms }),
            (9, Some(node)) => Some(Trouble::HalfOpen { node, ms }),
            (10, Some(node)) => Some(Trouble::Slow {
                node,
                ms,
                latency_ms: dice.between(0, 60),
                jitter_ms: dice.between(0, 60),
                bytes_a_second: dice.between(20_000, 2_000_000),
            }),
            (11 | 12, Some(node)) => Some(Trouble::StopNode { node, ms }),
            (13, Some(node)) => Some(Trouble::KillNode { node, ms }),
            (14 | 15, Some(node)) => Some(Trouble::Unanswered { node, ms }),
            _ => None,
        };
        if let Some(trouble) = trouble {
            planned.push(Planned { at_ms, trouble });
            half_opened |= matches!(trouble, Trouble::HalfOpen { ms, .. } if ms == bounds.half_open_ms);
            let until = at_ms + trouble.ms() + 200;
            match trouble.node() {
                Some(node) => busy_until[node] = until,
                None => server_busy_until = until,
            }
        }
        at_ms += dice.between(50, 900);
    }
    planned
}

impl Trouble {
    fn ms(self) -> u64 {
        match self {
            Trouble::Cut { ms, .. }
            | Trouble::Stall { ms, .. }
            | Trouble::HalfOpen { ms, .. }
            | Trouble::Unanswered { ms, .. }
            | Trouble::Slow { ms, .. }
            | Trouble::StopNode { ms, .. }
            | Trouble::KillNode { ms, .. }
            | Trouble::KillServer { ms }
            | Trouble::StopServer { ms }
            | Trouble::Promote { ms }
            | Trouble::FailOver { ms }
            | Trouble::LockRows { ms }
            | Trouble::ReadOnly { ms }
            | Trouble::Crowd { ms }
            | Trouble::HoldNotices { ms } => ms,
            _ => 0,
        }
    }

    fn node(self) -> Option<usize> {
        match self {
            Trouble::Cut { node, .. }
            | Trouble::Reset { node }
            | Trouble::Stall { node, .. }
            | Trouble::HalfOpen { node, .. }
            | Trouble::Unanswered { node, .. }
            | Trouble::Slow { node, .. }
            | Trouble::StopNode { node, .. }
            | Trouble::KillNode { node, .. } => Some(node),
            _ => None,
        }
    }

    /// Makes it, from beginning to end.
    pub async fn make(self, world: &World) -> Result<(), String> {
        let lasts = sleep(Duration::from_millis(self.ms()));
        let place = self.node().map(|node| &world.places[node]);
        match (self, place) {
            (Trouble::KillConnections(kind), _) => world.close_connections(kind).await,
            (Trouble::ForgetScripts, _) => drop(world.command("SCRIPT FLUSH").await),
            (Trouble::Wipe, _) => drop(world.command("FLUSHALL").await),
            (Trouble::KillServer { .. }, _) => {
                world.kill_server();
                lasts.await;
                world.restart_server()?;
            }
            (Trouble::StopServer { .. }, _) => {
                world.stop_server();
                lasts.await;
                world.wake_server();
            }
            (Trouble::Promote { .. }, _) => {
                let since = world.history.now();
                world.part()?;
                lasts.await;
                world.promote()?;
                world.history.lost(since);
            }
            (Trouble::FailOver { .. }, _) => {
                let killed = world.kill_master()?;
                lasts.await;
                world.bring_back(killed)?;
                // What its replica had not got yet, however short before it died.
                world.history.lost(0);
            }
            (Trouble::MoveSlots, _) => world.move_slots().await?,
            (Trouble::LockRows { .. }, _) => {
                let _locks = on_the_side(
                    &["begin", "select from tmcp_sessions where id in ('session-0', 'session-1') for update"],
                    world,
                )?;
                lasts.await;
            }
            (Trouble::ReadOnly { .. }, _) => {
                let mut console =
                    on_the_side(&["alter database postgres set default_transaction_read_only = on"], world)?;
                console.say(&terminate(Kind::Both))?;
                lasts.await;
                console.say("alter database postgres reset default_transaction_read_only")?;
                console.say(&terminate(Kind::Both))?;
            }
            (Trouble::Crowd { ms }, _) => tokio::task::block_in_place(|| crowd(world, ms))?,
            (Trouble::HoldNotices { .. }, _) => {
                let mut console = on_the_side(&["listen held", "begin", "select 1"], world)?;
                lasts.await;
                let used = console.say("select pg_notification_queue_usage() > 0")?;
                if used != "t" {
                    return Err("nothing was left in the queue".into());
                }
            }
            (Trouble::Reset { .. }, Some(place)) => place.proxy.reset_all(),
            (Trouble::Cut { .. }, Some(place)) => {
                place.proxy.cut();
                lasts.await;
                place.proxy.restore();
            }
            (Trouble::Stall { .. }, Some(place)) => {
                place.proxy.stall();
                lasts.await;
                place.proxy.restore();
            }
            (Trouble::HalfOpen { .. }, Some(place)) => {
                place.proxy.half_open();
                lasts.await;
                place.proxy.restore();
            }
            (Trouble::Unanswered { .. }, Some(place)) => {
                place.proxy.unanswered();
                lasts.await;
                place.proxy.restore();
            }
            (Trouble::Slow { latency_ms, jitter_ms, bytes_a_second, .. }, Some(place)) => {
                place.proxy.set(Weather {
                    way: Way::Open,
                    latency: Duration::from_millis(latency_ms),
                    jitter: Duration::from_millis(jitter_ms),
                    bytes_a_second,
                });
                lasts.await;
                place.proxy.restore();
            }
            (Trouble::StopNode { .. }, Some(place)) => {
                place.stop();
                lasts.await;
                place.wake();
            }
            (Trouble::KillNode { node, .. }, Some(place)) => {
                place.kill();
                lasts.await;
                world.insist_on_node(node).await;
            }
            (trouble, None) => return Err(format!("{trouble:?} names no node")),
        }
        Ok(())
    }
}

/// Somebody else's session on the server, who has said this.
fn on_the_side(statements: &[&str], world: &World) -> Result<Console, String> {
    tokio::task::block_in_place(|| {
        let mut console = Console::open(world.port())?;
        statements.iter().try_for_each(|statement| console.say(statement).map(drop))?;
        Ok(console)
    })
}

/// Takes all connections that the server has, those of the nodes included.
fn crowd(world: &World, ms: u64) -> Result<(), String> {
    const ROOM: usize = 1_000;
    let mut first = Console::open(world.port())?;
    let mut others = Vec::new();
    while let Ok(console) = Console::open(world.port()) {
        others.push(console);
        if others.len() > ROOM {
            return Err(format!("there was room for {ROOM} more"));
        }
    }
    let until = std::time::Instant::now() + Duration::from_millis(ms);
    while std::time::Instant::now() < until {
        first.say(&terminate(Kind::Both))?;
        while let Ok(console) = Console::open(world.port()) {
            others.push(console);
        }
    }
    Ok(())
}

/// Makes all troubles at their times; resolves when the last has passed.
pub async fn perform(world: &Arc<World>, planned: &[Planned]) -> Result<(), String> {
    let started = Instant::now();
    let mut under_way = tokio::task::JoinSet::new();
    for Planned { at_ms, trouble } in planned.iter().copied() {
        sleep_until(started + Duration::from_millis(at_ms)).await;
        let world = world.clone();
        under_way.spawn(async move { trouble.make(&world).await });
    }
    while let Some(done) = under_way.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}
