"""What each step does; `tests/conformance/README.md` says it in words."""

from __future__ import annotations

import asyncio

import mcp_sessions
from mcp_sessions import ALL

from . import steps_sessions as sessions
from .backend import snake
from .check import (
    PATIENCE,
    Failed,
    Outcome,
    attempt,
    check,
    check_send,
    check_set,
    check_until,
    done,
    eventually,
    same,
    shown,
)
from .held import Held, Listening
from .scenario import notifications, text, texts, with_param

CURSOR_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ADDITIONS = ["A", "AAAA", "=", " ", "\n"]

STEPS = {**sessions.STEPS}


def step(name):
    def known(run):
        STEPS[name] = run
        return run

    return known


# --- nodes: they come, go and die, and time passes


@step("start")
async def start(world, step):
    await world.start(step["node"], step.get("options"), step.get("url"), step.get("expect"))


@step("shutdown")
async def shutdown(world, step):
    engine, ms = world.engine(step.get("node")), step.get("deadlineMs")
    done(await attempt(lambda: engine.shutdown() if ms is None else engine.shutdown(ms)), step.get("expect"))


@step("kill")
async def kill(world, step):
    killed = world.live_node(step.get("node"))
    killed.engine.abandon()
    killed.alive = False


@step("outage")
async def outage(world, step):
    route = world.routes.get(step["node"])
    if route is None:
        world.engine(step["node"]).set_outage(True)
    else:
        route.cut()


@step("restore")
async def restore(world, step):
    node = step["node"]
    route = world.routes.get(node)
    if route is None:
        world.engine(node).set_outage(False)
    else:
        route.restore()

    async def ready():
        same("ready", (await world.engine(node).health()).ready, True)

    await eventually(ready)


@step("advance")
async def advance(world, step):
    if not world.place.manual_clock:
        await asyncio.sleep(step["ms"] / 1_000)
        return
    node = next((one for one in world.nodes.values() if one.alive), None)
    if node is None:
        raise Failed("there is no node to move time with")
    await node.engine.advance_clock(step["ms"])


@step("health")
async def health(world, step):
    same("result", {"ready": (await world.engine(step.get("node")).health()).ready}, step["expect"])


@step("stats")
async def stats(world, step):
    counted = world.engine(step.get("node")).stats()
    for name, count in step["expect"].items():
        same(name, getattr(counted, snake(name), None), count)


# --- streams: they open, get events and end


@step("open")
async def open_(world, step):
    written = text(step["session"])
    session, name = world.named(written), step.get("as", written)
    world.take_name(name)
    streams = world.engine(step.get("node")).streams
    options = {} if "conflict" not in step else {"conflict": step["conflict"]}
    if "after" in step:
        options["after"] = await cursor_of(world, step["after"])
    opened = await attempt(lambda: streams.open(session, **options))
    check(Outcome({"gap": opened.value.gap}) if opened.error is None else opened, step["expect"])
    save = step.get("save")
    if opened.error is not None:
        return
    if save is not None:
        world.cursors[save] = opened.value.cursor
    world.streams[name] = Held(world.name_of(step.get("node")), opened.value)


@step("send")
async def send(world, step):
    streams = world.engine(step.get("node")).streams
    to = step["to"]
    if isinstance(to, dict) and to.get("all"):
        target = ALL
    else:
        target = world.named(text(to)) if _is_text(to) else [world.named(one) for one in texts(to)]
    options = {"idempotency_key": text(step["key"])} if "key" in step else {}
    payloads, expect = texts(step["payload"]), step["expect"]
    if step.get("pipelined"):
        tasks = [
            asyncio.ensure_future(attempt(lambda one=one: streams.send(target, one, **options)))
            for one in payloads
        ]
        for receipt in await asyncio.gather(*tasks):
            check_send(receipt, expect)
        return
    for one in payloads:
        check_send(await attempt(lambda one=one: streams.send(target, one, **options)), expect)


@step("read")
async def read(world, step):
    held = world.stream(step["stream"])
    await _read_what(world, held, step["expect"])
    if "save" in step:
        world.cursors[step["save"]] = held.source.cursor


async def _read_what(world, held, expect):
    if isinstance(expect, list):
        await held.read_exactly(expect)
        return
    known = {"interleaved", "headOf", "tailOf", "atLeast", "atMost", "restOf", "after", "sameAs"}
    same("unknown fields of what is read", sorted(expect.keys() - known), [])
    if "interleaved" in expect:
        await held.read_interleaved([texts(one) for one in expect["interleaved"]])
    elif "headOf" in expect:
        await held.read_head(texts(expect["headOf"]), expect["atLeast"], expect["atMost"])
    elif "tailOf" in expect:
        await held.read_tail(texts(expect["tailOf"]), expect["atLeast"], expect["atMost"])
    elif "sameAs" in expect:
        await held.read_texts(list(world.stream(expect["sameAs"]).read))
    else:
        before = world.stream(expect["after"]).read
        everything = texts(expect["restOf"])
        same("what the other stream read", before, everything[: len(before)])
        await held.read_texts(everything[len(before) :])


@step("idle")
async def idle(world, step):
    """Sends a fence after everything that was accepted: it must be the next thing the stream gives."""
    held = world.stream(step["stream"])
    payload = world.new_fence()
    target = ALL if step.get("fence") == "broadcast" else held.source.session_id
    streams = world.engine(step.get("node", held.node)).streams
    check_send(await attempt(lambda: streams.send(target, payload)), {"accepted": 1})
    event = await held.next(payload)
    if event.payload != payload:
        raise Failed(f"not idle: gave {shown(event.payload)}")


@step("ended")
async def ended(world, step):
    held = world.stream(step["stream"])
    await held.check_end(step["expect"])
    await held.nothing_unread()
    more = await held.next_or_end()
    if more is not None:
        raise Failed(f"gave {shown(held.plain(more))} after its end")


@step("silent")
async def silent(world, step):
    held = world.stream(step["stream"])
    await held.nothing_unread()
    same("end", held.source.end, None)


@step("survivor")
async def survivor(world, step):
    world.take_name(step["as"])
    everyone = [world.stream(one) for one in step["among"]]

    def live():
        return [held for held in everyone if held.source.end is None]

    def at_most_one():
        if len(live()) > 1:
            raise Failed("several are live")

    await eventually(at_most_one)
    await world.catch_up()
    if not live():
        raise Failed("none is live")
    [left] = live()
    for held in everyone:
        if held is not left:
            await held.check_end(step["expect"])
    world.streams[step["as"]] = left


@step("release")
async def release(world, step):
    held = world.stream(step["stream"])
    await held.source.close()
    held.end_expected = True


@step("drop")
async def drop(world, step):
    await world.drop("streams", step["stream"])


@step("forgeries")
async def forgeries(world, step):
    """Every edit of a cursor is refused, or a gap that shows nothing but the session's own events."""
    node = step.get("node")
    streams, session, allowed = (
        world.engine(node).streams,
        world.named(text(step["session"])),
        texts(step["allowed"]),
    )
    for forged in edits_of(world.saved(step["cursor"])):
        opened = await attempt(lambda forged=forged: streams.open(session, after=forged))
        if opened.error is None:
            await _check_gap(Held(world.name_of(node), opened.value), forged, allowed)
        elif opened.error.code != "invalid_input":
            raise Failed(f"{shown(forged)}: {opened.error.message}")


def edits_of(cursor):
    return [
        *(_flipped(cursor, at) for at in range(len(cursor))),
        *(cursor[:at] for at in range(len(cursor))),
        *(cursor + more for more in ADDITIONS),
    ]


async def _check_gap(held, forged, allowed):
    if not held.source.gap:
        raise Failed(f"{shown(forged)} was taken for a cursor")
    while (event := await held.now()) is not None:
        if event.payload not in allowed:
            raise Failed(f"{shown(forged)} gave {shown(event.payload)}")
    await held.source.close()
    await held.forget()


async def cursor_of(world, after):
    """The cursor an open resumes after: a saved one, one that was tampered with, or any text."""
    if _is_text(after):
        return world.saved(text(after)) if text(after).startswith("$") else text(after)
    known = {"truncate", "by", "flip", "byte", "extend", "with", "foreign"}
    same("unknown fields of the cursor", sorted(after.keys() - known), [])
    if "truncate" in after:
        return world.saved(after["truncate"])[: -after["by"]]
    if "flip" in after:
        return _flipped(world.saved(after["flip"]), after["byte"])
    if "extend" in after:
        return world.saved(after["extend"]) + after["with"]
    return await _foreign_cursor(world.place.foreign_url, after["foreign"])


async def _foreign_cursor(url, session):
    """A cursor for the session of that name from another deployment, three events in."""
    engine = await mcp_sessions.connect(url)
    stream = await engine.streams.open(session)
    for n in (1, 2, 3):
        await engine.streams.send(session, f"foreign-{n}")
        await stream.next()
    cursor = stream.cursor
    await engine.shutdown(PATIENCE * 1_000)
    return cursor


def _flipped(cursor, at):
    if at >= len(cursor):
        return cursor
    other = CURSOR_ALPHABET[(max(CURSOR_ALPHABET.find(cursor[at]), 0) + 1) % len(CURSOR_ALPHABET)]
    return cursor[:at] + other + cursor[at + 1 :]


def _is_text(written):
    return isinstance(written, str) or (isinstance(written, dict) and "repeat" in written)


@step("has")
async def has(world, step):
    streams, session = world.engine(step.get("node")).streams, world.named(text(step["session"]))
    await check_until(step.get("eventually"), lambda: attempt(lambda: streams.has(session)), step["expect"])


def _asks(name, ask):
    async def run(world, step):
        streams, session = world.engine(step.get("node")).streams, world.named(text(step["session"]))
        check(await attempt(lambda: ask(streams, session)), step["expect"])

    STEPS[name] = run


_asks("known", lambda streams, session: streams.known(session))
_asks("close", lambda streams, session: streams.close(session))
_asks("forget", lambda streams, session: streams.forget(session))


# --- what clients said

FIELDS = ["clientInfo", "clientCapabilities", "logLevel", "protocolVersion", "initializeParams"]


def _accessor(info, verb, field):
    if field not in FIELDS:
        raise Failed(f"the runner does not know the field {field}")
    return getattr(info, f"{verb}_{snake(field)}")


@step("info.set")
async def info_set(world, step):
    info, session = world.engine(step.get("node")).info, world.named(text(step["session"]))
    value, pad = step["value"], step.get("pad")
    padded = value if pad is None else {**value, "pad": "x" * pad}
    setter = _accessor(info, "set", step["field"])
    done(await attempt(lambda: setter(session, padded)), step.get("expect"))


@step("info.get")
async def info_get(world, step):
    info, session = world.engine(step.get("node")).info, world.named(text(step["session"]))
    getter = _accessor(info, "get", step["field"])

    async def get():
        got = await attempt(lambda: getter(session))
        return got if got.error is not None else Outcome({"value": got.value})

    await check_until(step.get("eventually"), get, step["expect"])


@step("info.put")
async def info_put(world, step):
    info, session = world.engine(step.get("node")).info, world.named(text(step["session"]))
    patch = {snake(name): value for name, value in step["patch"].items()}
    done(await attempt(lambda: info.put(session, **patch)), step.get("expect"))


@step("info.record")
async def info_record(world, step):
    info, session = world.engine(step.get("node")).info, world.named(text(step["session"]))
    got = await attempt(lambda: info.get(session))
    if got.error is None:
        record = got.value
        got = Outcome({"value": None if record is None else _camelled(record)})
    check(got, step["expect"])


def _camelled(record):
    fields = {name: getattr(record, snake(name)) for name in FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


@step("info.addSubscription")
async def add_subscription(world, step):
    info = world.engine(step.get("node")).info
    added = await attempt(
        lambda: info.add_subscription(world.named(text(step["session"])), text(step["uri"]))
    )
    done(added, step.get("expect"))


@step("info.removeSubscription")
async def remove_subscription(world, step):
    info = world.engine(step.get("node")).info
    removed = await attempt(
        lambda: info.remove_subscription(world.named(text(step["session"])), text(step["uri"]))
    )
    done(removed, step.get("expect"))


@step("info.getSubscriptions")
async def get_subscriptions(world, step):
    info = world.engine(step.get("node")).info
    got = await attempt(lambda: info.subscribers(text(step["uri"])))
    check_set(got, step["expect"], lambda wanted: [world.named(one) for one in texts(wanted)])


@step("info.getSessionSubscriptions")
async def get_session_subscriptions(world, step):
    info = world.engine(step.get("node")).info
    check_set(await attempt(lambda: info.subscriptions(text(step["session"]))), step["expect"], texts)


@step("info.delete")
async def info_delete(world, step):
    info = world.engine(step.get("node")).info
    check(await attempt(lambda: info.delete(text(step["session"]))), step["expect"])


# --- subscriptions of the modern era


@step("subscription.listen")
async def listen(world, step):
    world.take_name(step["as"])
    subscriptions = world.engine(step.get("node")).subscriptions
    wanted = dict(step["filters"])
    if "resourceSubscriptions" in wanted:
        wanted["resourceSubscriptions"] = texts(wanted["resourceSubscriptions"])
    created = await attempt(lambda: subscriptions.listen(step["id"], step["origin"], wanted))
    check(Outcome(created.value is not None) if created.error is None else created, step["expect"])
    if created.error is None and created.value is not None:
        node = world.name_of(step.get("node"))
        world.subscriptions[step["as"]] = Listening(node, created.value, wanted)


@step("subscription.acknowledge")
async def acknowledge(world, step):
    world.subscription(step["subscription"]).source.acknowledge()


@step("subscription.waiting")
async def waiting(world, step):
    got = await world.subscription(step["subscription"]).now()
    if got is not None:
        raise Failed(f"got {shown(got)} before the acknowledgement")


@step("subscription.notify")
async def notify(world, step):
    subscriptions, pad = world.engine(step.get("node")).subscriptions, step.get("pad")
    for one in notifications(step["notification"]):
        padded = one if pad is None else with_param(one, "pad", "x" * pad)
        done(await attempt(lambda padded=padded: subscriptions.send(padded)), step.get("expect"))


@step("subscription.read")
async def subscription_read(world, step):
    await world.subscription(step["subscription"]).read_exactly(step["expect"])


@step("subscription.idle")
async def subscription_idle(world, step):
    listening = world.subscription(step["subscription"])
    subscriptions = world.engine(step.get("node", listening.node)).subscriptions
    # Where nothing can be sent that it must get, that nothing is there has to do.
    if listening.fence is None:
        await listening.nothing_unread()
        return
    mark = world.new_fence()
    fence = with_param(listening.fence, "fence", mark)
    await subscriptions.send(fence)
    same("notification", await listening.next(mark), fence)


@step("subscription.ended")
async def subscription_ended(world, step):
    listening = world.subscription(step["subscription"])
    await listening.check_end(step["expect"])
    more = await listening.next_or_end()
    if more is not None:
        raise Failed(f"gave {shown(more)} after its end")


@step("subscription.drop")
async def subscription_drop(world, step):
    await world.drop("subscriptions", step["subscription"])


@step("subscription.close")
async def subscription_close(world, step):
    subscriptions = world.engine(step.get("node")).subscriptions
    reason = {} if "reason" not in step else {"reason": step["reason"]}
    same("closed", await subscriptions.close(step["id"], step["origin"], **reason), step["expect"])


@step("subscription.closeAll")
async def subscription_close_all(world, step):
    subscriptions = world.engine(step.get("node")).subscriptions
    reason = {} if "reason" not in step else {"reason": step["reason"]}
    same("closed", await subscriptions.close_all(step.get("origin"), **reason), step["expect"])
