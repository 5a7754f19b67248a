//! The one runtime of this library in a process: its own threads, whoever calls.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle, Runtime};

/// Enough for what waits on a network; events are handed over on the threads of whoever reads.
const THREADS: usize = 2;

/// The runtime's handle; it is started by the first engine and lives as long as the process.
pub(crate) fn handle() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("mcp-sessions")
                .enable_time()
                .enable_io()
                .build()
                .expect("the operating system gave no threads")
        })
        .handle()
}

/// A future that finds the runtime at each poll, although a foreign executor polls it.
pub(crate) struct OnRuntime<F>(Pin<Box<F>>);

/// Lets foreign executors poll `work`.
pub(crate) fn on_runtime<F: Future>(work: F) -> OnRuntime<F> {
    OnRuntime(Box::pin(work))
}

impl<F: Future> Future for OnRuntime<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = handle().enter();
        self.0.as_mut().poll(cx)
    }
}
