//! Time, randomness and tasks behind one door: nothing else in the core touches them, so tests can
//! drive time and the same managers compile to wasm32.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

/// `Send` on native targets, nothing on wasm32, where futures of the host are not `Send`.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_family = "wasm"))]
impl<T: Send + ?Sized> MaybeSend for T {}
/// `Send` on native targets, nothing on wasm32, where futures of the host are not `Send`.
#[cfg(target_family = "wasm")]
pub trait MaybeSend {}
#[cfg(target_family = "wasm")]
impl<T: ?Sized> MaybeSend for T {}

/// A boxed future, `Send` on native targets.
#[cfg(not(target_family = "wasm"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future, `Send` on native targets.
#[cfg(target_family = "wasm")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since some fixed moment; never goes back.
    fn now_ms(&self) -> u64;

    /// The same in microseconds, as far as this clock can tell them apart; for measuring.
    fn now_us(&self) -> u64 {
        self.now_ms() * 1_000
    }

    /// Resolves when `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Where tasks run.
pub trait Spawner: Send + Sync + 'static {
    /// Runs a future to its end, apart from the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// The clock and the spawner an engine lives on.
#[derive(Clone)]
pub struct Runtime {
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
}

impl Runtime {
    /// A runtime made of these parts; a Worker brings its own.
    pub fn new(clock: Arc<dyn Clock>, spawner: Arc<dyn Spawner>) -> Self {
        Runtime { clock, spawner }
    }

    /// The runtime of native processes: tokio's timer, on the caller's tokio runtime where there is
    /// one, else on one background thread that all such engines share.
    #[cfg(feature = "native")]
    pub fn native() -> Self {
        let handle = native::handle();
        Runtime {
            clock: Arc::new(native::MonotonicClock { handle: handle.clone() }),
            spawner: Arc::new(native::TokioSpawner { handle }),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn with_clock(&self, clock: Arc<dyn Clock>) -> Self {
        Runtime { clock, spawner: self.spawner.clone() }
    }

    pub(crate) fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawner.spawn(task);
    }

    pub(crate) fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }

    /// What `work` comes to, or `None` when it takes longer than `limit`.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + MaybeSend,
    ) -> Option<T> {
        match select(pin!(work), self.sleep(limit)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// `work`, or `timeout` when it takes longer than `limit`.
    pub(crate) async fn deadline<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: BoxFuture<'_, Result<T>>,
    ) -> Result<T> {
        self.within(limit, work).await.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Timeout,
                operation,
                format!("no answer from the backend within {} ms", limit.as_millis()),
            )
            .with_unknown_outcome())
        })
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random source failed");
    bytes
}

/// A random number that is never 0; names an epoch.
pub(crate) fn random_epoch() -> u64 {
    u64::from_le_bytes(random()).max(1)
}

/// Upkeep that a manual clock runs when it moves, in place of a timer.
pub(crate) trait Upkeep: Send + Sync {
    /// How often it is due.
    fn period(&self) -> Duration;

    /// Does it once.
    fn tick(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

/// A clock that only moves when told to; engines on `memory://name?clock=manual` share one a hub.
#[derive(Default)]
pub(crate) struct ManualClock {
    now: AtomicU64,
    sleepers: Mutex<Vec<(u64, std::task::Waker)>>,
    upkeeps: Mutex<Vec<Weak<dyn Upkeep>>>,
}

impl ManualClock {
    fn advance(&self, by: Duration) {
        let now = self.now.fetch_add(by.as_millis() as u64, Ordering::AcqRel) + by.as_millis() as u64;
        let mut due = Vec::new();
        self.sleepers.lock().retain(|(at, waker)| {
            if *at <= now {
                due.push(waker.clone());
            }
            *at > now
        });
        due.into_iter().for_each(std::task::Waker::wake);
    }

    fn poll_until(&self, at: u64, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let mut sleepers = self.sleepers.lock();
        if self.now.load(Ordering::Acquire) >= at {
            return Poll::Ready(());
        }
        sleepers.push((at, cx.waker().clone()));
        Poll::Pending
    }
}

/// A shared [`ManualClock`].
#[derive(Clone, Default)]
pub(crate) struct SharedManualClock(Arc<ManualClock>);

impl SharedManualClock {
    pub(crate) fn follow(&self, upkeep: Weak<dyn Upkeep>) {
        let mut upkeeps = self.0.upkeeps.lock();
        upkeeps.retain(|known| known.strong_count() > 0);
        upkeeps.push(upkeep);
    }

    /// Moves time, in steps short enough that no upkeep comes late, and runs all upkeep at each.
    pub(crate) async fn advance(&self, by: Duration) {
        let mut left = by;
        while !left.is_zero() {
            let upkeeps: Vec<_> = self.0.upkeeps.lock().iter().filter_map(Weak::upgrade).collect();
            let step = upkeeps.iter().map(|upkeep| upkeep.period()).min().map_or(left, |p| p.min(left));
            self.0.advance(step);
            left -= step;
            for upkeep in upkeeps {
                upkeep.tick().await;
            }
        }
    }
}

impl Clock for SharedManualClock {
    fn now_ms(&self) -> u64 {
        self.0.now.load(Ordering::Acquire)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = self.0.clone();
        let at = self.now_ms() + duration.as_millis() as u64;
        Box::pin(std::future::poll_fn(move |cx| clock.poll_until(at, cx)))
    }
}

#[cfg(feature = "native")]
mod native {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use tokio::runtime::{Builder, Handle, Runtime as TokioRuntime};

    use super::{BoxFuture, Clock, Spawner};

    pub(super) struct MonotonicClock {
        pub(super) handle: Handle,
    }

    impl Clock for MonotonicClock {
        fn now_ms(&self) -> u64 {
            self.now_us() / 1_000
        }

        fn now_us(&self) -> u64 {
            static START: OnceLock<Instant> = OnceLock::new();
            START.get_or_init(Instant::now).elapsed().as_micros() as u64
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            let _entered = self.handle.enter();
            Box::pin(tokio::time::sleep(duration))
        }
    }

    pub(super) struct TokioSpawner {
        pub(super) handle: Handle,
    }

    impl Spawner for TokioSpawner {
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            self.handle.spawn(task);
        }
    }

    /// The caller's runtime, else the shared background one (a process without tokio has no other).
    pub(super) fn handle() -> Handle {
        static BACKGROUND: OnceLock<TokioRuntime> = OnceLock::new();
        Handle::try_current().unwrap_or_else(|_| {
            BACKGROUND
                .get_or_init(|| {
                    Builder::new_multi_thread()
                        .worker_threads(1)
                        .thread_name("mcp-sessions")
                        .enable_all()
                        .build()
                        .expect("the background thread could not be started")
                })
                .handle()
                .clone()
        })
    }
}
