//! What a `redis://` URL says: where, as whom, and under which prefix.

use std::fmt;
use std::sync::Arc;

use redis::{Client, ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

const DEFAULT_PREFIX: &str = "tmcp:";
const MAX_PREFIX_BYTES: usize = 128;

/// Where a Redis backend is, and the prefix of its keys.
#[derive(Clone)]
pub(crate) struct RedisAddress {
    pub(super) client: Client,
    pub(super) prefix: Arc<str>,
    pub(super) db: i64,
    text: String,
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

/// The schemes of this backend.
pub(crate) fn is_redis(scheme: &str) -> bool {
    matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix" | "valkey+unix" | "unix")
}

/// Reads `redis://user:password@host:port/db?prefix=app:`, `rediss://…?ca=&cert=&key=` (paths of PEM
/// files) or `redis+unix:///path?db=1&user=u&pass=p`. What is wrong is said without the URL.
pub(crate) fn parse(url: &str) -> Result<RedisAddress, String> {
    if url.contains('#') {
        return Err("a Redis URL has no fragment; TLS always verifies, and ca=/path names an own CA".into());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let unix =
        url.split_once("unix://").is_some_and(|(scheme, _)| matches!(scheme, "" | "redis+" | "valkey+"));
    let (mut prefix, mut ca, mut cert, mut key) = (DEFAULT_PREFIX.to_owned(), None, None, None);
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "prefix" => prefix = decoded(value)?,
            "ca" => ca = Some(pem(value, name)?),
            "cert" => cert = Some(pem(value, name)?),
            "key" => key = Some(pem(value, name)?),
            "db" | "user" | "pass" if unix => rest.push(pair),
            _ => return Err("a Redis URL knows the parameters prefix, ca, cert and key; with a socket also db, user and pass".into()),
        }
    }
    check_prefix(&prefix)?;
    let target = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    let info = target.as_str().into_connection_info().map_err(|_| {
        "a Redis URL looks like redis://user:password@host:6379/0, rediss://host or redis+unix:///path"
            .to_owned()
    })?;
    let redis = info.redis_settings().clone();
    let db = redis.db();
    let redis = redis
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let tls = matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. });
    let client = client(info.set_redis_settings(redis), tls, ca, cert, key)?;
    Ok(RedisAddress { client, prefix: prefix.into(), db, text: url.to_owned() })
}

fn client(
    info: ConnectionInfo,
    tls: bool,
    root_cert: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
) -> Result<Client, String> {
    let client_tls = match (cert, key) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => return Err("a client certificate is cert=/path and key=/path".into()),
    };
    if !tls {
        return match (root_cert, client_tls) {
            (None, None) => Client::open(info).map_err(|_| "this Redis URL can't be used".into()),
            _ => Err("ca, cert and key need a rediss:// URL".into()),
        };
    }
    // Somebody else in this process may have chosen a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = match (&root_cert, &client_tls) {
        (None, None) => Client::open(info),
        _ => Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }),
    };
    built.map_err(|_| "the files of ca, cert or key are not PEM certificates and a key".into())
}

/// Braces would change which slot of a cluster a session's keys are in.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let fine = prefix.len() <= MAX_PREFIX_BYTES
        && prefix.bytes().all(|b| (0x21..=0x7e).contains(&b) && !matches!(b, b'{' | b'}'));
    if fine { Ok(()) } else { Err("a prefix has at most 128 bytes of visible ASCII without braces".into()) }
}

fn pem(path: &str, name: &str) -> Result<Vec<u8>, String> {
    std::fs::read(decoded(path)?)
        .map_err(|error| format!("the file of {name} can't be read: {}", error.kind()))
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
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_the_secret() {
        for url in [
            "redis://",
            "redis://u:secret@h/x",
            "redis://u:secret@h?prefix={a}",
            "redis://u:secret@h?prefix=a%20b",
            "redis://u:secret@h?prefix=%f",
            "redis://u:secret@h?nonsense=1",
            "redis://u:secret@h?db=1",
            "redis://u:secret@h?ca=/nowhere",
            "rediss://u:secret@h#insecure",
            "rediss://u:secret@h?ca=/nowhere",
        ] {
            let error = parse(url).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(url in ".{0,60}") {
            let _ = parse(&format!("redis://{url}"));
            let _ = parse(&format!("redis+unix://{url}"));
        }
    }
}
