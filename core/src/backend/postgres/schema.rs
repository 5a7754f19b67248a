//! The tables and functions: their names, what makes them, and who makes them.
//!
//! Each operation is one call of a function, so that it is one statement for every pooler, its parts
//! see what was committed before each of them, and its plans are kept by the server.

use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip::SipHasher13;
use tokio_postgres::Client;

use super::fault;
use crate::error::{Error, ErrorKind, Result};

/// Of the tables; a newer one is not touched.
const VERSION: i32 = 1;
const MAX_NAME_BYTES: usize = 63;
/// How often a migration that met a deadlock is tried.
const MIGRATION_TRIES: usize = 5;
const DEFAULT_TABLE: &str = "tmcp_sessions";

/// The names of what users name themselves.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    schema: Option<String>,
    sessions: String,
    client_info: String,
    client_capabilities: String,
    log_level: String,
    subscriptions: String,
}

impl Default for Tables {
    fn default() -> Self {
        Tables {
            schema: None,
            sessions: DEFAULT_TABLE.into(),
            client_info: "tmcp_session_client_info".into(),
            client_capabilities: "tmcp_session_client_capabilities".into(),
            log_level: "tmcp_session_log_level".into(),
            subscriptions: "tmcp_session_subscriptions".into(),
        }
    }
}

impl Tables {
    /// Takes a parameter of the URL; false when it is none of a table.
    pub(super) fn set(&mut self, parameter: &str, name: &str) -> bool {
        let slot = match parameter {
            "schema" => self.schema.insert(String::new()),
            "table" => &mut self.sessions,
            "client_info_table" => &mut self.client_info,
            "client_capabilities_table" => &mut self.client_capabilities,
            "log_level_table" => &mut self.log_level,
            "subscriptions_table" => &mut self.subscriptions,
            _ => return false,
        };
        name.clone_into(slot);
        true
    }

    pub(super) fn checked(self) -> std::result::Result<Self, String> {
        let given = [
            &self.sessions,
            &self.client_info,
            &self.client_capabilities,
            &self.log_level,
            &self.subscriptions,
        ];
        let fine = |name: &String| !name.is_empty() && name.len() <= MAX_NAME_BYTES;
        if !given.into_iter().chain(&self.schema).all(fine) {
            return Err("the name of a schema or table has 1 to 63 bytes".into());
        }
        let mut names: Vec<_> = given.to_vec();
        names.sort_unstable();
        names.dedup();
        if names.len() < given.len() {
            return Err("every table has a name of its own".into());
        }
        Ok(self)
    }
}

macro_rules! functions {
    ($($name:ident $kind:ident,)*) => {
        const FUNCTIONS: &[(&str, &str, Kind)] =
            &[$((stringify!($name), include_str!(concat!("sql/", stringify!($name), ".sql")), Kind::$kind),)*];
    };
}

/// Who calls a function.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Called,
    /// By other functions.
    Inner,
}

functions! {
    now Inner, life Inner, keep_notes Inner, notify Inner, tell Inner, tell_all Inner, tell_changed Inner, tell_closing Inner, trim Inner, trim_keys Inner,
    drop_info Inner, restart Inner, fresh Inner, after Inner, unhold Inner, touch Inner, post Inner,
    post_one Called, post_topic Inner,
    accept Called, claim Called, reclaim Called, release Called, end Called, forget Called, read Called, read_topic Called,
    holder Called, held Called, known Called, join Called, renew Called, bury Called, sweep Called, put_info Called,
    info Called, forget_info Called, subscribe Called, unsubscribe Called, subscribers Called, uris Called,
    take_mail Called, refuse_closed Inner, registry_begin_close Inner,
    registry_key Called, registry_create Called, registry_read Called, registry_report Called, registry_adopt Called,
    registry_close Called, registry_bury Called, registry_owned Called, registry_list Called, registry_stats Called,
    registry_sweep Called, append Called, logs_of Called, drop_logs Called,
}

/// Small tables deceive the planner of a plan that is kept: every access is by an index.
const SETTINGS: &str = "set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off \
    set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off set lock_timeout = '2s'";

/// The names of one deployment, quoted, and the statements that call its functions.
pub(super) struct Schema {
    tables: Tables,
    /// Of the tables that nobody names, and of the functions.
    base: String,
    schema: String,
    /// The channel of all nodes.
    pub(super) everybody: String,
}

impl Schema {
    /// `current` is the schema that unqualified names are made in.
    pub(super) fn new(tables: &Tables, current: &str) -> Self {
        let schema = tables.schema.clone().unwrap_or_else(|| current.to_owned());
        let base = match &*tables.sessions {
            DEFAULT_TABLE => "tmcp".to_owned(),
            other => format!("tmcp_{:016x}", hash(other)),
        };
        let everybody = format!("tmcp:all:{:016x}", hash(&format!("{schema}\0{base}")));
        Schema { tables: tables.clone(), base, schema, everybody }
    }

    fn qualified(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(name))
    }

    pub(super) fn function(&self, name: &str) -> String {
        self.qualified(&format!("{}_{name}_v1", self.base))
    }

    /// What a placeholder stands for.
    fn name(&self, placeholder: &str) -> Option<String> {
        let tables = &self.tables;
        let given = match placeholder {
            "sessions" => Some(&tables.sessions),
            "client_info" => Some(&tables.client_info),
            "client_capabilities" => Some(&tables.client_capabilities),
            "log_level" => Some(&tables.log_level),
            "subscriptions" => Some(&tables.subscriptions),
            _ => None,
        };
        if let Some(given) = given {
            return Some(self.qualified(given));
        }
        let own = |name: &str| self.qualified(&format!("{}_{name}", self.base));
        Some(match placeholder {
            "protocol_version" | "initialize_params" => own(&format!("session_{placeholder}")),
            "events" | "keys" | "topics" | "nodes" | "mail" | "canary" | "meta" | "registry" | "requests"
            | "logs" | "notes" => own(placeholder),
            // Until when a registered session is known, unless it is closed: beyond every clock.
            "registered" => "9000000000000000".to_owned(),
            // An index is in the schema of its table.
            "sessions_holder"
            | "sessions_due"
            | "subscriptions_id"
            | "subscriptions_value"
            | "registry_owner"
            | "registry_node"
            | "registry_due"
            | "logs_until" => identifier(&format!("{}_{placeholder}", self.base)),
            "everybody" => literal(&self.everybody),
            // What a function looks up before it calls {life}, which is needed once in a server's life.
            "known_life" => self.fill(include_str!("sql/known_life.sql").trim_end()),
            "subscriptions_text" => literal(&self.qualified(&tables.subscriptions)),
            "drop_subscriptions_key" => literal(&self.fill(include_str!("sql/subscriptions_key.sql"))),
            name if FUNCTIONS.iter().any(|(function, ..)| *function == name) => self.function(name),
            _ => return None,
        })
    }

    /// Replaces the placeholders; braces that are none of them stay.
    fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len() * 2);
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let name = after.split_once('}').and_then(|(name, tail)| Some((self.name(name)?, tail)));
            match name {
                Some((name, tail)) => {
                    filled.push_str(&name);
                    rest = tail;
                }
                None => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled.push_str(rest);
        filled
    }

    /// `select * from function($1, …)`, or `select function($1, …)` where the answer is one value,
    /// which is cheaper to plan.
    pub(super) fn call(&self, function: &str, parameters: &[&str], rows: bool) -> Arc<str> {
        let list: Vec<_> =
            parameters.iter().enumerate().map(|(n, kind)| format!("${}{kind}", n + 1)).collect();
        let from = if rows { "* from " } else { "" };
        format!("select {from}{}({})", self.function(function), list.join(", ")).into()
    }

    /// What logs hold, and then the owner epoch if a node holds the session: looked up for what was read,
    /// and so later.
    pub(super) fn read(&self) -> Arc<str> {
        let parameters: Vec<_> = (1..=11).map(|n| format!("${n}")).collect();
        format!(
            "select r.*, (select h.owner from {}($12::text::uuid, $1) h where r.gap is not null) from {}({}) r",
            self.function("held"),
            self.function("read"),
            parameters.join(", ")
        )
        .into()
    }

    fn functions(&self) -> String {
        let mut ddl = String::new();
        for (_, text, kind) in FUNCTIONS {
            let (head, body) = text.split_once("--body\n").unwrap_or((text, ""));
            let settings = if *kind == Kind::Called { SETTINGS } else { "" };
            ddl.push_str(&format!(
                "create or replace function {} {settings} as {};\n",
                self.fill(head).trim_end(),
                literal(&self.fill(body))
            ));
        }
        ddl
    }

    fn fingerprint(&self) -> String {
        format!("{:016x}", hash(&self.functions()))
    }

    /// All that has to be there, as one script.
    pub(super) fn ddl(&self) -> String {
        let mut ddl = String::new();
        if self.tables.schema.is_some() {
            ddl.push_str(&format!("create schema if not exists {};\n", identifier(&self.schema)));
        }
        ddl.push_str(&self.fill(include_str!("sql/tables.sql")));
        ddl.push_str(&self.functions());
        let meta = self.fill("{meta}");
        ddl.push_str(&format!(
            "update {meta} set version = {VERSION}, functions = {};\n",
            literal(&self.fingerprint())
        ));
        ddl
    }

    /// Makes what is missing, if it may; else says what is.
    pub(super) async fn prepare(&self, client: &Client, create: bool) -> Result<()> {
        match self.installed(client).await? {
            Some((version, _)) if version > VERSION => Err(config(format!(
                "the tables in schema {:?} are of version {version}, this library knows {VERSION}; update it",
                self.schema
            ))),
            Some((VERSION, functions)) if functions == self.fingerprint() => Ok(()),
            _ if create => self.migrate(client).await,
            _ => self.check(client).await,
        }
    }

    /// The version of the tables, and the fingerprint of the functions.
    async fn installed(&self, client: &Client) -> Result<Option<(i32, String)>> {
        let meta = self.fill("{meta}");
        let exists = client
            .query_typed("select to_regclass($1) is not null", &[(&meta, tokio_postgres::types::Type::TEXT)])
            .await
            .map_err(|error| fault::failed("connect", &error))?;
        if !exists.first().is_some_and(|row| row.get::<_, bool>(0)) {
            return Ok(None);
        }
        let rows = client.query_typed(&format!("select version, functions from {meta}"), &[]).await;
        let rows = rows.map_err(|error| fault::failed("connect", &error))?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }

    /// One process after the other; whoever comes later finds it done.
    async fn migrate(&self, client: &Client) -> Result<()> {
        let mut tries = 1;
        loop {
            match self.migrate_once(client).await {
                // It stood in the way of nodes that work already, or they in its.
                Err(error) if error.retryable() && tries < MIGRATION_TRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn migrate_once(&self, client: &Client) -> Result<()> {
        let done = self.migrate_in_turn(client).await;
        if done.is_err() {
            let _ = client.batch_execute("rollback").await;
        }
        done
    }

    async fn migrate_in_turn(&self, client: &Client) -> Result<()> {
        // Of the whole schema: deployments with other names for some tables share the rest.
        let lock = hash(&format!("mcp-sessions\0{}", self.schema)) as i64;
        let begin =
            format!("begin; set local client_min_messages = warning; select pg_advisory_xact_lock({lock})");
        client.batch_execute(&begin).await.map_err(|error| not_made(&error))?;
        let script = match self.installed(client).await? {
            Some((VERSION, functions)) if functions == self.fingerprint() => String::new(),
            _ => self.ddl(),
        };
        client.batch_execute(&format!("{script} commit")).await.map_err(|error| not_made(&error))
    }

    /// Says what is missing.
    async fn check(&self, client: &Client) -> Result<()> {
        const TABLES: [&str; 18] = [
            "sessions",
            "client_info",
            "client_capabilities",
            "log_level",
            "protocol_version",
            "initialize_params",
            "subscriptions",
            "events",
            "keys",
            "topics",
            "nodes",
            "mail",
            "canary",
            "notes",
            "meta",
            "registry",
            "requests",
            "logs",
        ];
        let mut missing = Vec::new();
        for table in TABLES {
            let name = self.fill(&format!("{{{table}}}"));
            if !exists(client, "select to_regclass($1) is not null", &name).await? {
                missing.push(name);
            }
        }
        let sessions = self.fill("{sessions}");
        let columns = "select count(*) >= 18 from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and \
            not attisdropped";
        if missing.is_empty() && !exists(client, columns, &sessions).await? {
            missing.push(format!("columns of {sessions}"));
        }
        for (function, ..) in FUNCTIONS {
            let name = self.function(function);
            if !exists(client, "select to_regproc($1) is not null", &name).await? {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let more = if missing.len() > 4 { format!(" and {} more", missing.len() - 4) } else { String::new() };
        missing.truncate(4);
        Err(config(format!(
            "create=false, and missing are {}{more}; run what postgres_ddl prints",
            missing.join(", ")
        )))
    }
}

async fn exists(client: &Client, question: &str, name: &str) -> Result<bool> {
    let rows = client.query_typed(question, &[(&name, tokio_postgres::types::Type::TEXT)]).await;
    let rows = rows.map_err(|error| fault::failed("connect", &error))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Why the tables could not be made.
fn not_made(error: &tokio_postgres::Error) -> Error {
    if error.code().is_some_and(|code| code.code() == "42501") {
        return Error::new(
            ErrorKind::Unauthorized,
            "connect",
            "this user may not make the tables; run what postgres_ddl prints as one who may, and connect \
             with create=false",
        )
        .with_source(error.to_string());
    }
    fault::failed("connect", error)
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, "connect", message)
}

/// The same in every process and version.
fn hash(text: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// A quoted identifier.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string that means the same whatever the server's settings.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
