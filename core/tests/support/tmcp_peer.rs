//! `@tmcp/session-manager-redis` in a process of its own: `tests/interop/peer.mjs`, over JSON lines.
#![allow(dead_code)]

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::kit::PATIENCE;

/// Ends with its owner.
pub struct Peer {
    child: Mutex<Child>,
    stdin: Mutex<ChildStdin>,
    next: AtomicU64,
    /// Every line it has said.
    said: watch::Receiver<Vec<Value>>,
}

impl Peer {
    /// Resolves when its connections are there.
    pub async fn start(url: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop");
        assert!(folder.join("node_modules").exists(), "run npm ci in tests/interop, or make test");
        let mut child = Command::new("node")
            .args(["peer.mjs", url])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, said) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                say.send_modify(|said| said.push(serde_json::from_str(&line).unwrap()));
            }
        });
        let peer = Peer { child: Mutex::new(child), stdin: Mutex::new(stdin), next: AtomicU64::new(1), said };
        peer.wait("it is ready", |said| said.iter().find(|line| line["event"] == "ready").cloned()).await;
        peer
    }

    /// Asks without waiting for the answer.
    pub async fn tell(&self, call: &str, arguments: Value) -> u64 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let line = json!({ "n": n, "call": call, "arguments": arguments });
        self.stdin.lock().await.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        n
    }

    /// What a call answers, or the message of its error.
    pub async fn ask(&self, call: &str, arguments: Value) -> Result<Value, String> {
        let n = self.tell(call, arguments).await;
        let answer = self.wait(call, |said| said.iter().find(|line| line["n"] == n).cloned()).await;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// What the streams of a session have read.
    pub fn read(&self, session: &str) -> Vec<String> {
        let said = self.said.borrow();
        let of_session = said.iter().filter(|line| line["event"] == "message" && line["id"] == session);
        of_session.map(|line| line["data"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the streams of a session have read so many.
    pub async fn reads(&self, session: &str, n: usize) -> Vec<String> {
        let enough = |said: &[Value]| {
            let of = |line: &&Value| line["event"] == "message" && line["id"] == session;
            (said.iter().filter(of).count() >= n).then_some(Value::Null)
        };
        self.wait(&format!("{n} events for {session}"), enough).await;
        self.read(session)
    }

    pub async fn closes(&self, session: &str) {
        let closed = |said: &[Value]| {
            said.iter().find(|line| line["event"] == "closed" && line["id"] == session).cloned()
        };
        self.wait(&format!("{session} is closed"), closed).await;
    }

    pub async fn hears(&self, subscription: &str) -> Value {
        let heard = |said: &[Value]| {
            said.iter().find(|line| line["event"] == "notification" && line["id"] == subscription).cloned()
        };
        self.wait(&format!("{subscription} hears something"), heard).await["data"].clone()
    }

    pub fn heard(&self, subscription: &str) -> usize {
        let said = self.said.borrow();
        said.iter().filter(|line| line["event"] == "notification" && line["id"] == subscription).count()
    }

    pub async fn is_alive(&self) -> bool {
        self.child.lock().await.try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub async fn kill(&self) {
        self.child.lock().await.kill().await.unwrap();
    }

    async fn wait(&self, what: &str, mut found: impl FnMut(&[Value]) -> Option<Value>) -> Value {
        let mut said = self.said.clone();
        let waiting = async {
            loop {
                if let Some(found) = found(&said.borrow_and_update()) {
                    return found;
                }
                if said.changed().await.is_err() {
                    return found(&said.borrow())
                        .unwrap_or_else(|| panic!("tmcp's process ended before: {what}"));
                }
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("tmcp's process never: {what}"))
    }
}
