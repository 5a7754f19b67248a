//! A real redis-server as a child of the test, on a free port of its own: the one of the path, or the
//! program that `MCP_SESSIONS_REDIS_SERVER` names (another version, or Valkey).

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);

/// Ends with its owner.
pub struct RedisServer {
    child: Child,
    pub port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Without persistence.
    #[allow(dead_code)]
    pub fn start() -> Result<Self, String> {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    /// With more arguments; `{port}` stands for the port.
    pub fn with(arguments: &[&str]) -> Result<Self, String> {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        let name =
            format!("mcp-sessions-redis-{}-{}", std::process::id(), SERVERS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let mut problem = String::new();
        // Somebody else may take the free port first.
        for _ in 0..5 {
            let port = free_port(&arguments)?;
            match spawn(port, &dir, &arguments) {
                Ok(child) => return Ok(RedisServer { child, port, dir, arguments }),
                Err(error) => problem = error,
            }
        }
        let _ = std::fs::remove_dir_all(&dir);
        Err(format!("redis-server did not start: {problem}"))
    }

    /// A sentinel that watches the server of this port.
    #[allow(dead_code)]
    pub fn sentinel(watched: u16) -> Result<Self, String> {
        let config = format!(
            "sentinel monitor mymaster 127.0.0.1 {watched} 2\nsentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n"
        );
        Self::with(&["{sentinel}", &config])
    }

    /// A replica of this server; it knows all that the server knows.
    #[allow(dead_code)]
    pub fn replica(&self) -> Result<Self, String> {
        let port = self.port.to_string();
        let mut arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        let replica = Self::with(&arguments)?;
        let started = std::time::Instant::now();
        let up = || cli(&["-p", &replica.port.to_string(), "info", "replication"]);
        while !up()?.contains("master_link_status:up") {
            if started.elapsed() > START {
                return Err("the replica never followed".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(replica)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[allow(dead_code)]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    #[allow(dead_code)]
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, with what it had written to disk.
    #[allow(dead_code)]
    pub fn restart(&mut self) -> Result<(), String> {
        self.child = spawn(self.port, &self.dir, &self.arguments)?;
        Ok(())
    }
}

/// Servers that are one cluster: masters, and maybe a replica of each behind them.
#[allow(dead_code)]
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
    pub masters: usize,
    /// How `redis-cli` reaches them.
    access: Vec<String>,
}

#[allow(dead_code)]
impl RedisCluster {
    /// Three masters, and so many replicas of each.
    pub fn start(replicas: usize) -> Result<Self, String> {
        Self::with(replicas, &[], &[])
    }

    /// With more arguments for each server, and what `redis-cli` needs to reach them.
    pub fn with(replicas: usize, more: &[&str], access: &[&str]) -> Result<Self, String> {
        const MASTERS: usize = 3;
        let own = "--cluster-enabled yes --cluster-node-timeout 1000 --cluster-replica-validity-factor 0 \
            --repl-diskless-sync-delay 0";
        let arguments: Vec<_> =
            ["--save", ""].into_iter().chain(own.split_whitespace()).chain(more.iter().copied()).collect();
        let mut servers = Vec::new();
        for _ in 0..MASTERS * (1 + replicas) {
            servers.push(RedisServer::with(&arguments)?);
        }
        let access = access.iter().map(ToString::to_string).collect();
        let cluster = RedisCluster { servers, masters: MASTERS, access };
        let nodes: Vec<_> =
            cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let replicas = replicas.to_string();
        let mut arguments: Vec<&str> = cluster.access.iter().map(String::as_str).collect();
        arguments.extend(["--cluster", "create"]);
        arguments.extend(nodes.iter().map(String::as_str));
        arguments.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        cli(&arguments)?;
        cluster.wait_until("it works", |info| info.contains("cluster_state:ok"))?;
        Ok(cluster)
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Waits until every server that runs says so of the cluster.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> Result<(), String> {
        let started = std::time::Instant::now();
        loop {
            let agreed = self.servers.iter().all(|server| {
                let port = server.port.to_string();
                let mut arguments: Vec<&str> = self.access.iter().map(String::as_str).collect();
                arguments.extend(["-p", &port, "cluster", "info"]);
                let info = cli(&arguments);
                info.map_or(true, |info| holds(&info))
            });
            if agreed {
                return Ok(());
            }
            if started.elapsed() > START {
                return Err(format!("the cluster never said that {what}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A master, its replica, and three sentinels that watch them as `mymaster`.
#[allow(dead_code)]
pub struct RedisSentinels {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

#[allow(dead_code)]
impl RedisSentinels {
    pub fn start() -> Result<Self, String> {
        let master = RedisServer::with(&["--save", "", "--repl-diskless-sync-delay", "0"])?;
        // One that does not follow yet would take over with nothing.
        let replica = master.replica()?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(RedisServer::sentinel(master.port)?);
        }
        let started = std::time::Instant::now();
        let known = |sentinel: &RedisServer| {
            let port = sentinel.port.to_string();
            let about = cli(&["-p", &port, "sentinel", "master", "mymaster"]).unwrap_or_default();
            let field = |name: &str| {
                about.lines().skip_while(|line| *line != name).nth(1)
                    == Some(match name {
                        "num-slaves" => "1",
                        _ => "2",
                    })
            };
            field("num-slaves") && field("num-other-sentinels")
        };
        while !sentinels.iter().all(known) {
            if started.elapsed() > START {
                return Err("the sentinels do not know each other".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(RedisSentinels { servers: vec![master, replica], sentinels })
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+sentinel://{}/mymaster", hosts.join(","))
    }
}

/// What `redis-cli` prints.
#[allow(dead_code)]
pub fn cli(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("redis-cli").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("redis-cli: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("redis-cli {}: {text}", arguments.join(" "))),
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A server of a cluster also listens 10,000 ports higher.
fn free_port(arguments: &[String]) -> Result<u16, String> {
    let in_cluster = arguments.iter().any(|argument| argument == "--cluster-enabled");
    for _ in 0..1_000 {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        if !in_cluster {
            return Ok(port);
        }
        // The low ones are given to nobody else who asks for any.
        let low = 10_000 + port % 20_000;
        if TcpListener::bind(("127.0.0.1", low)).is_ok()
            && TcpListener::bind(("127.0.0.1", low + 10_000)).is_ok()
        {
            return Ok(low);
        }
    }
    Err("no free port".into())
}

/// Resolves when the server says that it is ready.
fn spawn(port: u16, dir: &PathBuf, arguments: &[String]) -> Result<Child, String> {
    let program = std::env::var("MCP_SESSIONS_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let mut command = Command::new(&program);
    if let [mode, config] = arguments
        && mode == "{sentinel}"
    {
        // A sentinel rewrites its file, so it has one of its own.
        let file = dir.join("sentinel.conf");
        let config = config.replace("{port}", &port.to_string());
        let plain = if config.contains("tls-port") { 0 } else { port };
        std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
        command.arg(file).arg("--sentinel");
        command.args(["--bind", "127.0.0.1", "--port", &plain.to_string(), "--daemonize", "no"]);
    } else {
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"]);
        command.arg("--dir").arg(dir);
        command.args(arguments.iter().map(|argument| argument.replace("{port}", &port.to_string())));
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let Some(output) = child.stdout.take() else { return Err("it has no output".into()) };
    let (ready, is_ready) = mpsc::channel();
    // Reads on to the end, or the server would wait for room in the pipe.
    std::thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains("Ready to accept connections") || line.contains("Sentinel ID is") {
                let _ = ready.send(Ok(()));
            }
            last = line;
        }
        let _ = ready.send(Err(last));
    });
    match is_ready.recv_timeout(START) {
        Ok(Ok(())) => Ok(child),
        Ok(Err(last)) => {
            let _ = child.wait();
            Err(last)
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("not ready within {START:?}"))
        }
    }
}
