"""Proves that the runner can fail: each of these scenarios is wrong in one way, and must fail for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Wrong:
    name: str
    scenario: dict
    # What its failure must say.
    says: str


def steps(*steps):
    """A scenario with these steps."""
    return {"name": "wrong", "title": "It is wrong.", "guarantees": ["G1"], "steps": list(steps)}


def wrong(table):
    return [Wrong(name, scenario, says) for name, (scenario, says) in table.items()]


OPEN = {"do": "open", "session": "s1", "expect": {"gap": False}}
SEND = {"do": "send", "to": "s1", "payload": ["m1", "m2"], "expect": {"accepted": 1}}
LISTEN = {
    "do": "subscription.listen",
    "id": 1,
    "origin": "o",
    "filters": {"toolsListChanged": True},
    "as": "sub",
    "expect": True,
}
ACKNOWLEDGE = {"do": "subscription.acknowledge", "subscription": "sub"}
NOTIFY = {
    "do": "subscription.notify",
    "notification": {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
}
END = {"do": "close", "session": "s1", "expect": True}
KILL = {"do": "kill", "node": "a"}


def opened(*more):
    return steps(OPEN, *more)


def sent(*more):
    return steps(OPEN, SEND, *more)


def listened(*more):
    return steps(LISTEN, ACKNOWLEDGE, *more)


MALFORMED = wrong(
    {
        "an unknown step": [steps({"do": "dance"}), "step 1: unknown step `dance`"],
        "a step without do": [steps({"session": "s1"}), "missing field `do`"],
        "an unknown field": [steps({**KILL, "how": "9"}), "step 1: unknown field `how`"],
        "a missing expectation": [steps({"do": "has", "session": "s1"}), "missing field `expect`"],
        "an unknown expectation": [
            opened({**SEND, "expect": {"acepted": 1}}),
            'step 2: expect: {"acepted":1} fits no shape',
        ],
        "two expectations in one": [
            opened({"do": "read", "stream": "s1", "expect": {"sameAs": "s1", "interleaved": [["a"], ["b"]]}}),
            "step 2: expect:",
        ],
        "an outage of nobody": [steps({"do": "outage"}), "missing field `node`"],
        "an unknown error": [opened({**OPEN, "expect": {"error": "bad_luck"}}), "step 2: expect:"],
        "an unknown field in a branch": [
            steps({"do": "parallel", "branches": [[{"do": "idle", "streem": "s1"}], [KILL]]}),
            "step 1.1.1: unknown field `streem`",
        ],
        "an unknown field in a turn": [
            steps({"do": "repeat", "from": 1, "to": 2, "steps": [{"do": "kill", "nod": "{i}"}]}),
            "step 1[i=1].1: unknown field `nod`",
        ],
        "a number for a name": [
            steps({"do": "repeat", "from": 1, "to": 2, "steps": [{"do": "kill", "node": "{i}"}]}),
            "step 1[i=1].1: node: is not of type string",
        ],
        "an unknown field of a scenario": [{**steps(KILL), "skip": True}, "scenario: unknown field `skip`"],
        "an unknown guarantee": [{**steps(KILL), "guarantees": ["G13"]}, '"G13" is not known'],
        "an unknown capability": [{**steps(KILL), "requires": ["flight"]}, '"flight" is not known'],
        "a title that is no sentence": [{**steps(KILL), "title": "Wrong"}, "title: does not match"],
        "no steps": [steps(), "steps: has fewer than 1 items"],
    }
)

MISTAKEN = wrong(
    {
        "an unexpected success": [
            steps({**OPEN, "expect": {"error": "conflict"}}),
            'expected error conflict, got {"gap":false}',
        ],
        "an unexpected error": [
            steps({**OPEN, "session": "a b"}),
            'expected {"gap":false}, got error invalid_input',
        ],
        "another error": [
            steps({**OPEN, "session": "a b", "expect": {"error": "conflict"}}),
            "expected error conflict, got error invalid_input",
        ],
        "an unexpected success of a step without result": [
            steps(
                {
                    "do": "info.set",
                    "session": "s1",
                    "field": "logLevel",
                    "value": "info",
                    "expect": {"error": "invalid_input"},
                }
            ),
            "expected error invalid_input, but it succeeded",
        ],
        "an unexpected error of a step without result": [
            steps({"do": "info.set", "session": "s1", "field": "logLevel", "value": "loud"}),
            "unexpected error invalid_input",
        ],
        "another message": [
            steps(
                {
                    "do": "info.get",
                    "session": "s1",
                    "field": "logLevel",
                    "expect": {"error": "not_found", "message": "gone"},
                }
            ),
            'message: expected "gone"',
        ],
        "a message that says too much": [
            steps(
                {
                    "do": "info.get",
                    "session": "s1",
                    "field": "logLevel",
                    "expect": {"error": "not_found", "messageLacks": "s1"},
                }
            ),
            "the message says too much",
        ],
        "an error that is retryable": [
            steps(
                {
                    "do": "info.get",
                    "session": "s1",
                    "field": "logLevel",
                    "expect": {"error": "not_found", "retryable": True},
                }
            ),
            "retryable: expected true, got false",
        ],
        "another receipt": [opened({**SEND, "expect": {"accepted": 2}}), 'receipt: expected {"accepted":2'],
        "none of several receipts": [
            opened({**SEND, "expect": {"anyOf": [{"accepted": 2}, {"dropped": 1}]}}),
            "expected any of",
        ],
        "another event": [
            sent({"do": "read", "stream": "s1", "expect": ["m2"]}),
            'event: expected "m2", got "m1"',
        ],
        "another kind": [
            sent({"do": "read", "stream": "s1", "expect": [{"payload": "m1", "kind": "broadcast"}]}),
            'kind: expected "broadcast", got "directed"',
        ],
        "an event left unread": [
            sent({"do": "read", "stream": "s1", "expect": ["m1"]}),
            'at the end, stream s1: unread {"payload":"m2"',
        ],
        "not idle": [sent({"do": "idle", "stream": "s1"}), 'not idle: gave "m1"'],
        "another order": [
            sent({"do": "read", "stream": "s1", "expect": {"interleaved": [["m2"], ["m3", "m1"]]}}),
            '"m1" is not next in any of the sequences',
        ],
        "a head that is too short": [
            sent(
                END,
                {
                    "do": "read",
                    "stream": "s1",
                    "expect": {"headOf": ["m1", "m2", "m3"], "atLeast": 3, "atMost": 3},
                },
            ),
            "read 2 events, expected 3 to 3",
        ],
        "a tail with a hole": [
            sent(
                {"do": "read", "stream": "s1", "expect": {"tailOf": ["m0", "m2"], "atLeast": 1, "atMost": 2}}
            ),
            'the end of the list: expected ["m0","m2"], got ["m1","m2"]',
        ],
        "another end": [
            opened(
                {
                    "do": "parallel",
                    "branches": [[END], [{"do": "ended", "stream": "s1", "expect": "terminated"}]],
                }
            ),
            'end: expected "terminated", got "closed"',
        ],
        "an end nobody expects": [opened(END), "it ended (closed), and no step expects it"],
        "an unread event at the end of a stream": [
            sent(END, {"do": "ended", "stream": "s1", "expect": "closed"}),
            'unread {"payload":"m1"',
        ],
        "reading on after the end": [
            opened(END, {"do": "read", "stream": "s1", "expect": ["m1"]}),
            "the stream has ended (closed)",
        ],
        "no survivor": [
            steps(
                OPEN,
                {**OPEN, "session": "s2"},
                END,
                {**END, "session": "s2"},
                {
                    "do": "survivor",
                    "among": ["s1", "s2"],
                    "as": "left",
                    "expect": "closed",
                },
            ),
            "none is live",
        ],
        "another value": [
            opened({"do": "has", "session": "s1", "expect": False}),
            "result: expected false, got true",
        ],
        "another gap": [
            opened({**OPEN, "as": "again", "expect": {"gap": True}}),
            'expected {"gap":true}, got {"gap":false}',
        ],
        "another count": [opened({"do": "stats", "expect": {"streams": 7}}), "streams: expected 7, got 1"],
        "an unknown count": [opened({"do": "stats", "expect": {"stars": 0}}), "stars: expected 0"],
        "another list": [
            steps(
                {"do": "info.addSubscription", "session": "s1", "uri": "a:1"},
                {"do": "info.getSubscriptions", "uri": "a:1", "expect": ["s1", "s1"]},
            ),
            'result: expected ["s1","s1"], got ["s1"]',
        ],
        "an unknown stream": [opened({"do": "idle", "stream": "s2"}), "there is no stream s2"],
        "an unknown subscription": [opened(ACKNOWLEDGE), "there is no subscription sub"],
        "an unknown node": [opened({"do": "kill", "node": "z"}), "there is no live node z"],
        "a node that was killed": [steps(KILL, OPEN), "there is no live node a"],
        "an unknown cursor": [opened({**OPEN, "as": "x", "after": "$never"}), "no cursor was saved as never"],
        "a name used twice": [opened(OPEN), "the name s1 is taken"],
        "a notification left unread": [listened(NOTIFY), 'at the end, subscription sub: unread {"jsonrpc"'],
        "another notification": [
            listened(
                NOTIFY,
                {
                    "do": "subscription.read",
                    "subscription": "sub",
                    "expect": [
                        {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}}
                    ],
                },
            ),
            "notification: expected",
        ],
        "a subscription that does not wait": [
            listened(NOTIFY, {"do": "subscription.waiting", "subscription": "sub"}),
            "before the acknowledgement",
        ],
        "an end of a subscription nobody expects": [
            listened(
                {"do": "subscription.close", "id": 1, "origin": "o", "reason": "closed", "expect": True}
            ),
            "at the end, subscription sub: it ended (closed), and no step expects it",
        ],
        "a failure in a branch": [
            opened(
                {
                    "do": "parallel",
                    "branches": [
                        [{"do": "has", "session": "s1", "expect": True}],
                        [{"do": "known", "session": "s1", "expect": False}],
                    ],
                }
            ),
            "step 2.2.1",
        ],
    }
)
