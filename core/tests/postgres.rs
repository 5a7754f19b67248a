//! What only a real Postgres server shows: schemas, poolers, outages, what is left behind.

#[path = "support/engines.rs"]
mod engines;
#[path = "support/postgres_server.rs"]
mod postgres_server;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use engines::{PATIENCE, connect, eventually, exactly_once, follow, id, insist, numbered, open, read, send};
use mcp_sessions::{
    EndReason, Engine, Error, LogLevel, OpenOptions, Options, RequestId, SendOptions, SessionId,
    SubscriptionFilter, SubscriptionKey, Target, postgres_ddl,
};
use postgres_server::{PostgresServer, as_user, free_port};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

fn options(json: &str) -> Options {
    Options::from_json(json).unwrap()
}

async fn raw(server: &PostgresServer) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, question: &str) -> i64 {
    client.query_one(question, &[]).await.unwrap().get(0)
}

/// Every operation of two engines, once.
async fn use_everything(a: &Engine, b: &Engine) -> Result<(), Error> {
    let s1 = SessionId::random();
    let uri = format!("file:///{s1}");
    a.info().set_log_level(&s1, LogLevel::Info).await?;
    a.info().set_client_info(&s1, r#"{"name":"client"}"#).await?;
    assert_eq!(b.info().log_level(&s1).await?, LogLevel::Info);
    assert!(a.info().add_subscription(&s1, &uri).await?);
    assert_eq!(b.info().subscribers(&uri).await?, std::slice::from_ref(&s1));
    assert_eq!(b.info().subscriptions(&s1).await?, std::slice::from_ref(&uri));
    assert!(b.info().remove_subscription(&s1, &uri).await?);
    let stream = a.streams().open(&s1, OpenOptions::default()).await?;
    let receipt = b.streams().send(Target::session(&s1), "m1", SendOptions::default()).await?;
    assert_eq!(receipt.accepted, 1);
    let shared = format!("to all by {s1}");
    b.streams().send(Target::all(), shared.as_str(), SendOptions::default()).await?;
    let mut got = Vec::new();
    // Others may be at it, too.
    while got.len() < 2 {
        got.extend(
            read(&stream, 1).await.into_iter().filter(|payload| *payload == "m1" || *payload == shared),
        );
    }
    assert_eq!(got, ["m1", &shared]);
    assert!(b.streams().has(&s1).await? && b.streams().known(&s1).await?);
    let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged":true}"#)?;
    let key = SubscriptionKey::new(RequestId::string(s1.as_str()), "o");
    let subscription = a.subscriptions().create(key, filter)?.unwrap();
    b.subscriptions().send(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await?;
    subscription.acknowledge();
    assert!(timeout(PATIENCE, subscription.next()).await.unwrap().is_some());
    stream.close().await;
    let stream = a.streams().open(&s1, OpenOptions::default()).await?;
    assert!(b.streams().close(&s1).await?);
    timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(b.info().delete(&s1).await?);
    assert!(b.streams().forget(&s1).await?);
    assert!(a.health().await.ready);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_start_at_once_on_an_empty_database() {
    let server = PostgresServer::start().unwrap();
    let url = server.url();
    let engines = futures_util::future::join_all((0..10).map(|_| connect(&url))).await;
    let stream = open(&engines[0], &id("s1")).await;
    for engine in &engines {
        assert_eq!(send(engine, &id("s1"), "m").await, 1);
    }
    assert_eq!(read(&stream, 10).await, ["m"; 10]);
}

/// The tables of @tmcp/session-manager-postgres 0.3, as it makes them, with what it would write.
const PEER: &str = r#"
    create table "tmcp_sessions" (id text primary key, updated_at timestamp default now());
    create table "tmcp_session_client_capabilities" (id text primary key, value text);
    create table "tmcp_session_client_info" (id text primary key, value text);
    create table "tmcp_session_log_level" (id text primary key, value text);
    create table "tmcp_session_subscriptions" (id text primary key, value text);
    insert into tmcp_sessions (id) values ('old');
    insert into tmcp_session_client_info values ('old', '{"name":"client"}');
    insert into tmcp_session_log_level values ('old', '"warning"');
    insert into tmcp_session_subscriptions values ('old', 'file:///a');"#;

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_tmcp_are_taken_over() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    client.batch_execute(PEER).await.unwrap();
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    let old = id("old");
    assert_eq!(a.info().log_level(&old).await.unwrap(), LogLevel::Warning);
    assert_eq!(a.info().client_info(&old).await.unwrap().as_str(), r#"{"name":"client"}"#);
    assert!(a.info().add_subscription(&old, "file:///b").await.unwrap());
    assert!(!b.info().add_subscription(&old, "file:///a").await.unwrap());
    assert_eq!(b.info().subscriptions(&old).await.unwrap(), ["file:///a", "file:///b"]);
    let stream = open(&a, &old).await;
    send(&b, &old, "m").await;
    assert_eq!(read(&stream, 1).await, ["m"]);
    // What tmcp's own managers read and write later is seen, too.
    client.execute("insert into tmcp_session_client_info values ('new', '{}')", &[]).await.unwrap();
    assert_eq!(b.info().client_info(&id("new")).await.unwrap().as_str(), "{}");
    a.info().set_log_level(&id("s2"), LogLevel::Error).await.unwrap();
    let level =
        client.query_one("select value from tmcp_session_log_level where id = 's2'", &[]).await.unwrap();
    assert_eq!(level.get::<_, &str>(0), "error");
    let fresh =
        "select count(*) from tmcp_sessions where id = 'old' and updated_at > now() - interval '1 minute'";
    assert_eq!(number(&client, fresh).await, 1);
    use_everything(&a, &b).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn create_false_makes_nothing_and_says_what_is_missing() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let url = format!("{}?create=false", server.url());
    let tables = "select count(*) from pg_class where relname like 'tmcp%'";
    let refused = Engine::connect(&url, Options::default()).await.unwrap_err();
    assert_eq!(refused.code(), "config");
    assert!(refused.to_string().contains("tmcp_sessions") && refused.to_string().contains("postgres_ddl"));
    assert_eq!(number(&client, tables).await, 0);
    client.batch_execute(PEER).await.unwrap();
    let before = number(&client, tables).await;
    let refused = Engine::connect(&url, Options::default()).await.unwrap_err();
    assert!(refused.to_string().contains("tmcp_events"), "{refused}");
    assert_eq!(number(&client, tables).await, before);
    client.batch_execute(&postgres_ddl(&url).unwrap()).await.unwrap();
    // The user of a server needs no right to make anything.
    let grants = "create role app login; grant usage on schema public to app; \
        grant select, insert, update, delete on all tables in schema public to app; \
        revoke create on schema public from public";
    client.batch_execute(grants).await.unwrap();
    let url = url.replace("postgres@", "app@");
    use_everything(&connect(&url).await, &connect(&url).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_make_nothing_is_told_what_to_do() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    client.batch_execute("create role app login; revoke create on schema public from public").await.unwrap();
    let url = server.url().replace("postgres@", "app@");
    let refused = Engine::connect(&url, Options::default()).await.unwrap_err();
    assert_eq!(refused.code(), "unauthorized");
    assert!(refused.to_string().contains("create=false"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_names_whatever_they_hold() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    client.batch_execute("create table victim (x int)").await.unwrap();
    let evil = |name: &str| format!("{name}\"'; drop table victim; --\\$$ {{accept}}").replace(' ', "%20");
    let encoded = |name: &str| evil(name).replace('\'', "%27").replace('"', "%22").replace(';', "%3B");
    let url = format!(
        "{}?schema={}&table={}&client_info_table={}&subscriptions_table={}",
        server.url(),
        encoded("a"),
        encoded("b"),
        encoded("c"),
        encoded("d")
    );
    let (a, b) = (connect(&url).await, connect(&url).await);
    use_everything(&a, &b).await.unwrap();
    for text in ["'; drop table victim; --", "\"); drop table victim; --", "$$;\\'\u{0}\u{1}", "\u{1}0\u{1}1"]
    {
        let session = SessionId::new(text.replace(' ', "_").replace(['\u{0}', '\u{1}'], "!")).unwrap();
        let stream = open(&a, &session).await;
        send(&b, &session, text).await;
        let key = SendOptions::default().idempotency_key(text);
        b.streams().send(Target::all(), text, key).await.unwrap();
        assert_eq!(read(&stream, 2).await, [text, text]);
        let after = OpenOptions::default().after(stream.cursor());
        drop(b.streams().open(&session, after).await.unwrap());
        assert!(a.info().add_subscription(&session, text).await.unwrap());
        assert_eq!(b.info().subscribers(text).await.unwrap(), std::slice::from_ref(&session));
        assert_eq!(b.info().subscriptions(&session).await.unwrap(), [text]);
        a.info().set_protocol_version(&session, text).await.unwrap();
        assert_eq!(b.info().protocol_version(&session).await.unwrap(), text);
    }
    assert_eq!(number(&client, "select count(*) from victim").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_and_tables_are_apart() {
    let server = PostgresServer::start().unwrap();
    let s1 = id("s1");
    let mut nodes = Vec::new();
    for place in [
        "",
        "?schema=other",
        "?table=mine&client_info_table=i&client_capabilities_table=c&log_level_table=l&subscriptions_table=s",
    ] {
        let engine = connect(&format!("{}{place}", server.url())).await;
        let stream = open(&engine, &s1).await;
        nodes.push((place, engine, stream));
    }
    for (place, engine, _) in &nodes {
        engine.streams().send(Target::all(), *place, SendOptions::default()).await.unwrap();
        send(engine, &s1, "end").await;
    }
    for (place, _, stream) in &nodes {
        assert_eq!(read(stream, 2).await, [*place, "end"]);
        assert!(stream.try_next().is_none());
    }
}

/// Payloads of all sizes, in the order they are sent, live and in replay.
async fn sizes_keep_their_order(url: &str, json: &str) {
    let a = Engine::connect(url, options(json)).await.unwrap();
    let b = Engine::connect(url, options(json)).await.unwrap();
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let history = !json.contains("\"events\": 0");
    let cursor = stream.cursor();
    let sizes = [10, 7_400, 7_600, 20, 8_100, 30, 70_000, 40, 4 << 20, 50, 66_000, 60];
    let payloads: Vec<String> = sizes.iter().map(|size| "é".repeat(size / 2)).collect();
    for (n, payload) in payloads.iter().enumerate() {
        let to = if n % 4 == 3 { Target::all() } else { Target::session(&s1) };
        b.streams().send(to, payload.as_str(), SendOptions::default()).await.unwrap();
    }
    let got = read(&stream, payloads.len()).await;
    assert!(got == payloads, "{:?}", got.iter().map(String::len).collect::<Vec<_>>());
    if history {
        let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
        assert!(!again.gap());
        assert!(read(&again, payloads.len()).await == payloads);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_large_payloads_keep_their_order() {
    let server = PostgresServer::start().unwrap();
    let large = r#"{"retention": {"bytes": 100000000}, "broadcastRetention": {"bytes": 100000000},
        "queue": {"bytes": 100000000}}"#;
    let live =
        r#"{"retention": {"events": 0}, "broadcastRetention": {"events": 0}, "queue": {"bytes": 100000000}}"#;
    sizes_keep_their_order(&server.url(), large).await;
    sizes_keep_their_order(&format!("{}?schema=live", server.url()), live).await;
    sizes_keep_their_order(&format!("{}?schema=polls&listen=off&poll=10", server.url()), large).await;
    sizes_keep_their_order(&format!("{}?schema=mixed&listen=off&poll=10", server.url()), live).await;
    let client = raw(&server).await;
    for schema in ["public", "live", "polls", "mixed"] {
        let question = format!("select count(*) from {schema}.tmcp_mail");
        eventually("the mail is taken", async || number(&client, &question).await == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_polls_and_one_that_listens() {
    let server = PostgresServer::start().unwrap();
    let a = connect(&format!("{}?listen=off&poll=10", server.url())).await;
    let b = connect(&server.url()).await;
    use_everything(&a, &b).await.unwrap();
    use_everything(&b, &a).await.unwrap();
}

/// PgBouncer in front of a server, in transaction mode.
struct PgBouncer {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl PgBouncer {
    async fn start(server: &PostgresServer) -> Self {
        let port = free_port().unwrap();
        let dir = server.dir.join("pgbouncer");
        std::fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\n\
             auth_type=any\npool_mode=transaction\ndefault_pool_size=3\nmax_client_conn=200\nunix_socket_dir=\n\
             ignore_startup_parameters=extra_float_digits\n",
            server.port
        )
        .replace("* = host=127.0.0.1", "postgres = user=postgres host=127.0.0.1");
        std::fs::write(dir.join("pgbouncer.ini"), config).unwrap();
        // It refuses root, too.
        let mut command = as_user("pgbouncer");
        command.arg(dir.join("pgbouncer.ini")).current_dir(&dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = PgBouncer { child, port, dir };
        eventually("PgBouncer answers", async || {
            tokio_postgres::connect(&bouncer.url(), NoTls).await.is_ok()
        })
        .await;
        bouncer
    }

    fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_in_transaction_mode() {
    let server = PostgresServer::start().unwrap();
    let bouncer = PgBouncer::start(&server).await;
    let refused = Engine::connect(&bouncer.url(), Options::default()).await.unwrap_err();
    assert_eq!(refused.code(), "config", "{refused}");
    assert!(refused.to_string().contains("listen_url"), "{refused}");
    let direct = server.url().replace(':', "%3A").replace('/', "%2F");
    let listening = format!("{}?listen_url={direct}", bouncer.url());
    let polling = format!("{}?listen=off&poll=10", bouncer.url());
    let mut engines = Vec::new();
    for url in [&listening, &listening, &polling, &polling] {
        engines.push(connect(url).await);
    }
    let pairs = [(0, 1), (2, 3), (0, 2), (3, 1)];
    let used = pairs.map(|(a, b)| {
        let (a, b) = (engines[a].clone(), engines[b].clone());
        async move { use_everything(&a, &b).await }
    });
    // At once, so that transactions of one connection meet different servers.
    for result in futures_util::future::join_all(used).await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_connections_lose_double_and_reorder_nothing() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let engines = (connect(&server.url()).await, connect(&server.url()).await);
    exactly_once(engines, (600, 6), async |turn| {
        // Those that write and read, those that listen, or all.
        let kind = ["query not ilike 'listen%'", "query ilike 'listen%'", "true"][turn % 3];
        let question = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity \
             where application_name = 'mcp-sessions' and {kind}"
        );
        number(&client, &question).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let mut server = PostgresServer::start().unwrap();
    let engines = (connect(&server.url()).await, connect(&server.url()).await);
    exactly_once(engines, (200, 40), async |turn| {
        if turn % 2 == 0 {
            server.kill();
            server.restart().unwrap();
        }
    })
    .await;
}

/// Whether a client is told of a gap after the server crashed.
async fn gap_after_a_crash(durability: &str) -> bool {
    let mut server = PostgresServer::start().unwrap();
    let a = connect(&format!("{}?durability={durability}", server.url())).await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    server.kill();
    server.restart().unwrap();
    let b = connect(&server.url()).await;
    let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    send(&b, &s1, "after").await;
    let mut last = String::new();
    while last != "after" {
        last = read(&again, 1).await.remove(0);
    }
    again.gap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_may_have_lost_is_a_gap() {
    assert!(gap_after_a_crash("relaxed").await, "the last events may be lost");
    assert!(!gap_after_a_crash("strict").await, "accepted means committed");
}

/// They do not wait for the disk: what a crash takes along, those who listen have heard.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_go_on_once_and_in_order_after_a_crash() {
    let mut server = PostgresServer::start().unwrap();
    let [a, b] = [connect(&server.url()).await, connect(&server.url()).await];
    let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged": true}"#).unwrap();
    let key = SubscriptionKey::new(RequestId::number(1), "test");
    let subscription = a.subscriptions().create(key, filter).unwrap().unwrap();
    subscription.acknowledge();
    let mut sent = 0..;
    for _ in 0..3 {
        let some: Vec<_> = sent.by_ref().take(3).map(tools_changed).collect();
        for notification in &some {
            let sending = async || b.subscriptions().send(notification).await.is_ok();
            eventually("the server is back", sending).await;
            assert_eq!(subscription.next().await.unwrap(), **notification);
        }
        server.kill();
        server.restart().unwrap();
    }
}

/// Where a node is in the notifications is told in their epoch: if that were lost, it would be told them again.
#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_that_notifications_get_after_a_crash_outlives_the_next() {
    let mut server = PostgresServer::with(&["fsync=off", "wal_writer_delay=10000"]).unwrap();
    let engine = connect(&server.url()).await;
    engine.subscriptions().send(&tools_changed(0)).await.unwrap();
    engine.shutdown(PATIENCE).await.unwrap();
    let epoch = "select epoch from tmcp_topics where name = 'n'";
    let first = number(&raw(&server).await, epoch).await;
    server.kill();
    server.restart().unwrap();
    // No engine is there whose other commits would take this one along.
    let notify =
        "select tmcp_accept_v1('{\" n\"}', '{1}', '{x}', null, false, 9, 9999, 99999, 9, 9999, 99999)";
    let client = raw(&server).await;
    client.batch_execute(notify).await.unwrap();
    let second = number(&client, epoch).await;
    server.kill();
    server.restart().unwrap();
    assert_ne!(first, second);
    assert_eq!(number(&raw(&server).await, epoch).await, second);
}

fn tools_changed(n: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"n":{n}}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_for_a_while() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let a = connect(&server.url()).await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let terminate =
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mcp-sessions'";
    client.batch_execute("alter database postgres set default_transaction_read_only = on").await.unwrap();
    client.batch_execute(terminate).await.unwrap();
    let mut refused = None;
    eventually("sending is refused", async || {
        let sent = a.streams().send(Target::session(&s1), "never", SendOptions::default()).await;
        refused = sent.err().filter(|error| error.message().contains("read-only"));
        refused.is_some()
    })
    .await;
    let refused = refused.unwrap();
    assert_eq!(
        (refused.code(), refused.retryable(), refused.outcome_unknown()),
        ("unavailable", true, false)
    );
    client
        .batch_execute(
            "set transaction read write; alter database postgres reset default_transaction_read_only",
        )
        .await
        .unwrap();
    client.batch_execute(terminate).await.unwrap();
    insist(&a, Target::session(&s1), "after").await;
    drop(stream);
    let (got, _) = timeout(PATIENCE, follow(a, s1, None, 1)).await.unwrap();
    assert_eq!(got, ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_left() {
    let server =
        PostgresServer::with(&["fsync=off", "max_connections=6", "superuser_reserved_connections=2"])
            .unwrap();
    let client = raw(&server).await;
    client.batch_execute("create role app login; grant all on schema public to app").await.unwrap();
    let url = server.url().replace("postgres@", "app@");
    let a = connect(&url).await;
    let refused = Engine::connect(&url, Options::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.retryable()), ("unavailable", true));
    use_everything(&a, &a).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_at_the_door() {
    let mut server = PostgresServer::start().unwrap();
    let of = async |url: String| Engine::connect(&url, Options::default()).await.unwrap_err();
    let missing = of(server.url().replace("/postgres", "/nowhere").replace("//nowhere", "//postgres")).await;
    assert_eq!(missing.code(), "config", "{missing}");
    let nobody = of(server.url().replace("postgres@", "nobody:a-secret@")).await;
    assert_eq!(nobody.code(), "unauthorized", "{nobody}");
    assert!(!format!("{nobody} {nobody:?}").contains("secret"));
    let client = raw(&server).await;
    client
        .batch_execute(
            "create database latin template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'",
        )
        .await
        .unwrap();
    let latin = of(format!("postgresql://postgres@127.0.0.1:{}/latin", server.port)).await;
    assert_eq!(latin.code(), "config");
    assert!(latin.to_string().contains("UTF8"), "{latin}");
    let socket =
        format!("postgresql://postgres@/postgres?host={}&port={}", server.dir.display(), server.port);
    let engine = connect(&socket).await;
    assert!(!format!("{engine:?}").contains("127.0.0.1"));
    use_everything(&engine, &engine).await.unwrap();
    server.kill();
    let gone = of(server.url()).await;
    assert_eq!((gone.code(), gone.retryable()), ("unavailable", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_costs_nobody_else_the_lease() {
    let server = PostgresServer::start().unwrap();
    let a = Engine::connect(&server.url(), options(r#"{"lease": {"ttlMs": 1000, "renewMs": 200}}"#))
        .await
        .unwrap();
    let (s1, s2) = (id("s1"), id("s2"));
    let (one, two) = (open(&a, &s1).await, open(&a, &s2).await);
    let client = raw(&server).await;
    client.batch_execute("begin; select from tmcp_sessions where id = 's1' for update").await.unwrap();
    let refused = a.streams().send(Target::session(&s1), "never", SendOptions::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.retryable(), refused.outcome_unknown()),
        ("unavailable", true, false)
    );
    assert_eq!(send(&a, &s2, "m2").await, 1);
    assert_eq!(read(&two, 1).await, ["m2"]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(send(&a, &s1, "m1").await, 1);
    assert_eq!(read(&one, 1).await, ["m1"]);
    assert_eq!((one.end(), two.end()), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_locked_in_one_order_whatever_is_done_to_them() {
    let server = PostgresServer::start().unwrap();
    let a = connect(&server.url()).await;
    for name in ["S3", "s1", "s2"] {
        a.info().set_client_info(&id(name), "{}").await.unwrap();
    }
    let (holder, other) = (raw(&server).await, raw(&server).await);
    // A database sorts as its people do; not every build of a server knows how.
    if number(&holder, "select count(*) from pg_collation where collname = 'en-x-icu'").await > 0 {
        let sorted = "alter table tmcp_sessions alter column id type text collate \"en-x-icu\"";
        holder.batch_execute(sorted).await.unwrap();
    }
    // The first in the order of bytes, and the one whose info has to be prolonged.
    let due = "update tmcp_sessions set info_ms = info_ms - 80000000 where id = 'S3'";
    holder.batch_execute(due).await.unwrap();
    holder.batch_execute("begin; select from tmcp_sessions where id = 'S3' for update").await.unwrap();
    let question = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    for call in [
        "select tmcp_touch_v1('{s1,s2,S3}', 86400000, (extract(epoch from now()) * 1000)::bigint)",
        "select tmcp_release_v1('{s2,s1,S3}', '{0,0,0}', '{0,0,0}', '{0,0,0}', '{0,0,0}', '{0,0,0}', 600000, false)",
        "select tmcp_accept_v1('{s2,s1,S3}', '{1,1,1}', '{x}', null, false, 256, 9999999, 600000, 256, 9999999, 600000)",
    ] {
        let waits = tokio::spawn({
            let client = raw(&server).await;
            async move { client.batch_execute(call).await }
        });
        eventually("it waits", async || number(&other, question).await == 1).await;
        let free = "select from tmcp_sessions where id in ('s1', 's2') for update nowait";
        other.batch_execute(free).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
        holder.batch_execute("commit").await.unwrap();
        waits.await.unwrap().unwrap();
        holder.batch_execute("begin; select from tmcp_sessions where id = 'S3' for update").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_holds_back_the_queue_of_notifications() {
    let mut server = PostgresServer::start().unwrap();
    let version: i64 = server.sql("select current_setting('server_version_num')").unwrap().parse().unwrap();
    // From then on the queue can be made small enough to fill it.
    let fills = version >= 170_000;
    if fills {
        server.sql("alter system set max_notify_queue_pages = 64").unwrap();
        server.kill();
        server.restart().unwrap();
    }
    let holder = raw(&server).await;
    // What it is notified of waits for the end of its transaction, and all that comes after.
    holder.batch_execute("listen anything").await.unwrap();
    holder.batch_execute("begin; select 1").await.unwrap();
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let mut sent = Vec::new();
    let refused = loop {
        let payload = format!("{} {}", sent.len(), "x".repeat(7_000));
        match b.streams().send(Target::session(&s1), payload.as_str(), SendOptions::default()).await {
            Ok(_) => sent.push(payload),
            Err(error) => break Some(error),
        }
        if sent.len() == if fills { 1_000 } else { 100 } {
            break None;
        }
    };
    assert!(read(&stream, sent.len()).await == sent, "what was accepted arrives");
    assert_eq!(refused.is_some(), fills, "{} were accepted", sent.len());
    if let Some(refused) = refused {
        assert_eq!(
            (refused.code(), refused.retryable(), refused.outcome_unknown()),
            ("unavailable", true, false)
        );
        assert!(refused.message().contains("notification"), "{refused}");
        // What has to tell nobody goes on.
        assert!(b.streams().known(&s1).await.unwrap());
    }
    holder.batch_execute("commit").await.unwrap();
    insist(&b, Target::session(&s1), "after").await;
    assert_eq!(read(&stream, 1).await, ["after"]);
    assert_eq!(stream.end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_close_at_once_close_together() {
    const SESSIONS: usize = 300;
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let a = connect(&server.url()).await;
    let ids: Vec<_> = (0..SESSIONS).map(|_| SessionId::random()).collect();
    let register = async |session| {
        a.registry().register(session, None, None).await.unwrap();
        a.info().set_log_level(session, LogLevel::Info).await.unwrap();
        a.events(session).append("_GET_stream", "x").await.unwrap();
    };
    futures_util::future::join_all(ids.iter().map(register)).await;
    let transactions = "select pg_current_xact_id()::text::bigint";
    let before = number(&client, transactions).await;
    let close = async |session| assert!(a.registry().close(session, "done").await.unwrap());
    futures_util::future::join_all(ids.iter().map(close)).await;
    let took = number(&client, transactions).await - before;
    assert!(took < SESSIONS as i64 / 2, "{took} transactions wrote for {SESSIONS} sessions");
    for table in ["tmcp_sessions", "tmcp_events", "tmcp_logs", "tmcp_session_log_level", "tmcp_requests"] {
        assert_eq!(number(&client, &format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_connections_a_node_and_one_small_row_an_idle_session() {
    const SESSIONS: i64 = 2_000;
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let a = connect(&server.url()).await;
    let ids: Vec<_> = (0..SESSIONS).map(|_| SessionId::random()).collect();
    let streams = futures_util::future::join_all(ids.iter().map(|session| open(&a, session))).await;
    let connections = "select count(*) from pg_stat_activity where application_name = 'mcp-sessions'";
    assert_eq!(number(&client, connections).await, 3);
    assert_eq!(number(&client, "select count(*) from tmcp_sessions").await, SESSIONS);
    client.batch_execute("vacuum full tmcp_sessions").await.unwrap();
    let size = number(&client, "select pg_total_relation_size('tmcp_sessions')").await / SESSIONS;
    println!("an idle session: {size} B");
    assert!(size <= 700, "{size} B");
    drop(streams);
    a.shutdown(Duration::from_secs(20)).await.unwrap();
    eventually("its connections are closed", async || number(&client, connections).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_log_stays_small() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let a = Engine::connect(&server.url(), options(r#"{"retention": {"events": 20}}"#)).await.unwrap();
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    for payload in numbered(300) {
        send(&a, &s1, &payload).await;
    }
    let kept = number(&client, "select count(*) from tmcp_events").await;
    assert!((20..=20 + 5 + 16).contains(&kept), "{kept} rows for 20 events");
    let sent: Vec<_> = numbered(3_000);
    let keyed = sent.iter().map(|payload| {
        a.streams().send(Target::session(&s1), "m", SendOptions::default().idempotency_key(payload))
    });
    futures_util::future::join_all(keyed).await;
    let keys = number(&client, "select count(*) from tmcp_keys").await;
    assert!((1_024..=3_072).contains(&keys), "{keys} keys");
    let large = "x".repeat(400_000);
    for _ in 0..12 {
        send(&a, &s1, &large).await;
    }
    let bytes = number(&client, "select sum(octet_length(payload)) from tmcp_events").await;
    assert!(bytes <= (1 << 20) * 5 / 4 + 65_536 + 400_000, "{bytes} B for a MiB");
    let stream = open(&a, &s1).await;
    assert!(stream.gap());
    assert_eq!(read(&stream, 2).await.iter().map(String::len).collect::<Vec<_>>(), [400_000; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_ended() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let short = r#"{"sessionTtlMs": 1000, "retention": {"ageMs": 500}, "broadcastRetention": {"ageMs": 500},
        "lease": {"ttlMs": 1000, "renewMs": 100}}"#;
    let a = Engine::connect(&server.url(), options(short)).await.unwrap();
    let b = Engine::connect(&server.url(), options(short)).await.unwrap();
    let mut streams = Vec::new();
    for n in 0..10 {
        let session = id(&format!("s{n}"));
        let key = SendOptions::default().idempotency_key("k");
        a.info().set_log_level(&session, LogLevel::Info).await.unwrap();
        a.info().add_subscription(&session, &format!("file:///{n}")).await.unwrap();
        let stream = open(if n % 2 == 0 { &a } else { &b }, &session).await;
        a.streams().send(Target::session(&session), "m", key).await.unwrap();
        streams.push(stream);
    }
    a.streams().send(Target::all(), "m", SendOptions::default().idempotency_key("k")).await.unwrap();
    // Half in order, half by a kill; the node that stays cleans up.
    b.abandon();
    drop(streams.drain(..));
    let tables = ["sessions", "session_log_level", "session_subscriptions", "events", "keys", "mail"];
    let rows = tables.map(|table| format!("(select count(*) from tmcp_{table})")).join(" + ");
    let left = format!("select {rows}");
    eventually("nothing is left", async || number(&client, &left).await == 0).await;
    assert_eq!(number(&client, "select count(*) from tmcp_nodes").await, 1);
    a.shutdown(Duration::from_secs(20)).await.unwrap();
    assert_eq!(number(&client, "select count(*) from tmcp_nodes").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_noticed_within_six_seconds() {
    let server = PostgresServer::start().unwrap();
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    let s1 = id("s1");
    let _stream = open(&a, &s1).await;
    a.abandon();
    let died = Instant::now();
    assert!(b.streams().has(&s1).await.unwrap());
    eventually("has is false", async || !b.streams().has(&s1).await.unwrap()).await;
    assert!(died.elapsed() < Duration::from_secs(6), "{:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_tables_are_corrupt_and_a_wiped_schema_is_a_gap() {
    let server = PostgresServer::start().unwrap();
    let client = raw(&server).await;
    let a = connect(&format!("{}?schema=wiped", server.url())).await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    client.batch_execute("drop schema wiped cascade").await.unwrap();
    let refused = a.streams().send(Target::session(&s1), "never", SendOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), "corrupt", "{refused}");
    let b = connect(&format!("{}?schema=wiped", server.url())).await;
    let again = b.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    assert!(again.gap());
    let end = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(!matches!(end, EndReason::Closed), "{end}");
}

/// A certificate authority, and what it signed: for the server, and for a client.
struct Certificates(PathBuf);

impl Certificates {
    fn new(server: &PostgresServer) -> Self {
        let dir = server.dir.join("tls");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost").unwrap();
        let certificates = Certificates(dir);
        for ca in ["ca", "other"] {
            certificates.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {ca}.key -out {ca}.crt -days 2 -subj /CN={ca}"
            ));
        }
        for name in ["server", "app"] {
            certificates.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {name}.crt -extfile san"
            ));
        }
        certificates
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let done = command.current_dir(&self.0).args(arguments.split(' ')).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_means_what_libpq_means() {
    let mut server = PostgresServer::start().unwrap();
    let certificates = Certificates::new(&server);
    let client = raw(&server).await;
    client.batch_execute("create role app login; grant all on schema public to app").await.unwrap();
    // Without TLS there is nobody to ask for more.
    let ask = async |host: &str, query: String| {
        let url = format!("postgresql://app@{host}:{}/postgres?{query}", server.port);
        Engine::connect(&url, Options::default()).await.map_err(|error| error.code())
    };
    assert!(ask("127.0.0.1", "sslmode=prefer".into()).await.is_ok());
    assert_eq!(ask("127.0.0.1", "sslmode=require".into()).await.unwrap_err(), "unavailable");
    // The server takes keys of its own user only.
    let data = server.dir.join("data");
    for name in ["server.key", "server.crt", "ca.crt"] {
        let install = |owner: &[&str]| {
            let (from, to) = (certificates.path(name), data.join(name));
            Command::new("install").args(["-m", "600"]).args(owner).arg(from).arg(to).status().unwrap()
        };
        // Who may not give files away is the server's user already.
        assert!(install(&["-o", "postgres"]).success() || install(&[]).success());
    }
    std::fs::write(
        data.join("pg_hba.conf"),
        "host all postgres all trust\nhostssl all app 127.0.0.1/32 trust\nhostssl all app ::1/128 trust\n",
    )
    .unwrap();
    let settings = "alter system set ssl = on; alter system set ssl_ca_file = 'ca.crt'";
    for setting in settings.split("; ") {
        client.batch_execute(setting).await.unwrap();
    }
    drop(client);
    server.kill();
    server.restart().unwrap();
    let ask = async |host: &str, query: String| {
        let url = format!("postgresql://app@{host}:{}/postgres?{query}", server.port);
        Engine::connect(&url, Options::default()).await.map(|_| ()).map_err(|error| error.code())
    };
    let (ca, other) = (certificates.path("ca.crt"), certificates.path("other.crt"));
    let root = |mode: &str, root: &str| format!("sslmode={mode}&sslrootcert={root}");
    assert_eq!(ask("127.0.0.1", "sslmode=disable".into()).await, Err("unauthorized"));
    assert_eq!(ask("127.0.0.1", String::new()).await, Ok(()), "prefer is the default");
    assert_eq!(ask("127.0.0.1", "sslmode=require".into()).await, Ok(()));
    assert_eq!(ask("127.0.0.1", root("require", &other)).await, Err("unavailable"), "a root is verified");
    assert_eq!(ask("127.0.0.1", root("verify-ca", &ca)).await, Ok(()), "whatever the name");
    assert_eq!(ask("127.0.0.1", root("verify-ca", &other)).await, Err("unavailable"));
    assert_eq!(ask("127.0.0.1", root("verify-full", &ca)).await, Err("unavailable"), "another host");
    assert_eq!(ask("localhost", root("verify-full", &ca)).await, Ok(()));
    assert_eq!(ask("localhost", root("verify-full", &other)).await, Err("unavailable"));
    assert_eq!(
        ask("localhost", "sslmode=verify-full".into()).await,
        Err("unavailable"),
        "no CA of this machine"
    );
    // The server asks for a certificate.
    std::fs::write(
        data.join("pg_hba.conf"),
        "host all postgres all trust\nhostssl all app 127.0.0.1/32 cert\nhostssl all app ::1/128 cert\n",
    )
    .unwrap();
    raw(&server).await.batch_execute("select pg_reload_conf()").await.unwrap();
    let own = format!(
        "{}&sslcert={}&sslkey={}",
        root("verify-full", &ca),
        certificates.path("app.crt"),
        certificates.path("app.key")
    );
    eventually("a certificate is asked for", async || {
        ask("localhost", root("verify-full", &ca)).await == Err("unauthorized")
    })
    .await;
    assert_eq!(ask("localhost", own).await, Ok(()));
}
