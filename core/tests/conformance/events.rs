//! The steps of the event log.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use mcp_sessions::{EndReason, Error, EventId, EventLog, EventTail, Replay, SessionId};
use serde::Deserialize;
use tokio::time::timeout;

use crate::check::{Outcome, PATIENCE, check, done, lock, same, same_text, shown};
use crate::scenario::{After, Expect, Failure, Is, Opened, Text, Texts};
use crate::world::{World, forgeries_of};

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum EventsStep {
    #[serde(rename = "events.append")]
    Append {
        node: Option<String>,
        scope: Text,
        stream: Text,
        payload: Texts,
        /// The last id goes by this name.
        save: Option<String>,
        expect: Option<Failure>,
    },
    #[serde(rename = "events.prime")]
    Prime { node: Option<String>, scope: Text, stream: Text, save: String },
    #[serde(rename = "events.end")]
    End { node: Option<String>, scope: Text, stream: Text },
    #[serde(rename = "events.streamOf")]
    StreamOf { node: Option<String>, scope: Text, id: After, expect: Expect<Is> },
    #[serde(rename = "events.replay")]
    Replay { node: Option<String>, scope: Text, after: After, expect: Expect<ReplayIs> },
    #[serde(rename = "events.read")]
    Read { node: Option<String>, scope: Text, stream: Text, expect: Expect<ReplayIs> },
    #[serde(rename = "events.tail")]
    Tail {
        node: Option<String>,
        scope: Text,
        after: After,
        #[serde(rename = "as")]
        name: String,
        expect: Expect<Opened>,
    },
    #[serde(rename = "events.follow")]
    Follow {
        node: Option<String>,
        scope: Text,
        stream: Text,
        #[serde(rename = "as")]
        name: String,
        expect: Expect<Opened>,
    },
    #[serde(rename = "events.next")]
    Next { tail: String, expect: Texts, save: Option<String> },
    #[serde(rename = "events.ended")]
    Ended { tail: String, expect: String },
    #[serde(rename = "events.close")]
    Close { tail: String },
    #[serde(rename = "events.forget")]
    Forget { node: Option<String>, scope: Text, stream: Text, expect: Expect<bool> },
    #[serde(rename = "events.forgetAll")]
    ForgetAll { node: Option<String>, scope: Text, expect: Expect<u64> },
    #[serde(rename = "events.forgeries")]
    Forgeries { node: Option<String>, scope: Text, id: String },
}

/// What a replay has to be: exactly these events; what else is not named is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayIs {
    events: Texts,
    gap: bool,
    stream: Option<String>,
    #[serde(default)]
    ended: bool,
}

/// What the steps made.
#[derive(Default)]
pub struct Held {
    tails: Mutex<HashMap<String, Arc<EventTail>>>,
    /// Every id that was given for an append; none twice.
    ids: Mutex<HashSet<String>>,
}

impl Held {
    /// Nothing is left unread, and no tail ended unnoticed.
    pub fn check_the_end(&self) -> Outcome {
        for (name, tail) in lock(&self.tails).drain() {
            if let Some(event) = tail.try_next() {
                return Err(format!("at the end, tail {name}: unread {event:?}"));
            }
            if let Some(end) = tail.end() {
                return Err(format!("at the end, tail {name}: it ended ({end}), and no step expects it"));
            }
        }
        Ok(())
    }
}

fn log_of(world: &World, node: &Option<String>, scope: &Text) -> Result<EventLog, String> {
    let scope = SessionId::new(world.named(&scope.0)).map_err(|error| error.to_string())?;
    Ok(world.node(node)?.events(&scope))
}

pub async fn step(world: &World, step: EventsStep) -> Outcome {
    match step {
        EventsStep::Append { node, scope, stream, payload: Texts(payloads), save, expect } => {
            let log = log_of(world, &node, &scope)?;
            for payload in payloads {
                let appended = log.append(&stream.0, &payload).await;
                kept(world, appended, &save, &expect)?;
            }
            Ok(())
        }
        EventsStep::Prime { node, scope, stream, save } => {
            let primed = log_of(world, &node, &scope)?.prime(&stream.0).await;
            kept(world, primed, &Some(save), &None)
        }
        EventsStep::End { node, scope, stream } => {
            kept(world, log_of(world, &node, &scope)?.end(&stream.0).await, &None, &None)
        }
        EventsStep::StreamOf { node, scope, id, expect } => {
            let id = world.cursor(id).await?;
            let stream = log_of(world, &node, &scope)?.stream_of(&id);
            check(stream.map(|stream| Is { value: stream.into() }), &expect)
        }
        EventsStep::Replay { node, scope, after, expect } => {
            let after = world.cursor(after).await?;
            check_replay(log_of(world, &node, &scope)?.replay(&after).await, &expect)
        }
        EventsStep::Read { node, scope, stream, expect } => {
            check_replay(log_of(world, &node, &scope)?.read(&stream.0).await, &expect)
        }
        EventsStep::Tail { node, scope, after, name, expect } => {
            let after = world.cursor(after).await?;
            held(world, name, log_of(world, &node, &scope)?.tail(&after).await, &expect)
        }
        EventsStep::Follow { node, scope, stream, name, expect } => {
            held(world, name, log_of(world, &node, &scope)?.follow(&stream.0).await, &expect)
        }
        EventsStep::Next { tail, expect: Texts(wanted), save } => {
            let tail = tail_of(world, &tail)?;
            for wanted in wanted {
                match timeout(PATIENCE, tail.next()).await {
                    Err(_) => return Err("waited in vain for an event".into()),
                    Ok(None) => return Err(format!("the tail has ended ({:?})", tail.end())),
                    Ok(Some(event)) => {
                        same_text(event.payload(), &wanted)?;
                        if let Some(save) = &save {
                            world.save(save.clone(), event.id().to_string());
                        }
                    }
                }
            }
            Ok(())
        }
        EventsStep::Ended { tail: name, expect } => {
            let tail = tail_of(world, &name)?;
            match timeout(PATIENCE, tail.next()).await {
                Err(_) => return Err("the tail goes on".into()),
                Ok(Some(event)) => return Err(format!("unread {event:?}")),
                Ok(None) => {}
            }
            lock(&world.events.tails).remove(&name);
            same("end", &tail.end().map(EndReason::as_str), &Some(expect.as_str()))
        }
        EventsStep::Close { tail: name } => {
            tail_of(world, &name)?.close().await;
            lock(&world.events.tails).remove(&name);
            Ok(())
        }
        EventsStep::Forget { node, scope, stream, expect } => {
            check(log_of(world, &node, &scope)?.forget(&stream.0).await, &expect)
        }
        EventsStep::ForgetAll { node, scope, expect } => {
            check(log_of(world, &node, &scope)?.forget_all().await, &expect)
        }
        EventsStep::Forgeries { node, scope, id } => {
            let log = log_of(world, &node, &scope)?;
            for forged in forgeries_of(&world.saved(&id)?) {
                match log.replay(&forged).await {
                    Err(error) if error.code() == "invalid_input" => {}
                    Err(error) => return Err(format!("{forged:?}: {error}")),
                    Ok(replay) => return Err(format!("{forged:?} was taken for an event id: {replay:?}")),
                }
            }
            Ok(())
        }
    }
}

/// Ids are URL-safe, short enough and never the same again.
fn kept(
    world: &World,
    id: Result<EventId, Error>,
    save: &Option<String>,
    expect: &Option<Failure>,
) -> Outcome {
    if let Ok(id) = &id {
        let url_safe = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !url_safe || id.len() > EventId::MAX_BYTES {
            return Err(format!("{id} is no event id"));
        }
        if !lock(&world.events.ids).insert(id.to_string()) {
            return Err(format!("{id} was given twice"));
        }
        if let Some(save) = save {
            world.save(save.clone(), id.to_string());
        }
    }
    done(id.map(drop), expect)
}

/// A tail that was opened is read by its name.
fn held(world: &World, name: String, tail: Result<EventTail, Error>, expect: &Expect<Opened>) -> Outcome {
    world.take_name(&name)?;
    check(tail.as_ref().map(|tail| Opened { gap: tail.gap() }), expect)?;
    if let Ok(tail) = tail {
        lock(&world.events.tails).insert(name, tail.into());
    }
    Ok(())
}

fn tail_of(world: &World, name: &str) -> Result<Arc<EventTail>, String> {
    lock(&world.events.tails).get(name).cloned().ok_or_else(|| format!("there is no tail {name}"))
}

fn check_replay(got: Result<Replay, Error>, expect: &Expect<ReplayIs>) -> Outcome {
    match (got, expect) {
        (got, Expect::Failure(failure)) => {
            check(got.map(|replay| shown(&format!("{replay:?}"), 200)), &Expect::Failure(failure.clone()))
        }
        (Err(error), Expect::Value(_)) => Err(format!("unexpected error {}: {error}", error.code())),
        (Ok(replay), Expect::Value(wanted)) => {
            let payloads: Vec<_> = replay.events.iter().map(|event| event.payload().to_owned()).collect();
            same("events", &payloads, &wanted.events.0)?;
            same("gap", &replay.gap, &wanted.gap)?;
            same("ended", &replay.ended, &wanted.ended)?;
            wanted.stream.as_ref().map_or(Ok(()), |stream| same("stream", &replay.stream, stream))
        }
    }
}
