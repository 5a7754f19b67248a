//! A server, nodes behind proxies, clients and senders: what trouble is made for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::dice::Dice;
use crate::history::{History, Outcome, Seen, Sent};
use crate::process::{Delivery, NodeProcess};
use crate::protocol::{Answer, Ask, Failure, To};
use crate::proxy::Proxy;
use crate::redis_server::cli;
use crate::schedule::Kind;
use crate::server::{Backend, Server};

/// How long what must happen may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How long a client or a sender waits for a node before it tries another one.
const IMPATIENCE: Duration = Duration::from_secs(3);

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Setting {
    pub nodes: usize,
    pub sessions: usize,
    pub senders: usize,
    /// Of the engines, as JSON.
    pub options: String,
    pub server: Backend,
    /// Whether a sender tries again, with the same key, what may have happened already.
    pub retries: bool,
    /// Between two sends of a sender, at most.
    pub pause: Duration,
    /// Clients move to another node now and then, and from one that is stopped.
    pub wandering: bool,
}

impl Setting {
    /// Short leases, a history that keeps everything, a server that writes everything to disk.
    pub fn small() -> Self {
        let kept = r#"{"events": 100000, "bytes": 100000000}"#;
        let options = format!(
            r#"{{"lease": {{"ttlMs": 1500, "renewMs": 300}}, "operationTimeoutMs": 4000,
                "retention": {kept}, "broadcastRetention": {kept}}}"#
        );
        Setting {
            nodes: 3,
            sessions: 24,
            senders: 4,
            options,
            server: Backend::Redis(
                ["--appendonly", "yes", "--appendfsync", "always", "--save", ""].map(Into::into).to_vec(),
            ),
            retries: true,
            pause: Duration::from_millis(20),
            wandering: true,
        }
    }

    /// The same on Postgres.
    pub fn postgres() -> Self {
        // What is committed may be lost with the machine, but not with the server.
        Setting { server: Backend::Postgres(vec!["fsync=off".into()]), ..Setting::small() }
    }

    /// The same with a server that another may take the place of.
    pub fn pair(self) -> Self {
        let server = match self.server {
            Backend::Redis(words) => Backend::RedisPair(words),
            Backend::Postgres(words) => Backend::PostgresPair(words),
            other => other,
        };
        // What the other one lacks may be a key, so a retry would be another event.
        Setting { server, retries: false, ..self }
    }

    /// The same on servers that elect another by themselves.
    pub fn on(self, server: Backend) -> Self {
        Setting { server, retries: false, ..self }
    }

    /// A server that forgets everything when it ends.
    pub fn forgetful(self) -> Self {
        let server = Backend::Redis(["--save", "", "--appendonly", "no"].map(Into::into).to_vec());
        // Keys are forgotten, too, so a retry would be another event.
        Setting { server, retries: false, ..self }
    }
}

/// One node's place: the proxy stays, processes come and go.
pub struct Place {
    pub proxy: Proxy,
    process: Mutex<Option<Arc<NodeProcess>>>,
    stopped: AtomicBool,
}

pub struct World {
    pub setting: Setting,
    server: Mutex<Server>,
    pub places: Vec<Place>,
    pub history: History,
    streams: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Its process, if it lives.
    pub fn process(&self) -> Option<Arc<NodeProcess>> {
        lock(&self.process).clone().filter(|process| process.is_alive())
    }

    /// Whether it is there and not stopped.
    fn answers(&self) -> bool {
        !self.stopped.load(Ordering::SeqCst) && self.process().is_some()
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(process) = self.process() {
            process.stop();
        }
    }

    pub fn wake(&self) {
        if let Some(process) = self.process() {
            process.wake();
        }
        self.stopped.store(false, Ordering::SeqCst);
    }

    pub fn kill(&self) {
        if let Some(process) = lock(&self.process).take() {
            process.kill();
        }
    }
}

impl World {
    /// Starts the server and the nodes.
    pub async fn start(setting: Setting, seed: u64) -> Result<Arc<Self>, String> {
        let server = Server::start(&setting.server)?;
        let port = server.port();
        let mut places = Vec::new();
        for n in 0..setting.nodes {
            let proxy = Proxy::to(port, seed ^ (n as u64 + 1)).await.map_err(|error| error.to_string())?;
            places.push(Place { proxy, process: Mutex::default(), stopped: AtomicBool::new(false) });
        }
        let world = Arc::new(World {
            setting,
            server: Mutex::new(server),
            places,
            history: History::default(),
            streams: AtomicU64::new(0),
        });
        for n in 0..world.places.len() {
            world.start_node(n).await.map_err(|error| error.to_string())?;
        }
        Ok(world)
    }

    /// Starts the process of a node; the old one was killed.
    pub async fn start_node(&self, n: usize) -> Result<(), Failure> {
        let url = lock(&self.server).url(self.places[n].proxy.port());
        let process = NodeProcess::start(&url, &self.setting.options).await?;
        *lock(&self.places[n].process) = Some(process);
        Ok(())
    }

    /// Starts a node however often it takes.
    pub async fn insist_on_node(&self, n: usize) {
        while self.start_node(n).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn sessions(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.setting.sessions).map(|n| format!("session-{n}"))
    }

    /// A node that seems to be well.
    pub async fn any_node(&self, dice: &Dice) -> Arc<NodeProcess> {
        loop {
            let able: Vec<_> = self.places.iter().filter(|place| place.answers()).collect();
            if let Some(process) = able.get(dice.below(able.len())).and_then(|place| place.process()) {
                return process;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// One command to the server, past all proxies. It must be a plain one.
    pub async fn command(&self, command: &str) -> Result<String, String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let work = async {
            let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", self.port())).await?;
            connection.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut answer = vec![0; 64 * 1024];
            let n = connection.read(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer[..n]).into_owned())
        };
        let answer = timeout(IMPATIENCE, work).await.map_err(|_| "no answer")?;
        answer.map_err(|error| error.to_string())
    }

    /// The server closes connections.
    pub async fn close_connections(&self, kind: Kind) {
        if tokio::task::block_in_place(|| lock(&self.server).close_connections(kind)) {
            return;
        }
        // The server may be down: then there is nothing to close.
        if kind != Kind::Pushes {
            drop(self.command("CLIENT KILL TYPE normal SKIPME yes").await);
        }
        if kind != Kind::Commands {
            drop(self.command("CLIENT KILL TYPE pubsub").await);
        }
    }

    /// Where the server of the moment listens.
    pub fn port(&self) -> u16 {
        lock(&self.server).port()
    }

    pub fn part(&self) -> Result<(), String> {
        tokio::task::block_in_place(|| lock(&self.server).part())
    }

    /// The standby takes over, and proxies lead to it.
    pub fn promote(&self) -> Result<(), String> {
        tokio::task::block_in_place(|| lock(&self.server).promote())?;
        self.places.iter().for_each(|place| place.proxy.lead_to(self.port()));
        Ok(())
    }

    pub fn kill_master(&self) -> Result<usize, String> {
        tokio::task::block_in_place(|| lock(&self.server).kill_master())
    }

    pub fn bring_back(&self, n: usize) -> Result<(), String> {
        tokio::task::block_in_place(|| lock(&self.server).bring_back(n))
    }

    pub async fn move_slots(&self) -> Result<(), String> {
        let words = lock(&self.server).slots_to_move().ok_or("it is not a cluster")?;
        let moved = tokio::task::spawn_blocking(move || {
            cli(&words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
        });
        moved.await.map_err(|error| error.to_string())?
    }

    pub fn kill_server(&self) {
        lock(&self.server).kill();
    }

    pub fn restart_server(&self) -> Result<(), String> {
        tokio::task::block_in_place(|| lock(&self.server).restart())
    }

    pub fn stop_server(&self) {
        lock(&self.server).signal("STOP");
    }

    pub fn wake_server(&self) {
        lock(&self.server).signal("CONT");
    }

    /// Sends an event, again and again under one key until it is clear what became of it (or not).
    pub async fn send(&self, sender: usize, to: To, payload: String, tries: usize, dice: &Dice) -> Outcome {
        let start = self.history.now();
        let wanted = match &to {
            To::Sessions(ids) => ids.len() as u64,
            _ => 1,
        };
        let key = self.setting.retries.then(|| payload.clone());
        let (mut outcome, mut ambiguous) = (Outcome::Nothing, false);
        for n in 0..tries {
            let ask = Ask::Send { to: to.clone(), payload: payload.clone(), key: key.clone() };
            match self.any_node(dice).await.ask_within(IMPATIENCE * 2, ask).await {
                Ok(Answer::Sent { accepted, duplicates, .. }) => {
                    outcome = match accepted + duplicates {
                        all if all == wanted => Outcome::Accepted,
                        0 if !ambiguous => Outcome::Nothing,
                        _ => Outcome::Unknown,
                    };
                    break;
                }
                Ok(other) => panic!("a send is not answered with {other:?}"),
                Err(failure) => {
                    ambiguous |= failure.outcome_unknown;
                    outcome = if ambiguous { Outcome::Unknown } else { Outcome::Nothing };
                    if !failure.retryable || (ambiguous && !self.setting.retries) {
                        break;
                    }
                }
            }
            sleep(Duration::from_millis(20 * (n as u64 + 1))).await;
        }
        let end = self.history.now();
        self.history.sent(Sent { payload, to, sender, start, end, outcome });
        outcome
    }

    /// A sender of its own, until it is told to stop.
    pub fn sender(
        self: &Arc<Self>,
        number: usize,
        dice: Dice,
        stop: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let world = self.clone();
        tokio::spawn(async move {
            let sessions: Vec<_> = world.sessions().collect();
            let any = |dice: &Dice| sessions[dice.below(sessions.len())].clone();
            for n in 0.. {
                if *stop.borrow() {
                    return;
                }
                let to = match dice.below(10) {
                    0 => To::All,
                    1 => {
                        let mut ids: Vec<_> = (0..3).map(|_| any(&dice)).collect();
                        ids.sort();
                        ids.dedup();
                        To::Sessions(ids)
                    }
                    _ => To::Session(any(&dice)),
                };
                // Some give up soon, so that there are unknown outcomes.
                let tries = if dice.percent(20) { 1 } else { 200 };
                world.send(number, to, format!("e{number}-{n}"), tries, &dice).await;
                let most = world.setting.pause.as_millis() as u64;
                sleep(Duration::from_millis(dice.between(0, most))).await;
            }
        })
    }

    /// A client of its own: it holds a stream of its session, and resumes wherever a node is left.
    pub fn client(
        self: &Arc<Self>,
        session: String,
        dice: Dice,
        stop: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let client = Client { world: self.clone(), session, cursor: None, dice };
        tokio::spawn(client.run(stop))
    }

    /// Waits for something, and fails with `what` when it never comes.
    pub async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), String> {
        let started = Instant::now();
        while !holds().await {
            if started.elapsed() > PATIENCE {
                return Err(format!("never: {what}"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Every node is ready.
    pub async fn all_ready(&self) -> Result<(), String> {
        for (n, place) in self.places.iter().enumerate() {
            self.eventually(&format!("node {n} is ready"), async || match place.process() {
                Some(process) => {
                    let health = process.ask_within(IMPATIENCE, Ask::Health).await;
                    matches!(health, Ok(Answer::Health { ready: true, .. }))
                }
                None => false,
            })
            .await?;
        }
        Ok(())
    }

    /// Sends a last event to each session and to all, and waits until every client has it.
    pub async fn flush(&self, name: &str, dice: &Dice) -> Result<(), String> {
        const LAST: usize = usize::MAX;
        let all = format!("last-{name}-all");
        let own = |session: &str| format!("last-{name}-{session}");
        let fails = |payload: &str, outcome| match outcome {
            Outcome::Accepted => Ok(()),
            other => Err(format!("{payload} is {other:?} although all is well")),
        };
        fails(&all, self.send(LAST, To::All, all.clone(), 200, dice).await)?;
        for session in self.sessions() {
            let to = To::Session(session.clone());
            fails(&own(&session), self.send(LAST, to, own(&session), 200, dice).await)?;
        }
        for session in self.sessions() {
            let (history, last) = (&self.history, own(&session));
            self.eventually(&format!("{last} reaches its client"), async || {
                history.has(&session, &last) && history.has(&session, &all)
            })
            .await?;
        }
        Ok(())
    }

    /// Each session has one stream, everywhere together, and every node knows it.
    pub async fn one_stream_each(&self) -> Result<(), String> {
        let mut held = BTreeMap::<String, Vec<usize>>::new();
        let single = self.eventually("there is one stream a session", async || {
            held = self.sessions().map(|session| (session, Vec::new())).collect();
            for (n, place) in self.places.iter().enumerate() {
                let Some(process) = place.process() else { continue };
                if let Ok(Answer::Held(sessions)) = process.ask_within(IMPATIENCE, Ask::Held).await {
                    sessions.into_iter().for_each(|session| held.entry(session).or_default().push(n));
                }
            }
            held.values().all(|nodes| nodes.len() == 1)
        });
        let single = single.await;
        held.retain(|_, nodes| nodes.len() != 1);
        single.map_err(|error| format!("{error}, but by nodes {held:?}"))?;
        for process in self.places.iter().filter_map(Place::process) {
            for session in self.sessions() {
                self.eventually(&format!("has({session}) is true"), async || {
                    process.ask(Ask::Has { session: session.clone() }).await == Ok(Answer::Yes(true))
                })
                .await?;
            }
        }
        Ok(())
    }
}

struct Client {
    world: Arc<World>,
    session: String,
    cursor: Option<String>,
    dice: Dice,
}

impl Client {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let process = self.world.any_node(&self.dice).await;
            let stream = self.world.streams.fetch_add(1, Ordering::SeqCst) + 1;
            let deliveries = process.listen(stream);
            let ask = Ask::Open { stream, session: self.session.clone(), after: self.cursor.clone() };
            match process.ask_within(IMPATIENCE, ask).await {
                Ok(Answer::Opened { gap, cursor }) => {
                    self.cursor = Some(cursor);
                    self.see(Seen::Opened { stream, gap });
                    self.follow(stream, deliveries, &process, &mut stop).await;
                }
                Ok(other) => panic!("an open is not answered with {other:?}"),
                Err(_) => {
                    // It may have been opened all the same, and what it brings is not for this client.
                    self.leave(stream, deliveries);
                    sleep(Duration::from_millis(self.dice.between(10, 60))).await;
                }
            }
        }
    }

    fn see(&self, seen: Seen) {
        self.world.history.seen(&self.session, seen);
    }

    async fn follow(
        &mut self,
        stream: u64,
        mut deliveries: tokio::sync::mpsc::UnboundedReceiver<Delivery>,
        process: &Arc<NodeProcess>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let stays = match self.world.setting.wandering {
            true => Duration::from_millis(self.dice.between(300, 6_000)),
            false => Duration::from_secs(3_600),
        };
        let leaves = Instant::now() + stays;
        let patient = !self.world.setting.wandering || self.dice.percent(50);
        loop {
            tokio::select! {
                delivery = deliveries.recv() => match delivery {
                    Some(Delivery::Event { payload, cursor }) => {
                        self.cursor = Some(cursor);
                        self.see(Seen::Got { stream, payload });
                    }
                    Some(Delivery::End(reason)) => return self.see(Seen::Ended { stream, reason }),
                    None => return self.see(Seen::Left { stream }),
                },
                () = tokio::time::sleep_until(leaves) => return self.leave(stream, deliveries),
                () = self.stopped(process), if !patient => return self.leave(stream, deliveries),
                _ = stop.changed() => return,
            }
        }
    }

    /// Resolves when its node does not move any more.
    async fn stopped(&self, process: &Arc<NodeProcess>) {
        let stopped = |place: &Place| {
            let own = place.process().is_some_and(|own| Arc::ptr_eq(&own, process));
            own && place.stopped.load(Ordering::SeqCst)
        };
        while !self.world.places.iter().any(stopped) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Goes away without a word; what the stream brings later is noted.
    fn leave(&self, stream: u64, mut deliveries: tokio::sync::mpsc::UnboundedReceiver<Delivery>) {
        self.see(Seen::Left { stream });
        let (world, session) = (self.world.clone(), self.session.clone());
        tokio::spawn(async move {
            while let Some(Delivery::Event { payload, .. }) = deliveries.recv().await {
                world.history.seen(&session, Seen::Got { stream, payload });
            }
        });
    }
}
