//! A whole run: a world, a plan of troubles, and the verdict.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::checker::{Judged, check};
use crate::dice::Dice;
use crate::schedule::{Bounds, Planned, perform, plan};
use crate::world::{Setting, World};

/// Traffic in a world: clients and senders, until it is told to stop.
pub struct Traffic {
    senders_stop: watch::Sender<bool>,
    clients_stop: watch::Sender<bool>,
    senders: Vec<tokio::task::JoinHandle<()>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    /// Every client has a stream once this resolves.
    pub async fn start(world: &Arc<World>, dice: &Dice) -> Result<Self, String> {
        let (senders_stop, clients_stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let clients =
            world.sessions().map(|session| world.client(session, dice.split(), clients_stop.subscribe()));
        let clients = clients.collect();
        world
            .eventually("every client has a stream", async || {
                world.history.all_seen().len() == world.setting.sessions
            })
            .await?;
        let senders = 0..world.setting.senders;
        let senders = senders.map(|n| world.sender(n, dice.split(), senders_stop.subscribe())).collect();
        Ok(Traffic { senders_stop, clients_stop, senders, clients })
    }

    /// No more is sent; what was is known to have come to an end.
    pub async fn senders_end(&mut self) {
        self.senders_stop.send_replace(true);
        for sender in self.senders.drain(..) {
            let _ = sender.await;
        }
    }

    pub async fn end(mut self) {
        self.senders_end().await;
        self.clients_stop.send_replace(true);
        for client in self.clients {
            let _ = client.await;
        }
    }
}

/// Runs one plan in one world. Fails with everything that is wrong.
pub async fn run(setting: Setting, planned: &[Planned], seed: u64) -> Result<Judged, String> {
    let dice = Dice::new(seed);
    let world = World::start(setting, seed).await?;
    let mut traffic = Traffic::start(&world, &dice).await?;
    perform(&world, planned).await?;
    let calm = Instant::now();
    world.all_ready().await?;
    traffic.senders_end().await;
    let single = world.one_stream_each().await;
    let flushed = world.flush("of-all", &dice).await;
    println!("all is well again {:.1} s after the last trouble", calm.elapsed().as_secs_f64());
    traffic.end().await;
    let (violations, judged) = check(&world.history, world.setting.server.merges());
    let mut wrong: Vec<_> = violations.iter().take(20).map(ToString::to_string).collect();
    wrong.extend((violations.len() > 20).then(|| format!("and {} more", violations.len() - 20)));
    wrong.extend([flushed, single].into_iter().filter_map(Result::err));
    match wrong.is_empty() {
        true => Ok(judged),
        false => Err(format!("{judged:?}\n{}", wrong.join("\n"))),
    }
}

/// `chaos run BACKEND SECONDS SEED`; the seed may be `random`.
pub async fn from_command_line(backend: &str, seconds: &str, seed: &str) -> ExitCode {
    let (base, wipes) = match backend {
        "redis" => (Setting::small(), false),
        "redis-forgetful" => (Setting::small().forgetful(), true),
        "postgres" => (Setting::postgres(), false),
        _ => {
            eprintln!(
                "there is BACKEND=redis, postgres, and redis-forgetful, which loses everything now and then"
            );
            return ExitCode::FAILURE;
        }
    };
    let seed = match seed {
        "" | "random" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_millis() as u64 % 1_000_000_007)
        }
        seed => seed.parse().unwrap_or_else(|_| panic!("SEED is a number, not {seed}")),
    };
    let seconds: u64 = seconds.parse().unwrap_or_else(|_| panic!("SECONDS is a number, not {seconds}"));
    let bounds = Bounds {
        nodes: base.nodes,
        total_ms: seconds * 1_000,
        longest_ms: 6_000,
        half_open_ms: 30_000,
        wipes,
    };
    let planned = plan(bounds, &Dice::new(seed));
    println!("seed {seed}: {} troubles in {seconds} s on {backend}", planned.len());
    planned.iter().for_each(|one| println!("{one}"));
    let setting = Setting { sessions: 60, senders: 6, pause: Duration::from_millis(10), ..base };
    match run(setting, &planned, seed).await {
        Ok(judged) => {
            println!("verdict: nothing was lost, doubled or reordered\n{judged:?}\nseed {seed}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            println!("verdict: BROKEN\n{wrong}\nseed {seed}");
            ExitCode::FAILURE
        }
    }
}
