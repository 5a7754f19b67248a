//! Engines as ports hold them; those of managers are shared: one a process and URL.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use mcp_sessions::{Engine, Options, Result, SessionId};

use crate::signals::Signals;

static SHARED: LazyLock<Mutex<HashMap<String, Weak<Node>>>> = LazyLock::new(Mutex::default);

/// An engine and the ports, of any thread, that cache info of it.
pub(crate) struct Node {
    engine: Engine,
    ports: Ports,
}

type Ports = Arc<Mutex<Vec<Weak<Signals>>>>;

impl Node {
    fn new(engine: Engine) -> Arc<Self> {
        let ports = Ports::default();
        let watching = ports.clone();
        engine.info().watch(move |session| tell(&watching, session, None));
        Arc::new(Node { engine, ports })
    }

    /// An engine of one's own.
    pub(crate) async fn connect(url: &str, options_json: &str) -> Result<Arc<Self>> {
        Ok(Node::new(Engine::connect(url, Options::from_json(options_json)?).await?))
    }

    /// The process's engine for this URL with these options, connected by whoever comes first. It
    /// goes when the last port lets go of it.
    pub(crate) async fn shared(url: &str, options_json: &str) -> Result<Arc<Self>> {
        let key = format!("{url}\n{options_json}");
        if let Some(node) = open(lock(&SHARED).get(&key)) {
            return Ok(node);
        }
        let connected = Node::connect(url, options_json).await?;
        let mut shared = lock(&SHARED);
        shared.retain(|_, node| node.strong_count() > 0);
        // Two may have connected at the same time: the first to arrive stays, the other is dropped.
        if let Some(first) = open(shared.get(&key)) {
            return Ok(first);
        }
        shared.insert(key, Arc::downgrade(&connected));
        Ok(connected)
    }

    /// Tells a port of info that changed from here on.
    pub(crate) fn join(&self, port: &Arc<Signals>) {
        let mut ports = lock(&self.ports);
        ports.retain(|known| known.strong_count() > 0);
        ports.push(Arc::downgrade(port));
    }

    /// This port changed a session's info: the others of the same node have to know.
    pub(crate) fn info_changed(&self, session: &SessionId, by: &Arc<Signals>) {
        tell(&self.ports, Some(session), Some(by));
    }
}

impl Deref for Node {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        &self.engine
    }
}

fn tell(ports: &Ports, session: Option<&SessionId>, by: Option<&Arc<Signals>>) {
    for port in lock(ports).iter().filter_map(Weak::upgrade) {
        if !by.is_some_and(|by| Arc::ptr_eq(by, &port)) {
            port.changed(session);
        }
    }
}

/// One that was shut down by hand is nobody's engine any more.
fn open(node: Option<&Weak<Node>>) -> Option<Arc<Node>> {
    node.and_then(Weak::upgrade).filter(|node| !node.is_closed())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
