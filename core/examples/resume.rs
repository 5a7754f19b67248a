//! A client that goes away and comes back: `cargo run --example resume`.
//!
//! Two nodes share a hub. The stream is read on the first one and resumed on the second, which delivers
//! exactly what was missed; a cursor older than the log is told as a gap.

use mcp_sessions::{Engine, OpenOptions, Options, SendOptions, SessionId, Target};

#[tokio::main]
async fn main() -> mcp_sessions::Result<()> {
    resume().await
}

#[tokio::test]
async fn it_runs() -> mcp_sessions::Result<()> {
    resume().await
}

async fn resume() -> mcp_sessions::Result<()> {
    let options = Options::from_json(r#"{"retention": {"events": 4}}"#)?;
    let here = Engine::connect("memory://resume", options.clone()).await?;
    let there = Engine::connect("memory://resume", options).await?;
    let session = SessionId::random();

    let stream = here.streams().open(&session, OpenOptions::default()).await?;
    say(&there, &session, "one").await?;
    let first = stream.next().await.expect("the stream is open");
    println!("here:  {}", first.payload().as_str());
    let cursor = first.cursor().as_str().to_owned();
    drop(stream);

    for text in ["two", "three"] {
        say(&here, &session, text).await?;
    }
    let resumed = there.streams().open(&session, OpenOptions::default().after(cursor.clone())).await?;
    assert!(!resumed.gap());
    for wanted in ["two", "three"] {
        let event = resumed.next().await.expect("it was missed");
        println!("there: {}", event.payload().as_str());
        assert_eq!(event.payload().as_str(), wanted);
    }
    drop(resumed);

    // Four are kept: of six, the client is told that some are gone.
    for text in ["four", "five", "six", "seven"] {
        say(&here, &session, text).await?;
    }
    let late = there.streams().open(&session, OpenOptions::default().after(cursor)).await?;
    assert!(late.gap());
    let next = late.next().await.expect("the newest are kept");
    println!("there: a gap, then {}", next.payload().as_str());
    assert_eq!(next.payload().as_str(), "four");

    here.shutdown(std::time::Duration::from_secs(5)).await?;
    there.shutdown(std::time::Duration::from_secs(5)).await
}

async fn say(engine: &Engine, session: &SessionId, text: &str) -> mcp_sessions::Result<()> {
    let receipt =
        engine.streams().send(Target::session(session), text.to_owned(), SendOptions::default()).await?;
    assert_eq!(receipt.accepted, 1);
    Ok(())
}
