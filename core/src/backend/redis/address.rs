//! What a `redis://` URL says: where, as whom, and under which prefix.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    TlsCertificates,
};

use crate::backend::url::{Limits, milliseconds};

const DEFAULT_PREFIX: &str = "tmcp:";
const MAX_PREFIX_BYTES: usize = 128;
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const FORM: &str = "a Redis URL looks like redis://user:password@host:6379/0, rediss://host, \
    redis+unix:///path, redis+cluster://host:6379,host:6379 or redis+sentinel://host:26379,host:26379/master/0";

/// Where a Redis backend is, and the prefix of its keys.
#[derive(Clone)]
pub(crate) struct RedisAddress {
    pub(super) place: Place,
    pub(super) prefix: Arc<str>,
    pub(super) db: i64,
    /// The first connection has to be there in this time.
    pub(super) connect: Option<Duration>,
    /// Instead of what the options say.
    pub(crate) limits: Limits,
    /// tmcp's own managers are in the fleet.
    pub(super) interop: bool,
    text: String,
}

/// What kind of deployment it is.
#[derive(Clone)]
pub(super) enum Place {
    /// One server.
    One(Box<Client>),
    /// A cluster, known by some of its servers.
    Cluster { seeds: Vec<Host>, to: Box<Access> },
    /// The master of this name, as sentinels know it.
    Sentinel { seeds: Vec<Host>, name: String, ask: Box<Access>, to: Box<Access> },
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// How servers of one kind are talked to: as whom, and whether with TLS.
#[derive(Clone)]
pub(super) struct Access {
    info: ConnectionInfo,
    certificates: Option<Arc<Certificates>>,
    tls: bool,
}

#[derive(Clone)]
struct Certificates {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Access {
    /// The same for another server.
    pub(super) fn client(&self, host: &Host) -> Result<Client, String> {
        let (host, port) = (host.name.clone(), host.port);
        let addr = match self.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        self.open(self.info.clone().set_addr(addr))
    }

    fn open(&self, info: ConnectionInfo) -> Result<Client, String> {
        let built = match &self.certificates {
            None => Client::open(info),
            Some(files) => {
                let client_tls = files.client.clone();
                let client_tls =
                    client_tls.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
                Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: files.ca.clone() })
            }
        };
        built.map_err(|_| match self.tls {
            true => "the files of ca, cert or key are not PEM certificates and a key".into(),
            false => "this Redis URL can't be used".into(),
        })
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        f.debug_struct("RedisAddress").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for RedisAddress {}

/// The schemes of this backend, and what else they say.
const SCHEMES: [(&str, Kind, &str); 15] = [
    ("redis", Kind::One, "redis"),
    ("rediss", Kind::One, "rediss"),
    ("valkey", Kind::One, "redis"),
    ("valkeys", Kind::One, "rediss"),
    ("redis+unix", Kind::Unix, "redis+unix"),
    ("valkey+unix", Kind::Unix, "redis+unix"),
    ("unix", Kind::Unix, "unix"),
    ("redis+cluster", Kind::Cluster, "redis"),
    ("rediss+cluster", Kind::Cluster, "rediss"),
    ("valkey+cluster", Kind::Cluster, "redis"),
    ("valkeys+cluster", Kind::Cluster, "rediss"),
    ("redis+sentinel", Kind::Sentinel, "redis"),
    ("rediss+sentinel", Kind::Sentinel, "rediss"),
    ("valkey+sentinel", Kind::Sentinel, "redis"),
    ("valkeys+sentinel", Kind::Sentinel, "rediss"),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    One,
    Unix,
    Cluster,
    Sentinel,
}

/// Whether a scheme is one of this backend's.
pub(crate) fn is_redis(scheme: &str) -> bool {
    SCHEMES.iter().any(|(name, ..)| *name == scheme)
}

/// What the query of a URL says.
#[derive(Default)]
struct Parameters<'a> {
    prefix: Option<String>,
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    connect_timeout_ms: Option<u64>,
    limits: Limits,
    interop: bool,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    of_socket: Vec<&'a str>,
}

/// Reads `redis://user:password@host:port/db?prefix=app:`, `rediss://…?ca=&cert=&key=` (paths of PEM
/// files), `redis+unix:///path?db=1&user=u&pass=p`, `redis+cluster://host:port,host:port` or
/// `redis+sentinel://host:port,host:port/master/db?sentinelUser=&sentinelPassword=`; the user and the
/// password in front of the hosts are those of the servers. All take `connectTimeoutMs`,
/// `operationTimeoutMs` and `outageWaitMs`, and all but a cluster `interop=tmcp`. What is wrong is said without the URL.
pub(crate) fn parse(url: &str) -> Result<RedisAddress, String> {
    if url.contains('#') {
        return Err("a Redis URL has no fragment; TLS always verifies, and ca=/path names an own CA".into());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = base.split_once("://").ok_or(FORM)?;
    let (_, kind, plain) = SCHEMES.iter().find(|(name, ..)| *name == scheme).ok_or(FORM)?;
    let parameters = parameters(query, *kind)?;
    let prefix: Arc<str> = parameters.prefix.as_deref().unwrap_or(DEFAULT_PREFIX).into();
    let connect = parameters.connect_timeout_ms.map(Duration::from_millis);
    let limits = parameters.limits;
    let interop = parameters.interop;
    if interop && (&*prefix != DEFAULT_PREFIX || *kind == Kind::Cluster) {
        return Err("interop=tmcp is for tmcp's own keys on one server: no prefix, and no cluster".into());
    }
    let (place, db) = match kind {
        Kind::Cluster => cluster(plain, rest, parameters)?,
        Kind::Sentinel => sentinel(plain, rest, parameters)?,
        Kind::One | Kind::Unix => {
            check_database(rest, *kind)?;
            let mut target = format!("{plain}://{rest}");
            if !parameters.of_socket.is_empty() {
                target = format!("{target}?{}", parameters.of_socket.join("&"));
            }
            let access = access(&target, parameters)?;
            let db = access.info.redis_settings().db();
            (Place::One(Box::new(access.open(access.info.clone())?)), db)
        }
    };
    Ok(RedisAddress { place, prefix, db, connect, limits, interop, text: url.to_owned() })
}

/// The path of a URL with a host is the number of a database.
fn check_database(rest: &str, kind: Kind) -> Result<(), String> {
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    if kind == Kind::Unix || path.is_empty() || path.parse::<u32>().is_ok() {
        return Ok(());
    }
    Err("the path of a Redis URL is the number of a database, as in redis://host/3".into())
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!(
        "a Redis URL knows no parameter {name:?}; there are prefix, interop, ca, cert, key, connectTimeoutMs, \
         operationTimeoutMs and outageWaitMs, with a socket also db, user and pass, with sentinels sentinelUser and \
         sentinelPassword"
    )
}

fn parameters(query: &str, kind: Kind) -> Result<Parameters<'_>, String> {
    let mut known = Parameters::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "prefix" => known.prefix = Some(prefix(value)?),
            "ca" => known.ca = Some(pem(value, name)?),
            "cert" => known.cert = Some(pem(value, name)?),
            "key" => known.key = Some(pem(value, name)?),
            "interop" if value == "tmcp" => known.interop = true,
            "interop" => return Err("interop is tmcp, or is left out".into()),
            "connectTimeoutMs" => known.connect_timeout_ms = Some(milliseconds(name, value, 1)?),
            "db" if kind == Kind::Unix => {
                value.parse::<u32>().map_err(|_| "db is the number of a database, from 0".to_owned())?;
                known.of_socket.push(pair);
            }
            "user" | "pass" if kind == Kind::Unix => known.of_socket.push(pair),
            "sentinelUser" if kind == Kind::Sentinel => known.sentinel_user = Some(decoded(value, name)?),
            "sentinelPassword" if kind == Kind::Sentinel => {
                known.sentinel_password = Some(decoded(value, name)?);
            }
            _ if known.limits.set(name, value)? => {}
            _ => return Err(unknown(name)),
        }
    }
    Ok(known)
}

fn cluster(plain: &str, rest: &str, parameters: Parameters<'_>) -> Result<(Place, i64), String> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path, "" | "0") {
        return Err("a cluster has no databases but 0".into());
    }
    let (user, seeds) = hosts(authority, PORT)?;
    let to = access(&format!("{plain}://{user}{}", seeds[0]), parameters)?;
    Ok((Place::Cluster { seeds, to: Box::new(to) }, 0))
}

fn sentinel(plain: &str, rest: &str, parameters: Parameters<'_>) -> Result<(Place, i64), String> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, db) = path.split_once('/').unwrap_or((path, ""));
    check_database(path, Kind::One)?;
    let name = decoded(name, "the name of the master")?;
    if name.is_empty() {
        return Err("a sentinel URL names the master: redis+sentinel://host:26379/master".into());
    }
    let (user, seeds) = hosts(authority, SENTINEL_PORT)?;
    let (asked_as, password) = (parameters.sentinel_user.clone(), parameters.sentinel_password.clone());
    let to = access(&format!("{plain}://{user}{}/{db}", seeds[0]), parameters)?;
    let mut own = redis::RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = asked_as {
        own = own.set_username(user);
    }
    if let Some(password) = password {
        own = own.set_password(password);
    }
    let ask = Access { info: to.info.clone().set_redis_settings(own), ..to.clone() };
    let db = to.info.redis_settings().db();
    Ok((Place::Sentinel { seeds, name, ask: Box::new(ask), to: Box::new(to) }, db))
}

/// The user's part as it is, and the hosts.
fn hosts(authority: &str, default_port: u16) -> Result<(&str, Vec<Host>), String> {
    let at = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(at);
    let hosts: Option<Vec<_>> = hosts.split(',').map(|host| read_host(host, default_port)).collect();
    Ok((user, hosts.ok_or(FORM)?))
}

/// `host`, `host:port` or `[v6]:port`.
pub(super) fn read_host(text: &str, default_port: u16) -> Option<Host> {
    let (name, port) = match text.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map(|(name, port)| (name, port.strip_prefix(':').unwrap_or(port)))?,
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let port = if port.is_empty() { default_port } else { port.parse().ok()? };
    let fine = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
    (fine && port > 0).then(|| Host { name: name.to_owned(), port })
}

fn access(target: &str, parameters: Parameters<'_>) -> Result<Access, String> {
    let info = target.into_connection_info().map_err(|_| FORM.to_owned())?;
    let redis = info.redis_settings().clone();
    let redis = redis
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let client = match (parameters.cert, parameters.key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("a client certificate is cert=/path and key=/path".into()),
    };
    let certificates = match (parameters.ca, client) {
        (None, None) => None,
        (ca, client) => Some(Arc::new(Certificates { ca, client })),
    };
    if !tls && certificates.is_some() {
        return Err("ca, cert and key need a rediss:// URL".into());
    }
    if tls {
        // Somebody else in this process may have chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Ok(Access { info: info.set_redis_settings(redis), certificates, tls })
}

/// Braces would change which slot of a cluster a session's keys are in.
fn prefix(value: &str) -> Result<String, String> {
    let prefix = decoded(value, "prefix")?;
    let fine = prefix.len() <= MAX_PREFIX_BYTES
        && prefix.bytes().all(|b| (0x21..=0x7e).contains(&b) && !matches!(b, b'{' | b'}'));
    if fine {
        Ok(prefix)
    } else {
        Err("a prefix has at most 128 bytes of visible ASCII without braces".into())
    }
}

fn pem(path: &str, name: &str) -> Result<Vec<u8>, String> {
    std::fs::read(decoded(path, name)?)
        .map_err(|error| format!("the file of {name} can't be read: {}", error.kind()))
}

fn decoded(value: &str, name: &str) -> Result<String, String> {
    let refuse = || format!("{name} is not percent-encoded UTF-8");
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
    String::from_utf8(bytes).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        let address = parse("redis://user:secret@localhost:7000/3?prefix=app%3A").unwrap();
        assert_eq!((&*address.prefix, address.db), ("app:", 3));
        assert!(!format!("{address:?}").contains("secret"));
        assert_eq!(&*parse("redis://localhost").unwrap().prefix, "tmcp:");
        assert_eq!(parse("redis+unix:///run/redis.sock?db=2&prefix=x:").unwrap().db, 2);
        assert!(parse("rediss://localhost").is_ok());
        let address = parse("redis://localhost?connectTimeoutMs=250").unwrap();
        assert_eq!(address.connect, Some(Duration::from_millis(250)));
    }

    #[test]
    fn clusters_and_sentinels() {
        let host = |name: &str, port| Host { name: name.into(), port };
        let address = parse("redis+cluster://u:se%40cret@a:7000,b,[::1]:7002?prefix=app:").unwrap();
        let Place::Cluster { seeds, to } = &address.place else { panic!("no cluster") };
        assert_eq!(*seeds, [host("a", 7000), host("b", 6379), host("::1", 7002)]);
        assert_eq!(to.info.redis_settings().password(), Some("se@cret"));
        let address =
            parse("rediss+sentinel://:secret@a,b:7001/my%20master/2?sentinelPassword=other").unwrap();
        let Place::Sentinel { seeds, name, ask, to } = &address.place else { panic!("no sentinel") };
        assert_eq!((&seeds[..], &name[..]), (&[host("a", 26379), host("b", 7001)][..], "my master"));
        assert_eq!(to.info.redis_settings().password(), Some("secret"));
        assert_eq!(ask.info.redis_settings().password(), Some("other"));
        assert!(address.db == 2 && ask.tls && ask.client(&seeds[0]).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_named_and_the_secret_is_not() {
        for (url, named) in [
            ("redis://", "redis://user"),
            ("redis://u:secret@h/x", "database"),
            ("redis://u:secret@h?prefix={a}", "prefix"),
            ("redis://u:secret@h?prefix=a%20b", "prefix"),
            ("redis://u:secret@h?prefix=%f", "prefix"),
            ("redis://u:secret@h?nonsense=1", "\"nonsense\""),
            ("redis://u:secret@h?db=1", "\"db\""),
            ("redis+unix:///s?pass=secret&db=x", "db"),
            ("redis://u:secret@h?ca=/nowhere", "ca"),
            ("redis://u:secret@h?connectTimeoutMs=soon", "connectTimeoutMs"),
            ("redis://u:secret@h?interop=sdk", "interop"),
            ("redis://u:secret@h?interop=tmcp&prefix=app:", "interop"),
            ("redis+cluster://u:secret@h?interop=tmcp", "interop"),
            ("redis://u:secret@h?operationTimeoutMs=0", "operationTimeoutMs"),
            ("redis://u:secret@h?operationTimeoutMs=600001", "operationTimeoutMs"),
            ("redis://u:secret@h?outageWaitMs=", "outageWaitMs"),
            ("rediss://u:secret@h#insecure", "fragment"),
            ("rediss://u:secret@h?ca=/nowhere", "ca"),
            ("redis+cluster://u:secret@", "redis+cluster://host"),
            ("redis+cluster://u:secret@h/1", "databases"),
            ("redis+cluster://u:secret@h,,i", "redis+cluster://host"),
            ("redis+cluster://u:secret@h:0", "redis+cluster://host"),
            ("redis+cluster://u:secret@h:port", "redis+cluster://host"),
            ("redis+cluster://u:secret@h?db=1", "\"db\""),
            ("redis+cluster://u:secret@h?sentinelPassword=x", "\"sentinelPassword\""),
            ("redis+sentinel://u:secret@h", "master"),
            ("redis+sentinel://u:secret@h/", "master"),
            ("redis+sentinel://u:secret@h/m/x", "database"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(!error.contains("secret") && error.contains(named), "{url}: {error}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(url in ".{0,60}") {
            let _ = parse(&format!("redis://{url}"));
            let _ = parse(&format!("redis+unix://{url}"));
            let _ = parse(&format!("redis+cluster://{url}"));
            let _ = parse(&format!("redis+sentinel://{url}"));
        }
    }
}
