//! What a `postgresql://` URL says: where, as whom, under which tables, and how it is used.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::schema::Tables;
use super::tls::{self, Tls, TlsFiles, Verify};
use crate::backend::url::Limits;

const FORM: &str =
    "a Postgres URL looks like postgresql://user:password@host:5432/database?sslmode=verify-full";
/// Between two looks at what waits, where LISTEN can't be had.
const POLL: Duration = Duration::from_millis(50);

/// How one server is reached.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) config: Config,
    pub(super) tls: Tls,
}

/// How signals come.
#[derive(Clone)]
pub(super) enum Listen {
    /// By LISTEN, maybe on a server of its own.
    On(Box<Server>),
    /// By looking for them at this pace.
    Poll(Duration),
}

/// Where a Postgres backend is, and how it is used.
#[derive(Clone)]
pub(crate) struct PostgresAddress {
    pub(super) server: Server,
    pub(super) listen: Listen,
    pub(super) tables: Tables,
    /// Whether missing tables are made.
    pub(super) create: bool,
    /// Whether what is accepted may be lost in a crash of the server.
    pub(super) relaxed: bool,
    /// Statements are parsed once a connection, where it is the server's own.
    pub(super) prepares: bool,
    /// Instead of what the options say.
    pub(crate) limits: Limits,
    text: String,
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration knows the password.
        f.debug_struct("PostgresAddress").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl PartialEq for PostgresAddress {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PostgresAddress {}

/// The schemes of this backend.
pub(crate) fn is_postgres(scheme: &str) -> bool {
    matches!(scheme, "postgresql" | "postgres")
}

/// What a URL asks of this backend rather than of the server.
#[derive(Default)]
struct Own {
    listen_url: Option<String>,
    listen: Option<bool>,
    poll: Option<Duration>,
    create: Option<bool>,
    relaxed: Option<bool>,
    prepares: Option<bool>,
    limits: Limits,
}

/// Reads a URL. What is wrong is said without what may be secret.
pub(crate) fn parse(url: &str) -> Result<PostgresAddress, String> {
    let mut tables = Tables::default();
    let mut own = Own::default();
    let server = server(url, &mut |name, value| own_parameter(&mut own, &mut tables, name, value))?;
    let tables = tables.checked()?;
    let direct = own.listen_url.is_none() && own.listen != Some(false);
    let listen = match (own.listen, own.listen_url) {
        (Some(false), None) => Listen::Poll(own.poll.unwrap_or(POLL)),
        (Some(false), Some(_)) => return Err("listen=off and listen_url exclude each other".into()),
        (_, listen_url) if own.poll.is_none() => {
            let other = listen_url.as_deref().map(|url| self::server(url, &mut |_, _| Ok(false)));
            let other = other.transpose().map_err(|problem| format!("listen_url: {problem}"))?;
            Listen::On(Box::new(other.unwrap_or_else(|| server.clone())))
        }
        _ => return Err("poll= is for listen=off".into()),
    };
    Ok(PostgresAddress {
        server,
        listen,
        tables,
        create: own.create.unwrap_or(true),
        relaxed: own.relaxed.unwrap_or(false),
        prepares: own.prepares.unwrap_or(true) && direct,
        limits: own.limits,
        text: url.to_owned(),
    })
}

/// True when the parameter is one of this backend's own.
fn own_parameter(own: &mut Own, tables: &mut Tables, name: &str, value: &str) -> Result<bool, String> {
    let choice = |no: &str, yes: &str| match value {
        value if value == no => Ok(Some(false)),
        value if value == yes => Ok(Some(true)),
        _ => Err(format!("{name} is {yes} or {no}")),
    };
    match name {
        "listen_url" => own.listen_url = Some(value.to_owned()),
        "listen" => own.listen = choice("off", "on")?,
        "create" => own.create = choice("false", "true")?,
        "prepare" => own.prepares = choice("off", "on")?,
        "durability" => own.relaxed = choice("strict", "relaxed")?,
        "poll" => {
            let pace = value.parse().ok().filter(|ms| (1..=60_000).contains(ms));
            own.poll =
                Some(Duration::from_millis(pace.ok_or("poll is a number of milliseconds up to 60000")?));
        }
        _ => return Ok(own.limits.set(name, value)? || tables.set(name, value)),
    }
    Ok(true)
}

fn server(url: &str, own: &mut dyn FnMut(&str, &str) -> Result<bool, String>) -> Result<Server, String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    if url.contains('#') || !base.split_once("://").is_some_and(|(scheme, _)| is_postgres(scheme)) {
        return Err(FORM.into());
    }
    let (mut passed, mut mode, mut files) = (Vec::new(), None, TlsFiles::default());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decoded(value)?;
        match name {
            "sslmode" => mode = Some(decoded),
            "sslrootcert" => files.root = Some(decoded),
            "sslcert" => files.cert = Some(decoded),
            "sslkey" => files.key = Some(decoded),
            // Kerberos is not spoken here, which is what libpq prefers or disables them to.
            "gssencmode" if matches!(&*decoded, "disable" | "prefer") => {}
            "client_encoding" if matches!(&*decoded.to_ascii_lowercase(), "utf8" | "utf-8" | "auto") => {}
            "fallback_application_name" => {}
            "keepalives_count" => passed.push(format!("keepalives_retries={value}")),
            "user"
            | "password"
            | "dbname"
            | "host"
            | "hostaddr"
            | "port"
            | "options"
            | "application_name"
            | "connect_timeout"
            | "tcp_user_timeout"
            | "keepalives"
            | "keepalives_idle"
            | "keepalives_interval"
            | "target_session_attrs"
            | "channel_binding"
            | "load_balance_hosts"
            | "sslnegotiation" => passed.push(pair.to_owned()),
            _ if own(name, &decoded)? => {}
            _ => {
                let named: String =
                    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
                return Err(format!("a Postgres URL knows no parameter {named:?}"));
            }
        }
    }
    let target = if passed.is_empty() { base.to_owned() } else { format!("{base}?{}", passed.join("&")) };
    let mut config: Config = target.parse().map_err(|_| FORM.to_owned())?;
    if config.get_application_name().is_none() {
        config.application_name(env!("CARGO_PKG_NAME"));
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        config.host("localhost");
    }
    if config.get_hosts().len() > 1 && !query.contains("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let sockets = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
    let sockets = sockets && config.get_hostaddrs().is_empty();
    let (mode, verify) = ssl_mode(mode.as_deref(), &files)?;
    // As with libpq, a socket of this machine is never encrypted.
    config.ssl_mode(if sockets { SslMode::Disable } else { mode });
    let tls = tls::client(verify, &files)?;
    Ok(Server { config, tls })
}

/// The mode, and what of the server's certificate is verified, as libpq means it.
fn ssl_mode(mode: Option<&str>, files: &TlsFiles) -> Result<(SslMode, Verify), String> {
    let system = files.root.as_deref() == Some("system");
    Ok(match mode {
        Some("disable") => (SslMode::Disable, Verify::Nothing),
        None if system => (SslMode::Require, Verify::Full),
        Some("prefer" | "allow") | None => (SslMode::Prefer, Verify::Nothing),
        Some("verify-full") => (SslMode::Require, Verify::Full),
        Some(_) if system => return Err("sslrootcert=system goes with sslmode=verify-full".into()),
        // With a root certificate at hand, it is verified.
        Some("require") if files.root.is_some() => (SslMode::Require, Verify::Chain),
        Some("require") => (SslMode::Require, Verify::Nothing),
        Some("verify-ca") => (SslMode::Require, Verify::Chain),
        Some(_) => {
            return Err("sslmode is disable, allow, prefer, require, verify-ca or verify-full".into());
        }
    })
}

fn decoded(value: &str) -> Result<String, String> {
    let refuse = || "a parameter of the URL is not percent-encoded UTF-8".to_owned();
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (code, others) = rest.split_at_checked(2).ok_or_else(refuse)?;
        let code = std::str::from_utf8(code).map_err(|_| refuse())?;
        bytes.push(u8::from_str_radix(code, 16).map_err(|_| refuse())?);
        rest = others;
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse())?;
    if text.contains('\0') { Err(refuse()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        let address =
            parse("postgresql://user:secret@localhost:7000/db?schema=a&create=false&durability=relaxed");
        let address = address.unwrap();
        assert!(!address.create && address.relaxed && matches!(address.listen, Listen::On(_)));
        assert!(!format!("{address:?}").contains("secret"));
        assert_eq!(address.server.config.get_ssl_mode(), SslMode::Prefer);
        let socket = parse("postgres:///db?host=%2Frun%2Fpostgresql&sslmode=require").unwrap();
        assert_eq!(socket.server.config.get_ssl_mode(), SslMode::Disable);
        let other = parse("postgresql://a/db?listen_url=postgresql%3A%2F%2Fu%3Asecret%40b%2Fdb").unwrap();
        let Listen::On(other) = other.listen else { panic!("it listens") };
        assert_eq!(other.config.get_hosts(), [Host::Tcp("b".into())]);
        assert!(matches!(parse("postgresql://a?listen=off&poll=5").unwrap().listen, Listen::Poll(_)));
        for (query, prepares) in [
            ("", true),
            ("?prepare=off", false),
            ("?listen=off", false),
            ("?listen_url=postgresql%3A%2F%2Fb", false),
            ("?listen=off&prepare=on", false),
        ] {
            let address = parse(&format!("postgresql://a/db{query}")).unwrap();
            assert_eq!(address.prepares, prepares, "{query}");
        }
        let two = parse("postgresql://a,b/db").unwrap();
        assert_eq!(two.server.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert!(parse("postgresql://h/db?connect_timeout=3&keepalives_count=2&application_name=x").is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_the_secret() {
        for (url, names) in [
            ("postgresql://u:secret@h:port/x", "postgresql://"),
            ("postgresql://u:secret@h?nonsense=secret", "nonsense"),
            ("postgresql://u:secret@h?service=x", "service"),
            ("postgresql://u:secret@h?sslmode=secret", "sslmode"),
            ("postgresql://u:secret@h?sslrootcert=/nowhere&sslmode=verify-ca", "sslrootcert"),
            ("postgresql://u:secret@h?sslcert=/nowhere", "sslcert"),
            ("postgresql://u:secret@h?listen=off&listen_url=x", "listen_url"),
            ("postgresql://u:secret@h?listen_url=secret", "listen_url"),
            ("postgresql://u:secret@h?poll=5", "poll"),
            ("postgresql://u:secret@h?create=maybe", "create"),
            ("postgresql://u:secret@h?prepare=maybe", "prepare"),
            ("postgresql://u:secret@h?outageWaitMs=soon", "outageWaitMs"),
            ("postgresql://u:secret@h?durability=none", "durability"),
            ("postgresql://u:secret@h?schema=%f", "percent"),
            ("postgresql://u:secret@h?table=", "table"),
            ("postgresql://u:secret@h#x", "postgresql://"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(names) && !error.contains("secret"), "{url}: {error}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(url in ".{0,60}") {
            let _ = parse(&format!("postgresql://{url}"));
            let _ = parse(&format!("postgresql://h/d?{url}"));
        }
    }
}
