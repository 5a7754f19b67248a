//! A real PostgreSQL server as a child of the test, on a free port and socket of its own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// The folder of the programs to test with, where it is not the usual one.
const PROGRAMS: &str = "MCP_SESSIONS_POSTGRES_BIN";
/// How long a server may take to start, also after a crash.
const START: Duration = Duration::from_secs(60);

/// Ends with its owner.
pub struct PostgresServer {
    child: Child,
    pub port: u16,
    pub dir: PathBuf,
    settings: Vec<String>,
}

impl PostgresServer {
    /// What is committed may be lost with the machine, but not with the server.
    pub fn start() -> Result<Self, String> {
        Self::with(&["fsync=off"])
    }

    /// With other settings (`name=value`).
    pub fn with(settings: &[&str]) -> Result<Self, String> {
        let settings = settings.iter().map(ToString::to_string).collect();
        Self::made(settings, |dir| {
            run(as_user("initdb")
                .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"])
                .arg("-D")
                .arg(dir.join("data"))
                .current_dir(dir))
        })
    }

    /// A standby of this server, which streams what is committed here until it is told to stop.
    #[allow(dead_code)]
    pub fn standby(&self) -> Result<Self, String> {
        let port = self.port.to_string();
        Self::made(self.settings.clone(), |dir| {
            run(as_user("pg_basebackup")
                .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
                .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"])
                .arg("-D")
                .arg(dir.join("data"))
                .current_dir(dir))
        })
    }

    /// What is committed on the other server from here on does not reach this one.
    #[allow(dead_code)]
    pub fn stop_following(&self) -> Result<(), String> {
        self.sql("alter system set primary_conninfo = ''")?;
        self.sql("select pg_reload_conf()")?;
        self.until("select count(*) from pg_stat_wal_receiver", "0")
    }

    /// Takes over, with what it has got.
    #[allow(dead_code)]
    pub fn promote(&self) -> Result<(), String> {
        self.sql("select pg_promote(true, 60)")?;
        self.until("select pg_is_in_recovery()", "f")
    }

    /// What one statement answers, as text.
    #[allow(dead_code)]
    pub fn sql(&self, statement: &str) -> Result<String, String> {
        let mut psql = as_user("psql");
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-XAtq"]);
        let output = psql.args(["-c", statement]).output().map_err(|error| format!("psql: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(format!("{statement}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn until(&self, question: &str, wanted: &str) -> Result<(), String> {
        let started = std::time::Instant::now();
        while self.sql(question)? != wanted {
            if started.elapsed() > START {
                return Err(format!("{question} was never {wanted}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The first process of the server, and all that it started.
    #[allow(dead_code)]
    pub fn pids(&self) -> Vec<u32> {
        let first = self.child.id();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        [first].into_iter().chain(pids.filter(|pid| parent(*pid) == Some(first))).collect()
    }

    /// A server on a data folder that `make` makes.
    fn made(settings: Vec<String>, make: impl Fn(&Path) -> Result<(), String>) -> Result<Self, String> {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "mcp-sessions-postgres-{}-{}",
            std::process::id(),
            SERVERS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let started = (|| {
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(&dir))?;
            }
            make(&dir)?;
            let mut problem = String::new();
            // Somebody else may take the free port first.
            for _ in 0..5 {
                let port = free_port()?;
                match spawn(port, &dir, &settings) {
                    Ok(child) => return Ok((child, port)),
                    Err(error) => problem = error,
                }
            }
            Err(format!("postgres did not start: {problem}"))
        })();
        match started {
            Ok((child, port)) => Ok(PostgresServer { child, port, dir, settings }),
            Err(problem) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(problem)
            }
        }
    }

    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// `kill -9`, after which its other processes end by themselves.
    #[allow(dead_code)]
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, with what it had written to disk.
    #[allow(dead_code)]
    pub fn restart(&mut self) -> Result<(), String> {
        let mut problem = String::new();
        // Processes of the last one may still be there.
        for _ in 0..200 {
            match spawn(self.port, &self.dir, &self.settings) {
                Ok(child) => {
                    self.child = child;
                    return Ok(());
                }
                Err(error) => problem = error,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(problem)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Its processes end, too, and give back their shared memory.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The process that started this one: in its `stat`, the second word behind its name.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// A program of PostgreSQL. It runs as nobody special: it refuses root.
#[allow(dead_code)]
pub fn as_user(program: &str) -> Command {
    let program = find(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let asked = std::env::var_os(PROGRAMS).map(PathBuf::from);
    let mut folders: Vec<_> = asked.into_iter().chain(std::env::split_paths(&path)).collect();
    folders.push("/usr/sbin".into());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = debian.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    let found = folders.into_iter().map(|folder| folder.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| program.into())
}

pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Resolves when the server says that it is ready.
fn spawn(port: u16, dir: &Path, settings: &[String]) -> Result<Child, String> {
    let mut command = as_user("postgres");
    command.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string()]).arg("-k").arg(dir);
    for setting in ["listen_addresses=127.0.0.1", "max_connections=300", "log_min_messages=log"]
        .into_iter()
        .chain(settings.iter().map(String::as_str))
    {
        command.args(["-c", setting]);
    }
    let mut child = command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("postgres: {error}"))?;
    let Some(output) = child.stderr.take() else { return Err("it has no output".into()) };
    let (ready, is_ready) = mpsc::channel();
    let show = std::env::var_os("MCP_SESSIONS_POSTGRES_LOG").is_some();
    // Reads on to the end, or the server would wait for room in the pipe.
    std::thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if show {
                eprintln!("{line}");
            }
            if line.contains("ready to accept") {
                let _ = ready.send(Ok(()));
            }
            if line.contains("FATAL") {
                last = line;
            }
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
