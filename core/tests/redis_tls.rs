//! How a Redis server is reached: with TLS that verifies both sides, as a user, by a socket, in time.

#[path = "support/redis_kit.rs"]
mod kit;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kit::{ask, id, open, raw, read, send};
use mcp_sessions::{Engine, Error, Options};
use redis_server::{RedisCluster, RedisServer};
use tokio::time::timeout;

/// Certificate authorities, and what they signed: for the server, and for a client.
struct Certificates(PathBuf);

impl Certificates {
    fn new() -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("mcp-sessions-tls-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost").unwrap();
        std::fs::write(dir.join("san-node"), "subjectAltName=IP:127.0.0.1").unwrap();
        let certificates = Certificates(dir);
        for ca in ["ca", "other-ca"] {
            certificates.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {ca}.key -out {ca}.crt \
                 -days 2 -subj /CN={ca}"
            ));
        }
        for (name, ca, san) in [
            ("server", "ca", "san"),
            ("node", "ca", "san-node"),
            ("client", "ca", "san"),
            ("stranger", "other-ca", "san"),
        ] {
            certificates.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr \
                 -subj /CN={name}"
            ));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 2 -out {name}.crt \
                 -extfile {san}"
            ));
        }
        certificates
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let done = command.current_dir(&self.0).args(arguments.split_whitespace()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn server(&self, ask_clients: &str) -> RedisServer {
        let [ca, cert, key] = ["ca.crt", "server.crt", "server.key"].map(|name| self.path(name));
        let tls = format!(
            "--port 0 --tls-port {{port}} --tls-auth-clients {ask_clients} --tls-cert-file {cert} \
             --tls-key-file {key} --tls-ca-cert-file {ca}"
        );
        let arguments: Vec<&str> = ["--save", ""].into_iter().chain(tls.split_whitespace()).collect();
        RedisServer::with(&arguments).unwrap()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn connect(url: &str) -> Result<Engine, Error> {
    Engine::connect(url, Options::default()).await
}

async fn refused(url: &str, code: &str, why: &str) {
    let error = connect(url).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(error.code(), code, "{error}: {source:?}");
    assert!(error.to_string().contains(why), "{error}: {source:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

async fn works(engine: &Engine) {
    let stream = open(engine, &id("s1")).await;
    send(engine, &id("s1"), "m1").await;
    assert_eq!(read(&stream, 1).await, ["m1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_the_server() {
    let certificates = Certificates::new();
    let server = certificates.server("no");
    let url = |host: &str, query: &str| format!("rediss://{host}:{}?{query}", server.port);
    let [ca, other] = ["ca.crt", "other-ca.crt"].map(|name| format!("ca={}", certificates.path(name)));
    refused(&url("localhost", ""), "unavailable", "can't be verified").await;
    refused(&url("localhost", &other), "unavailable", "can't be verified").await;
    refused(&url("127.0.0.1", &ca), "unavailable", "another host").await;
    works(&connect(&url("localhost", &ca)).await.unwrap()).await;
}

impl Certificates {
    /// For servers that know each other by their addresses, with a password.
    fn among_servers(&self) -> String {
        let [ca, cert, key] = ["ca.crt", "node.crt", "node.key"].map(|name| self.path(name));
        format!(
            "--port 0 --tls-port {{port}} --tls-auth-clients no --tls-replication yes --tls-cluster yes \
             --tls-cert-file {cert} --tls-key-file {key} --tls-ca-cert-file {ca} \
             --requirepass a-secret --masterauth a-secret"
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_and_a_password() {
    let certificates = Certificates::new();
    let (more, ca) = (certificates.among_servers(), certificates.path("ca.crt"));
    let more: Vec<_> = more.split_whitespace().collect();
    let access = ["--tls", "--cacert", &ca, "-a", "a-secret", "--no-auth-warning"];
    let cluster = RedisCluster::with(0, &more, &access).unwrap();
    let url = |password: &str, query: &str| {
        let hosts: Vec<_> =
            cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("rediss+cluster://:{password}@{}?{query}", hosts.join(","))
    };
    let ours = format!("ca={ca}");
    refused(&url("wrong-secret", &ours), "unauthorized", "").await;
    refused(&url("a-secret", ""), "unavailable", "").await;
    let engine = connect(&url("a-secret", &ours)).await.unwrap();
    // In as many slots as it takes to meet every shard.
    for n in 0..12 {
        let session = id(&format!("s{n}"));
        let stream = open(&engine, &session).await;
        send(&engine, &session, "m1").await;
        assert_eq!(read(&stream, 1).await, ["m1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_with_tls_and_passwords() {
    let certificates = Certificates::new();
    let (more, ca) = (certificates.among_servers(), certificates.path("ca.crt"));
    let arguments: Vec<_> = ["--save", ""].into_iter().chain(more.split_whitespace()).collect();
    let master = RedisServer::with(&arguments).unwrap();
    let tls = certificates.among_servers().replace(" --", "\n").replace("--port 0", "port 0");
    let config = format!(
        "{}\nsentinel monitor mymaster 127.0.0.1 {} 1\nsentinel auth-pass mymaster a-secret\n",
        tls.replace("requirepass a-secret", "requirepass sentinels-secret")
            .replace("\nmasterauth a-secret", ""),
        master.port
    );
    let sentinel = RedisServer::with(&["{sentinel}", &config]).unwrap();
    let url = |sentinels: &str, password: &str| {
        format!(
            "rediss+sentinel://:{password}@127.0.0.1:{}/mymaster?sentinelPassword={sentinels}&ca={ca}",
            sentinel.port
        )
    };
    refused(&url("wrong-secret", "a-secret"), "unauthorized", "").await;
    refused(&url("sentinels-secret", "wrong-secret"), "unauthorized", "").await;
    works(&connect(&url("sentinels-secret", "a-secret")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_shows_the_server_who_we_are() {
    let certificates = Certificates::new();
    let server = certificates.server("yes");
    let ca = certificates.path("ca.crt");
    let url = |query: &str| format!("rediss://localhost:{}?ca={ca}{query}", server.port);
    let identity =
        |name: &str| ["crt", "key"].map(|kind| certificates.path(&format!("{name}.{kind}"))).join("&key=");
    refused(&url(""), "unavailable", "").await;
    refused(&url(&format!("&cert={}", identity("stranger"))), "unavailable", "").await;
    works(&connect(&url(&format!("&cert={}", identity("client")))).await.unwrap()).await;
    let half = format!("&cert={}", certificates.path("client.crt"));
    refused(&url(&half), "config", "cert=/path and key=/path").await;
    let swapped = format!("&cert={ca}&key={ca}");
    refused(&url(&swapped), "config", "PEM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_port_without_it_is_said() {
    let server = RedisServer::start().unwrap();
    let url = format!("rediss://localhost:{}?connectTimeoutMs=500", server.port);
    refused(&url, "unavailable", "rediss://").await;
    let certificates = Certificates::new();
    let server = certificates.server("no");
    refused(&server.url(), "unavailable", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password() {
    let server = RedisServer::start().unwrap();
    let mut connection = raw(&server);
    let _: () = ask(&mut connection, "ACL SETUSER app on >a-secret%: ~tmcp:* &tmcp:* +@all -@dangerous");
    let url = |who: &str| format!("redis://{who}@127.0.0.1:{}", server.port);
    works(&connect(&url("app:a-secret%25%3A")).await.unwrap()).await;
    refused(&url("app:wrong-secret"), "unauthorized", "refused the user or the password").await;
    refused(&url("nobody:a-secret"), "unauthorized", "refused the user or the password").await;
    // A user who may not write to these keys can connect, but not join.
    let _: () = ask(&mut connection, "ACL SETUSER reader on >a-secret ~tmcp:* &tmcp:* +@read +@connection");
    refused(&url("reader:a-secret"), "unauthorized", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_with_a_user_a_password_a_database_and_a_prefix() {
    let path = std::env::temp_dir().join(format!("mcp-sessions-tls-{}.sock", std::process::id()));
    let path = path.to_str().unwrap();
    let server = RedisServer::with(&["--save", "", "--unixsocket", path]).unwrap();
    let mut connection = raw(&server);
    let _: () = ask(&mut connection, "ACL SETUSER app on >a-secret ~app:* &app:* +@all");
    let url = |password: &str| format!("redis+unix://{path}?db=2&user=app&pass={password}&prefix=app%3A");
    works(&connect(&url("a-secret")).await.unwrap()).await;
    refused(&url("wrong-secret"), "unauthorized", "refused the user or the password").await;
    let _: () = ask(&mut connection, "SELECT 2");
    let keys: Vec<String> = ask(&mut connection, "KEYS *");
    assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("app:")), "{keys:?}");
    drop(server);
    let _ = std::fs::remove_file(path);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines() {
    // It takes connections, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("redis://{address}?connectTimeoutMs=100");
    let connecting = timeout(Duration::from_secs(8), refused(&url, "unavailable", "in time"));
    connecting.await.expect("long before the ten seconds of an operation");

    let server = RedisServer::start().unwrap();
    let engine = connect(&format!("{}?operationTimeoutMs=200", server.url())).await.unwrap();
    assert_eq!(engine.options().operation_timeout_ms, 200);
    let _: () = ask(&mut raw(&server), "CLIENT PAUSE 3000 ALL");
    let late = timeout(Duration::from_secs(8), engine.streams().known(&id("s1"))).await.unwrap().unwrap_err();
    assert_eq!((late.code(), late.outcome_unknown()), ("timeout", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_names_the_parameter() {
    for (query, name) in [
        ("conectTimeoutMs=1", "conectTimeoutMs"),
        ("connectTimeoutMs=-1", "connectTimeoutMs"),
        ("operationTimeoutMs=", "operationTimeoutMs"),
        ("prefix=a%20b", "prefix"),
        ("ca=/nowhere", "ca"),
    ] {
        refused(&format!("rediss://u:a-secret@localhost?{query}"), "config", name).await;
    }
}
