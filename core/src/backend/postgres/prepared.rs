//! Statements that a connection has parsed already: what is asked often is parsed once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::{Client, Row, Statement};

use super::Parameter;
use crate::runtime::Runtime;
use crate::sync::Mutex;

/// How long the server has for it.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether a server keeps what a connection has it parse: not behind a pooler that gives each
/// transaction another connection. One that LISTENs by the same URL is known to be no such pooler.
#[derive(Clone, Default)]
pub(super) struct Keeps(Arc<AtomicBool>);

impl Keeps {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

enum Known {
    /// Asked once, or on its way.
    Seen,
    Parsed(Statement),
}

/// What one connection knows.
#[derive(Default)]
pub(super) struct Prepared(Mutex<HashMap<String, Known>>);

impl Prepared {
    /// Sends a statement at the first poll, parsed before if it can be, and waits for its answer.
    pub(super) async fn query(
        self: &Arc<Self>,
        client: &Arc<Client>,
        keeps: &Keeps,
        runtime: &Runtime,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match self.parsed(statement) {
            Some(parsed) => {
                let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
                client.query(&parsed, &values).await
            }
            None => {
                if keeps.get() {
                    self.prepare(client, runtime, statement, parameters);
                }
                client.query_typed(statement, parameters).await
            }
        }
    }

    fn parsed(&self, statement: &str) -> Option<Statement> {
        match self.0.lock().get(statement)? {
            Known::Seen => None,
            Known::Parsed(parsed) => Some(parsed.clone()),
        }
    }

    /// Beside the statement itself, which waits for nothing.
    fn prepare(
        self: &Arc<Self>,
        client: &Arc<Client>,
        runtime: &Runtime,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) {
        if self.0.lock().insert(statement.to_owned(), Known::Seen).is_some() {
            return;
        }
        let (own, client, text) = (self.clone(), client.clone(), statement.to_owned());
        let types: Vec<_> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
        let clock = runtime.clone();
        runtime.spawn(Box::pin(async move {
            let parsed = clock.within(LIMIT, client.prepare_typed(&text, &types)).await;
            if let Some(Ok(parsed)) = parsed {
                own.0.lock().insert(text, Known::Parsed(parsed));
            }
        }));
    }
}
