//! The scripts of a fleet with tmcp's own managers in it: each is one of the others, with what concerns
//! those before and after.

use std::sync::LazyLock;

use super::scripts::{self, Both, Script};
use super::{RedisBackend, wire};
use crate::runtime::random_epoch;

macro_rules! mixed {
    ($($name:ident = $main:expr, $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            let main: Option<&Script> = $main;
            let others: [(&str, &Script); 2] = [("holder", scripts::HOLDER.one), ("put", &scripts::PUT_INFO)];
            let functions: Vec<_> = main.into_iter().flat_map(|main| others.into_iter().chain([("main", main)])).collect();
            Script::around(include_str!("lua/interop.lua"), &functions, include_str!($file))
        });)*
    };
}

mixed! {
    CLAIM = Some(scripts::CLAIM.one), "lua/interop_claim.lua";
    RELEASE = Some(scripts::RELEASE.one), "lua/interop_release.lua";
    END = Some(scripts::END.one), "lua/interop_end.lua";
    FORGET = Some(scripts::FORGET.one), "lua/interop_end.lua";
    HOLDER = Some(scripts::HOLDER.one), "lua/interop_holder.lua";
    KNOWN = Some(scripts::KNOWN.one), "lua/interop_known.lua";
    ACCEPT = Some(&scripts::ACCEPT), "lua/interop_accept.lua";
    ACCEPT_TOPIC = Some(&scripts::ACCEPT_TOPIC), "lua/interop_topic.lua";
    KEEP = None, "lua/interop_keep.lua";
    CLOSED = None, "lua/interop_closed.lua";
    SUBSCRIBERS = None, "lua/interop_subscribers.lua";
}

/// What takes the place of a session's script, and which of its arguments it has to know.
pub(super) fn mixed(script: &'static Both) -> Option<(&'static Script, Option<usize>)> {
    let all: [(&Both, &'static LazyLock<Script>, Option<usize>); 5] = [
        (&scripts::CLAIM, &CLAIM, Some(4)),
        (&scripts::END, &END, Some(0)),
        (&scripts::FORGET, &FORGET, None),
        (&scripts::HOLDER, &HOLDER, None),
        (&scripts::KNOWN, &KNOWN, None),
    ];
    let found = all.into_iter().find(|(of, ..)| std::ptr::eq(*of, script))?;
    Some((found.1, found.2))
}

impl RedisBackend {
    /// The arguments that the scripts of a mixed fleet take off the end.
    pub(super) fn mixed_arguments(&self, id: &str, extra: &[u8]) -> [Vec<u8>; 7] {
        [
            self.prefix().into(),
            id.into(),
            self.me().into(),
            self.session_ttl().into(),
            self.age().into(),
            extra.to_vec(),
            wire::epoch(random_epoch()).into(),
        ]
    }
}
