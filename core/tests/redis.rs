//! What only a real Redis server shows: outages, lost scripts, foreign keys, what is left behind.

#[path = "support/redis_server.rs"]
mod redis_server;

use std::time::{Duration, Instant};

use mcp_sessions::{
    EndReason, Engine, Error, EventStream, LogLevel, OpenOptions, Options, RequestId, SendOptions, SessionId,
    SubscriptionFilter, SubscriptionKey, Target,
};
use redis::Connection;
use redis_server::RedisServer;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

async fn engine(server: &RedisServer, options: &str) -> Engine {
    Engine::connect(&server.url(), Options::from_json(options).unwrap()).await.unwrap()
}

fn raw(server: &RedisServer) -> Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

fn ask<T: redis::FromRedisValue>(connection: &mut Connection, command: &str) -> T {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    for word in words {
        cmd.arg(word);
    }
    cmd.query(connection).unwrap()
}

fn keys(connection: &mut Connection) -> Vec<String> {
    let mut keys: Vec<String> = ask(connection, "KEYS *");
    keys.sort();
    keys
}

/// The connections of engines: each as its id and whether it is the one for pushes.
fn connections(connection: &mut Connection) -> Vec<(u64, bool)> {
    let list: String = ask(connection, "CLIENT LIST");
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=').map(ToOwned::to_owned))
    };
    list.lines()
        .filter(|line| field(line, "resp").as_deref() == Some("3"))
        .map(|line| (field(line, "id").unwrap().parse().unwrap(), field(line, "sub").as_deref() != Some("0")))
        .collect()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn send(engine: &Engine, to: &SessionId, payload: &str) -> u64 {
    let sent = engine.streams().send(Target::session(to), payload, SendOptions::default()).await;
    sent.unwrap().accepted
}

async fn open(engine: &Engine, session: &SessionId) -> EventStream {
    engine.streams().open(session, OpenOptions::default()).await.unwrap()
}

async fn read(stream: &EventStream, n: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < n {
        let next = timeout(PATIENCE, stream.next()).await.unwrap_or_else(|_| panic!("only {read:?} of {n}"));
        read.push(next.unwrap_or_else(|| panic!("{:?} after {read:?}", stream.end())).payload().to_string());
    }
    read
}

/// Sends until it is accepted, under one key (G5).
async fn insist(engine: &Engine, to: Target, payload: &str) {
    let options = SendOptions::default().idempotency_key(payload);
    loop {
        match engine.streams().send(to.clone(), payload, options.clone()).await {
            Ok(receipt) => {
                return assert_eq!(receipt.accepted + receipt.duplicates, 1, "{payload}: {receipt:?}");
            }
            Err(error) if error.retryable() => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{payload}: {error}"),
        }
    }
}

/// Reads as a client does, that comes back with its cursor whenever its stream ends.
async fn follow(engine: Engine, session: SessionId, n: usize) -> (Vec<String>, usize) {
    let (mut got, mut gaps, mut cursor) = (Vec::new(), 0, None::<String>);
    while got.len() < n {
        let options = cursor.iter().fold(OpenOptions::default(), |options, cursor| options.after(cursor));
        let Ok(stream) = engine.streams().open(&session, options).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        gaps += usize::from(stream.gap());
        cursor = Some(stream.cursor().to_string());
        while got.len() < n
            && let Ok(Some(event)) = timeout(PATIENCE, stream.next()).await
        {
            got.push(event.payload().to_string());
            cursor = Some(event.cursor().to_string());
        }
    }
    (got, gaps)
}

fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("m{n}")).collect()
}

/// Directed and broadcast events from another node, while `trouble` strikes every 40 of them.
async fn exactly_once(server: &mut RedisServer, mut trouble: impl AsyncFnMut(&mut RedisServer, usize)) {
    const N: usize = 240;
    let (a, b) = (engine(server, "{}").await, engine(server, "{}").await);
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let cursor = stream.cursor();
    drop(stream);
    a.streams().open(&s1, OpenOptions::default().after(cursor)).await.unwrap();
    let reader = tokio::spawn(follow(a.clone(), s1.clone(), N));
    for (n, payload) in numbered(N).iter().enumerate() {
        if n % 40 == 20 {
            trouble(server, n / 40).await;
        }
        let to = if n % 3 == 0 { Target::all() } else { Target::session(&s1) };
        insist(&b, to, payload).await;
    }
    let (got, gaps) = timeout(PATIENCE, reader).await.expect("everything arrives").unwrap();
    let wrong = got.iter().zip(numbered(N)).position(|(got, sent)| *got != sent).unwrap_or(0);
    assert_eq!((&got[wrong..], gaps), (&numbered(N)[wrong..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_double_and_reorder_nothing() {
    let mut server = RedisServer::start().unwrap();
    let mut connection = raw(&server);
    exactly_once(&mut server, async |_, turn| {
        for (client, pushes) in connections(&mut connection) {
            // The commands, the pushes, or both.
            if turn % 3 == 2 || pushes == (turn % 3 == 1) {
                let _: i64 = ask(&mut connection, &format!("CLIENT KILL ID {client}"));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_with_its_data_loses_nothing() {
    let persistent = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut server = RedisServer::with(&persistent).unwrap();
    exactly_once(&mut server, async |server, turn| {
        if turn % 2 == 0 {
            server.kill();
            server.restart().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_open_through_a_short_outage() {
    let persistent = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];
    let mut server = RedisServer::with(&persistent).unwrap();
    let a = engine(&server, "{}").await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    server.kill();
    eventually("the outage shows", async || !a.health().await.ready).await;
    let started = Instant::now();
    let refused = a.streams().send(Target::session(&s1), "never", SendOptions::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.retryable(), refused.outcome_unknown()),
        ("unavailable", true, false)
    );
    assert!(started.elapsed() < Duration::from_millis(500), "calls fail fast");
    server.restart().unwrap();
    let back = Instant::now();
    insist(&a, Target::session(&s1), "after").await;
    assert_eq!(read(&stream, 2).await, ["before", "after"]);
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(stream.end(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_everything_is_a_gap_then_all_is_well() {
    let mut server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server, "{}").await, engine(&server, "{}").await);
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    assert!(b.info().get(&s1).await.unwrap().is_some());
    let stream = open(&a, &s1).await;
    send(&b, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    server.kill();
    server.restart().unwrap();
    let end = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(matches!(end, EndReason::Gap | EndReason::Fenced), "{end}");
    let back = Instant::now();
    let mut again = None;
    eventually("the session opens again", async || {
        again = a.streams().open(&s1, OpenOptions::default().after(cursor)).await.ok();
        again.is_some()
    })
    .await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    let again = again.unwrap();
    assert!(again.gap());
    eventually("the other node is back, too", async || b.health().await.ready).await;
    assert!(b.info().get(&s1).await.unwrap().is_none(), "nothing cached is trusted after a reconnect");
    insist(&b, Target::session(&s1), "m1").await;
    insist(&b, Target::all(), "m2").await;
    assert_eq!(read(&again, 2).await, ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_is_a_gap_then_all_is_well() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    send(&a, &s1, "before").await;
    assert_eq!(read(&stream, 1).await, ["before"]);
    let cursor = stream.cursor();
    let _: () = ask(&mut raw(&server), "FLUSHALL");
    let end = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert_eq!(end, EndReason::Fenced);
    let mut again = None;
    eventually("the session opens again", async || {
        again = a.streams().open(&s1, OpenOptions::default().after(cursor)).await.ok();
        again.is_some()
    })
    .await;
    let again = again.unwrap();
    assert!(again.gap());
    send(&a, &s1, "m1").await;
    a.streams().send(Target::all(), "m2", SendOptions::default()).await.unwrap();
    assert_eq!(read(&again, 2).await, ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_came_has_an_unknown_outcome() {
    let mut server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let s1 = id("s1");
    let stream = open(&a, &s1).await;
    let _: () = ask(&mut raw(&server), "CLIENT PAUSE 10000 ALL");
    let streams = a.streams().clone();
    let to = Target::session(&s1);
    let sent = tokio::spawn(async move { streams.send(to, "m1", SendOptions::default()).await });
    // Long enough for the command to be written; the outcome would be known otherwise.
    sleep(Duration::from_millis(200)).await;
    server.kill();
    let lost = sent.await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.outcome_unknown()), ("unavailable", true));
    let refused = a.streams().send(Target::session(&s1), "m2", SendOptions::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.outcome_unknown()), ("unavailable", false));
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there() {
    let mut server = RedisServer::start().unwrap();
    server.kill();
    let refused = Engine::connect(&server.url(), Options::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.retryable()), ("unavailable", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_never_shown() {
    let server = RedisServer::with(&["--save", "", "--requirepass", "a-secret"]).unwrap();
    let connect = async |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{}", server.port);
        Engine::connect(&url, Options::default()).await
    };
    let refused = connect("wrong-secret").await.unwrap_err();
    assert_eq!(refused.code(), "unauthorized");
    assert!(!format!("{refused} {refused:?}").contains("secret"));
    let engine = connect("a-secret").await.unwrap();
    assert!(!format!("{engine:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_in_the_file_system() {
    let path = std::env::temp_dir().join(format!("mcp-sessions-{}.sock", std::process::id()));
    let path = path.to_str().unwrap();
    let server = RedisServer::with(&["--save", "", "--unixsocket", path]).unwrap();
    let url = format!("redis+unix://{path}?db=2&prefix=app:");
    let a = Engine::connect(&url, Options::default()).await.unwrap();
    let stream = open(&a, &id("s1")).await;
    send(&a, &id("s1"), "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
    drop(server);
    let _ = std::fs::remove_file(path);
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_prefixes_are_apart() {
    let server = RedisServer::start().unwrap();
    let s1 = id("s1");
    let mut nodes = Vec::new();
    for place in ["/0", "/1", "/0?prefix=app:"] {
        let url = format!("{}{place}", server.url());
        let engine = Engine::connect(&url, Options::default()).await.unwrap();
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

/// Every operation of an engine, once.
async fn use_everything(engine: &Engine) -> Result<(), Error> {
    let s1 = id("s1");
    engine.info().set_log_level(&s1, LogLevel::Info).await?;
    engine.info().set_client_info(&s1, r#"{"name":"client"}"#).await?;
    assert_eq!(engine.info().log_level(&s1).await?, LogLevel::Info);
    assert!(engine.info().add_subscription(&s1, "file:///a").await?);
    assert_eq!(engine.info().subscribers("file:///a").await?, std::slice::from_ref(&s1));
    assert_eq!(engine.info().subscriptions(&s1).await?, ["file:///a"]);
    assert!(engine.info().remove_subscription(&s1, "file:///a").await?);
    let stream = engine.streams().open(&s1, OpenOptions::default()).await?;
    let receipt = engine.streams().send(Target::session(&s1), "m1", SendOptions::default()).await?;
    assert_eq!(receipt.accepted, 1);
    engine.streams().send(Target::all(), "m2", SendOptions::default()).await?;
    assert_eq!(read(&stream, 2).await, ["m1", "m2"]);
    assert!(engine.streams().has(&s1).await? && engine.streams().known(&s1).await?);
    let filter = SubscriptionFilter::from_json(r#"{"toolsListChanged":true}"#)?;
    let subscription =
        engine.subscriptions().create(SubscriptionKey::new(RequestId::string("1"), "o"), filter)?.unwrap();
    engine.subscriptions().send(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await?;
    subscription.acknowledge();
    assert!(timeout(PATIENCE, subscription.next()).await.unwrap().is_some());
    stream.close().await;
    let stream = engine.streams().open(&s1, OpenOptions::default()).await?;
    assert!(engine.streams().close(&s1).await?);
    timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(engine.info().delete(&s1).await?);
    assert!(engine.streams().forget(&s1).await?);
    assert!(engine.health().await.ready);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_scripts_are_sent_again() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, r#"{"lease": {"ttlMs": 5000, "renewMs": 50}}"#).await;
    let mut connection = raw(&server);
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let flushes = tokio::spawn(async move {
        while is_done.try_recv().is_err() {
            let _: () = ask(&mut connection, "SCRIPT FLUSH");
            sleep(Duration::from_millis(1)).await;
        }
    });
    for _ in 0..20 {
        use_everything(&a).await.unwrap();
    }
    done.send(()).unwrap();
    flushes.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_corrupt_and_harms_nobody_else() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    let _: () = ask(&mut connection, "SET tmcp:session:{s1} nonsense");
    let send = || a.streams().send(Target::session(&s1), "m", SendOptions::default());
    assert_eq!(send().await.unwrap_err().code(), "corrupt");
    assert_eq!(a.streams().open(&s1, OpenOptions::default()).await.unwrap_err().code(), "corrupt");
    assert_eq!(a.info().set_log_level(&s1, LogLevel::Info).await.unwrap_err().code(), "corrupt");
    let _: () = ask(&mut connection, "DEL tmcp:session:{s1}");
    let stream = open(&a, &s1).await;
    let _: () = ask(&mut connection, "SET tmcp:log:{s1} nonsense");
    let error = send().await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown()), ("corrupt", false));
    let s2 = id("s2");
    let other = open(&a, &s2).await;
    assert_eq!(self::send(&a, &s2, "m2").await, 1);
    assert_eq!(read(&other, 1).await, ["m2"]);
    let _: () = ask(&mut connection, "DEL tmcp:log:{s1}");
    assert_eq!(send().await.unwrap().accepted, 1);
    assert_eq!(read(&stream, 1).await, ["m"], "what failed took no offset");
    let _: () = ask(&mut connection, "SET tmcp:client_info:s3 {no-json");
    assert_eq!(a.info().get(&id("s3")).await.unwrap_err().code(), "corrupt");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_a_node_and_one_small_key_an_idle_session() {
    const SESSIONS: usize = 200;
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let mut connection = raw(&server);
    let before = keys(&mut connection).len();
    let mut streams = Vec::new();
    for _ in 0..SESSIONS {
        streams.push(open(&a, &SessionId::random()).await);
    }
    let kinds: Vec<_> = connections(&mut connection).into_iter().map(|(_, pushes)| pushes).collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|pushes| **pushes).count(), 1);
    let channels: Vec<String> = ask(&mut connection, "PUBSUB CHANNELS");
    assert_eq!(channels.len(), 2, "{channels:?}");
    let all = keys(&mut connection);
    assert_eq!(all.len(), before + SESSIONS + 1, "a key a session, and what the node holds");
    let session = format!("tmcp:session:{{{}}}", streams[0].session());
    let size: usize = ask(&mut connection, &format!("MEMORY USAGE {session}"));
    let held: usize = ask(&mut connection, &format!("MEMORY USAGE tmcp:held:{}", a.node_id()));
    let idle = size + held / SESSIONS;
    println!("an idle session: {size} B and {} B in the holder's set", held / SESSIONS);
    assert!(idle <= 700, "{idle} B");
    drop(streams);
    a.shutdown(Duration::from_secs(5)).await.unwrap();
    eventually("its connections are closed", async || connections(&mut connection).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_ended() {
    let server = RedisServer::start().unwrap();
    let options = r#"{"sessionTtlMs": 1000, "retention": {"ageMs": 500}, "broadcastRetention": {"ageMs": 500},
        "lease": {"ttlMs": 1000, "renewMs": 100}}"#;
    let a = engine(&server, options).await;
    let b = engine(&server, options).await;
    let mut connection = raw(&server);
    let idle = keys(&mut connection);
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
    for key in keys(&mut connection) {
        let ttl: i64 = ask(&mut connection, &format!("PTTL {key}"));
        assert!(ttl > 0, "{key} would stay for ever");
    }
    // Half in order, half by a kill; the node that stays cleans up.
    b.abandon();
    drop(streams.drain(..));
    eventually("only what live nodes need is left", async || {
        let all = keys(&mut connection);
        all.iter().all(|key| idle.contains(key))
    })
    .await;
    assert!(!keys(&mut connection).iter().any(|key| key.contains(b.node_id().as_str())));
    a.shutdown(Duration::from_secs(5)).await.unwrap();
    eventually("nothing is left", async || keys(&mut connection).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_noticed_within_six_seconds() {
    let server = RedisServer::start().unwrap();
    let (a, b) = (engine(&server, "{}").await, engine(&server, "{}").await);
    let s1 = id("s1");
    let _stream = open(&a, &s1).await;
    a.abandon();
    let died = Instant::now();
    assert!(b.streams().has(&s1).await.unwrap());
    eventually("has is false", async || !b.streams().has(&s1).await.unwrap()).await;
    assert!(died.elapsed() < Duration::from_secs(6), "{:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_sessions_is_one_round_trip() {
    let server = RedisServer::start().unwrap();
    let a = engine(&server, "{}").await;
    let mut connection = raw(&server);
    let ids: Vec<_> = (0..500).map(|n| id(&format!("s{n}"))).collect();
    let mut streams = Vec::new();
    for session in &ids {
        streams.push(open(&a, session).await);
    }
    let reads = |connection: &mut Connection| -> u64 {
        let stats: String = ask(connection, "INFO stats");
        let line = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
        line.parse().unwrap()
    };
    let before = reads(&mut connection);
    let sent = a.streams().send(Target::sessions(&ids), "m1", SendOptions::default()).await.unwrap();
    assert_eq!(sent.accepted, 500);
    let spent = reads(&mut connection) - before;
    // A large write may arrive in several pieces; a round trip each would be 500.
    assert!(spent < 50, "{spent} reads");
    for stream in &streams {
        assert_eq!(read(stream, 1).await, ["m1"]);
    }
}

/// A certificate authority, and what it signed: for the server, and for a client.
struct Certificates(std::path::PathBuf);

impl Certificates {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("mcp-sessions-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost").unwrap();
        let certificates = Certificates(dir);
        certificates
            .openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca");
        for name in ["server", "client"] {
            certificates.openssl(&format!(
                "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {name}.crt -extfile san"
            ));
        }
        certificates
    }

    fn openssl(&self, arguments: &str) {
        let mut command = std::process::Command::new("openssl");
        let done = command.current_dir(&self.0).args(arguments.split(' ')).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_both_sides() {
    let certificates = Certificates::new();
    let [ca, cert, key] = ["ca.crt", "server.crt", "server.key"].map(|name| certificates.path(name));
    let server = RedisServer::with(&[
        "--save",
        "",
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        "yes",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ])
    .unwrap();
    let connect = async |host: &str, query: String| {
        Engine::connect(&format!("rediss://{host}:{}?{query}", server.port), Options::default()).await
    };
    let client = format!("cert={}&key={}", certificates.path("client.crt"), certificates.path("client.key"));
    assert_eq!(
        connect("localhost", client.clone()).await.unwrap_err().code(),
        "unavailable",
        "an unknown CA"
    );
    let refused = connect("localhost", format!("ca={ca}")).await.unwrap_err();
    assert_eq!(refused.code(), "unavailable", "no client certificate");
    let refused = connect("127.0.0.1", format!("ca={ca}&{client}")).await.unwrap_err();
    assert_eq!(refused.code(), "unavailable", "a certificate for another host");
    let engine = connect("localhost", format!("ca={ca}&{client}")).await.unwrap();
    let stream = open(&engine, &id("s1")).await;
    send(&engine, &id("s1"), "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
}
