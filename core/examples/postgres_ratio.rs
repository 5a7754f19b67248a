//! How close the engine comes to a bare client on the same Postgres server, in one run:
//! `cargo run --release --features postgres --example postgres_ratio [postgresql://host/database]`.
//!
//! The bare loop is one connection with prepared statements: idle, the least a log with live delivery
//! needs (number, insert and notify in one statement) and one that listens; busy, batches of 32
//! inserted, and nobody told. It keeps history in either case.

mod ratio;

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ratio::{Ours, Raw, SESSIONS, Work, compare, in_flight};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

const WORK: Work = Work { idle: 1_000, busy: 50_000, in_flight: 512 };
const BATCH: usize = 32;
/// Batches under way: what waits for the disk is no work.
const BATCHES: usize = 4;

const TABLES: &str = "drop table if exists bench_raw_log; drop table if exists bench_raw_sessions; \
    create table bench_raw_sessions (id text primary key, head bigint not null); \
    create table bench_raw_log (id text, n bigint, payload text, primary key (id, n))";
const SEND: &str = "with s as (update bench_raw_sessions set head = head + 1 where id = $1 returning head), \
    i as (insert into bench_raw_log select $1, head, $2 from s) select pg_notify('bench_raw', $2) from s";
const INSERT: &str = "insert into bench_raw_log select * from unnest($1::text[], $2::bigint[], $3::text[])";

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| "postgresql://127.0.0.1/postgres".into());
    let raw = Bare::new(&url).await;
    for history in [true, false] {
        let ours = Ours::new(&url, history, WORK).await;
        compare(if history { "with history" } else { "live only" }, &raw, &ours).await;
    }
}

struct Bare {
    client: Client,
    _listener: Client,
    heard: Mutex<UnboundedReceiver<()>>,
    send: Statement,
    insert: Statement,
    next: AtomicUsize,
}

impl Bare {
    async fn new(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a Postgres server");
        tokio::spawn(connection);
        let (listener, mut connection) =
            tokio_postgres::connect(url, NoTls).await.expect("a Postgres server");
        let (tell, heard) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(_) = message {
                    let _ = tell.send(());
                }
            }
        });
        listener.batch_execute("listen bench_raw").await.expect("listening");
        client.batch_execute(TABLES).await.expect("tables");
        for n in 0..SESSIONS {
            let id = format!("s{n}");
            client.execute("insert into bench_raw_sessions values ($1, 0)", &[&id]).await.expect("a session");
        }
        Bare {
            send: client.prepare(SEND).await.expect("prepared"),
            insert: client.prepare(INSERT).await.expect("prepared"),
            client,
            _listener: listener,
            heard: heard.into(),
            next: 0.into(),
        }
    }

    async fn batch(&self, payload: &str) {
        let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
        let ids: Vec<_> = (0..BATCH).map(|n| format!("b{}", (first + n) % SESSIONS)).collect();
        let numbers: Vec<_> = (0..BATCH).map(|n| (first + n) as i64).collect();
        let payloads = vec![payload; BATCH];
        self.client.execute(&self.insert, &[&ids, &numbers, &payloads]).await.expect("inserted");
    }
}

impl Raw for Bare {
    async fn one(&self, n: usize, payload: &str) {
        let mut heard = self.heard.lock().await;
        let id = format!("s{}", n % SESSIONS);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id, &payload];
        let (sent, _) = tokio::join!(self.client.query(&self.send, &parameters), heard.recv());
        assert_eq!(sent.expect("sent").len(), 1);
    }

    async fn many(&self, work: Work, payload: &str) -> f64 {
        let started = Instant::now();
        in_flight(work.busy / BATCH, BATCHES, async |_| self.batch(payload).await).await;
        work.busy as f64 / started.elapsed().as_secs_f64()
    }
}
