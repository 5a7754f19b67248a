//! The logs that every node follows.

use serde::{Deserialize, Serialize};

use super::log::Log;
use super::{Answer, Host, SyncLayer, keys};
use crate::backend::Topic;
use crate::backend::cloudflare::wire::{
    Item, Limits, Reply, Taken, To, Told, WireTopicTail, number_of, topic_of,
};
use crate::error::ErrorKind;
use crate::streams::{Payload, Position};

/// A topic, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TopicState {
    pub(super) log: Log,
    scheduled_ms: u64,
}

/// No session has such a name: it is not visible ASCII.
pub(super) fn name(topic: Topic) -> &'static str {
    match topic {
        Topic::Broadcasts => "\u{1}b",
        Topic::Notifications => "\u{1}n",
    }
}

pub(super) fn of_name(text: &str) -> Option<Topic> {
    Topic::ALL.into_iter().find(|topic| name(*topic) == text)
}

impl<H: Host> SyncLayer<H> {
    /// A topic's state, made if there is none.
    pub(super) fn topic(&mut self, topic: Topic, limits: &Limits) -> TopicState {
        let key = keys::session(name(topic));
        match self.stored(&key) {
            Some(state) => state,
            None => {
                let state = TopicState { log: Log::new(limits.broadcasts), scheduled_ms: u64::MAX };
                self.store(&key, &state);
                state
            }
        }
    }

    fn keep_topic(&mut self, topic: Topic, state: &mut TopicState) {
        let due_ms = state.log.due_ms().unwrap_or(u64::MAX);
        state.scheduled_ms = self.schedule(name(topic), state.scheduled_ms, due_ms);
        self.store(&keys::session(name(topic)), state);
    }

    pub(super) fn accept_for_topic(&mut self, limits: &Limits, topic: Topic, item: &Item) -> Taken {
        let mut state = self.topic(topic, limits);
        state.log.keep = limits.broadcasts;
        if let Some(key) = &item.key {
            if state.log.knows(&self.host, name(topic), key) {
                return Taken { duplicates: 1, ..Taken::default() };
            }
            state.log.note(&self.host, name(topic), key);
        }
        let position = state.log.append(&self.host, name(topic), &item.payload, Position::default());
        self.keep_topic(topic, &mut state);
        let payload = item.payload.clone();
        self.topic_to_guests(number_of(topic), position, &payload);
        self.say_to_others(None, &Told::Topic { topic: number_of(topic), position, payload });
        Taken { accepted: 1, ..Taken::default() }
    }

    /// What a Worker sends to a topic.
    pub(super) fn topic_for_guest(
        &mut self,
        limits: &Limits,
        topic: Topic,
        payload: Payload,
        key: Option<String>,
    ) -> Taken {
        let item = Item { to: To::Topic(number_of(topic)), payload, key };
        self.accept_for_topic(limits, topic, &item)
    }

    pub(super) fn read_topic(&mut self, topic: u8, after: Position) -> Answer {
        let Some(topic) = topic_of(topic) else {
            return Err((ErrorKind::InvalidInput, "there is no such topic".into()));
        };
        let state = self.topic(topic, &Limits::default());
        let found = state.log.after(&self.host, name(topic), after);
        let entries = found.entries.into_iter().map(|entry| (entry.offset, entry.payload)).collect();
        Ok(Reply::TopicTail(WireTopicTail { start: found.start, gap: found.gap, entries }))
    }

    pub(super) fn trim_topic(&mut self, topic: Topic, limits: &Limits) {
        let mut state = self.topic(topic, limits);
        let first = state.log.due_ms();
        state.log.keep = limits.broadcasts;
        state.log.trim(&self.host, name(topic));
        if state.log.due_ms() != first {
            self.keep_topic(topic, &mut state);
        }
    }

    pub(super) fn expire_topic(&mut self, topic: Topic) {
        let mut state = self.topic(topic, &Limits::default());
        state.scheduled_ms = u64::MAX;
        state.log.trim(&self.host, name(topic));
        self.keep_topic(topic, &mut state);
    }
}
