//! How a port learns, from any thread, that it has something to fetch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use mcp_sessions::SessionId;
use napi::Status;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

use crate::desk;

/// JavaScript's wake-up: gets the port's handle, and does not keep the process alive.
pub(crate) type WakeUp = ThreadsafeFunction<u32, (), u32, Status, false, true, 0>;

/// What can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A call.
    Call(u32),
    /// A stream or subscription that is read by asking.
    Stream(u32),
}

/// Which cached info is stale.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Changed {
    #[default]
    None,
    Some(Vec<SessionId>),
    Any,
}

/// The most changed sessions that are named; beyond, everything cached is stale.
const MAX_CHANGED: usize = 1_024;

#[derive(Default)]
struct Pending {
    woken: Vec<Woken>,
    changed: Changed,
}

/// The bell of one port.
pub(crate) struct Signals {
    handle: u32,
    /// The number of the JavaScript thread that the port belongs to.
    thread: u32,
    wake_up: WakeUp,
    /// A wake-up is on its way: another one would find nothing.
    told: AtomicBool,
    /// `woken` and `changed` are not empty: asked far more often than they are true.
    awake: AtomicBool,
    stale: AtomicBool,
    pending: Mutex<Pending>,
}

impl Signals {
    pub(crate) fn new(handle: u32, wake_up: WakeUp) -> Arc<Self> {
        Arc::new(Signals {
            handle,
            thread: desk::thread_number(),
            wake_up,
            told: AtomicBool::new(false),
            awake: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            pending: Mutex::default(),
        })
    }

    /// There is something to fetch. From inside a call of the port's own thread the caller is told on
    /// the way back; else JavaScript is woken, once.
    pub(crate) fn ring(&self) {
        if !desk::note_ready(self.thread, self.handle) {
            self.ring_later();
        }
    }

    /// JavaScript is woken from its event loop, once.
    pub(crate) fn ring_later(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.wake_up.call(self.handle, ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    pub(crate) fn wake(&self, what: Woken) {
        let mut pending = self.lock();
        self.awake.store(true, Ordering::Release);
        // A call that waits for many is woken by each of them.
        if pending.woken.last() != Some(&what) {
            pending.woken.push(what);
        }
        drop(pending);
        self.ring();
    }

    /// Info changed elsewhere. Nobody is woken: whoever reads what is cached asks first.
    pub(crate) fn changed(&self, session: Option<&SessionId>) {
        let mut pending = self.lock();
        self.stale.store(true, Ordering::Release);
        match (&mut pending.changed, session) {
            (Changed::Any, _) => {}
            (Changed::Some(named), Some(session)) if named.len() < MAX_CHANGED => named.push(session.clone()),
            (Changed::None, Some(session)) => pending.changed = Changed::Some(vec![session.clone()]),
            _ => pending.changed = Changed::Any,
        }
    }

    /// Takes what can go on; from here on new arrivals ring again.
    pub(crate) fn take_woken(&self) -> Vec<Woken> {
        self.told.store(false, Ordering::Release);
        if !self.awake.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut pending = self.lock();
        self.awake.store(false, Ordering::Release);
        std::mem::take(&mut pending.woken)
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    pub(crate) fn take_changed(&self) -> Changed {
        if !self.is_stale() {
            return Changed::None;
        }
        let mut pending = self.lock();
        self.stale.store(false, Ordering::Release);
        std::mem::take(&mut pending.changed)
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waker(self: &Arc<Self>, what: Woken) -> Waker {
        Waker::from(Arc::new(Bell { signals: self.clone(), what }))
    }
}

/// The waker of one call or stream.
struct Bell {
    signals: Arc<Signals>,
    what: Woken,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.signals.wake(self.what);
    }
}
