//! What the session registry does a second with many sessions alive.
//!
//! `cargo run --release --features redis,postgres --example registry_rates -- [url] [sessions]`
//! (default: `memory://`, 100,000). Each row takes at most ten seconds; it stops early and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcp_sessions::{Engine, Error, Options, PageRequest, SessionFilter, SessionId};

/// Calls under way at once.
const AT_ONCE: usize = 64;
const LONGEST: Duration = Duration::from_secs(10);
/// Calls a row makes, where it does not go over all sessions.
const CALLS: usize = 100_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "memory://".into());
    let sessions: usize = arguments.next().map_or(Ok(100_000), |n| n.parse())?;
    let scheme = url.split("://").next().unwrap_or_default().to_owned();
    let engine = Engine::connect(&url, Options::default()).await?;
    println!("{scheme}: {sessions} sessions, {AT_ONCE} calls at once");
    let ids: Arc<Vec<SessionId>> = (0..sessions).map(|_| SessionId::random()).collect::<Vec<_>>().into();

    let made = row("create", sessions, &engine, &ids, |engine, id| async move {
        engine.registry().register(&id, Some("token-of-ada"), None).await
    })
    .await?;
    let ids: Arc<Vec<SessionId>> = ids[..made].to_vec().into();
    row("get (no write)", CALLS, &engine, &ids, |engine, id| async move {
        engine.registry().get(&id, "token-of-ada").await.map(drop)
    })
    .await?;
    row("has", CALLS, &engine, &ids, |engine, id| async move { engine.registry().has(&id).await.map(drop) })
        .await?;
    row("begin + end (touches)", CALLS, &engine, &ids, |engine, id| async move {
        engine.registry().begin_request(&id).await?.end().await
    })
    .await?;
    row("append an event", CALLS, &engine, &ids, |engine, id| async move {
        engine.events(&id).append("_GET_stream", "x").await.map(drop)
    })
    .await?;
    row("stats", 20, &engine, &ids, |engine, _| async move { engine.registry().stats().await.map(drop) })
        .await?;
    row("list a page of 100", 200, &engine, &ids, |engine, _| async move {
        engine.registry().list(SessionFilter::default(), PageRequest::default()).await.map(drop)
    })
    .await?;
    row("sweep (nothing stale)", 20, &engine, &ids, |engine, _| async move {
        engine.registry().sweep_stale().await.map(drop)
    })
    .await?;
    row("close", made, &engine, &ids, |engine, id| async move {
        engine.registry().close(&id, "done").await.map(drop)
    })
    .await?;
    let left = engine.registry().stats().await?;
    println!("left: {} sessions", left.total);
    engine.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

/// Calls `act` for one session after the other; prints how often a second. Returns how many were done.
async fn row<F>(
    name: &str,
    calls: usize,
    engine: &Engine,
    ids: &Arc<Vec<SessionId>>,
    act: impl Fn(Engine, SessionId) -> F + Send + Sync + 'static,
) -> Result<usize, Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (next, act) = (Arc::new(AtomicUsize::new(0)), Arc::new(act));
    let started = Instant::now();
    let workers = (0..AT_ONCE.min(calls)).map(|_| {
        let (engine, ids, next, act) = (engine.clone(), ids.clone(), next.clone(), act.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < LONGEST {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= calls {
                    break;
                }
                let began = Instant::now();
                act(engine.clone(), ids[n % ids.len()].clone()).await?;
                took.push(began.elapsed());
            }
            Ok::<_, Error>(took)
        })
    });
    let mut took = Vec::with_capacity(calls);
    for worker in workers.collect::<Vec<_>>() {
        took.extend(worker.await.expect("a worker panicked")?);
    }
    let seconds = started.elapsed().as_secs_f64();
    took.sort_unstable();
    let at =
        |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    let early = if took.len() < calls { ", stopped early" } else { "" };
    println!(
        "  {name:<22} {:>9.0}/s   p50 {:>8.1} µs   p99 {:>9.1} µs   ({} calls{early})",
        took.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        took.len()
    );
    Ok(took.len())
}
