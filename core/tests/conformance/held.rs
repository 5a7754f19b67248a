//! Streams and subscriptions in a scenario's hands, and how they are read.

use std::ops::RangeInclusive;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use mcp_sessions::{EndReason, Event, EventKind, EventStream, Payload, Subscription};
use serde_json::Value;
use tokio::time::timeout;

use crate::check::{Outcome, PATIENCE, lock, same, same_text, shown};
use crate::scenario::{Expected, Kind, Texts};

/// What fences begin with; reads pass over them.
pub const FENCE: &str = "\u{1}fence-";

/// A stream that the scenario opened.
pub struct Held {
    pub node: String,
    pub stream: EventStream,
    /// The payloads read so far, fences left out.
    pub read: Mutex<Vec<String>>,
    /// A step has looked at its end.
    pub end_expected: Mutex<bool>,
}

/// A subscription that the scenario made.
pub struct Listening {
    pub node: String,
    /// A notification that it lets through.
    pub fence: Option<Value>,
    pub subscription: Subscription,
    pub end_expected: Mutex<bool>,
}

impl Held {
    pub fn new(node: String, stream: EventStream) -> Self {
        Held { node, stream, read: Mutex::default(), end_expected: Mutex::default() }
    }

    /// The next event that is not a fence (but for the one waited for).
    pub async fn next(&self, fence: Option<&str>) -> Result<Event, String> {
        loop {
            match timeout(PATIENCE, self.stream.next()).await {
                Err(_) => return Err("waited in vain for an event".into()),
                Ok(None) => return Err(format!("the stream has ended ({})", reason(&self.stream))),
                Ok(Some(event)) if is_other_fence(event.payload(), fence) => {}
                Ok(Some(event)) => return Ok(event),
            }
        }
    }

    async fn next_payload(&self) -> Result<Event, String> {
        let event = self.next(None).await?;
        lock(&self.read).push(event.payload().as_str().to_owned());
        Ok(event)
    }

    pub async fn read_exactly(&self, wanted: Vec<Expected>) -> Outcome {
        for wanted in wanted {
            match wanted {
                Expected::Texts(Texts(texts)) => self.read_texts(texts).await?,
                Expected::Event(wanted) => {
                    let event = self.next_payload().await?;
                    same_text(event.payload(), &wanted.payload.0)?;
                    let kind = match event.kind() {
                        EventKind::Directed => Kind::Directed,
                        EventKind::Broadcast => Kind::Broadcast,
                    };
                    same("kind", &kind, &wanted.kind)?;
                }
            }
        }
        Ok(())
    }

    pub async fn read_texts(&self, wanted: Vec<String>) -> Outcome {
        for wanted in wanted {
            same_text(self.next_payload().await?.payload(), &wanted)?;
        }
        Ok(())
    }

    pub async fn read_interleaved(&self, wanted: Vec<Texts>) -> Outcome {
        let mut left: Vec<_> = wanted.into_iter().map(|Texts(texts)| texts.into_iter().peekable()).collect();
        while left.iter_mut().any(|texts| texts.peek().is_some()) {
            let event = self.next_payload().await?;
            let payload = event.payload().as_str();
            let taken = left.iter_mut().find_map(|texts| texts.next_if(|next| next == payload));
            taken.ok_or_else(|| format!("{:?} is not next in any of the sequences", shown(payload, 200)))?;
        }
        Ok(())
    }

    /// Reads to the end of the stream.
    pub async fn read_head(&self, wanted: &[String], count: RangeInclusive<usize>) -> Outcome {
        timeout(PATIENCE, self.stream.ended()).await.map_err(|_| "the stream did not end")?;
        let mut taken = 0;
        while let Some(event) = self.stream.try_next() {
            if is_other_fence(event.payload(), None) {
                continue;
            }
            lock(&self.read).push(event.payload().as_str().to_owned());
            same_text(event.payload(), wanted.get(taken).map_or("nothing more", String::as_str))?;
            taken += 1;
        }
        if count.contains(&taken) { Ok(()) } else { Err(format!("read {taken} events, expected {count:?}")) }
    }

    /// Reads until the last of `wanted`: what came must be the end of it, whole.
    pub async fn read_tail(&self, wanted: &[String], count: RangeInclusive<usize>) -> Outcome {
        let last = wanted.last().ok_or("the list is empty")?;
        let mut got = Vec::new();
        while got.last() != Some(last) {
            if got.len() > wanted.len() {
                return Err("more came than there is".into());
            }
            got.push(self.next_payload().await?.payload().as_str().to_owned());
        }
        if !wanted.ends_with(&got) {
            return Err(format!("{} is not the end of the list", shown(&format!("{got:?}"), 200)));
        }
        if count.contains(&got.len()) {
            Ok(())
        } else {
            Err(format!("read {} events, expected {count:?}", got.len()))
        }
    }

    pub fn nothing_unread(&self) -> Outcome {
        while let Some(event) = self.stream.try_next() {
            if !is_other_fence(event.payload(), None) {
                return Err(format!("unread event {:?}", shown(event.payload(), 200)));
            }
        }
        Ok(())
    }
}

impl Listening {
    pub fn new(node: String, fence: Option<Value>, subscription: Subscription) -> Self {
        Listening { node, fence, subscription, end_expected: Mutex::default() }
    }

    pub async fn next(&self, fence: Option<&str>) -> Result<Value, String> {
        loop {
            let payload = match timeout(PATIENCE, self.subscription.next()).await {
                Err(_) => return Err("waited in vain for a notification".into()),
                Ok(None) => {
                    return Err(format!("the subscription has ended ({:?})", self.subscription.end()));
                }
                Ok(Some(payload)) => payload,
            };
            let notification = notification_of(&payload)?;
            let mark = notification["params"]["fence"].as_str().unwrap_or_default();
            if !is_other_fence(mark, fence) {
                return Ok(notification);
            }
        }
    }

    pub fn nothing_unread(&self) -> Outcome {
        while let Some(Some(payload)) = self.subscription.next().now_or_never() {
            let notification = notification_of(&payload)?;
            if !is_other_fence(notification["params"]["fence"].as_str().unwrap_or_default(), None) {
                return Err(format!("unread notification {notification}"));
            }
        }
        Ok(())
    }
}

fn notification_of(payload: &Payload) -> Result<Value, String> {
    serde_json::from_str(payload).map_err(|error| format!("not JSON ({error}): {:?}", shown(payload, 200)))
}

fn is_other_fence(payload: &str, wanted: Option<&str>) -> bool {
    payload.starts_with(FENCE) && wanted != Some(payload)
}

fn reason(stream: &EventStream) -> &'static str {
    stream.end().map_or("no reason", EndReason::as_str)
}
