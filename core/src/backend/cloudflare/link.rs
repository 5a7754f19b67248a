//! One connection to the sync layer's objects, made again whenever it is lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use super::address::CloudflareAddress;
use super::socket::{Incoming, Outgoing, Socket};
use super::wire::{self, Call, Frame, Reply, Request, Told};
use crate::backend::pauses::Pauses;
use crate::backend::{Lane, Renewal, Signal, SignalSink, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Runtime;
use crate::session::{NodeId, SessionId};
use crate::sync::Mutex;

/// A try that hangs must not outlast the return of the gateway by much (G9).
const TRY: Duration = Duration::from_millis(1_500);
/// Heartbeats are answered by the platform, so now and then the object itself is asked: soon after a
/// connection is made, as objects that crash may do so again, and rarely later, as it wakes them.
const FIRST_CHECK: Duration = Duration::from_secs(1);
const LONGEST_CHECK: Duration = Duration::from_secs(60);
/// The call that comes first on every connection but the first.
const RESUME: u32 = 0;

/// Which of the objects that share the sessions.
pub(super) type Shard = u8;

/// How a link is kept.
pub(super) struct Keeping {
    pub(super) address: CloudflareAddress,
    pub(super) node: NodeId,
    pub(super) runtime: Runtime,
    /// The first connection has to be there in this time.
    pub(super) first: Duration,
    /// A call or a heartbeat without an answer for so long ends the connection.
    pub(super) patience: Duration,
}

#[derive(Default)]
struct State {
    /// Where to put messages; `None` while there is no connection.
    out: Option<UnboundedSender<Outgoing>>,
    last: u32,
    /// Calls by number: since when, and where the answer goes.
    waiting: HashMap<u32, (u64, oneshot::Sender<Reply>)>,
    /// Heartbeats that wait for their answer, and since when.
    beats: VecDeque<(u64, oneshot::Sender<()>)>,
}

struct Shared {
    state: Mutex<State>,
    /// How many objects there are, once it is known.
    shards: OnceLock<usize>,
    sink: Mutex<Option<Arc<dyn SignalSink>>>,
    /// The lease ended; the node has to join again.
    lost: AtomicBool,
    closed: AtomicBool,
    wake: Notify,
}

/// A connection that comes back; closed when dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    runtime: Runtime,
}

impl Link {
    /// Connects, and keeps the connection from then on. Fails when the first try does.
    pub(super) async fn open(keeping: Keeping) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            shards: OnceLock::new(),
            sink: Mutex::default(),
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let runtime = keeping.runtime.clone();
        let link = Link { shared: shared.clone(), runtime: runtime.clone() };
        let (done, first) = oneshot::channel();
        // The caller may be on no runtime of its own.
        runtime.spawn(Box::pin(async move { run(shared, keeping, done).await }));
        first.await.unwrap_or_else(|_| Err(Error::closed("connect")))?;
        Ok(link)
    }

    /// Sends signals here from now on.
    pub(super) fn follow(&self, sink: Arc<dyn SignalSink>) {
        *self.shared.sink.lock() = Some(sink);
    }

    /// The node has a lease again.
    pub(super) fn joined(&self) {
        self.shared.lost.store(false, Ordering::Release);
    }

    /// How many objects share the sessions.
    pub(super) fn shards(&self) -> usize {
        self.shared.shards()
    }

    /// Calls one of the objects, each in the order of the first polls.
    pub(super) async fn call(
        &self,
        operation: &'static str,
        shard: Shard,
        request: Request,
    ) -> Result<Reply> {
        let answered = self.shared.call(self.runtime.now_ms(), shard, request);
        match answered.ok_or_else(|| down(operation))?.await {
            Ok(Reply::Lost) => {
                self.shared.lost.store(true, Ordering::Release);
                Err(Error::new(
                    ErrorKind::Unavailable,
                    operation,
                    "this node's lease has run out; it is renewed shortly",
                ))
            }
            Ok(Reply::Failed(code, message)) => Err(Error::new(kind_of(&code), operation, message)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                operation,
                "the connection to the Worker was lost before the answer came",
            )
            .with_unknown_outcome()),
        }
    }

    /// A heartbeat there and back: it is what renews the lease.
    pub(super) async fn beat(&self) -> Result<Renewal> {
        if self.shared.lost.load(Ordering::Acquire) {
            return Ok(Renewal::Lost);
        }
        let answered = {
            let mut state = self.shared.state.lock();
            let Some(out) = state.out.clone() else { return Err(down("lease.renew")) };
            let (answer, answered) = oneshot::channel();
            state.beats.push_back((self.runtime.now_ms(), answer));
            let _ = out.send(Outgoing::Beat);
            answered
        };
        match answered.await {
            Ok(()) if self.shared.lost.load(Ordering::Acquire) => Ok(Renewal::Lost),
            Ok(()) => Ok(Renewal::Kept),
            Err(_) => Err(down("lease.renew")),
        }
    }

    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// The lane of what an object tells of a topic. Every object tells of every notification, and one is enough.
fn lane_of(topic: Topic, shard: Shard) -> Option<Lane> {
    match topic {
        Topic::Broadcasts => Some(Lane(shard)),
        Topic::Notifications => (shard == 0).then(Lane::default),
    }
}

fn down(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the Worker can't be reached just now; it is tried again")
}

fn kind_of(code: &str) -> ErrorKind {
    use ErrorKind::{Conflict, Corrupt, InvalidInput, NotFound, TooLarge, Unauthorized, Unavailable};
    let kinds = [InvalidInput, NotFound, Conflict, TooLarge, Unauthorized, Unavailable];
    kinds.into_iter().find(|kind| kind.code() == code).unwrap_or(Corrupt)
}

impl State {
    /// Since when the other end owes an answer.
    fn owed_since_ms(&self) -> Option<u64> {
        let calls = self.waiting.values().map(|(at_ms, _)| *at_ms);
        calls.chain(self.beats.front().map(|(at_ms, _)| *at_ms)).min()
    }

    fn next_number(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != RESUME && !self.waiting.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// The connection is gone: whoever waits finds out.
    fn disconnect(&mut self) {
        self.out = None;
        self.waiting.clear();
        self.beats.clear();
    }
}

impl Shared {
    fn shards(&self) -> usize {
        self.shards.get().copied().unwrap_or(1)
    }

    /// Sends a call; `None` while there is no connection.
    fn call(&self, now_ms: u64, shard: Shard, request: Request) -> Option<oneshot::Receiver<Reply>> {
        let mut state = self.state.lock();
        let out = state.out.clone()?;
        let number = state.next_number();
        let (answer, answered) = oneshot::channel();
        state.waiting.insert(number, (now_ms, answer));
        // A connection that has just ended forgets who waits; that is the answer then.
        let _ = out.send(Outgoing::Frame(self.frame(shard, &Call { number, request })));
        Some(answered)
    }

    /// A call's bytes, behind the number of the object where there are several.
    fn frame(&self, shard: Shard, call: &Call) -> Vec<u8> {
        match self.shards() {
            1 => wire::write(call),
            _ => wire::write(&(shard, call)),
        }
    }

    /// What is in a frame, and whose it is; `None` when it can't be read.
    fn read(&self, bytes: &[u8]) -> Option<(Shard, Frame)> {
        match self.shards() {
            1 => wire::read(bytes).map(|frame| (0, frame)),
            _ => wire::read(bytes),
        }
    }

    fn signal(&self, signal: Signal) {
        let sink = self.sink.lock().clone();
        if let Some(sink) = sink {
            sink.signal(signal);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn answer(&self, number: u32, reply: Reply) {
        if let Some((_, answer)) = self.state.lock().waiting.remove(&number) {
            // A caller that went away does not need its answer.
            let _ = answer.send(reply);
        }
    }

    fn tell(&self, shard: Shard, told: Told) {
        let signal = match told {
            Told::Event { session, position, payload } => {
                SessionId::stored(&session).map(|session| Signal::Event { session, position, payload })
            }
            Told::Topic { topic, position, payload } => wire::topic_of(topic)
                .and_then(|topic| Some((topic, lane_of(topic, shard)?)))
                .map(|(topic, lane)| Signal::Topic { topic, lane, position, payload }),
            Told::Ended { session, owner_epoch, reason } => {
                SessionId::stored(&session).map(|session| Signal::Ended { session, owner_epoch, reason })
            }
            Told::InfoChanged(session) => {
                SessionId::stored(&session).map(|session| Signal::InfoChanged { session })
            }
            Told::SessionClosing { session, reason } => SessionId::stored(&session)
                .map(|session| Signal::SessionClosing { session, reason: reason.into() }),
            Told::Lost => {
                self.lost.store(true, Ordering::Release);
                Some(Signal::Doubt)
            }
        };
        if let Some(signal) = signal {
            self.signal(signal);
        }
    }

    /// Takes one message; false when it can't be read.
    fn take(&self, incoming: Incoming) -> bool {
        match incoming {
            Incoming::Beat => {
                let answered = self.state.lock().beats.pop_front();
                answered.map(|(_, beat)| beat.send(()));
            }
            Incoming::Frame(bytes) => match self.read(&bytes) {
                Some((_, Frame::Reply(number, reply))) => self.answer(number, reply),
                Some((shard, Frame::Told(told))) => told.into_iter().for_each(|told| self.tell(shard, told)),
                None => return false,
            },
        }
        true
    }
}

async fn run(shared: Arc<Shared>, keeping: Keeping, done: oneshot::Sender<Result<()>>) {
    let connecting = Socket::connect(&keeping.address, &keeping.node);
    let mut socket = match keeping.runtime.within(keeping.first, connecting).await {
        Some(Ok(socket)) => socket,
        Some(Err(error)) => return drop(done.send(Err(error))),
        None => return drop(done.send(Err(down("connect")))),
    };
    let _ = shared.shards.set(socket.shards());
    let mut outgoing = open_out(&shared);
    let _ = done.send(Ok(()));
    loop {
        pump(&shared, &keeping, socket, outgoing).await;
        shared.state.lock().disconnect();
        (socket, outgoing) = match again(&shared, &keeping).await {
            Some(connected) => connected,
            None => return,
        };
    }
}

fn open_out(shared: &Shared) -> UnboundedReceiver<Outgoing> {
    let (out, outgoing) = unbounded_channel();
    shared.state.lock().out = Some(out);
    outgoing
}

/// Connects again: at once, then with growing pauses; `None` once the link is closed.
async fn again(shared: &Shared, keeping: &Keeping) -> Option<(Socket, UnboundedReceiver<Outgoing>)> {
    let mut pauses = Pauses::new();
    while !shared.is_closed() {
        match keeping.runtime.within(TRY, resume(shared, keeping)).await {
            Some(Ok((socket, told))) => {
                let outgoing = open_out(shared);
                shared.signal(Signal::Doubt);
                told.into_iter().for_each(|(shard, told)| shared.tell(shard, told));
                return Some((socket, outgoing));
            }
            Some(Err(error)) if error.kind() == ErrorKind::Config => {
                tracing::warn!(%error, "the Worker is not the one that this node joined; trying again");
            }
            Some(Err(error)) => tracing::debug!(%error, "the Worker can't be reached; trying again"),
            None => tracing::debug!("the Worker does not answer; trying again"),
        }
        pauses.wait(&keeping.runtime, &shared.wake).await;
    }
    None
}

/// A connection whose other ends have said whether the lease goes on, and what they told before that.
async fn resume(shared: &Shared, keeping: &Keeping) -> Result<(Socket, Vec<(Shard, Told)>)> {
    let mut socket = Socket::connect(&keeping.address, &keeping.node).await?;
    let shards = shared.shards();
    if socket.shards() != shards {
        return Err(Error::new(
            ErrorKind::Config,
            "connect",
            "the Worker shares its sessions among another number of objects now; connect anew",
        ));
    }
    for shard in (0..=Shard::MAX).take(shards) {
        let resume = shared.frame(shard, &Call { number: RESUME, request: Request::Resume });
        if !socket.write(Outgoing::Frame(resume)).await {
            return Err(down("connect"));
        }
    }
    let (mut told, mut left) = (Vec::new(), shards);
    while left > 0 {
        let incoming = socket.read().await.ok_or_else(|| down("connect"))?;
        let Incoming::Frame(bytes) = incoming else { continue };
        match shared.read(&bytes) {
            Some((shard, Frame::Told(more))) => told.extend(more.into_iter().map(|told| (shard, told))),
            Some((_, Frame::Reply(RESUME, Reply::Resumed { kept }))) => {
                left -= 1;
                if !kept {
                    shared.lost.store(true, Ordering::Release);
                }
            }
            _ => return Err(down("connect")),
        }
    }
    Ok((socket, told))
}

/// Carries messages both ways until the connection or the link ends.
async fn pump(shared: &Shared, keeping: &Keeping, socket: Socket, mut outgoing: UnboundedReceiver<Outgoing>) {
    let (mut writer, mut reader) = socket.split();
    let reading = async {
        while let Some(incoming) = reader.read().await {
            if !shared.take(incoming) {
                tracing::warn!("the Worker sent what this version can't read; is it another version?");
                return;
            }
        }
    };
    let writing = async {
        let mut batch = Vec::new();
        while outgoing.recv_many(&mut batch, 64).await > 0 {
            if !writer.write_all(&mut batch).await {
                return;
            }
        }
    };
    let watching = async {
        let patience_ms = keeping.patience.as_millis() as u64;
        let mut check = FIRST_CHECK;
        let mut check_ms = keeping.runtime.now_ms() + check.as_millis() as u64;
        while !shared.is_closed() {
            let woken = Box::pin(shared.wake.notified());
            select(woken, keeping.runtime.sleep(keeping.patience / 8)).await;
            let now_ms = keeping.runtime.now_ms();
            let owed_since_ms = shared.state.lock().owed_since_ms();
            if owed_since_ms.is_some_and(|at_ms| at_ms + patience_ms <= now_ms) {
                return;
            }
            if check_ms <= now_ms {
                for shard in (0..=Shard::MAX).take(shared.shards()) {
                    shared.call(now_ms, shard, Request::Ping);
                }
                check = (check * 2).min(LONGEST_CHECK);
                check_ms = now_ms + check.as_millis() as u64;
            }
        }
    };
    select(Box::pin(watching), select(Box::pin(reading), Box::pin(writing))).await;
    if shared.is_closed() {
        // What was handed over last (a farewell) still goes out.
        let mut rest = Vec::new();
        while let Ok(message) = outgoing.try_recv() {
            rest.push(message);
        }
        keeping
            .runtime
            .within(TRY, async { writer.write_all(&mut rest).await && writer.close().await })
            .await;
    }
}
