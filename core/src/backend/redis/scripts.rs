//! The scripts: each operation of a session is one, so that it is atomic and one round trip.
//!
//! Nothing a user controls is ever part of a script's text (§8).

use std::sync::LazyLock;

use redis::Cmd;

/// A script and its hash.
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = stripped(parts);
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Script { text, hash }
    }

    /// By its hash: `NOSCRIPT` when the server does not know it.
    pub(super) fn by_hash(&self) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.hash);
        cmd
    }

    /// With its text, which the server then knows.
    pub(super) fn by_text(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&self.text);
        cmd
    }
}

/// Comments and indents are for readers of the files.
fn stripped(parts: &[&str]) -> String {
    let lines = parts.iter().flat_map(|part| part.lines()).map(str::trim);
    let mut text = String::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("--")) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

const COMMON: &str = include_str!("lua/common.lua");

macro_rules! scripts {
    ($($name:ident = [$($part:expr),*];)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$($part),*]));)*
    };
}

scripts! {
    ACCEPT = [include_str!("lua/accept.lua")];
    ACCEPT_TOPIC = [include_str!("lua/accept_topic.lua")];
    CLAIM = [COMMON, include_str!("lua/claim.lua")];
    RELEASE = [COMMON, include_str!("lua/release.lua")];
    END = [COMMON, include_str!("lua/end.lua")];
    FORGET = [COMMON, include_str!("lua/forget.lua")];
    READ = [COMMON, include_str!("lua/read.lua")];
    READ_TOPIC = [COMMON, include_str!("lua/read_topic.lua")];
    HOLDER = [COMMON, include_str!("lua/holder.lua")];
    KNOWN = [COMMON, include_str!("lua/known.lua")];
    JOIN = [COMMON, include_str!("lua/join.lua")];
    RENEW = [COMMON, include_str!("lua/renew.lua")];
    BURY = [COMMON, include_str!("lua/bury.lua")];
    SWEEP = [COMMON, include_str!("lua/sweep.lua")];
    INFO = [COMMON, include_str!("lua/info.lua")];
    PUT_INFO = [COMMON, include_str!("lua/put_info.lua")];
    FORGET_INFO = [COMMON, include_str!("lua/forget_info.lua")];
    SUBSCRIBE = [COMMON, include_str!("lua/subscribe.lua")];
    UNSUBSCRIBE = [COMMON, include_str!("lua/unsubscribe.lua")];
    SUBSCRIPTIONS = [COMMON, include_str!("lua/subscriptions.lua")];
}
