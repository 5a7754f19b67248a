//! Two processes, one session: a stream that any of them serves, and a notification that any of them sends.
//!
//! ```sh
//! cargo run -p mcp-sessions-axum-examples --bin notifier -- redis://127.0.0.1 8001
//! cargo run -p mcp-sessions-axum-examples --bin notifier -- redis://127.0.0.1 8002
//! curl -N localhost:8001/streams/s1                             # stays open; each event has an id
//! curl -d 'hello' localhost:8002/streams/s1                     # the other process: it arrives above
//! curl -N -H 'Last-Event-ID: …' localhost:8002/streams/s1       # what was missed, on the other one
//! ```

use std::convert::Infallible;
use std::io;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use mcp_sessions::{Engine, ErrorKind, OpenOptions, Options, SendOptions, SessionId, Target};
use tokio::net::TcpListener;

/// What is wrong, and whose fault it is.
type Refusal = (StatusCode, String);

fn refusal(error: mcp_sessions::Error) -> Refusal {
    let status = match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::TooLarge => StatusCode::BAD_REQUEST,
        kind if kind.retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

/// The session's stream, from where its client left off.
async fn listen(
    State(engine): State<Engine>,
    Path(session): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let session = SessionId::new(session).map_err(refusal)?;
    let mut options = OpenOptions::default();
    if let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        options = options.after(last);
    }
    let opened = engine.streams().open(&session, options).await.map_err(refusal)?;
    // A cursor at once: a client that is cut off before the first event can resume, too.
    let cursor = Event::default().event("cursor").id(opened.cursor().as_str()).data(opened.gap().to_string());
    let events = stream::unfold(opened, async |opened| {
        let event = opened.next().await?;
        let frame = Event::default().id(event.cursor().as_str()).data(event.payload().as_str());
        Some((Ok(frame), opened))
    });
    // The client that goes away drops the stream, and with it gives the session back.
    let events = stream::StreamExt::chain(stream::iter([Ok(cursor)]), events);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Sends to the session, whichever process holds its stream.
async fn notify(
    State(engine): State<Engine>,
    Path(session): Path<String>,
    payload: String,
) -> Result<String, Refusal> {
    let session = SessionId::new(session).map_err(refusal)?;
    let target = Target::session(&session);
    let receipt = engine.streams().send(target, payload, SendOptions::default()).await.map_err(refusal)?;
    match receipt.accepted {
        0 => Err((StatusCode::NOT_FOUND, "nobody ever opened this stream\n".into())),
        _ => Ok("accepted\n".into()),
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "memory://".into());
    let port = arguments.next().unwrap_or_else(|| "0".into());
    let engine = Engine::connect(&url, Options::default()).await.map_err(io::Error::other)?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}/streams/…", listener.local_addr()?);
    let routes = Router::new().route("/streams/{session}", get(listen).post(notify)).with_state(engine);
    axum::serve(listener, routes).await
}
