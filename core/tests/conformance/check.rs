//! Compares what came with what was expected; every difference is told in words.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_sessions::{Error, Receipt};
use tokio::time::timeout;

use crate::scenario::{Counts, Expect, ExpectSend, Failure, Texts};

/// What a step came to, or why it failed.
pub type Outcome = Result<(), String>;

/// How long anything expected may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn shown(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

pub fn same<T: PartialEq + Debug>(what: &str, got: &T, wanted: &T) -> Outcome {
    match got == wanted {
        true => Ok(()),
        false => Err(format!(
            "{what}: expected {}, got {}",
            shown(&format!("{wanted:?}"), 400),
            shown(&format!("{got:?}"), 400)
        )),
    }
}

pub fn same_text(got: &str, wanted: &str) -> Outcome {
    match got == wanted {
        true => Ok(()),
        false => Err(format!("event: expected {:?}, got {:?}", shown(wanted, 200), shown(got, 200))),
    }
}

fn check_failure(error: &Error, wanted: &Failure) -> Outcome {
    let code = error.code();
    if code != wanted.error {
        return Err(format!("expected error {}, got error {code}: {error}", wanted.error));
    }
    if let Some(message) = &wanted.message {
        same("message", &error.message(), &message.as_str())?;
    }
    if wanted.message_lacks.as_ref().is_some_and(|secret| format!("{error} {error:?}").contains(secret)) {
        return Err(format!("the message says too much: {error:?}"));
    }
    same("retryable", &error.retryable(), &wanted.retryable.unwrap_or(error.retryable()))?;
    same(
        "outcomeUnknown",
        &error.outcome_unknown(),
        &wanted.outcome_unknown.unwrap_or(error.outcome_unknown()),
    )
}

pub fn check<T: PartialEq + Debug, E: Borrow<Error>>(got: Result<T, E>, wanted: &Expect<T>) -> Outcome {
    match (got, wanted) {
        (Ok(got), Expect::Value(wanted)) => same("result", &got, wanted),
        (Ok(got), Expect::Failure(wanted)) => Err(format!("expected error {}, got {got:?}", wanted.error)),
        (Err(error), Expect::Failure(wanted)) => check_failure(error.borrow(), wanted),
        (Err(error), Expect::Value(wanted)) => {
            Err(format!("expected {wanted:?}, got error {}", error.borrow()))
        }
    }
}

pub fn done(got: Result<(), Error>, wanted: &Option<Failure>) -> Outcome {
    match (got, wanted) {
        (Ok(()), None) => Ok(()),
        (Err(error), Some(wanted)) => check_failure(&error, wanted),
        (Ok(()), Some(wanted)) => Err(format!("expected error {}, but it succeeded", wanted.error)),
        (Err(error), None) => Err(format!("unexpected error {}: {error}", error.code())),
    }
}

pub fn check_send(got: Result<Receipt, Error>, wanted: &ExpectSend) -> Outcome {
    let counts = |receipt: Receipt| Counts {
        accepted: receipt.accepted,
        dropped: receipt.dropped,
        duplicates: receipt.duplicates,
    };
    match (got.map(counts), wanted) {
        (Ok(got), ExpectSend::Receipt(wanted)) => same("receipt", &got, wanted),
        (Ok(got), ExpectSend::AnyOf(wanted)) if wanted.any_of.contains(&got) => Ok(()),
        (Ok(got), ExpectSend::AnyOf(wanted)) => {
            Err(format!("expected any of {:?}, got {got:?}", wanted.any_of))
        }
        (Ok(got), ExpectSend::Failure(wanted)) => {
            Err(format!("expected error {}, got {got:?}", wanted.error))
        }
        (Err(error), ExpectSend::Failure(wanted)) => check_failure(&error, wanted),
        (Err(error), _) => Err(format!("unexpected error {}: {error}", error.code())),
    }
}

/// Compares lists whose order means nothing, duplicates included.
pub fn check_set(got: Result<Vec<String>, Error>, wanted: &Expect<Texts>) -> Outcome {
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    match wanted {
        Expect::Failure(failure) => check(got, &Expect::Failure(failure.clone())),
        Expect::Value(Texts(wanted)) => check(got.map(sorted), &Expect::Value(sorted(wanted.clone()))),
    }
}

/// Checks once, or, where others only have to get there, until it holds.
pub async fn check_until<T, F>(until: bool, get: impl Fn() -> F, wanted: &Expect<T>) -> Outcome
where
    T: PartialEq + Debug,
    F: Future<Output = Result<T, Error>>,
{
    match until {
        false => check(get().await, wanted),
        true => eventually(|| async { check(get().await, wanted) }).await,
    }
}

pub async fn eventually<F: Future<Output = Outcome>>(check: impl Fn() -> F) -> Outcome {
    let poll = async {
        while check().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match timeout(PATIENCE, poll).await {
        Ok(()) => Ok(()),
        Err(_) => check().await,
    }
}
