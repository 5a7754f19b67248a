//! A real workerd as a child of the test, on a free port of its own, with the Worker of the package.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bindings/worker/scripts/serve.mjs");
/// How long it may take to start.
const START: Duration = Duration::from_secs(60);
/// What its gateway wants to hear.
pub const TOKEN: &str = "correct-horse";

/// Ends with its owner.
pub struct Workerd {
    child: Child,
    pub port: u16,
    dir: PathBuf,
}

/// How often a start is tried.
const TRIES: usize = 5;

impl Workerd {
    /// With storage on disk, for as long as it lives.
    pub fn start() -> Result<Self, String> {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "mcp-sessions-workerd-{}-{}",
            std::process::id(),
            SERVERS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut tries = 1;
        loop {
            let port = free_port()?;
            match spawn(port, &dir) {
                Ok(child) => return Ok(Workerd { child, port, dir }),
                // Another process may have taken the port first.
                Err(_) if tries < TRIES => tries += 1,
                Err(problem) => return Err(problem),
            }
        }
    }

    pub fn url(&self) -> String {
        format!("cloudflare://127.0.0.1:{}?tls=off&token={TOKEN}", self.port)
    }

    /// Ends it, as a deployment or a move of its objects does; what they stored stays.
    #[allow(dead_code)]
    pub fn stop(&mut self) {
        // Its children end with its input: killed, it would leave them behind.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }

    /// Starts it again on the same port.
    #[allow(dead_code)]
    pub fn restart(&mut self) -> Result<(), String> {
        self.child = spawn(self.port, &self.dir)?;
        Ok(())
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Resolves when it says that it is ready.
fn spawn(port: u16, dir: &Path) -> Result<Child, String> {
    let mut child = Command::new("node")
        .arg(SCRIPT)
        .args([format!("--port={port}"), format!("--token={TOKEN}"), format!("--persist={}", dir.display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node: {error}"))?;
    let Some(output) = child.stdout.take() else { return Err("it has no output".into()) };
    let (ready, is_ready) = mpsc::channel();
    // Reads on to the end, or it would wait for room in the pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match line.starts_with("ready ") {
                true => drop(ready.send(true)),
                false => println!("workerd: {line}"),
            }
        }
        let _ = ready.send(false);
    });
    match is_ready.recv_timeout(START) {
        Ok(true) => Ok(child),
        Ok(false) => Err("workerd ended at once; has `make worker` been run?".into()),
        Err(_) => Err(format!("not ready within {START:?}")),
    }
}
