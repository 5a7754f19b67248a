//! What is told to this node, in order: notifications, and the mail that some of them announce.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::types::Type;

use super::address::Listen;
use super::wire::{self, Said};
use super::{Inner, Parameter};
use crate::backend::{Signal, SignalSink};
use crate::error::Result;
use crate::sync::Mutex;

/// Between two tries to read the mail.
const RETRY: Duration = Duration::from_millis(100);

/// What waits behind mail that is being fetched.
enum Waiting {
    Message(String),
    /// Everything before has been told.
    Mark(oneshot::Sender<()>),
}

#[derive(Default)]
struct State {
    sink: Option<Arc<dyn SignalSink>>,
    /// Mail is being fetched: what comes later waits.
    fetching: bool,
    waiting: VecDeque<Waiting>,
    /// The pieces so far of a message: its id, how many, and the text.
    pieces: (String, u32, String),
    echoes: Vec<oneshot::Sender<()>>,
    /// Who waits for the next look that begins.
    looks: Vec<oneshot::Sender<()>>,
    /// What waits may not be all there was: the logs are read instead.
    doubtful: bool,
    closed: bool,
}

/// The way from the server to the sink.
pub(super) struct Inbox {
    state: Mutex<State>,
    me: OnceLock<String>,
    owner: OnceLock<Weak<Inner>>,
    look: Notify,
}

impl Inbox {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Inbox {
            state: Mutex::default(),
            me: OnceLock::new(),
            owner: OnceLock::new(),
            look: Notify::new(),
        })
    }

    /// A node that joins again brings another sink.
    pub(super) fn set_sink(&self, sink: Arc<dyn SignalSink>) {
        self.state.lock().sink = Some(sink);
    }

    /// From here on mail can be fetched; a node that polls begins to.
    pub(super) fn serve(self: &Arc<Self>, me: String, owner: &Arc<Inner>) {
        if self.me.set(me).is_err() {
            return;
        }
        let _ = self.owner.set(Arc::downgrade(owner));
        if let Listen::Poll(pace) = owner.address.listen {
            let inbox = self.clone();
            owner.keeping.runtime.spawn(Box::pin(async move { inbox.poll(pace).await }));
        }
    }

    /// The connection that messages are looked for on is another one.
    pub(super) fn returned(&self) {
        self.state.lock().doubtful = true;
        self.look.notify_one();
    }

    /// Tells what no message says.
    pub(super) fn signal(&self, signal: Signal) {
        let state = self.state.lock();
        if let Some(sink) = &state.sink {
            sink.signal(signal);
        }
    }

    /// Takes a message of a channel.
    pub(super) fn take(self: &Arc<Self>, message: &str) {
        let mut state = self.state.lock();
        if state.fetching {
            state.waiting.push_back(Waiting::Message(message.to_owned()));
            return;
        }
        self.tell(&mut state, message);
    }

    fn tell(self: &Arc<Self>, state: &mut State, message: &str) {
        let Some(piece) = wire::piece(message) else { return self.tell_whole(state, message) };
        if piece.nth == 1 {
            state.pieces = (piece.id.to_owned(), 0, String::new());
        }
        let (id, so_far, text) = &mut state.pieces;
        *so_far += 1;
        if (&**id, *so_far) != (piece.id, piece.nth) {
            tracing::warn!("a piece of a notification is missing; the logs are read");
            if let Some(sink) = &state.sink {
                sink.signal(Signal::Doubt);
            }
            return;
        }
        text.push_str(piece.text);
        if piece.last {
            let whole = std::mem::take(text);
            self.tell_whole(state, &whole);
        }
    }

    fn tell_whole(self: &Arc<Self>, state: &mut State, message: &str) {
        let mut mail = None;
        let me = self.me.get().map_or("", String::as_str);
        let mut echoes = std::mem::take(&mut state.echoes);
        let sink = state.sink.clone();
        let read = wire::message(message, me, &mut |said| match said {
            Said::Signal(signal) => {
                if let Some(sink) = &sink {
                    sink.signal(signal);
                }
            }
            Said::Echo => echoes.drain(..).for_each(|echo| {
                let _ = echo.send(());
            }),
            Said::Mail(seq) => mail = Some(seq),
        });
        state.echoes = echoes;
        if read.is_none() {
            tracing::warn!("a notification could not be read; is another program using this channel?");
        }
        // Mail is announced by a message of its own.
        if let (Some(seq), Some(owner)) = (mail, self.owner.get().and_then(Weak::upgrade)) {
            state.fetching = true;
            let inbox = self.clone();
            owner.keeping.runtime.spawn(Box::pin(async move { inbox.fetch(seq).await }));
        }
    }

    async fn fetch(self: Arc<Self>, seq: i64) {
        let messages = loop {
            // Not held while it waits, or the backend would live on for it.
            let Some(owner) = self.owner.get().and_then(Weak::upgrade) else { return };
            if owner.reads.is_closed() {
                return;
            }
            match mail(&owner, Some(seq)).await {
                Ok(messages) => break messages,
                Err(error) => tracing::debug!(%error, "the mail could not be read; trying again"),
            }
            let sleep = owner.keeping.runtime.sleep(RETRY);
            drop(owner);
            sleep.await;
        };
        if messages.is_empty() {
            // Lost with a crash of the server.
            self.signal(Signal::Doubt);
        }
        let mut state = self.state.lock();
        state.fetching = false;
        messages.iter().for_each(|message| self.tell(&mut state, message));
        self.go_on(&mut state);
    }

    fn go_on(self: &Arc<Self>, state: &mut State) {
        while !state.fetching
            && let Some(next) = state.waiting.pop_front()
        {
            match next {
                Waiting::Message(message) => self.tell(state, &message),
                Waiting::Mark(told) => {
                    let _ = told.send(());
                }
            }
        }
    }

    /// Resolves when everything that was taken before has been told.
    pub(super) fn settled(&self) -> oneshot::Receiver<()> {
        let (told, settled) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return settled;
        }
        if state.fetching {
            state.waiting.push_back(Waiting::Mark(told));
        } else {
            let _ = told.send(());
        }
        settled
    }

    /// Resolves when this node hears itself.
    pub(super) fn echo(&self) -> oneshot::Receiver<()> {
        let (told, heard) = oneshot::channel();
        self.state.lock().echoes.push(told);
        heard
    }

    /// Resolves when a look that begins from here on has told everything.
    pub(super) fn polled(&self) -> oneshot::Receiver<()> {
        let (told, polled) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.closed {
            state.looks.push(told);
            self.look.notify_one();
        }
        polled
    }

    /// Looks for mail, at this pace or when asked to.
    async fn poll(self: Arc<Self>, pace: Duration) {
        loop {
            let Some(owner) = self.owner.get().and_then(Weak::upgrade) else { return };
            if self.state.lock().closed {
                return;
            }
            let looks = std::mem::take(&mut self.state.lock().looks);
            match mail(&owner, None).await {
                Ok(messages) => {
                    let mut state = self.state.lock();
                    if std::mem::take(&mut state.doubtful) {
                        // What these say is older than what is read from here on.
                        if let Some(sink) = &state.sink {
                            sink.signal(Signal::Doubt);
                        }
                    } else {
                        messages.iter().for_each(|message| self.tell(&mut state, message));
                    }
                    looks.into_iter().for_each(|look| {
                        let _ = look.send(());
                    });
                }
                Err(error) => tracing::debug!(%error, "the mail could not be read; trying again"),
            }
            let sleep = owner.keeping.runtime.sleep(pace);
            drop(owner);
            select(Box::pin(self.look.notified()), sleep).await;
        }
    }

    /// Nothing is told any more, and nobody waits for it.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        state.looks.clear();
        state.echoes.clear();
        self.look.notify_one();
    }
}

/// One message of the mail, or all that waits.
async fn mail(owner: &Inner, seq: Option<i64>) -> Result<Vec<String>> {
    let parameters: [Parameter<'_>; 2] = [(&owner.me(), Type::TEXT), (&seq, Type::INT8)];
    let rows = owner.ask(&owner.reads, "mail", &owner.statements.take_mail, &parameters).await?;
    Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).collect())
}
