//! The URL that names a backend.

use crate::error::{Error, ErrorKind, Result};

/// What a URL asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BackendUrl {
    /// `memory://name?clock=manual`; without a name, a hub of its own.
    Memory { hub: Option<String>, manual_clock: bool },
    /// `redis://host`, `rediss://host`, `redis+unix:///path`.
    #[cfg(feature = "redis")]
    Redis(Box<crate::backend::redis::RedisAddress>),
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

    proptest! {
        #[test]
        fn noise_never_panics(url in ".{0,60}") {
            let _ = parse(&url);
            let _ = parse(&format!("memory://{url}"));
        }
    }
}
