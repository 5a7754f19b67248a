//! Statements that a connection has parsed already: what is asked often is parsed once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::{Client, Row, Statement};

use super::Parameter;
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// How long the server has for it.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether connections are the server's own: a pooler may give each transaction another one, which does
/// not know what this one had parsed. Where LISTEN works by the same URL there is no such pooler.
#[derive(Clone, Default)]
pub(super) struct Direct(Arc<AtomicBool>);

impl Direct {
    pub(super) fn found(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_known(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

enum Known {
    /// Asked once, or on its way.
    Seen,
    Parsed(Statement),
}

/// Asks one connection, which knows what it was asked before.
pub(super) struct Prepared {
    client: Arc<Client>,
    direct: Direct,
    runtime: Runtime,
    known: Mutex<HashMap<String, Known>>,
}

impl Prepared {
    pub(super) fn new(client: Arc<Client>, direct: Direct, runtime: Runtime) -> Arc<Self> {
        Arc::new(Prepared { client, direct, runtime, known: Mutex::default() })
    }

    /// Sends a statement at the first poll, parsed before if it can be, and waits for its answer.
    pub(super) async fn query(
        self: &Arc<Self>,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if let Some(parsed) = self.parsed(statement) {
            let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
            return self.client.query(&parsed, &values).await;
        }
        if self.direct.is_known() {
            self.prepare(statement, parameters);
        }
        self.client.query_typed(statement, parameters).await
    }

    fn parsed(&self, statement: &str) -> Option<Statement> {
        match self.known.lock().get(statement)? {
            Known::Seen => None,
            Known::Parsed(parsed) => Some(parsed.clone()),
        }
    }

    /// Beside the statement itself, which waits for nothing.
    fn prepare(self: &Arc<Self>, statement: &str, parameters: &[Parameter<'_>]) {
        match self.known.lock().entry(statement.to_owned()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(Known::Seen),
        };
        let (own, text) = (self.clone(), statement.to_owned());
        let types: Vec<_> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
        self.runtime.spawn(Box::pin(async move {
            let parsed = own.runtime.within(LIMIT, own.client.prepare_typed(&text, &types)).await;
            if let Some(Ok(parsed)) = parsed {
                own.known.lock().insert(text, Known::Parsed(parsed));
            }
        }));
    }
}
