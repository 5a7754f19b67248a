//! The cache of session info on a real Redis server: whoever writes, it is told; what this node wrote
//! itself is not read again.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;

use kit::{PATIENCE, ask, connect, eventually, id, raw};
use mcp_sessions::{Engine, LogLevel, SessionId};
use redis::Connection;
use redis_server::RedisServer;
use tokio::time::timeout;

/// How many scripts the server has run: a read that is not served from the cache is one.
fn scripts(connection: &mut Connection) -> u64 {
    let stats: String = ask(connection, "INFO commandstats");
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(calls).sum()
}

/// An engine that renews its lease too rarely to be counted.
async fn quiet(url: &str) -> Engine {
    let options = r#"{"lease": {"ttlMs": 2000000, "renewMs": 1000000}}"#;
    Engine::connect(url, mcp_sessions::Options::from_json(options).unwrap()).await.unwrap()
}

async fn level(engine: &Engine, session: &SessionId) -> Option<LogLevel> {
    engine.info().get(session).await.unwrap().and_then(|info| info.log_level)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_it_is_told() {
    let server = RedisServer::start().unwrap();
    let a = quiet(&server.url()).await;
    let mut other = raw(&server);
    let s1 = id("s1");
    // A server that does not know the script yet has it run after the documents are set.
    a.info().set_log_level(&id("s0"), LogLevel::Info).await.unwrap();
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    assert_eq!(level(&a, &s1).await, Some(LogLevel::Info));
    let before = scripts(&mut other);
    for _ in 0..100 {
        assert_eq!(level(&a, &s1).await, Some(LogLevel::Info));
    }
    assert_eq!(scripts(&mut other), before, "it is served from the cache");
    let mut expect = async |command: &str, expected: Option<LogLevel>| {
        let _: redis::Value = ask(&mut other, command);
        eventually(command, async || level(&a, &s1).await == expected).await;
    };
    // As tmcp's own manager writes it.
    expect(r#"SET tmcp:log_level:s1 "error""#, Some(LogLevel::Error)).await;
    expect("DEL tmcp:log_level:s1", None).await;
    expect("SET tmcp:log_level:s1 alert", Some(LogLevel::Alert)).await;
    expect("PEXPIRE tmcp:log_level:s1 1", None).await;
    expect("SET tmcp:log_level:s1 debug", Some(LogLevel::Debug)).await;
    expect("RENAME tmcp:log_level:s1 tmcp:log_level:s2", None).await;
    expect("SET tmcp:log_level:s1 debug", Some(LogLevel::Debug)).await;
    expect("FLUSHALL", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_wrote_itself_is_not_read_again() {
    const PAIRS: u64 = 50;
    let server = RedisServer::start().unwrap();
    let (a, b) = (quiet(&server.url()).await, quiet(&server.url()).await);
    let mut connection = raw(&server);
    let s1 = id("s1");
    a.info().set_client_info(&s1, r#"{"name":"n"}"#).await.unwrap();
    eventually("it is cached", async || {
        level(&a, &s1).await;
        a.info().cached(&s1).is_some()
    })
    .await;
    let before = scripts(&mut connection);
    for n in 0..PAIRS {
        let set = LogLevel::ALL[n as usize % LogLevel::ALL.len()];
        a.info().set_log_level(&s1, set).await.unwrap();
        assert_eq!(level(&a, &s1).await, Some(set));
        assert_eq!(a.info().client_info(&s1).await.unwrap().as_str(), r#"{"name":"n"}"#);
    }
    assert_eq!(scripts(&mut connection) - before, PAIRS, "a script a write, and none to read");
    eventually("the other node sees it", async || level(&b, &s1).await == level(&a, &s1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_lost_connection_empties_it() {
    let server = RedisServer::start().unwrap();
    let a = quiet(&server.url()).await;
    let mut connection = raw(&server);
    let s1 = id("s1");
    a.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    for turn in 0..6 {
        eventually("it is cached", async || {
            let _ = a.info().get(&s1).await;
            a.info().cached(&s1).is_some()
        })
        .await;
        let own: u64 = ask(&mut connection, "CLIENT ID");
        let list: String = ask(&mut connection, "CLIENT LIST");
        let field = |line: &str, name: &str| -> u64 {
            line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap().parse().unwrap()
        };
        let ids: Vec<(u64, bool)> =
            list.lines().map(|line| (field(line, "id="), field(line, "sub=") > 0)).collect();
        // In one act: nobody is told of the write, as its connection is gone.
        let mut cut = redis::pipe();
        cut.atomic();
        for (id, _) in
            ids.iter().filter(|(id, pushes)| *id != own && (turn % 3 == 2 || *pushes == (turn % 3 == 1)))
        {
            cut.cmd("CLIENT").arg("KILL").arg("ID").arg(id).ignore();
        }
        let level = LogLevel::ALL[turn];
        cut.cmd("SET").arg("tmcp:log_level:s1").arg(level.as_str()).ignore();
        let _: () = cut.query(&mut connection).unwrap();
        eventually("the write shows", async || {
            a.info().get(&s1).await.is_ok_and(|info| info.unwrap().log_level == Some(level))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_track_has_the_published_invalidation() {
    let server = RedisServer::start().unwrap();
    let mut connection = raw(&server);
    let user = "ACL SETUSER app on >pw ~* &* +@all -client|tracking";
    let older = "ACL SETUSER app on >pw ~* &* +@all -client +client|id +client|kill";
    // Before Redis 7 a subcommand can't be taken away.
    if redis::cmd("ACL")
        .arg(user.split(' ').skip(1).collect::<Vec<_>>())
        .query::<()>(&mut connection)
        .is_err()
    {
        let _: () = ask(&mut connection, older);
    }
    let restricted = format!("redis://app:pw@127.0.0.1:{}", server.port);
    let (a, b, c) = (connect(&restricted).await, connect(&restricted).await, connect(&server.url()).await);
    let s1 = id("s1");
    let channels: Vec<String> = ask(&mut connection, "PUBSUB CHANNELS tmcp:info*");
    assert_eq!(channels, ["tmcp:info@0"]);
    a.info().set_client_info(&s1, "{}").await.unwrap();
    // Each in turn, told by one that tracks, by one that does not, and by the end of the info.
    for (writer, set) in [(&a, LogLevel::Info), (&c, LogLevel::Error), (&b, LogLevel::Alert)] {
        for engine in [&a, &b, &c] {
            eventually("it is cached", async || {
                level(engine, &s1).await;
                engine.info().cached(&s1).is_some()
            })
            .await;
        }
        writer.info().set_log_level(&s1, set).await.unwrap();
        for engine in [&a, &b, &c] {
            eventually("the write shows", async || level(engine, &s1).await == Some(set)).await;
        }
    }
    assert!(c.info().delete(&s1).await.unwrap());
    for engine in [&a, &b, &c] {
        let gone = eventually("it is gone", async || engine.info().get(&s1).await.unwrap().is_none());
        timeout(PATIENCE, gone).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_with_tracking_listens_for_published_invalidations() {
    let server = RedisServer::start().unwrap();
    let _a = connect(&server.url()).await;
    let mut connection = raw(&server);
    let channels: Vec<String> = ask(&mut connection, "PUBSUB CHANNELS tmcp:info*");
    assert_eq!(channels, [""; 0]);
    let tracking: String = ask(&mut connection, "INFO clients");
    assert!(tracking.lines().any(|line| line == "tracking_clients:1"), "{tracking}");
}
