//! The threads under the engines of this process, and what a fork makes of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::failure::Failure;

/// Sockets and timers only: the work itself is done on the threads that wait for it.
const THREADS: usize = 2;

/// Counts the forks on the way from the first process to this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The runtime and the generation it was started in. Never dropped: nothing waits for its threads when
/// the interpreter ends, and a child of a fork has none to wait for.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Called in the child of a fork: what was there before has lost its threads.
pub(crate) fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// This process's runtime, started by whoever comes first.
pub(crate) fn handle() -> Result<Handle, Failure> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((born, runtime)) = *runtime
        && born == generation()
    {
        return Ok(runtime.handle().clone());
    }
    let started = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("mcp-sessions")
        .enable_all()
        .build()
        .map_err(|cause| {
            Failure::new("unavailable", "connect", format!("no thread could be started: {cause}"))
        })?;
    let started: &'static Runtime = Box::leak(Box::new(started));
    *runtime = Some((generation(), started));
    Ok(started.handle().clone())
}

/// Something that works in the process it was made in only.
pub(crate) struct Native<T> {
    value: Option<T>,
    born: u32,
}

impl<T> Native<T> {
    pub(crate) fn new(value: T) -> Self {
        Native { value: Some(value), born: generation() }
    }

    /// Fails with `closed` in a child of the process it was made in.
    pub(crate) fn get(&self, operation: &'static str) -> Result<&T, Failure> {
        match &self.value {
            Some(value) if self.born == generation() => Ok(value),
            _ => Err(Failure::new(
                "closed",
                operation,
                "this engine was connected before a fork: connect again in the child process",
            )),
        }
    }
}

impl<T> Drop for Native<T> {
    fn drop(&mut self) {
        // A thread that is not there any more may have held its locks.
        if self.born != generation() {
            std::mem::forget(self.value.take());
        }
    }
}

/// Hubs of `memory://name` are shared within a process: a child gets hubs of its own, not copies of
/// its parent's.
pub(crate) fn of_this_process(url: String) -> String {
    match (generation(), url.strip_prefix("memory://")) {
        (0, _) | (_, None) => url,
        (forks, Some(rest)) => {
            let (name, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
            if name.is_empty() { url } else { format!("memory://{name}.fork-{forks}{query}") }
        }
    }
}
