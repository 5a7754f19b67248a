//! The statements: each calls one function.

use std::sync::Arc;

use super::schema::Schema;

/// The text of each statement; a node's id is sent as text.
pub(super) struct Statements {
    pub(super) accept: Arc<str>,
    pub(super) post_one: Arc<str>,
    pub(super) claim: Arc<str>,
    pub(super) reclaim: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) end: Arc<str>,
    pub(super) forget: Arc<str>,
    pub(super) read: Arc<str>,
    pub(super) read_topic: Arc<str>,
    pub(super) holder: Arc<str>,
    pub(super) held: Arc<str>,
    pub(super) known: Arc<str>,
    pub(super) join: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) bury: Arc<str>,
    pub(super) sweep: Arc<str>,
    pub(super) put_info: Arc<str>,
    pub(super) info: Arc<str>,
    pub(super) forget_info: Arc<str>,
    pub(super) subscribe: Arc<str>,
    pub(super) unsubscribe: Arc<str>,
    pub(super) subscribers: Arc<str>,
    pub(super) uris: Arc<str>,
    pub(super) take_mail: Arc<str>,
    pub(super) registry_key: Arc<str>,
    pub(super) registry_create: Arc<str>,
    pub(super) registry_read: Arc<str>,
    pub(super) registry_read_each: Arc<str>,
    pub(super) registry_report: Arc<str>,
    pub(super) registry_adopt: Arc<str>,
    pub(super) registry_close: Arc<str>,
    pub(super) registry_bury: Arc<str>,
    pub(super) registry_owned: Arc<str>,
    pub(super) registry_list: Arc<str>,
    pub(super) registry_stats: Arc<str>,
    pub(super) registry_sweep: Arc<str>,
    pub(super) append: Arc<str>,
    pub(super) logs_of: Arc<str>,
    pub(super) drop_logs: Arc<str>,
}

impl Statements {
    pub(super) fn new(schema: &Schema) -> Self {
        const NODE: &str = "::text::uuid";
        let rows = |function: &str| {
            matches!(
                function,
                "claim"
                    | "reclaim"
                    | "read_topic"
                    | "join"
                    | "info"
                    | "forget_info"
                    | "registry_read"
                    | "registry_report"
                    | "registry_close"
                    | "registry_stats"
                    | "registry_sweep"
                    | "logs_of"
            )
        };
        let call =
            |function: &str, parameters: usize| schema.call(function, &vec![""; parameters], rows(function));
        let of_node = |function: &str, parameters: usize| {
            let mut kinds = vec![""; parameters];
            kinds[0] = NODE;
            schema.call(function, &kinds, rows(function))
        };
        Statements {
            accept: call("accept", 11),
            post_one: call("post_one", 6),
            claim: of_node("claim", 15),
            reclaim: of_node("reclaim", 13),
            release: call("release", 8),
            end: call("end", 3),
            forget: schema.call_each("forget", &["text"], "i.c0", "r.*"),
            read: schema.read(),
            read_topic: call("read_topic", 6),
            holder: call("holder", 1),
            held: of_node("held", 2),
            known: call("known", 1),
            join: of_node("join", 4),
            renew: of_node("renew", 2),
            bury: of_node("bury", 3),
            sweep: call("sweep", 7),
            put_info: of_node("put_info", 8),
            info: call("info", 2),
            forget_info: of_node("forget_info", 2),
            subscribe: call("subscribe", 4),
            unsubscribe: call("unsubscribe", 2),
            subscribers: call("subscribers", 1),
            uris: call("uris", 1),
            take_mail: of_node("take_mail", 2),
            registry_key: call("registry_key", 1),
            registry_create: schema.call_each(
                "registry_create",
                &["text", "text", "text"],
                "i.c0, i.c1, $4::text::uuid, i.c2, $5",
                "r.*",
            ),
            registry_read: call("registry_read", 4),
            registry_read_each: schema.call_each(
                "registry_read",
                &["text", "text", "text"],
                "array[i.c0], i.c1, i.c2, $4",
                "r.owner, r.node, r.created, r.access, r.state, r.reason, r.metadata, r.requests, r.at",
            ),
            registry_report: of_node("registry_report", 3),
            registry_adopt: schema.call("registry_adopt", &["", NODE], false),
            registry_close: call("registry_close", 3),
            registry_bury: call("registry_bury", 2),
            registry_owned: call("registry_owned", 1),
            registry_list: schema.call("registry_list", &["", NODE, "", ""], false),
            registry_stats: call("registry_stats", 1),
            registry_sweep: call("registry_sweep", 4),
            append: schema.call_each(
                "append",
                &["text", "text", "boolean", "text"],
                "i.c0, i.c1, i.c2, i.c3, $5, $6, $7",
                "r.*",
            ),
            logs_of: call("logs_of", 1),
            drop_logs: call("drop_logs", 2),
        }
    }
}
