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

    /// Other scripts as functions of their keys and arguments, and what is done with them. The head knows
    /// the run.
    pub(super) fn around(head: &str, functions: &[(&str, &Script)], body: &str) -> Self {
        let mut text = stripped(&[head]);
        for (name, script) in functions {
            let start = "(KEYS, ARGV)\nARGV[#ARGV + 1] = RUN\n";
            text.extend(["local function ", name, start, &script.text, "end\n"]);
        }
        text.push_str(&stripped(&[body]));
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

const COMMON: &str = concat!(include_str!("lua/go_on.lua"), include_str!("lua/common.lua"));
const ONE: &str = include_str!("lua/one.lua");
const MANY: &str = include_str!("lua/many.lua");
const SESSION: &str = include_str!("lua/session.lua");
const REGISTRY: &str = include_str!("lua/registry/common.lua");
const GO_ON: &str = include_str!("lua/go_on.lua");
const KEEP_EVENTS: &str = include_str!("lua/keep_events.lua");
const IN_ONE: &str = "local MANY = false\n";
const IN_MANY: &str = "local MANY = true\n";

macro_rules! scripts {
    ($($name:ident = [$($part:expr),*];)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$($part),*]));)*
    };
}

/// A session's script for where all keys are on one server, and for a cluster.
pub(super) struct Both {
    pub(super) one: &'static LazyLock<Script>,
    pub(super) many: &'static LazyLock<Script>,
}

macro_rules! of_sessions {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: Both = {
            static ONE_SERVER: LazyLock<Script> =
                LazyLock::new(|| Script::new(&[COMMON, ONE, SESSION, include_str!($file)]));
            static CLUSTER: LazyLock<Script> =
                LazyLock::new(|| Script::new(&[COMMON, MANY, SESSION, include_str!($file)]));
            Both { one: &ONE_SERVER, many: &CLUSTER }
        };)*
    };
}

of_sessions! {
    CLAIM = "lua/claim.lua";
    RECLAIM = "lua/reclaim.lua";
    RELEASE = "lua/release.lua";
    END = "lua/end.lua";
    FORGET = "lua/forget.lua";
    READ = "lua/read.lua";
    HOLDER = "lua/holder.lua";
    HELD = "lua/held.lua";
    KNOWN = "lua/known.lua";
    SUBSCRIPTIONS = "lua/subscriptions.lua";
    REGISTER = "lua/registry/register.lua";
    OPEN_LOG = "lua/registry/open_log.lua";
}

scripts! {
    ACCEPT = [IN_ONE, GO_ON, KEEP_EVENTS, include_str!("lua/accept.lua")];
    ACCEPT_SESSIONS = [GO_ON, KEEP_EVENTS, include_str!("lua/accept_sessions.lua")];
    ACCEPT_TOPIC = [IN_ONE, GO_ON, include_str!("lua/accept_topic.lua")];
    READ_TOPIC = [COMMON, ONE, include_str!("lua/read_topic.lua")];
    JOIN = [COMMON, ONE, include_str!("lua/join.lua")];
    RENEW = [COMMON, ONE, include_str!("lua/renew.lua")];
    HOLD = [COMMON, ONE, include_str!("lua/hold.lua")];
    BURY = [COMMON, ONE, SESSION, include_str!("lua/bury.lua")];
    SWEEP = [COMMON, ONE, include_str!("lua/sweep.lua")];
    EXPIRE = [COMMON, ONE, include_str!("lua/expire.lua")];
    INFO = [COMMON, ONE, SESSION, include_str!("lua/info.lua")];
    PUT_INFO = [COMMON, ONE, SESSION, include_str!("lua/put_info.lua")];
    FORGET_INFO = [COMMON, ONE, SESSION, include_str!("lua/forget_info.lua"), include_str!("lua/forget_info_one.lua")];
    FIND = [COMMON, ONE, SESSION, include_str!("lua/find.lua")];
    NOTE = [COMMON, ONE, SESSION, include_str!("lua/note.lua"), include_str!("lua/find.lua")];
    SUBSCRIBE = [COMMON, ONE, SESSION, include_str!("lua/subscribe.lua"), include_str!("lua/subscribe_one.lua")];
    UNSUBSCRIBE = [COMMON, ONE, SESSION, include_str!("lua/unsubscribe.lua")];
    // In a cluster, and there alone.
    MANY_ACCEPT = [IN_MANY, GO_ON, KEEP_EVENTS, include_str!("lua/accept.lua")];
    MANY_ACCEPT_TOPIC = [IN_MANY, GO_ON, include_str!("lua/accept_topic.lua")];
    SEE = [COMMON, ONE, include_str!("lua/see.lua")];
    MANY_BURY = [COMMON, MANY, SESSION, include_str!("lua/bury_many.lua")];
    MANY_HOLD = [COMMON, MANY, SESSION, include_str!("lua/hold_many.lua")];
    MANY_EXPIRE = [COMMON, MANY, SESSION, include_str!("lua/expire_many.lua")];
    MANY_TOUCH = [COMMON, MANY, SESSION, include_str!("lua/touch.lua")];
    MANY_FORGET_INFO = [COMMON, MANY, SESSION, include_str!("lua/forget_info.lua"), include_str!("lua/forget_info_many.lua")];
    MANY_SUBSCRIBE = [COMMON, MANY, SESSION, include_str!("lua/subscribe.lua"), include_str!("lua/subscribe_many.lua")];
    MANY_UNSUBSCRIBE = [COMMON, MANY, SESSION, include_str!("lua/unsubscribe_many.lua")];
    // The registry's and the event log's; each touches one slot.
    REGISTRY_LOOK = [REGISTRY, include_str!("lua/registry/look.lua")];
    REGISTRY_REPORT = [REGISTRY, include_str!("lua/registry/report.lua")];
    REGISTRY_ADOPT = [REGISTRY, include_str!("lua/registry/adopt.lua")];
    REGISTRY_CLOSE = [REGISTRY, include_str!("lua/registry/close.lua")];
    REGISTRY_BURY = [REGISTRY, include_str!("lua/registry/bury.lua")];
    REGISTRY_JUDGE = [REGISTRY, include_str!("lua/registry/judge.lua")];
    REGISTRY_INDEX = [include_str!("lua/registry/index.lua")];
    REGISTRY_DUE = [include_str!("lua/registry/due.lua")];
    LIVE_NODES = [COMMON, ONE, include_str!("lua/registry/live.lua")];
    REGISTRY_LIST = [include_str!("lua/registry/list.lua")];
    NOTE_LOG = [include_str!("lua/registry/note.lua")];
    DROP = [include_str!("lua/drop_many.lua")];
    TOLD = [include_str!("lua/told_many.lua")];
}
