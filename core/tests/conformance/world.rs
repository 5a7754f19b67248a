//! Runs one scenario: its nodes, its streams, what it saved, and what each step must give.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_sessions::{
    Conflict, EndReason, Engine, Error, InfoPatch, Json, OpenOptions, Options, RequestId, SendOptions,
    SessionId, SessionInfo, SubscriptionEnd, SubscriptionFilter, SubscriptionKey, Target,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::backend::Place;
use crate::check::{
    Outcome, PATIENCE, check, check_send, check_set, check_until, done, eventually, lock, same, shown,
};
use crate::held::{FENCE, Held, Listening};
use crate::proxy::Proxy;
use crate::scenario::{
    Action, After, CloseReason, Counts, Expect, ExpectRead, ExpectSend, Failure, Fence, Field, Filters, Is,
    Located, OnConflict, Open, Opened, Scenario, Step, Text, Texts, To, notifications,
};

const CURSOR_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct Node {
    engine: Engine,
    alive: bool,
}

pub struct World {
    place: Place,
    options: Value,
    first_node: Option<String>,
    /// Nodes that reach their backend through a proxy, so that it can be taken away.
    cut_off: BTreeSet<String>,
    proxies: Mutex<HashMap<String, Proxy>>,
    /// Killed ones stay: what they held must not be given back by dropping them.
    nodes: Mutex<HashMap<String, Node>>,
    streams: Mutex<HashMap<String, Arc<Held>>>,
    subscriptions: Mutex<HashMap<String, Arc<Listening>>>,
    names: Mutex<HashSet<String>>,
    cursors: Mutex<HashMap<String, String>>,
    fences: AtomicU64,
    pub registry: crate::registry::Held,
    pub events: crate::events::Held,
}

/// Runs a scenario at a place of its own.
pub async fn run(scenario: Scenario, place: Place) -> Outcome {
    let world = Arc::new(World {
        cut_off: scenario.cut_off(),
        proxies: Mutex::default(),
        place,
        options: scenario.options,
        first_node: scenario.nodes.first().cloned(),
        nodes: Mutex::default(),
        streams: Mutex::default(),
        subscriptions: Mutex::default(),
        names: Mutex::default(),
        cursors: Mutex::default(),
        fences: AtomicU64::new(0),
        registry: Default::default(),
        events: Default::default(),
    });
    for node in scenario.nodes {
        world
            .start(node.clone(), None, None, &None)
            .await
            .map_err(|error| format!("node {node}: {error}"))?;
    }
    world.clone().run_steps(scenario.steps).await?;
    world.catch_up().await;
    world.check_the_end()?;
    world.shut_down().await
}

impl World {
    fn run_steps(self: Arc<Self>, steps: Vec<Located>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async move {
            for Located { at, action } in steps {
                match action {
                    Action::Parallel(branches) => {
                        let run = |steps| tokio::spawn(self.clone().run_steps(steps));
                        for branch in branches.into_iter().map(run).collect::<Vec<_>>() {
                            branch.await.map_err(|panic| format!("step {at}: {panic}"))??;
                        }
                    }
                    Action::Step(step) => {
                        let named = format!("step {at} ({})", shown(&format!("{step:?}"), 160));
                        let limit = PATIENCE * 3 + self.place.waits_for(&step);
                        let outcome = timeout(limit, self.step(*step)).await;
                        outcome
                            .unwrap_or_else(|_| Err("did not come to an end".into()))
                            .map_err(|error| format!("{named}: {error}"))?;
                    }
                    Action::Registry(step) => {
                        let named = format!("step {at} ({})", shown(&format!("{step:?}"), 160));
                        within(crate::registry::step(&self, *step))
                            .await
                            .map_err(|e| format!("{named}: {e}"))?;
                    }
                    Action::Events(step) => {
                        let named = format!("step {at} ({})", shown(&format!("{step:?}"), 160));
                        within(crate::events::step(&self, *step))
                            .await
                            .map_err(|e| format!("{named}: {e}"))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// What was sent to these nodes is there once they have answered.
    async fn catch_up(&self) {
        let engines: Vec<_> =
            lock(&self.nodes).values().filter(|node| node.alive).map(|node| node.engine.clone()).collect();
        for engine in engines {
            engine.health().await;
        }
    }

    async fn step(&self, step: Step) -> Outcome {
        match step {
            Step::Start { node, options, url, expect } => self.start(node, options, url, &expect).await,
            Step::Shutdown { node, deadline_ms, expect } => done(
                self.node_even_closed(&node)?.shutdown(Duration::from_millis(deadline_ms)).await,
                &expect,
            ),
            Step::Kill { node } => self.kill(&node),
            Step::Outage { node } => self.outage(&node),
            Step::Restore { node } => self.restore(&node).await,
            Step::Advance { ms } => self.advance(Duration::from_millis(ms)).await,
            Step::Health { node, expect } => {
                same("ready", &self.node(&node)?.health().await.ready, &expect.ready)
            }
            Step::Stats { node, expect } => {
                let stats =
                    serde_json::to_value(self.node(&node)?.stats()).map_err(|error| error.to_string())?;
                expect.iter().try_for_each(|(name, n)| same(name, &stats[name], &json!(n)))
            }

            Step::Open(open) => self.open(open).await,
            Step::Send { node, to, payload, key, pipelined, expect } => {
                self.send(node, to, payload, key, pipelined, expect).await
            }
            Step::Read { stream, expect, save } => self.read(&stream, expect, save).await,
            Step::Idle { stream, node, fence } => self.idle(&stream, node, fence).await,
            Step::Silent { stream } => {
                let held = self.stream(&stream)?;
                held.nothing_unread()?;
                same("end", &held.stream.end(), &None)
            }
            Step::Ended { stream, expect } => self.ended(&stream, &expect).await,
            Step::Survivor { among, name, expect } => self.survivor(&among, name, &expect).await,
            Step::Release { stream } => {
                let held = self.stream(&stream)?;
                held.stream.close().await;
                *lock(&held.end_expected) = true;
                // Its reader is gone: what it did not read is nobody's any more.
                while held.stream.try_next().is_some() {}
                Ok(())
            }
            Step::Drop { stream } => lock(&self.streams)
                .remove(&stream)
                .map(drop)
                .ok_or_else(|| format!("there is no stream {stream}")),
            Step::Forgeries { node, session, cursor, allowed } => {
                self.forgeries(node, &session, &cursor, &allowed.0).await
            }
            Step::Has { node, session, eventually, expect } => {
                let engine = self.node(&node)?;
                let has = || async { engine.streams().has(&SessionId::new(&session.0)?).await };
                check_until(eventually, has, &expect).await
            }
            Step::Known { node, session, expect } => {
                let engine = self.node(&node)?;
                check(on(&session, |id| async move { engine.streams().known(&id).await }).await, &expect)
            }
            Step::Close { node, session, expect } => {
                let engine = self.node(&node)?;
                check(on(&session, |id| async move { engine.streams().close(&id).await }).await, &expect)
            }
            Step::Forget { node, session, expect } => {
                let engine = self.node(&node)?;
                check(on(&session, |id| async move { engine.streams().forget(&id).await }).await, &expect)
            }

            Step::InfoSet { node, session, field, mut value, pad, expect } => {
                if pad > 0 {
                    value["pad"] = "x".repeat(pad).into();
                }
                let engine = self.node(&node)?;
                done(
                    on(&session, |id| async move { set_info(&engine, &id, field, &value).await }).await,
                    &expect,
                )
            }
            Step::InfoGet { node, session, field, eventually, expect } => {
                let engine = self.node(&node)?;
                let get = || async { get_info(&engine, &SessionId::new(&session.0)?, field).await };
                check_until(eventually, get, &expect).await
            }
            Step::InfoPut { node, session, patch, expect } => {
                let engine = self.node(&node)?;
                let put = on(&session, |id| async move {
                    let mut whole = InfoPatch::default();
                    for (field, value) in &patch {
                        put_field(&mut whole, *field, value)?;
                    }
                    engine.info().put(&id, whole).await
                });
                done(put.await, &expect)
            }
            Step::InfoRecord { node, session, expect } => {
                let engine = self.node(&node)?;
                let record = on(&session, |id| async move {
                    let info = engine.info().get(&id).await?;
                    Ok(Is { value: info.map_or(Value::Null, |info| record_of(&info)) })
                });
                check(record.await, &expect)
            }
            Step::InfoAddSubscription { node, session, uri, expect } => {
                let engine = self.node(&node)?;
                let add = on(&session, |id| async move { engine.info().add_subscription(&id, &uri.0).await });
                done(add.await.map(drop), &expect)
            }
            Step::InfoRemoveSubscription { node, session, uri, expect } => {
                let engine = self.node(&node)?;
                let remove =
                    on(&session, |id| async move { engine.info().remove_subscription(&id, &uri.0).await });
                done(remove.await.map(drop), &expect)
            }
            Step::InfoGetSubscriptions { node, uri, expect } => {
                let sessions = self.node(&node)?.info().subscribers(&uri.0).await;
                check_set(sessions.map(|ids| ids.iter().map(ToString::to_string).collect()), &expect)
            }
            Step::InfoGetSessionSubscriptions { node, session, expect } => {
                let engine = self.node(&node)?;
                check_set(
                    on(&session, |id| async move { engine.info().subscriptions(&id).await }).await,
                    &expect,
                )
            }
            Step::InfoDelete { node, session, expect } => {
                let engine = self.node(&node)?;
                check(on(&session, |id| async move { engine.info().delete(&id).await }).await, &expect)
            }

            Step::Listen { node, id, origin, filters, name, expect } => {
                self.listen(node, &id, &origin, filters, name, expect)
            }
            Step::Acknowledge { subscription } => {
                self.subscription(&subscription)?.subscription.acknowledge();
                Ok(())
            }
            Step::Waiting { subscription } => {
                let listening = self.subscription(&subscription)?;
                match timeout(Duration::ZERO, listening.subscription.next()).await {
                    Err(_) => Ok(()),
                    Ok(got) => Err(format!("got {got:?} before the acknowledgement")),
                }
            }
            Step::Notify { node, notification, pad, expect } => {
                let engine = self.node(&node)?;
                for mut one in notifications(&notification)? {
                    if pad > 0 {
                        one["params"]["pad"] = "x".repeat(pad).into();
                    }
                    done(engine.subscriptions().send(&one.to_string()).await, &expect)?;
                }
                Ok(())
            }
            Step::ReadNotifications { subscription, expect } => {
                let listening = self.subscription(&subscription)?;
                for wanted in &expect {
                    for wanted in notifications(wanted)? {
                        same("notification", &listening.next(None).await?, &wanted)?;
                    }
                }
                Ok(())
            }
            Step::NotificationsIdle { subscription, node } => {
                self.notifications_idle(&subscription, node).await
            }
            Step::SubscriptionEnded { subscription, expect } => {
                let listening = self.subscription(&subscription)?;
                let end = timeout(PATIENCE, listening.subscription.ended()).await;
                same("end", &end.map(SubscriptionEnd::as_str).map_err(|_| "none"), &Ok(expect.as_str()))?;
                *lock(&listening.end_expected) = true;
                match listening.subscription.next().await {
                    None => Ok(()),
                    Some(more) => Err(format!("gave {:?} after its end", &*more)),
                }
            }
            Step::DropSubscription { subscription } => {
                let dropped = lock(&self.subscriptions).remove(&subscription);
                dropped.map(drop).ok_or_else(|| format!("there is no subscription {subscription}"))
            }
            Step::CloseSubscription { node, id, origin, reason, expect } => {
                let key = SubscriptionKey::new(request_id(&id)?, origin);
                same("closed", &self.node(&node)?.subscriptions().close(&key, end_of(reason)), &expect)
            }
            Step::CloseSubscriptions { node, origin, reason, expect } => {
                let closed = self.node(&node)?.subscriptions().close_all(origin.as_deref(), end_of(reason));
                same("closed", &closed, &expect)
            }
        }
    }

    async fn start(
        &self,
        name: String,
        options: Option<Value>,
        url: Option<String>,
        expect: &Option<Failure>,
    ) -> Outcome {
        let mut all = self.options.clone();
        if let (Some(all), Some(Value::Object(more))) = (all.as_object_mut(), options) {
            all.extend(more);
        }
        let url = match url {
            Some(url) => url,
            None => self.url_of(&name).await?,
        };
        let started = async { Engine::connect(&url, Options::from_json(&all.to_string())?).await }.await;
        if let Ok(engine) = &started {
            let node = Node { engine: engine.clone(), alive: true };
            if lock(&self.nodes).insert(name.clone(), node).is_some() {
                return Err(format!("there is a node {name} already"));
            }
        }
        done(started.map(drop), expect)
    }

    /// The URL for a node: its own way to the backend, if that is to be cut.
    async fn url_of(&self, name: &str) -> Result<String, String> {
        let url = self.place.url();
        let Some(port) = self.place.port().filter(|_| self.cut_off.contains(name)) else { return Ok(url) };
        let proxy = Proxy::to(port, 1).await.map_err(|error| format!("proxy: {error}"))?;
        let url = self.place.url_through(proxy.port());
        lock(&self.proxies).insert(name.to_owned(), proxy);
        Ok(url)
    }

    fn outage(&self, name: &str) -> Outcome {
        match lock(&self.proxies).get(name) {
            Some(proxy) => proxy.cut(),
            None => self.node_even_closed(name)?.set_outage(true).map_err(|error| error.to_string())?,
        }
        Ok(())
    }

    /// Resolves when the node is ready again.
    async fn restore(&self, name: &str) -> Outcome {
        let engine = self.node_even_closed(name)?;
        match lock(&self.proxies).get(name) {
            Some(proxy) => proxy.restore(),
            None => engine.set_outage(false).map_err(|error| error.to_string())?,
        }
        eventually(|| async { same("ready", &engine.health().await.ready, &true) }).await
    }

    fn kill(&self, name: &str) -> Outcome {
        let mut nodes = lock(&self.nodes);
        let node = nodes.get_mut(name).filter(|node| node.alive).ok_or_else(|| no_node(name))?;
        node.engine.abandon();
        node.alive = false;
        Ok(())
    }

    async fn advance(&self, by: Duration) -> Outcome {
        if !self.place.manual_clock {
            tokio::time::sleep(by).await;
            return Ok(());
        }
        let engine = lock(&self.nodes).values().find(|node| node.alive).map(|node| node.engine.clone());
        let engine = engine.ok_or("there is no node to move time with")?;
        engine.advance_clock(by).await.map_err(|error| error.to_string())
    }

    async fn open(&self, open: Open) -> Outcome {
        let name = open.name.unwrap_or_else(|| open.session.0.clone());
        self.take_name(&name)?;
        let engine = self.node(&open.node)?;
        let mut options = OpenOptions::default();
        if let Some(after) = open.after {
            options = options.after(self.cursor(after).await?);
        }
        if open.conflict == OnConflict::Reject {
            options = options.conflict(Conflict::Reject);
        }
        let opened = on(&open.session, |id| async move { engine.streams().open(&id, options).await }).await;
        check(opened.as_ref().map(|stream| Opened { gap: stream.gap() }), &open.expect)?;
        let Ok(stream) = opened else { return Ok(()) };
        if let Some(save) = open.save {
            lock(&self.cursors).insert(save, stream.cursor().to_string());
        }
        let held = Held::new(self.name_of(&open.node)?, stream);
        lock(&self.streams).insert(name, Arc::new(held));
        Ok(())
    }

    pub async fn cursor(&self, after: After) -> Result<String, String> {
        Ok(match after {
            After::Cursor(Text(text)) if text.starts_with('$') => self.saved(&text)?,
            After::Cursor(Text(text)) => text,
            After::Truncate(cut) => {
                let mut cursor = self.saved(&cut.truncate)?;
                cursor.truncate(cursor.len().saturating_sub(cut.by));
                cursor
            }
            After::Flip(flip) => flipped(&self.saved(&flip.flip)?, flip.byte),
            After::Extend(extend) => self.saved(&extend.extend)? + &extend.with,
            After::Foreign(foreign) => foreign_cursor(&self.place, &foreign.foreign).await?,
        })
    }

    pub fn save(&self, name: String, text: String) {
        lock(&self.cursors).insert(name, text);
    }

    /// What was saved as `$name`; any other text stands for itself.
    pub fn named(&self, text: &str) -> String {
        self.saved(text).unwrap_or_else(|_| text.to_owned())
    }

    /// A node's id, dead or alive.
    pub fn node_id(&self, name: &str) -> Result<String, String> {
        let nodes = lock(&self.nodes);
        nodes.get(name).map(|node| node.engine.node_id().to_string()).ok_or_else(|| no_node(name))
    }

    pub fn saved(&self, reference: &str) -> Result<String, String> {
        let name = reference
            .strip_prefix('$')
            .ok_or_else(|| format!("{reference} is no saved cursor: write $name"))?;
        lock(&self.cursors).get(name).cloned().ok_or_else(|| format!("no cursor was saved as {name}"))
    }

    async fn send(
        &self,
        node: Option<String>,
        to: To,
        payload: Texts,
        key: Option<Text>,
        pipelined: bool,
        expect: ExpectSend,
    ) -> Outcome {
        let engine = self.node(&node)?;
        let send = |payload: String| {
            let target = target_of(&to);
            let options =
                key.iter().fold(SendOptions::default(), |options, Text(key)| options.idempotency_key(key));
            let engine = engine.clone();
            async move { engine.streams().send(target?, payload, options).await }
        };
        if pipelined {
            let outcomes = futures_util::future::join_all(payload.0.into_iter().map(send)).await;
            return outcomes.into_iter().try_for_each(|outcome| check_send(outcome, &expect));
        }
        for payload in payload.0 {
            check_send(send(payload).await, &expect)?;
        }
        Ok(())
    }

    async fn read(&self, name: &str, expect: ExpectRead, save: Option<String>) -> Outcome {
        let held = self.stream(name)?;
        match expect {
            ExpectRead::Exactly(wanted) => held.read_exactly(wanted).await?,
            ExpectRead::Interleaved(wanted) => held.read_interleaved(wanted.interleaved).await?,
            ExpectRead::SameAs(other) => {
                let wanted = lock(&self.stream(&other.same_as)?.read).clone();
                held.read_texts(wanted).await?;
            }
            ExpectRead::RestOf(rest) => {
                let before = lock(&self.stream(&rest.after)?.read).clone();
                let wanted = rest.rest_of.0.strip_prefix(before.as_slice());
                held.read_texts(wanted.ok_or("what the other stream read is not the beginning")?.to_vec())
                    .await?;
            }
            ExpectRead::HeadOf(head) => held.read_head(&head.head_of.0, head.at_least..=head.at_most).await?,
            ExpectRead::TailOf(tail) => held.read_tail(&tail.tail_of.0, tail.at_least..=tail.at_most).await?,
        }
        if let Some(save) = save {
            lock(&self.cursors).insert(save, held.stream.cursor().to_string());
        }
        Ok(())
    }

    /// Sends a fence after everything that was accepted: it must be the next thing the stream gives.
    async fn idle(&self, name: &str, node: Option<String>, fence: Fence) -> Outcome {
        let held = self.stream(name)?;
        let engine = self.node(&Some(node.unwrap_or_else(|| held.node.clone())))?;
        let payload = format!("{FENCE}{}", self.fences.fetch_add(1, Ordering::Relaxed));
        let target = match fence {
            Fence::Directed => Target::session(held.stream.session()),
            Fence::Broadcast => Target::all(),
        };
        let sent = engine.streams().send(target, payload.as_str(), SendOptions::default()).await;
        check_send(sent, &ExpectSend::Receipt(Counts { accepted: 1, dropped: 0, duplicates: 0 }))?;
        let event = held.next(Some(&payload)).await?;
        match event.payload() == payload.as_str() {
            true => Ok(()),
            false => Err(format!("not idle: gave {:?}", shown(event.payload(), 200))),
        }
    }

    async fn ended(&self, name: &str, expect: &str) -> Outcome {
        let held = self.stream(name)?;
        let end = timeout(PATIENCE, held.stream.ended()).await;
        same("end", &end.map(EndReason::as_str).map_err(|_| "none"), &Ok(expect))?;
        *lock(&held.end_expected) = true;
        held.nothing_unread()?;
        match timeout(PATIENCE, held.stream.next()).await {
            Ok(None) => Ok(()),
            Ok(Some(event)) => Err(format!("gave {:?} after its end", shown(event.payload(), 200))),
            Err(_) => Err("waits for another event after its end".into()),
        }
    }

    async fn survivor(&self, among: &[String], name: String, expect: &str) -> Outcome {
        self.take_name(&name)?;
        let streams = among.iter().map(|name| self.stream(name)).collect::<Result<Vec<_>, _>>()?;
        let ended = || streams.iter().filter(|held| held.stream.end().is_some()).count();
        eventually(|| async {
            if ended() + 1 >= streams.len() { Ok(()) } else { Err("several are live".to_owned()) }
        })
        .await?;
        for held in streams {
            match held.stream.end() {
                Some(end) => {
                    same("end", &end.as_str(), &expect)?;
                    *lock(&held.end_expected) = true;
                }
                None => drop(lock(&self.streams).insert(name.clone(), held)),
            }
        }
        if lock(&self.streams).contains_key(&name) { Ok(()) } else { Err("none is live".into()) }
    }

    /// Every edit of a cursor is refused, or a gap that shows nothing but the session's own events.
    async fn forgeries(
        &self,
        node: Option<String>,
        session: &Text,
        cursor: &str,
        allowed: &[String],
    ) -> Outcome {
        let engine = self.node(&node)?;
        let id = SessionId::new(&session.0).map_err(|error| error.to_string())?;
        let good = self.saved(cursor)?;
        for forged in forgeries_of(&good) {
            match engine.streams().open(&id, OpenOptions::default().after(&forged)).await {
                Err(error) if error.code() == "invalid_input" => {}
                Err(error) => return Err(format!("{forged:?}: {error}")),
                Ok(stream) if !stream.gap() => return Err(format!("{forged:?} was taken for a cursor")),
                Ok(stream) => {
                    while let Some(event) = stream.try_next() {
                        let payload = event.payload().as_str();
                        if !payload.starts_with(FENCE) && !allowed.iter().any(|own| own == payload) {
                            return Err(format!("{forged:?} gave {:?}", shown(payload, 200)));
                        }
                    }
                    stream.close().await;
                }
            }
        }
        Ok(())
    }

    fn listen(
        &self,
        node: Option<String>,
        id: &Value,
        origin: &str,
        filters: Filters,
        name: String,
        expect: Expect<bool>,
    ) -> Outcome {
        self.take_name(&name)?;
        let engine = self.node(&node)?;
        let fence = fence_for(&filters);
        let key = SubscriptionKey::new(request_id(id)?, origin);
        let created = filter_of(filters).and_then(|filter| engine.subscriptions().create(key, filter));
        check(created.as_ref().map(Option::is_some), &expect)?;
        if let Ok(Some(subscription)) = created {
            let node = self.name_of(&node)?;
            lock(&self.subscriptions).insert(name, Arc::new(Listening::new(node, fence, subscription)));
        }
        Ok(())
    }

    async fn notifications_idle(&self, name: &str, node: Option<String>) -> Outcome {
        let listening = self.subscription(name)?;
        let Some(mut fence) = listening.fence.clone() else {
            // Nothing can be sent that it must get: that nothing is there has to do.
            return listening.nothing_unread();
        };
        let engine = self.node(&Some(node.unwrap_or_else(|| listening.node.clone())))?;
        let number = format!("{FENCE}{}", self.fences.fetch_add(1, Ordering::Relaxed));
        fence["params"]["fence"] = number.clone().into();
        engine.subscriptions().send(&fence.to_string()).await.map_err(|error| error.to_string())?;
        same("notification", &listening.next(Some(&number)).await?, &fence)
    }

    pub fn take_name(&self, name: &str) -> Outcome {
        match lock(&self.names).insert(name.to_owned()) {
            true => Ok(()),
            false => Err(format!("the name {name} is taken: give another with \"as\"")),
        }
    }

    fn name_of(&self, node: &Option<String>) -> Result<String, String> {
        node.clone().or_else(|| self.first_node.clone()).ok_or_else(|| "the step names no node".into())
    }

    pub fn node(&self, node: &Option<String>) -> Result<Engine, String> {
        self.node_even_closed(&self.name_of(node)?)
    }

    fn node_even_closed(&self, name: &str) -> Result<Engine, String> {
        let nodes = lock(&self.nodes);
        let node = nodes.get(name).filter(|node| node.alive);
        node.map(|node| node.engine.clone()).ok_or_else(|| no_node(name))
    }

    fn stream(&self, name: &str) -> Result<Arc<Held>, String> {
        lock(&self.streams).get(name).cloned().ok_or_else(|| format!("there is no stream {name}"))
    }

    fn subscription(&self, name: &str) -> Result<Arc<Listening>, String> {
        lock(&self.subscriptions).get(name).cloned().ok_or_else(|| format!("there is no subscription {name}"))
    }

    /// Every node that is left leaves in order, and holds nothing afterwards (G11).
    async fn shut_down(&self) -> Outcome {
        let nodes: Vec<_> = lock(&self.nodes).drain().filter(|(_, node)| node.alive).collect();
        for (name, Node { engine, .. }) in nodes {
            engine.shutdown(PATIENCE).await.map_err(|error| format!("at the end, node {name}: {error}"))?;
            let stats = engine.stats();
            same(
                "streams and subscriptions after the shutdown",
                &(stats.streams, stats.subscriptions),
                &(0, 0),
            )?;
        }
        Ok(())
    }

    /// Nothing unexpected may be left over: no event, no end.
    fn check_the_end(&self) -> Outcome {
        self.registry.check_the_end()?;
        self.events.check_the_end()?;
        let killed = |node: &str| lock(&self.nodes).get(node).is_some_and(|node| !node.alive);
        for (name, held) in lock(&self.streams).iter().filter(|(_, held)| !killed(&held.node)) {
            held.nothing_unread().map_err(|error| format!("at the end, stream {name}: {error}"))?;
            let end =
                held.stream.end().filter(|end| *end != EndReason::Replaced && !*lock(&held.end_expected));
            if let Some(end) = end {
                return Err(format!("at the end, stream {name}: it ended ({end}), and no step expects it"));
            }
        }
        for (name, listening) in lock(&self.subscriptions).iter().filter(|(_, one)| !killed(&one.node)) {
            listening
                .nothing_unread()
                .map_err(|error| format!("at the end, subscription {name}: {error}"))?;
            if let (Some(end), false) = (listening.subscription.end(), *lock(&listening.end_expected)) {
                return Err(format!(
                    "at the end, subscription {name}: it ended ({end}), and no step expects it"
                ));
            }
        }
        Ok(())
    }
}

fn no_node(name: &str) -> String {
    format!("there is no live node {name}")
}

/// Runs an operation on a session; an id against the rule is the operation's error.
async fn on<T, F: Future<Output = Result<T, Error>>>(
    session: &Text,
    work: impl FnOnce(SessionId) -> F,
) -> Result<T, Error> {
    work(SessionId::new(&session.0)?).await
}

fn target_of(to: &To) -> Result<Target, Error> {
    Ok(match to {
        To::All => Target::all(),
        To::One(id) => Target::session(&SessionId::new(id)?),
        To::List(ids) => Target::sessions(&ids.iter().map(SessionId::new).collect::<Result<Vec<_>, _>>()?),
    })
}

/// Every one-character change, cut and addition.
pub fn forgeries_of(good: &str) -> Vec<String> {
    let flips = (0..good.len()).map(|at| flipped(good, at));
    let cuts = (0..good.len()).map(|at| good[..at].to_owned());
    let additions = ["A", "AAAA", "=", " ", "\n"].map(|more| format!("{good}{more}"));
    flips.chain(cuts).chain(additions).collect()
}

async fn within(step: impl Future<Output = Outcome>) -> Outcome {
    timeout(PATIENCE * 3, step).await.unwrap_or_else(|_| Err("did not come to an end".into()))
}

fn flipped(cursor: &str, at: usize) -> String {
    let mut bytes = cursor.as_bytes().to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        let place = CURSOR_ALPHABET.iter().position(|known| known == byte).unwrap_or_default();
        *byte = CURSOR_ALPHABET[(place + 1) % CURSOR_ALPHABET.len()];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A cursor for the session of that name from another deployment, three events in.
async fn foreign_cursor(place: &Place, session: &str) -> Result<String, String> {
    let take = async {
        let engine = Engine::connect(&place.foreign_url(), Options::default()).await?;
        let id = SessionId::new(session)?;
        let stream = engine.streams().open(&id, OpenOptions::default()).await?;
        for n in 1..=3 {
            engine
                .streams()
                .send(Target::session(&id), format!("foreign-{n}"), SendOptions::default())
                .await?;
            stream.next().await;
        }
        let cursor = stream.cursor().to_string();
        engine.shutdown(PATIENCE).await?;
        Ok::<_, Error>(cursor)
    };
    take.await.map_err(|error| format!("foreign cursor: {error}"))
}

async fn set_info(engine: &Engine, id: &SessionId, field: Field, value: &Value) -> Result<(), Error> {
    let info = engine.info();
    let text = value.as_str().unwrap_or_default();
    match field {
        Field::ClientInfo => info.set_client_info(id, &value.to_string()).await,
        Field::ClientCapabilities => info.set_client_capabilities(id, &value.to_string()).await,
        Field::LogLevel => info.set_log_level(id, text.parse()?).await,
        Field::ProtocolVersion => info.set_protocol_version(id, text).await,
        Field::InitializeParams => info.set_initialize_params(id, &value.to_string()).await,
    }
}

async fn get_info(engine: &Engine, id: &SessionId, field: Field) -> Result<Is, Error> {
    let info = engine.info();
    let value = match field {
        Field::ClientInfo => info.client_info(id).await?.value(),
        Field::ClientCapabilities => info.client_capabilities(id).await?.value(),
        Field::LogLevel => info.log_level(id).await?.as_str().into(),
        Field::ProtocolVersion => info.protocol_version(id).await?.into(),
        Field::InitializeParams => info.initialize_params(id).await?.value(),
    };
    Ok(Is { value })
}

fn put_field(patch: &mut InfoPatch, field: Field, value: &Value) -> Result<(), Error> {
    let text = value.as_str().unwrap_or_default();
    match field {
        Field::ClientInfo => patch.client_info = Some(Json::from(value)),
        Field::ClientCapabilities => patch.client_capabilities = Some(Json::from(value)),
        Field::LogLevel => patch.log_level = Some(text.parse()?),
        Field::ProtocolVersion => patch.protocol_version = Some(text.into()),
        Field::InitializeParams => patch.initialize_params = Some(Json::from(value)),
    }
    Ok(())
}

/// The whole record as the bindings show it: what was never set is not there.
fn record_of(info: &SessionInfo) -> Value {
    let fields = [
        ("clientInfo", info.client_info.as_ref().map(Json::value)),
        ("clientCapabilities", info.client_capabilities.as_ref().map(Json::value)),
        ("logLevel", info.log_level.map(|level| level.as_str().into())),
        ("protocolVersion", info.protocol_version.as_deref().map(Value::from)),
        ("initializeParams", info.initialize_params.as_ref().map(Json::value)),
    ];
    let set = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect())
}

fn request_id(id: &Value) -> Result<RequestId, String> {
    RequestId::from_json(&id.to_string()).map_err(|error| error.to_string())
}

fn filter_of(filters: Filters) -> Result<SubscriptionFilter, Error> {
    let mut json = json!({});
    let flags = [
        ("toolsListChanged", filters.tools_list_changed),
        ("promptsListChanged", filters.prompts_list_changed),
        ("resourcesListChanged", filters.resources_list_changed),
    ];
    for (name, flag) in flags.into_iter().filter_map(|(name, flag)| Some((name, flag?))) {
        json[name] = flag.into();
    }
    if let Some(Texts(uris)) = filters.resource_subscriptions {
        json["resourceSubscriptions"] = uris.into();
    }
    SubscriptionFilter::from_json(&json.to_string())
}

/// A notification these filters let through.
fn fence_for(filters: &Filters) -> Option<Value> {
    let uri = filters.resource_subscriptions.as_ref().and_then(|Texts(uris)| uris.first().cloned());
    let (kind, params) = match (filters, uri) {
        (Filters { tools_list_changed: Some(true), .. }, _) => ("tools/list_changed", json!({})),
        (Filters { prompts_list_changed: Some(true), .. }, _) => ("prompts/list_changed", json!({})),
        (Filters { resources_list_changed: Some(true), .. }, _) => ("resources/list_changed", json!({})),
        (_, Some(uri)) => ("resources/updated", json!({ "uri": uri })),
        _ => return None,
    };
    Some(json!({ "jsonrpc": "2.0", "method": format!("notifications/{kind}"), "params": params }))
}

fn end_of(reason: CloseReason) -> SubscriptionEnd {
    match reason {
        CloseReason::Closed => SubscriptionEnd::Closed,
        CloseReason::Cancelled => SubscriptionEnd::Cancelled,
    }
}
