//! The URL that names a backend.

use crate::error::{Error, ErrorKind, Result};
#[cfg(any(feature = "redis", feature = "postgres"))]
use crate::options::Options;

/// The longest deadline of a URL, in milliseconds.
#[cfg(any(feature = "redis", feature = "postgres"))]
const MAX_TIMEOUT_MS: u64 = 600_000;

/// What a URL asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BackendUrl {
    /// `memory://name?clock=manual`; without a name, a hub of its own.
    Memory { hub: Option<String>, manual_clock: bool },
    /// `redis://host`, `rediss://host`, `redis+unix:///path`.
    #[cfg(feature = "redis")]
    Redis(Box<crate::backend::redis::RedisAddress>),
    /// `cloudflare://host?token=…`: a Worker's gateway.
    #[cfg(feature = "cloudflare")]
    Cloudflare(Box<crate::backend::cloudflare::CloudflareAddress>),
    /// `postgresql://host/database`, `postgres://…`.
    #[cfg(feature = "postgres")]
    Postgres(Box<crate::backend::postgres::PostgresAddress>),
}

/// How long operations may take and wait, where a URL says so instead of the options.
#[cfg(any(feature = "redis", feature = "postgres"))]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    operation_timeout_ms: Option<u64>,
    outage_wait_ms: Option<u64>,
}

#[cfg(any(feature = "redis", feature = "postgres"))]
impl Limits {
    /// Takes a parameter of a URL; false when it is none of these.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> std::result::Result<bool, String> {
        match name {
            "operationTimeoutMs" => self.operation_timeout_ms = Some(milliseconds(name, value, 1)?),
            "outageWaitMs" => self.outage_wait_ms = Some(milliseconds(name, value, 0)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The options with what the URL says; fails with `config` like [`Options::checked`].
    pub(crate) fn apply(self, mut options: Options) -> Result<Options> {
        options.operation_timeout_ms = self.operation_timeout_ms.unwrap_or(options.operation_timeout_ms);
        options.outage_wait_ms = self.outage_wait_ms.unwrap_or(options.outage_wait_ms);
        options.checked()
    }
}

/// A number of milliseconds in a URL.
#[cfg(any(feature = "redis", feature = "postgres"))]
pub(crate) fn milliseconds(name: &str, value: &str, least: u64) -> std::result::Result<u64, String> {
    let parsed = value.parse().ok().filter(|ms| (least..=MAX_TIMEOUT_MS).contains(ms));
    parsed.ok_or_else(|| format!("{name} is a number of milliseconds, from {least} to {MAX_TIMEOUT_MS}"))
}

/// Reads a backend's URL. Fails with `config`; what may hold a password is not repeated in errors.
pub(crate) fn parse(url: &str) -> Result<BackendUrl> {
    let config = |message: String| Error::new(ErrorKind::Config, "connect", message);
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(config("a backend URL looks like memory://name".into()));
    };
    match scheme {
        "memory" => parse_memory(rest).map_err(config),
        #[cfg(feature = "redis")]
        scheme if crate::backend::redis::is_redis(scheme) => {
            let address = crate::backend::redis::parse(url).map_err(config)?;
            Ok(BackendUrl::Redis(Box::new(address)))
        }
        #[cfg(feature = "cloudflare")]
        scheme if crate::backend::cloudflare::is_cloudflare(scheme) => {
            let address = crate::backend::cloudflare::parse(url).map_err(config)?;
            Ok(BackendUrl::Cloudflare(Box::new(address)))
        }
        #[cfg(feature = "postgres")]
        scheme if crate::backend::postgres::is_postgres(scheme) => {
            let address = crate::backend::postgres::parse(url).map_err(config)?;
            Ok(BackendUrl::Postgres(Box::new(address)))
        }
        _ => {
            let named: String = scheme.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
            Err(config(format!("no backend for {named:?} URLs in this build; there is memory://name")))
        }
    }
}

fn parse_memory(rest: &str) -> std::result::Result<BackendUrl, String> {
    let (hub, query) = rest.split_once('?').unwrap_or((rest, ""));
    if hub.len() > 256 || hub.contains(['/', '#', '@']) {
        return Err("a hub's name has at most 256 bytes and none of / # @".into());
    }
    let mut manual_clock = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair {
            "clock=manual" => manual_clock = true,
            "clock=system" => manual_clock = false,
            _ => return Err("memory URLs know one parameter: clock=system or clock=manual".into()),
        }
    }
    Ok(BackendUrl::Memory { hub: (!hub.is_empty()).then(|| hub.to_owned()), manual_clock })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_urls() {
        let memory =
            |hub: Option<&str>, manual_clock| BackendUrl::Memory { hub: hub.map(Into::into), manual_clock };
        assert_eq!(parse("memory://").unwrap(), memory(None, false));
        assert_eq!(parse("memory://hub").unwrap(), memory(Some("hub"), false));
        assert_eq!(parse("memory://hub?clock=manual").unwrap(), memory(Some("hub"), true));
    }

    #[test]
    fn what_makes_no_sense_is_a_config_error_without_the_secret() {
        for url in ["", "memory", "memory:hub", "memory://a/b", "memory://a?clock=fast", "mysql://u:secret@h"]
        {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[cfg(any(feature = "redis", feature = "postgres"))]
    #[test]
    fn limits_go_before_the_options() {
        let mut limits = Limits::default();
        assert_eq!(limits.set("operationTimeoutMs", "1000"), Ok(true));
        assert_eq!(limits.set("outageWaitMs", "900"), Ok(true));
        assert_eq!(limits.set("prefix", "900"), Ok(false));
        let options = limits.apply(Options { operation_timeout_ms: 5_000, ..Options::default() }).unwrap();
        assert_eq!((options.operation_timeout_ms, options.outage_wait_ms), (1_000, 900));
        for (name, value) in [("outageWaitMs", "-1"), ("outageWaitMs", "600001"), ("operationTimeoutMs", "0")]
        {
            assert!(limits.set(name, value).unwrap_err().contains(name), "{name}={value}");
        }
        assert_eq!(limits.set("outageWaitMs", "1000"), Ok(true));
        assert!(limits.apply(Options::default()).unwrap_err().to_string().contains("outageWaitMs"));
    }

    proptest! {
        #[test]
        fn noise_never_panics(url in ".{0,60}") {
            let _ = parse(&url);
            let _ = parse(&format!("memory://{url}"));
        }
    }
}
