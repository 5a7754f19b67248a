//! Proves that the runner can fail: each of these scenarios is wrong in one way, and must fail for it.

use serde_json::{Value, json};

pub struct Wrong {
    pub name: &'static str,
    pub scenario: Value,
    /// What the failure must say.
    pub says: &'static str,
}

/// A scenario with these steps.
fn steps(steps: Value) -> Value {
    json!({ "name": "wrong", "title": "It is wrong.", "guarantees": ["G1"], "steps": steps })
}

/// A scenario that opens `s1`, then takes one more step.
fn opened(step: Value) -> Value {
    steps(json!([{ "do": "open", "session": "s1", "expect": { "gap": false } }, step]))
}

/// A scenario that opens `s1`, sends `m1` and `m2` to it, then takes one more step.
fn sent(step: Value) -> Value {
    steps(json!([
        { "do": "open", "session": "s1", "expect": { "gap": false } },
        { "do": "send", "to": "s1", "payload": ["m1", "m2"], "expect": { "accepted": 1 } },
        step
    ]))
}

/// Wrong in shape: refused before anything runs.
pub fn malformed() -> Vec<Wrong> {
    let wrong = |name, scenario, says| Wrong { name, scenario, says };
    vec![
        wrong("an-unknown-step", steps(json!([{ "do": "dance" }])), "unknown variant `dance`"),
        wrong("a-step-without-do", steps(json!([{ "session": "s1" }])), "missing field `do`"),
        wrong(
            "an-unknown-field",
            steps(json!([{ "do": "kill", "node": "a", "how": "9" }])),
            "unknown field `how`",
        ),
        wrong(
            "a-missing-expectation",
            steps(json!([{ "do": "has", "session": "s1" }])),
            "missing field `expect`",
        ),
        wrong(
            "an-unknown-expectation",
            opened(json!({ "do": "send", "to": "s1", "payload": "m", "expect": { "acepted": 1 } })),
            "step 2: data did not match",
        ),
        wrong("an-outage-of-nobody", steps(json!([{ "do": "outage" }])), "missing field `node`"),
        wrong(
            "an-unknown-field-in-a-branch",
            steps(json!([{ "do": "parallel", "branches": [[{ "do": "idle", "streem": "s1" }]] }])),
            "step 1.1.1: unknown field `streem`",
        ),
        wrong(
            "an-unknown-field-in-a-turn",
            steps(json!([{ "do": "repeat", "from": 1, "to": 2, "steps": [{ "do": "kill", "nod": "{i}" }] }])),
            "step 1[i=1].1: unknown field `nod`",
        ),
        wrong(
            "an-unknown-field-of-a-scenario",
            json!({ "name": "x", "title": "X.", "guarantees": ["G1"], "steps": [{ "do": "kill", "node": "a" }], "skip": true }),
            "unknown field `skip`",
        ),
        wrong(
            "an-unknown-guarantee",
            json!({ "name": "x", "title": "X.", "guarantees": ["G13"], "steps": [{ "do": "kill", "node": "a" }] }),
            "G13 is no guarantee",
        ),
        wrong("no-steps", steps(json!([])), "at least one step"),
    ]
}

/// Right in shape, wrong in what they expect.
pub fn mistaken() -> Vec<Wrong> {
    let wrong = |name, scenario, says| Wrong { name, scenario, says };
    vec![
        wrong(
            "an-unexpected-success",
            steps(json!([{ "do": "open", "session": "s1", "expect": { "error": "conflict" } }])),
            "expected error conflict, got Opened { gap: false }",
        ),
        wrong(
            "an-unexpected-error",
            steps(json!([{ "do": "open", "session": "a b", "expect": { "gap": false } }])),
            "expected Opened { gap: false }, got error",
        ),
        wrong(
            "another-error",
            steps(json!([{ "do": "open", "session": "a b", "expect": { "error": "conflict" } }])),
            "expected error conflict, got error invalid_input",
        ),
        wrong(
            "an-unexpected-success-of-a-step-without-result",
            steps(
                json!([{ "do": "info.set", "session": "s1", "field": "logLevel", "value": "info", "expect": { "error": "invalid_input" } }]),
            ),
            "expected error invalid_input, but it succeeded",
        ),
        wrong(
            "an-unexpected-error-of-a-step-without-result",
            steps(json!([{ "do": "info.set", "session": "s1", "field": "logLevel", "value": "loud" }])),
            "unexpected error invalid_input",
        ),
        wrong(
            "another-message",
            steps(
                json!([{ "do": "info.get", "session": "s1", "field": "logLevel", "expect": { "error": "not_found", "message": "gone" } }]),
            ),
            "message: expected \"gone\"",
        ),
        wrong(
            "another-receipt",
            opened(json!({ "do": "send", "to": "s1", "payload": "m1", "expect": { "accepted": 2 } })),
            "receipt: expected Counts { accepted: 2",
        ),
        wrong(
            "another-event",
            sent(json!({ "do": "read", "stream": "s1", "expect": ["m2"] })),
            "event: expected \"m2\", got \"m1\"",
        ),
        wrong(
            "another-kind",
            sent(
                json!({ "do": "read", "stream": "s1", "expect": [{ "payload": "m1", "kind": "broadcast" }] }),
            ),
            "kind: expected Broadcast, got Directed",
        ),
        wrong(
            "an-event-left-unread",
            sent(json!({ "do": "read", "stream": "s1", "expect": ["m1"] })),
            "at the end, stream s1: unread event \"m2\"",
        ),
        wrong("not-idle", sent(json!({ "do": "idle", "stream": "s1" })), "not idle: gave \"m1\""),
        wrong(
            "another-order",
            sent(
                json!({ "do": "read", "stream": "s1", "expect": { "interleaved": [["m2"], ["m3", "m1"]] } }),
            ),
            "\"m1\" is not next in any of the sequences",
        ),
        wrong(
            "another-end",
            opened(json!({ "do": "parallel", "branches": [
                [{ "do": "close", "session": "s1", "expect": true }],
                [{ "do": "ended", "stream": "s1", "expect": "terminated" }]
            ] })),
            "end: expected Ok(\"terminated\"), got Ok(\"closed\")",
        ),
        wrong(
            "an-end-nobody-expects",
            opened(json!({ "do": "close", "session": "s1", "expect": true })),
            "it ended (closed), and no step expects it",
        ),
        wrong(
            "an-unread-event-at-the-end-of-a-stream",
            steps(json!([
                { "do": "open", "session": "s1", "expect": { "gap": false } },
                { "do": "send", "to": "s1", "payload": "m1", "expect": { "accepted": 1 } },
                { "do": "close", "session": "s1", "expect": true },
                { "do": "ended", "stream": "s1", "expect": "closed" }
            ])),
            "unread event \"m1\"",
        ),
        wrong(
            "another-value",
            opened(json!({ "do": "has", "session": "s1", "expect": false })),
            "result: expected false, got true",
        ),
        wrong(
            "another-gap",
            opened(json!({ "do": "open", "session": "s1", "as": "again", "expect": { "gap": true } })),
            "expected Opened { gap: true }, got Opened { gap: false }",
        ),
        wrong(
            "another-count",
            opened(json!({ "do": "stats", "expect": { "streams": 7 } })),
            "streams: expected Number(7), got Number(1)",
        ),
        wrong(
            "an-unknown-count",
            opened(json!({ "do": "stats", "expect": { "stars": 0 } })),
            "stars: expected",
        ),
        wrong("an-unknown-stream", opened(json!({ "do": "idle", "stream": "s2" })), "there is no stream s2"),
        wrong("an-unknown-node", opened(json!({ "do": "kill", "node": "z" })), "there is no live node z"),
        wrong(
            "an-unknown-cursor",
            opened(
                json!({ "do": "open", "session": "s1", "as": "x", "after": "$never", "expect": { "gap": false } }),
            ),
            "no cursor was saved as never",
        ),
        wrong(
            "a-name-used-twice",
            opened(json!({ "do": "open", "session": "s1", "expect": { "gap": false } })),
            "the name s1 is taken",
        ),
        wrong(
            "a-notification-left-unread",
            steps(json!([
                { "do": "subscription.listen", "id": 1, "origin": "o", "filters": { "toolsListChanged": true }, "as": "sub", "expect": true },
                { "do": "subscription.acknowledge", "subscription": "sub" },
                { "do": "subscription.notify", "notification": { "jsonrpc": "2.0", "method": "notifications/tools/list_changed" } }
            ])),
            "at the end, subscription sub: unread notification",
        ),
        wrong(
            "another-record",
            steps(json!([
                { "do": "registry.create", "session": "s1" },
                { "do": "registry.get", "session": "s1", "expect": { "activeRequests": 1 } }
            ])),
            "active requests: expected 1, got 0",
        ),
        wrong(
            "a-record-that-is-not-there",
            steps(json!([{ "do": "registry.peek", "session": "s1", "expect": { "state": "active" } }])),
            "there is no such session",
        ),
        wrong(
            "a-record-too-many",
            steps(json!([
                { "do": "registry.create", "session": "s1" },
                { "do": "registry.peek", "session": "s1", "expect": null }
            ])),
            "expected none, got",
        ),
        wrong(
            "another-list",
            steps(json!([
                { "do": "registry.create", "session": "s1" },
                { "do": "registry.list", "expect": ["s2"] }
            ])),
            "result: expected [\"s2\"], got [\"s1\"]",
        ),
        wrong(
            "a-closing-left-unread",
            steps(json!([
                { "do": "registry.follow", "as": "f" },
                { "do": "registry.create", "session": "s1" },
                { "do": "registry.close", "session": "s1", "reason": "deleted", "expect": true },
                // Told of by the time something sent later has come.
                { "do": "open", "session": "s2", "expect": { "gap": false } },
                { "do": "send", "to": { "all": true }, "payload": "fence", "expect": { "accepted": 1 } },
                { "do": "read", "stream": "s2", "expect": ["fence"] }
            ])),
            "at the end, closings f: unread",
        ),
        wrong(
            "another-replay",
            steps(json!([
                { "do": "events.append", "scope": "s1", "stream": "x", "payload": ["m1", "m2"] },
                { "do": "events.read", "scope": "s1", "stream": "x", "expect": { "events": ["m1"], "gap": false } }
            ])),
            "events: expected [\"m1\"], got [\"m1\", \"m2\"]",
        ),
        wrong(
            "an-event-left-in-a-tail",
            steps(json!([
                { "do": "events.prime", "scope": "s1", "stream": "x", "save": "id" },
                { "do": "events.append", "scope": "s1", "stream": "x", "payload": "m1" },
                { "do": "events.tail", "scope": "s1", "after": "$id", "as": "t", "expect": { "gap": false } }
            ])),
            "at the end, tail t: unread",
        ),
        wrong(
            "a-failure-in-a-branch",
            opened(json!({ "do": "parallel", "branches": [
                [{ "do": "has", "session": "s1", "expect": true }],
                [{ "do": "known", "session": "s1", "expect": false }]
            ] })),
            "step 2.2.1",
        ),
    ]
}
