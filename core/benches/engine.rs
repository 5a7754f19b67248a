//! The core alone on the embedded backend, for DESIGN-level figures: `cargo bench -p mcp-sessions`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mcp_sessions::{
    Engine, EventStream, Mailbox, OpenOptions, Options, Payload, SendOptions, SessionId, Target,
};
use tokio::runtime::Runtime;

fn sessions(n: usize) -> Vec<SessionId> {
    (0..n).map(|n| SessionId::new(format!("session-{n}")).expect("a valid id")).collect()
}

/// One event there and back: accepted, logged, queued, read.
fn directed(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let payload: Payload = "x".repeat(512).into();
    let mut group = c.benchmark_group("directed");
    group.throughput(Throughput::Elements(1));
    for (name, options) in [("history", r#"{}"#), ("live-only", r#"{"retention":{"events":0}}"#)] {
        let engine = runtime
            .block_on(Engine::connect("memory://", Options::from_json(options).expect("options")))
            .expect("an engine");
        let id = SessionId::random();
        let stream = runtime.block_on(engine.streams().open(&id, OpenOptions::default())).expect("a stream");
        group.bench_function(name, |b| {
            b.iter(|| {
                let target = Target::Session(id.clone());
                engine.streams().send_now(target, payload.clone(), SendOptions::default()).expect("accepted");
                black_box(stream.try_next().expect("delivered"))
            });
        });
    }
    group.finish();
}

/// One event to n local streams, read through one mailbox.
fn broadcast(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let payload: Payload = "x".repeat(512).into();
    let mut group = c.benchmark_group("broadcast");
    for n in [1_000, 5_000] {
        let engine = runtime.block_on(Engine::connect("memory://", Options::default())).expect("an engine");
        let mailbox = Mailbox::new(|| {});
        let _streams: Vec<EventStream> = sessions(n)
            .iter()
            .enumerate()
            .map(|(token, id)| {
                let open = engine.streams().open_in_now(id, OpenOptions::default(), &mailbox, token as u32);
                open.expect("a stream")
            })
            .collect();
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("{n} streams"), |b| {
            b.iter(|| {
                let sent = engine.streams().send_now(Target::All, payload.clone(), SendOptions::default());
                sent.expect("accepted");
                let mut delivered = 0;
                while delivered < n {
                    delivered += mailbox.drain(usize::MAX, &mut |token, item| {
                        black_box((token, item));
                    });
                }
            });
        });
    }
    group.finish();
}

/// Opening a stream and giving it back.
fn open_and_close(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let engine = runtime.block_on(Engine::connect("memory://", Options::default())).expect("an engine");
    let ids = sessions(10_000);
    let mailbox = Mailbox::new(|| {});
    let mut turn = 0;
    c.bench_function("open and close", |b| {
        b.iter(|| {
            turn += 1;
            let id = &ids[turn % ids.len()];
            let stream = engine.streams().open_in_now(id, OpenOptions::default(), &mailbox, 0);
            stream.expect("a stream").close_now();
            mailbox.drain(usize::MAX, &mut |_, _| {});
        });
    });
}

/// The spread of single directed sends, which criterion does not print.
fn latency(_: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let engine = runtime.block_on(Engine::connect("memory://", Options::default())).expect("an engine");
    let id = SessionId::random();
    let stream = runtime.block_on(engine.streams().open(&id, OpenOptions::default())).expect("a stream");
    let payload: Payload = "x".repeat(512).into();
    let mut times: Vec<Duration> = (0..200_000)
        .map(|_| {
            let started = Instant::now();
            let target = Target::Session(id.clone());
            engine.streams().send_now(target, payload.clone(), SendOptions::default()).expect("accepted");
            black_box(stream.try_next().expect("delivered"));
            started.elapsed()
        })
        .collect();
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_nanos();
    println!("directed latency: p50 {} ns, p99 {} ns", at(0.50), at(0.99));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = directed, broadcast, open_and_close, latency
}
criterion_main!(benches);
