//! A soak: many sessions that begin and end all the time, mixed traffic, for as long as asked, and
//! whether memory stays flat and nothing is left.

mod gauges;
pub mod node;

use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_sessions::{Engine, Options};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::server::{Backend, Server};
use gauges::{Gauge, left_over, memory, mib};
use node::{Report, Task};

const NODES: u64 = 2;
/// Short lives, so that what expires does so while it is watched.
const OPTIONS: &str = r#"{"sessionTtlMs": 30000, "retention": {"ageMs": 10000},
    "broadcastRetention": {"ageMs": 10000}}"#;
/// By then everything has expired, a topic too, which outlives every position in it.
const PATIENCE: Duration = Duration::from_secs(180);

struct Soaking {
    child: Child,
    pid: u32,
    last: Arc<Mutex<Report>>,
}

impl Soaking {
    fn start(task: &Task) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let task = serde_json::to_string(task).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["soak-node", &task]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let last = Arc::<Mutex<Report>>::default();
        if let Some(output) = child.stdout.take() {
            let told = last.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Ok(report) = serde_json::from_str(&line) {
                        *told.lock().unwrap_or_else(PoisonError::into_inner) = report;
                    }
                }
            });
        }
        Ok(Soaking { pid: child.id().unwrap_or_default(), child, last })
    }

    fn report(&self) -> Report {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// Everything at one moment.
struct Sample {
    seconds: u64,
    reports: Vec<Report>,
    nodes: Vec<u64>,
    server: Gauge,
}

impl Sample {
    fn total(&self, of: impl Fn(&Report) -> u64) -> u64 {
        self.reports.iter().map(of).sum()
    }

    fn print(&self, before: Option<&Sample>) {
        let rate = |of: fn(&Report) -> u64| {
            let (then, since) = before.map_or((0, 0), |before| (before.seconds, before.total(of)));
            self.total(of).saturating_sub(since) / self.seconds.saturating_sub(then).max(1)
        };
        let nodes: Vec<_> = self.nodes.iter().map(|bytes| mib(*bytes)).collect();
        println!(
            "{:>5} s  {:>6} streams  {:>4}/s begun  {:>6}/s sent  {:>7}/s received  nodes {} MiB  server {} MiB  \
             data {} MiB  {:>6} keys or rows  {:>6} dead  {:>2} channels  {:>2} connections",
            self.seconds,
            self.total(|report| report.streams),
            rate(|report| report.opened),
            rate(|report| report.sent),
            rate(|report| report.received),
            nodes.join(" "),
            mib(self.server.memory),
            mib(self.server.data),
            self.server.items,
            self.server.dead,
            self.server.channels,
            self.server.connections,
        );
    }
}

/// `chaos soak BACKEND SECONDS [SESSIONS]`.
pub async fn from_command_line(backend: &str, seconds: &str, sessions: &str) -> ExitCode {
    let backend = match backend {
        "redis" => Backend::Redis(["--save", "", "--appendonly", "no"].map(Into::into).to_vec()),
        "postgres" => Backend::Postgres(vec!["fsync=off".into()]),
        _ => {
            eprintln!("there is BACKEND=redis and postgres");
            return ExitCode::FAILURE;
        }
    };
    let number =
        |text: &str| text.parse().unwrap_or_else(|_| panic!("SECONDS and SESSIONS are numbers, not {text}"));
    match soak(&backend, number(seconds), number(sessions)).await {
        Ok(left) if left.is_empty() => {
            println!("verdict: nothing is left");
            ExitCode::SUCCESS
        }
        Ok(left) => {
            println!("verdict: LEFT OVER\n{}", left.join("\n"));
            ExitCode::FAILURE
        }
        Err(wrong) => {
            println!("verdict: BROKEN\n{wrong}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is left over at the end.
async fn soak(backend: &Backend, seconds: u64, sessions: u64) -> Result<Vec<String>, String> {
    let server = Server::start(backend)?;
    let url = server.url(server.port());
    // Whoever stays cleans up after those that left.
    let options = Options::from_json(OPTIONS).map_err(|error| error.to_string())?;
    let stays = Engine::connect(&url, options).await.map_err(|error| error.to_string())?;
    let task = |share| Task {
        url: url.clone(),
        options: OPTIONS.to_owned(),
        share,
        shares: NODES,
        sessions: sessions / NODES,
        churn: (sessions / 100 / NODES).max(1),
        sends: (sessions / 20 / NODES).max(1),
        seconds,
    };
    let nodes = (0..NODES).map(|share| Soaking::start(&task(share)));
    let mut nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    println!("{sessions} sessions on {NODES} nodes, {}/s begin and end, {} s", sessions / 100, seconds);
    let samples = watch(&server, &mut nodes, seconds).await?;
    let summary = summed_up(&samples);
    println!("{summary}");
    let failed: u64 = nodes.iter().map(|node| node.report().failed + node.report().lost).sum();
    let left = gone(&server, stays).await?;
    match failed {
        0 => Ok(left),
        _ => Err(format!("{failed} operations or streams failed\n{}", left.join("\n"))),
    }
}

/// Samples until the nodes have ended by themselves.
async fn watch(server: &Server, nodes: &mut [Soaking], seconds: u64) -> Result<Vec<Sample>, String> {
    let started = Instant::now();
    let pace = Duration::from_secs((seconds / 20).clamp(5, 30));
    let mut samples: Vec<Sample> = Vec::new();
    while !nodes.iter_mut().all(Soaking::ended) {
        sleep(pace).await;
        let sample = Sample {
            seconds: started.elapsed().as_secs(),
            reports: nodes.iter().map(Soaking::report).collect(),
            nodes: nodes.iter().map(|node| memory(node.pid)).collect(),
            server: tokio::task::block_in_place(|| Gauge::read(server))?,
        };
        sample.print(samples.last());
        samples.push(sample);
    }
    Ok(samples)
}

/// Growth from the first third of the time with all sessions to the last.
fn summed_up(samples: &[Sample]) -> String {
    let most = samples.iter().map(|sample| sample.total(|report| report.streams)).max().unwrap_or(0);
    let full: Vec<_> =
        samples.iter().filter(|sample| sample.total(|report| report.streams) * 100 >= most * 97).collect();
    let third = (full.len() / 3).max(1);
    let mean = |some: &[&Sample], of: &dyn Fn(&Sample) -> u64| {
        some.iter().map(|sample| of(sample)).sum::<u64>() as f64 / some.len().max(1) as f64
    };
    let grown = |name: &str, of: &dyn Fn(&Sample) -> u64| {
        let (first, last) =
            (mean(&full[..third.min(full.len())], of), mean(&full[full.len() - third.min(full.len())..], of));
        let percent = if first > 0.0 { (last / first - 1.0) * 100.0 } else { 0.0 };
        format!("{name}: {} MiB, then {} MiB ({percent:+.1} %)", mib(first as u64), mib(last as u64))
    };
    [
        grown("memory of the nodes", &|sample| sample.nodes.iter().sum()),
        grown("memory of the server", &|sample| sample.server.memory),
        grown("data on the server", &|sample| sample.server.data),
    ]
    .join("\n")
}

/// Waits until what had a time to live is gone, and returns what is not.
async fn gone(server: &Server, stays: Engine) -> Result<Vec<String>, String> {
    let started = Instant::now();
    let looks = || tokio::task::block_in_place(|| left_over(server));
    // Its own lease, and on Redis what all nodes share.
    let own = |left: &[String]| match server {
        Server::Postgres { .. } => left.iter().all(|what| what == "1 rows in tmcp_nodes"),
        _ => true,
    };
    while !own(&looks()?) && started.elapsed() < PATIENCE {
        sleep(Duration::from_secs(1)).await;
    }
    if let Server::Redis { .. } = server {
        // Sweeps go on for as long as anything expires.
        sleep(Duration::from_secs(35)).await;
    }
    stays.shutdown(Duration::from_secs(30)).await.map_err(|error| error.to_string())?;
    let mut left = looks()?;
    while !left.is_empty() && started.elapsed() < PATIENCE {
        sleep(Duration::from_secs(1)).await;
        left = looks()?;
    }
    let connections = tokio::task::block_in_place(|| Gauge::read(server))?.connections;
    left.extend((connections > 0).then(|| format!("{connections} connections")));
    println!("everything had gone {} s after the last session", started.elapsed().as_secs());
    Ok(left)
}
