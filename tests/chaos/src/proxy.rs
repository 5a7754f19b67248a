//! A TCP proxy that does to connections what networks do: it delays, throttles, cuts, resets, stalls,
//! and swallows.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// Chunks on their way in one direction; beyond them the sender feels that nobody reads.
const ON_THE_WAY: usize = 64;
const CHUNK_BYTES: usize = 16 * 1024;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// It arrives.
    #[default]
    Open,
    /// It waits until the way is open again, as while packets are sent again and again.
    Stalled,
    /// It is gone, and nobody is told: a half-open connection. One that this happened to never comes
    /// back to life.
    Swallowed,
    /// The same, but only for what the server says: what it is told it still hears, and does.
    Unanswered,
    /// Connections end as soon as they are made.
    Cut,
}

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    pub way: Way,
    /// How long each chunk takes at least.
    pub latency: Duration,
    /// How much longer it may take; chunks never overtake each other.
    pub jitter: Duration,
    /// Bytes a second in each direction; 0 is no limit.
    pub bytes_a_second: u64,
}

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

struct Shared {
    /// Where the server is.
    port: AtomicU16,
    weather: watch::Sender<Weather>,
    /// Connections made before the last change of this end with it.
    endings: watch::Sender<(u64, Ending)>,
    dice: Mutex<u64>,
}

impl Shared {
    fn below(&self, limit: Duration) -> Duration {
        // xorshift64: the same seed gives the same delays.
        let mut state = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        Duration::from_micros(*state % micros)
    }
}

/// A proxy on a port of its own, until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `127.0.0.1:port`; `seed` decides its jitter.
    pub async fn to(port: u16, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            port: AtomicU16::new(port),
            weather: watch::Sender::default(),
            endings: watch::Sender::new((0, Ending::Closed)),
            dice: Mutex::new(seed | 1),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Proxy { address, shared, accepting })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Another server takes the place of the one behind it: connections to that one end.
    pub fn lead_to(&self, port: u16) {
        self.shared.port.store(port, Ordering::SeqCst);
        self.end(Ending::Closed);
    }

    /// Changes the weather, for connections that are there, too.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Fine weather again; what was cut or swallowed stays so.
    pub fn restore(&self) {
        self.set(Weather::default());
    }

    /// Ends all connections, and new ones at once.
    pub fn cut(&self) {
        self.set(Weather { way: Way::Cut, ..Weather::default() });
        self.end(Ending::Closed);
    }

    /// Everything is swallowed from here on, and no connection ends.
    pub fn half_open(&self) {
        self.set(Weather { way: Way::Swallowed, ..Weather::default() });
    }

    /// The server hears everything from here on, and nobody hears its answers.
    pub fn unanswered(&self) {
        self.set(Weather { way: Way::Unanswered, ..Weather::default() });
    }

    /// Everything waits from here on.
    pub fn stall(&self) {
        self.set(Weather { way: Way::Stalled, ..Weather::default() });
    }

    /// Ends the connections that are there; new ones are welcome.
    pub fn close_all(&self) {
        self.end(Ending::Closed);
    }

    /// The same with a reset, as by a peer that knows nothing of them.
    pub fn reset_all(&self) {
        self.end(Ending::Reset);
    }

    fn end(&self, ending: Ending) {
        self.shared.endings.send_modify(|last| *last = (last.0 + 1, ending));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.end(Ending::Closed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(serve(client, shared.clone()));
    }
}

/// One connection: both directions, until either ends or all are ended.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut endings = shared.endings.subscribe();
    let ended = async {
        // Those that came before this connection are none of its business.
        endings.borrow_and_update();
        match endings.changed().await {
            Ok(()) => endings.borrow().1,
            Err(_) => Ending::Closed,
        }
    };
    tokio::pin!(ended);
    let reach = reach(&shared);
    let mut server = tokio::select! {
        server = reach => match server {
            Some(server) => server,
            None => return,
        },
        _ = &mut ended => return,
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let swallowed = AtomicBool::new(false);
    let ending = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = carry(from_client, to_server, &shared, &swallowed, false) => Ending::Closed,
            () = carry(from_server, to_client, &shared, &swallowed, true) => Ending::Closed,
            ending = &mut ended => ending,
        }
    };
    if ending == Ending::Reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Connects to the server, as soon as the way is open; `None` when it is cut, or nobody is there.
async fn reach(shared: &Shared) -> Option<TcpStream> {
    let mut weather = shared.weather.subscribe();
    let now =
        weather.wait_for(|now| matches!(now.way, Way::Open | Way::Unanswered | Way::Cut)).await.ok()?.way;
    match now {
        Way::Cut => None,
        _ => TcpStream::connect(("127.0.0.1", shared.port.load(Ordering::SeqCst))).await.ok(),
    }
}

/// One direction, until its sender ends.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    swallowed: &AtomicBool,
    answers: bool,
) {
    let mut weather = shared.weather.subscribe();
    let (on_the_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut due = Instant::now();
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let Ok(n @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(n);
            let Weather { latency, jitter, .. } = *shared.weather.borrow();
            due = due.max(Instant::now() + latency + shared.below(jitter));
            if on_the_way.send((due, chunk)).await.is_err() {
                return;
            }
        }
    };
    let mut unheard = false;
    let write = async {
        while let Some((due, chunk)) = arriving.recv().await {
            sleep_until(due).await;
            let Ok(now) = weather.wait_for(|now| now.way != Way::Stalled).await.map(|now| *now) else {
                return;
            };
            if now.way == Way::Swallowed {
                swallowed.store(true, Ordering::Relaxed);
            }
            unheard |= answers && now.way == Way::Unanswered;
            if unheard || swallowed.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(micros) = (chunk.len() as u64 * 1_000_000).checked_div(now.bytes_a_second) {
                sleep(Duration::from_micros(micros)).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
    // The other end is not told of anything any more, so not of this either.
    if swallowed.load(Ordering::Relaxed) || shared.weather.borrow().way == Way::Swallowed {
        std::future::pending::<()>().await;
    }
}
