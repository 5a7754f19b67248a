//! How an event loop learns, from any thread, that it has something to fetch: a byte in a socket that
//! it watches. No thread of the engine ever waits for the interpreter's lock.

use std::io::{Read as _, Result, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

#[cfg(not(unix))]
use std::net::TcpStream as Socket;
#[cfg(unix)]
use std::os::unix::net::UnixStream as Socket;

/// The bell of one event loop. One byte is in the socket at most, however much has come.
pub(crate) struct Signals {
    told: AtomicBool,
    stopped: AtomicBool,
    woken: Mutex<Vec<u64>>,
    /// For a thread that waits in place of a loop that can't watch a socket.
    doorbell: AtomicBool,
    at_the_door: Mutex<bool>,
    door: Condvar,
    // Both ends stay open as long as anybody can ring.
    watched: Socket,
    rung: Socket,
}

impl Signals {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let (watched, rung) = pair()?;
        watched.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        Ok(Arc::new(Signals {
            told: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            woken: Mutex::default(),
            doorbell: AtomicBool::new(false),
            at_the_door: Mutex::default(),
            door: Condvar::new(),
            watched,
            rung,
        }))
    }

    /// What the loop watches.
    #[cfg(unix)]
    pub(crate) fn descriptor(&self) -> i64 {
        use std::os::fd::AsRawFd as _;
        i64::from(self.watched.as_raw_fd())
    }

    /// What the loop watches.
    #[cfg(not(unix))]
    pub(crate) fn descriptor(&self) -> i64 {
        use std::os::windows::io::AsRawSocket as _;
        self.watched.as_raw_socket() as i64
    }

    fn wake(&self, call: u64) {
        lock(&self.woken).push(call);
        self.ring();
    }

    fn ring(&self) {
        if self.told.swap(true, Ordering::AcqRel) {
            return;
        }
        // A full socket has been noticed already.
        let _ = (&self.rung).write(&[1]);
        if self.doorbell.load(Ordering::Acquire) {
            *lock(&self.at_the_door) = true;
            self.door.notify_all();
        }
    }

    /// Blocks until there is something to take; false once nobody takes any more.
    pub(crate) fn wait(&self) -> bool {
        let mut at_the_door = lock(&self.at_the_door);
        // What came before anybody listened at the door is there as well.
        if !self.doorbell.swap(true, Ordering::AcqRel) {
            *at_the_door = true;
        }
        while !*at_the_door && !self.is_stopped() {
            at_the_door = self.door.wait(at_the_door).unwrap_or_else(PoisonError::into_inner);
        }
        *at_the_door = false;
        !self.is_stopped()
    }

    /// Takes what can go on; from here on new arrivals ring again.
    pub(crate) fn take(&self) -> Vec<u64> {
        let mut bytes = [0; 16];
        let _ = (&self.watched).read(&mut bytes);
        self.told.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&self.woken))
    }

    /// Nobody fetches any more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.told.store(false, Ordering::Release);
        self.ring();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn waker(self: &Arc<Self>, call: u64) -> Waker {
        Waker::from(Arc::new(Bell { signals: self.clone(), call }))
    }
}

/// The waker of one call.
struct Bell {
    signals: Arc<Signals>,
    call: u64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.signals.wake(self.call);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
fn pair() -> Result<(Socket, Socket)> {
    Socket::pair()
}

#[cfg(not(unix))]
fn pair() -> Result<(Socket, Socket)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let rung = Socket::connect(listener.local_addr()?)?;
    loop {
        let (watched, from) = listener.accept()?;
        // Somebody else may have been quicker.
        if from == rung.local_addr()? {
            rung.set_nodelay(true)?;
            return Ok((watched, rung));
        }
    }
}
