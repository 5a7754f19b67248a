//! What a `cloudflare://` URL says.

use std::fmt;

/// Where a gateway is, and what it wants to hear.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CloudflareAddress {
    /// `wss://host/path`, or `ws://` where TLS is off.
    pub(crate) url: String,
    /// The secret, as the header says it.
    pub(crate) authorization: Option<String>,
    /// Deployments with different prefixes share nothing.
    pub(crate) prefix: String,
}

impl fmt::Debug for CloudflareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudflareAddress").field("url", &self.url).finish_non_exhaustive()
    }
}

pub(crate) fn is_cloudflare(scheme: &str) -> bool {
    scheme == "cloudflare"
}

/// Reads `cloudflare://host/path?token=…&prefix=…&tls=off`. Says what is wrong, never the token.
pub(crate) fn parse(url: &str) -> Result<CloudflareAddress, String> {
    let rest = url.strip_prefix("cloudflare://").unwrap_or_default();
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"@#\"<>\\^`{|}".contains(&byte));
    if host.is_empty() || !plain(host) || !plain(path) {
        return Err("a Cloudflare URL looks like cloudflare://host?token=…".into());
    }
    let (mut token, mut prefix, mut scheme) = (None, "tmcp:".to_owned(), "wss");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or("a parameter of this URL is not escaped as it should be")?;
        match name {
            "token" if value.bytes().all(|byte| byte.is_ascii_graphic()) => token = Some(value),
            "token" => return Err("a token is visible ASCII without spaces".into()),
            "prefix" if value.len() <= 256 && value.bytes().all(|byte| byte.is_ascii_graphic()) => {
                prefix = value;
            }
            "prefix" => return Err("a prefix is visible ASCII, at most 256 bytes".into()),
            "tls" if value == "off" => scheme = "ws",
            "tls" if value == "on" => scheme = "wss",
            _ => return Err("Cloudflare URLs know token, prefix and tls (on or off)".into()),
        }
    }
    Ok(CloudflareAddress {
        url: format!("{scheme}://{host}/{path}"),
        authorization: token.map(|token| format!("Bearer {token}")),
        prefix,
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Text as part of a URL's query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_says() {
        let address = parse("cloudflare://sessions.example.com/mcp?token=s%20cret").unwrap_err();
        assert!(address.contains("visible ASCII"));
        let address = parse("cloudflare://sessions.example.com/mcp?token=s%2Fcret&prefix=a%3A").unwrap();
        assert_eq!(address.url, "wss://sessions.example.com/mcp");
        assert_eq!(address.authorization.as_deref(), Some("Bearer s/cret"));
        assert_eq!(address.prefix, "a:");
        assert!(!format!("{address:?}").contains("cret"));
        assert_eq!(parse("cloudflare://127.0.0.1:8787?tls=off").unwrap().url, "ws://127.0.0.1:8787/");
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_the_secret() {
        for url in [
            "cloudflare://",
            "cloudflare://user:secret@host",
            "cloudflare://host?token=secret&what=1",
            "cloudflare://host?token=secret%0d%0aX:1",
            "cloudflare://host?token=secret%+1",
            "cloudflare://host?tls=maybe&token=secret",
        ] {
            assert!(!parse(url).unwrap_err().contains("secret"), "{url}");
        }
    }

    #[test]
    fn escapes_go_there_and_back() {
        assert_eq!(decode(&encode("a b/ü:%")).as_deref(), Some("a b/ü:%"));
    }
}
