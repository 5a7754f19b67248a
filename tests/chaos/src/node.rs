//! A node process: an engine behind lines of JSON on its standard input and output.

use std::collections::HashMap;
use std::io::{BufWriter, Write as _};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use mcp_sessions::{Engine, Error, EventStream, OpenOptions, Options, SendOptions, SessionId, Target};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::protocol::{Answer, Ask, Failure, Request, To, Told};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            code: error.code().to_owned(),
            message: error.to_string(),
            retryable: error.retryable(),
            outcome_unknown: error.outcome_unknown(),
        }
    }
}

#[derive(Clone)]
struct Node {
    engine: Engine,
    tell: mpsc::Sender<Told>,
    /// Streams that are open; a reader lets go of its own once it ends.
    streams: Arc<Mutex<HashMap<u64, Arc<EventStream>>>>,
}

/// Runs until the standard input ends or the node is asked to shut down.
pub async fn run(url: &str, options: &str) {
    let tell = writer();
    let connected = async { Engine::connect(url, Options::from_json(options)?).await }.await;
    let engine = match connected {
        Ok(engine) => engine,
        Err(error) => {
            let _ = tell.send(Told::Ready(Err(error.into())));
            // The writer needs a moment of its own.
            return tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let _ = tell.send(Told::Ready(Ok(())));
    let node = Node { engine, tell, streams: Arc::default() };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(request) = serde_json::from_str::<Request>(&line) else { return };
        let node = node.clone();
        tokio::spawn(async move {
            let result = node.answer(request.ask).await;
            let _ = node.tell.send(Told::Answer { id: request.id, result });
        });
    }
}

/// Writes what is told, from a thread of its own: whoever delivers never waits for the pipe.
fn writer() -> mpsc::Sender<Told> {
    let (tell, told) = mpsc::channel::<Told>();
    std::thread::spawn(move || {
        let mut out = BufWriter::new(std::io::stdout().lock());
        while let Ok(first) = told.recv() {
            for one in std::iter::once(first).chain(told.try_iter()) {
                let line = serde_json::to_string(&one).unwrap_or_default();
                if writeln!(out, "{line}").is_err() {
                    return;
                }
            }
            if out.flush().is_err() {
                return;
            }
        }
    });
    tell
}

impl Node {
    async fn answer(&self, ask: Ask) -> Result<Answer, Failure> {
        let streams = self.engine.streams();
        Ok(match ask {
            Ask::Open { stream, session, after } => return self.open(stream, &session, after).await,
            Ask::Close { stream } => {
                let held = self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
                if let Some(held) = held {
                    held.close().await;
                }
                Answer::Done
            }
            Ask::Send { to, payload, key } => {
                let options = key.into_iter().fold(SendOptions::default(), SendOptions::idempotency_key);
                let receipt = streams.send(target(to)?, payload, options).await?;
                Answer::Sent {
                    accepted: receipt.accepted,
                    dropped: receipt.dropped,
                    duplicates: receipt.duplicates,
                }
            }
            Ask::Has { session } => Answer::Yes(streams.has(&SessionId::new(session)?).await?),
            Ask::Health => {
                let health = self.engine.health().await;
                Answer::Health { ready: health.ready, lease_left_ms: health.lease_left_ms }
            }
            Ask::Held => {
                let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                let held = streams.values().filter(|stream| stream.end().is_none());
                Answer::Held(held.map(|stream| stream.session().to_string()).collect())
            }
            Ask::Shutdown => {
                self.engine.shutdown(Duration::from_secs(5)).await?;
                Answer::Done
            }
        })
    }

    async fn open(&self, stream: u64, session: &str, after: Option<String>) -> Result<Answer, Failure> {
        let options = after.iter().fold(OpenOptions::default(), |options, cursor| options.after(cursor));
        let held = Arc::new(self.engine.streams().open(&SessionId::new(session)?, options).await?);
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(stream, held.clone());
        let opened = Answer::Opened { gap: held.gap(), cursor: held.cursor().to_string() };
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(event) = held.next().await {
                let (payload, cursor) = (event.payload().to_string(), event.cursor().to_string());
                let _ = node.tell.send(Told::Event { stream, payload, cursor });
            }
            let reason = held.end().map_or("none", |end| end.as_str()).to_owned();
            node.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
            let _ = node.tell.send(Told::End { stream, reason });
        });
        Ok(opened)
    }
}

fn target(to: To) -> Result<Target, Failure> {
    Ok(match to {
        To::All => Target::all(),
        To::Session(id) => Target::session(&SessionId::new(id)?),
        To::Sessions(ids) => {
            let ids = ids.iter().map(SessionId::new).collect::<Result<Vec<_>, _>>();
            Target::sessions(&ids?)
        }
    })
}
