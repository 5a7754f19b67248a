//! A node process as the driver holds it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::time::timeout;

use crate::protocol::{Answer, Ask, Failure, Request, Told};

/// How long a node may take to start, connect, or answer anything at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What comes on a stream; the channel ends when the process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Event { payload: String, cursor: String },
    End(String),
}

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>>>;
type Streams = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Delivery>>>>;

pub struct NodeProcess {
    pid: u32,
    child: Mutex<Child>,
    input: AsyncMutex<ChildStdin>,
    next: AtomicU64,
    answers: Answers,
    streams: Streams,
    alive: Arc<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary of this crate: itself, or beside the tests.
fn program() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    if me.file_name().is_some_and(|name| name == "chaos") {
        return me;
    }
    let folder = me.parent().and_then(|deps| deps.parent()).unwrap_or(me.as_path());
    folder.join("chaos")
}

impl NodeProcess {
    /// Starts a node and waits until it is connected. Fails with what it said.
    pub async fn start(url: &str, options: &str) -> Result<Arc<Self>, Failure> {
        let broken = |error: std::io::Error| Failure { message: error.to_string(), ..Failure::gone() };
        let mut child = Command::new(program())
            .args(["node", url, options])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::gone());
        };
        let (answers, streams) = (Answers::default(), Streams::default());
        let alive = Arc::new(AtomicBool::new(true));
        let (ready, is_ready) = oneshot::channel();
        let mut reader = Reader {
            ready: Some(ready),
            answers: answers.clone(),
            streams: streams.clone(),
            alive: alive.clone(),
        };
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(told) => reader.take(told),
                    Err(error) => eprintln!("a node said {line:.100}: {error}"),
                }
            }
            reader.end();
        });
        timeout(PATIENCE, is_ready).await.map_err(|_| Failure::gone())?.map_err(|_| Failure::gone())??;
        Ok(Arc::new(NodeProcess {
            pid: child.id().unwrap_or_default(),
            child: Mutex::new(child),
            input: AsyncMutex::new(input),
            next: AtomicU64::new(1),
            answers,
            streams,
            alive,
        }))
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Asks, and waits for the answer for so long.
    pub async fn ask_within(&self, limit: Duration, ask: Ask) -> Result<Answer, Failure> {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let (answer, answered) = oneshot::channel();
        lock(&self.answers).insert(id, answer);
        if !self.is_alive() {
            return Err(Failure::gone());
        }
        let mut line = serde_json::to_string(&Request { id, ask }).unwrap_or_default();
        line.push('\n');
        let exchange = async {
            self.input.lock().await.write_all(line.as_bytes()).await.map_err(|_| Failure::gone())?;
            answered.await.unwrap_or_else(|_| Err(Failure::gone()))
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(Failure::gone()))
    }

    pub async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        self.ask_within(PATIENCE, ask).await
    }

    /// Where the deliveries of a stream go that is about to be opened under this number.
    pub fn listen(&self, stream: u64) -> mpsc::UnboundedReceiver<Delivery> {
        let (tell, told) = mpsc::unbounded_channel();
        let mut streams = lock(&self.streams);
        if self.is_alive() {
            streams.insert(stream, tell);
        }
        told
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let _ = lock(&self.child).start_kill();
    }

    /// `SIGSTOP`: it does nothing any more until it is woken.
    pub fn stop(&self) {
        signal("STOP", self.pid);
    }

    /// `SIGCONT`.
    pub fn wake(&self) {
        signal("CONT", self.pid);
    }
}

/// Signals a process that this one started. The shell's own `kill` is everywhere.
pub fn signal(name: &str, pid: u32) {
    let command = format!("kill -{name} {pid}");
    let _ = std::process::Command::new("sh").args(["-c", &command]).status();
}

struct Reader {
    ready: Option<oneshot::Sender<Result<(), Failure>>>,
    answers: Answers,
    streams: Streams,
    alive: Arc<AtomicBool>,
}

impl Reader {
    fn take(&mut self, told: Told) {
        match told {
            Told::Ready(result) => drop(self.ready.take().map(|ready| ready.send(result))),
            Told::Answer { id, result } => {
                let answer = lock(&self.answers).remove(&id);
                drop(answer.map(|answer| answer.send(result)));
            }
            Told::Event { stream, payload, cursor } => {
                if let Some(listener) = lock(&self.streams).get(&stream) {
                    let _ = listener.send(Delivery::Event { payload, cursor });
                }
            }
            Told::End { stream, reason } => {
                if let Some(listener) = lock(&self.streams).remove(&stream) {
                    let _ = listener.send(Delivery::End(reason));
                }
            }
        }
    }

    fn end(&self) {
        let mut streams = lock(&self.streams);
        self.alive.store(false, Ordering::SeqCst);
        streams.clear();
        lock(&self.answers).clear();
    }
}
