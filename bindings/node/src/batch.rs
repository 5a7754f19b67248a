//! Sends of one crossing: they leave as one batch, in their order.

use std::sync::Arc;
use std::task::{Context, Poll};

use mcp_sessions::Outgoing;

use crate::failure::Failure;
use crate::port::{Note, Reply, Work};
use crate::shared::Node;

/// Sends of one kind that follow each other.
#[derive(Default)]
pub(crate) enum Batch {
    #[default]
    Empty,
    /// Events, each with the call that waits for its receipt.
    Events(Vec<Option<u32>>, Vec<Outgoing>),
    /// Notifications, each with the call that waits for it.
    Notifications(Vec<u32>, Vec<String>),
}

impl Batch {
    /// Adds an event; gives it back when notifications come before it.
    pub(crate) fn add_event(&mut self, call: Option<u32>, event: Outgoing) -> Result<(), Outgoing> {
        match self {
            Batch::Events(calls, events) => {
                calls.push(call);
                events.push(event);
            }
            Batch::Empty => *self = Batch::Events(vec![call], vec![event]),
            Batch::Notifications(..) => return Err(event),
        }
        Ok(())
    }

    /// Adds a notification; false when events come before it.
    pub(crate) fn add_notification(&mut self, call: u32, notification: &str) -> bool {
        match self {
            Batch::Notifications(calls, notifications) => {
                calls.push(call);
                notifications.push(notification.to_owned());
            }
            Batch::Empty => *self = Batch::Notifications(vec![call], vec![notification.to_owned()]),
            Batch::Events(..) => return false,
        }
        true
    }

    /// One call of the core for all of it.
    pub(crate) fn work(self, node: Arc<Node>) -> Option<Work> {
        match self {
            Batch::Empty => None,
            Batch::Events(calls, events) => Some(Box::pin(async move {
                let receipts = node.streams().send_all(events).await;
                let told =
                    calls.into_iter().zip(receipts).filter_map(|(call, receipt)| match (call, receipt) {
                        (Some(call), Ok(receipt)) => Some(Note::Receipt { call, receipt }),
                        (call, Err(error)) => Some(failed(call, error.into())),
                        (None, Ok(_)) => None,
                    });
                Ok(Reply::Sent(told.collect()))
            })),
            Batch::Notifications(calls, notifications) => Some(Box::pin(async move {
                let outcomes = node.subscriptions().send_all(notifications).await;
                let told = calls.into_iter().zip(outcomes).map(|(call, outcome)| match outcome {
                    Ok(()) => Note::Done { call, json: String::new() },
                    Err(error) => failed(Some(call), error.into()),
                });
                Ok(Reply::Sent(told.collect()))
            })),
        }
    }
}

fn failed(call: Option<u32>, failure: Failure) -> Note {
    match call {
        Some(call) => Note::Failed { call, failure },
        None => Note::Lost { failure },
    }
}

/// Batches that one call waits for, all of them.
pub(crate) struct Group {
    call: u32,
    batches: Vec<Work>,
    notes: Vec<Note>,
}

impl Group {
    pub(crate) fn new(call: u32) -> Self {
        Group { call, batches: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn call(&self) -> u32 {
        self.call
    }

    pub(crate) fn start(&mut self, batch: Work, context: &mut Context<'_>) {
        self.batches.push(batch);
        self.go_on(context);
    }

    fn go_on(&mut self, context: &mut Context<'_>) {
        let notes = &mut self.notes;
        self.batches.retain_mut(|batch| match batch.as_mut().poll(context) {
            Poll::Ready(Ok(Reply::Sent(told))) => {
                notes.extend(told);
                false
            }
            Poll::Ready(Ok(_)) => false,
            Poll::Ready(Err(failure)) => {
                notes.push(Note::Lost { failure });
                false
            }
            Poll::Pending => true,
        });
    }

    /// What is to be told if nothing is under way.
    pub(crate) fn done(mut self) -> Result<Vec<Note>, Self> {
        match self.batches.is_empty() {
            true => Ok(self.told()),
            false => Err(self),
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Vec<Note>> {
        self.go_on(context);
        if self.batches.is_empty() { Poll::Ready(self.told()) } else { Poll::Pending }
    }

    fn told(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.notes);
        notes.push(Note::Done { call: self.call, json: String::new() });
        notes
    }
}
