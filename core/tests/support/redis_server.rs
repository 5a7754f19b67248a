//! A real redis-server as a child of the test, on a free port of its own.

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
            let port = free_port()?;
            match spawn(port, &dir, &arguments) {
                Ok(child) => return Ok(RedisServer { child, port, dir, arguments }),
                Err(error) => problem = error,
            }
        }
        let _ = std::fs::remove_dir_all(&dir);
        Err(format!("redis-server did not start: {problem}"))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Resolves when the server says that it is ready.
fn spawn(port: u16, dir: &PathBuf, arguments: &[String]) -> Result<Child, String> {
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"])
        .arg("--dir")
        .arg(dir)
        .args(arguments.iter().map(|argument| argument.replace("{port}", &port.to_string())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("redis-server: {error}"))?;
    let Some(output) = child.stdout.take() else { return Err("it has no output".into()) };
    let (ready, is_ready) = mpsc::channel();
    // Reads on to the end, or the server would wait for room in the pipe.
    std::thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains("Ready to accept connections") {
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
