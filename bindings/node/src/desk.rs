//! The ports of one JavaScript thread.
//!
//! Exports are plain functions that take a port's number: a method of a wrapped class costs several
//! times as much a call.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::port::{ByNumber, Port};

/// Handles are unique in the process, so that a stale one never names another thread's port.
static NEXT_HANDLE: AtomicU32 = AtomicU32::new(1);
/// JavaScript threads by number: comparing costs less than asking for the thread's id.
static NEXT_THREAD: AtomicU32 = AtomicU32::new(1);
/// How many ports the process has, for tests and leak hunts.
static LIVE: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static PORTS: RefCell<ByNumber<Rc<RefCell<Port>>>> = RefCell::default();
    static THREAD: Cell<u32> = const { Cell::new(0) };
    /// Inside a call from JavaScript.
    static CALLING: Cell<bool> = const { Cell::new(false) };
    /// Ports of this thread that got something during the call.
    static READY: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn next_handle() -> u32 {
    NEXT_HANDLE.fetch_add(1, Ordering::Relaxed)
}

/// The number of this JavaScript thread.
pub(crate) fn thread_number() -> u32 {
    if THREAD.get() == 0 {
        THREAD.set(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
    }
    THREAD.get()
}

pub(crate) fn live() -> u32 {
    LIVE.load(Ordering::Relaxed)
}

pub(crate) fn insert(handle: u32, port: Port) {
    LIVE.fetch_add(1, Ordering::Relaxed);
    PORTS.with_borrow_mut(|ports| ports.insert(handle, Rc::new(RefCell::new(port))));
}

pub(crate) fn remove(handle: u32) -> bool {
    // Dropped outside the borrow: a port's end may note other ports as ready.
    let port = PORTS.with_borrow_mut(|ports| ports.remove(&handle));
    let held = port.is_some();
    calling(|| drop(port));
    LIVE.fetch_sub(u32::from(held), Ordering::Relaxed);
    READY.with_borrow_mut(|ready| ready.retain(|known| *known != handle));
    held
}

/// Runs `work` for the first port of this thread only.
pub(crate) fn once_a_thread<E>(work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    thread_local! {
        static DONE: Cell<bool> = const { Cell::new(false) };
    }
    if DONE.replace(true) { Ok(()) } else { work() }
}

/// The thread's JavaScript is going away: so are its ports.
pub(crate) fn clear() {
    // The thread's own storage may be gone already.
    let handles = PORTS.try_with(|ports| ports.borrow().keys().copied().collect::<Vec<_>>());
    for handle in handles.unwrap_or_default() {
        remove(handle);
    }
}

/// Runs `work` on a port; `None` when there is none of this number, or it is being used.
pub(crate) fn with<T>(handle: u32, work: impl FnOnce(&mut Port) -> T) -> Option<T> {
    let port = PORTS.with_borrow(|ports| ports.get(&handle).cloned())?;
    let mut port = port.try_borrow_mut().ok()?;
    Some(calling(|| work(&mut port)))
}

/// Whether the port was noted as ready: only inside a call of its own thread, whose caller then looks.
pub(crate) fn note_ready(thread: u32, handle: u32) -> bool {
    if THREAD.get() != thread || !CALLING.get() {
        return false;
    }
    READY.with_borrow_mut(|ready| {
        if !ready.contains(&handle) {
            ready.push(handle);
        }
    });
    true
}

/// The port was looked at.
pub(crate) fn note_fetched(handle: u32) {
    READY.with_borrow_mut(|ready| ready.retain(|known| *known != handle));
}

/// It got something while it was being looked at.
pub(crate) fn is_ready(handle: u32) -> bool {
    READY.with_borrow(|ready| ready.contains(&handle))
}

pub(crate) fn any_ready_but(handle: u32) -> bool {
    READY.with_borrow(|ready| ready.iter().any(|known| *known != handle))
}

/// A port that got something during an earlier call.
pub(crate) fn next_ready() -> Option<u32> {
    READY.with_borrow_mut(Vec::pop)
}

/// Has the ports that got something woken: their thread goes on without looking.
pub(crate) fn ring_ready() {
    while let Some(handle) = next_ready() {
        let port = PORTS.with_borrow(|ports| ports.get(&handle).cloned());
        if let Some(port) = port {
            port.borrow().signals.ring_later();
        }
    }
}

fn calling<T>(work: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            CALLING.set(self.0);
        }
    }
    let _reset = Reset(CALLING.replace(true));
    work()
}
