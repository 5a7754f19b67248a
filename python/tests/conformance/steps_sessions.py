"""Steps of the session registry and the event log."""

from __future__ import annotations

import asyncio
import re

from .check import (
    Failed,
    Outcome,
    attempt,
    check,
    check_set,
    check_until,
    done,
    eventually,
    same,
    shown,
    within,
)
from .scenario import text, texts

STEPS = {}
PAGE = 100


def step(name):
    def known(run):
        STEPS[name] = run
        return run

    return known


def registry_of(world, step):
    return world.engine(step.get("node")).registry


def session_of(world, step):
    """A session by its id, or as `$name` by the name it was created under."""
    return world.named(text(step["session"]))


def optional(step, name):
    return text(step[name]) if name in step else None


# --- the registry


@step("registry.create")
async def create(world, step):
    registry, owner = registry_of(world, step), optional(step, "owner")
    metadata, pad = step.get("metadata"), step.get("pad")
    if pad:
        metadata = {**metadata, "pad": "x" * pad}
    session, name = optional(step, "session"), step.get("as")
    if session is not None:
        got = await attempt(lambda: registry.register(session, owner=owner, metadata=metadata))
    else:
        got = await attempt(lambda: registry.create(owner=owner, metadata=metadata))
        if got.error is None:
            if len(got.value) < 22 or got.value in world.made:
                raise Failed(f"{got.value} can be guessed, or was made twice")
            world.made.add(got.value)
            world.cursors[name] = got.value
    done(got, step.get("expect"))


@step("registry.get")
async def get(world, step):
    registry, session = registry_of(world, step), session_of(world, step)
    owner, trusted = optional(step, "owner"), step.get("trusted", False)
    check_record(
        world, await attempt(lambda: registry.get(session, owner=owner, trusted=trusted)), step["expect"]
    )


@step("registry.peek")
async def peek(world, step):
    registry, session, wanted = registry_of(world, step), session_of(world, step), step["expect"]

    async def once():
        check_record(world, await attempt(lambda: registry.peek(session)), wanted)

    await (eventually(once) if step.get("eventually") else once())


@step("registry.getByOwner")
async def get_by_owner(world, step):
    registry, owner = registry_of(world, step), text(step["owner"])
    check_record(world, await attempt(lambda: registry.get_by_owner(owner)), step["expect"])


@step("registry.has")
async def has(world, step):
    registry, session = registry_of(world, step), session_of(world, step)
    await check_until(step.get("eventually"), lambda: attempt(lambda: registry.has(session)), step["expect"])


@step("registry.begin")
async def begin(world, step):
    registry, session, name = registry_of(world, step), session_of(world, step), step["as"]
    begun = await attempt(lambda: registry.begin_request(session))
    if begun.error is None:
        world.requests[name] = begun.value
    done(begun, step.get("expect"))


@step("registry.end")
async def end(world, step):
    request = taken(world.requests, step["request"], "request")
    done(await attempt(request.end), None)


@step("registry.drop")
async def drop(world, step):
    taken(world.requests, step["request"], "request")


@step("registry.adopt")
async def adopt(world, step):
    registry, session = registry_of(world, step), session_of(world, step)
    check(await attempt(lambda: registry.adopt(session)), step["expect"])


@step("registry.close")
async def close(world, step):
    registry, session, reason = registry_of(world, step), session_of(world, step), text(step["reason"])
    check(await attempt(lambda: registry.close(session, reason)), step["expect"])


@step("registry.closeByOwner")
async def close_by_owner(world, step):
    registry, owner, reason = registry_of(world, step), text(step["owner"]), text(step["reason"])
    check(await attempt(lambda: registry.close_by_owner(owner, reason)), step["expect"])


@step("registry.list")
async def list_(world, step):
    registry, limit = registry_of(world, step), step.get("limit", PAGE)
    given = {"owner": optional(step, "owner"), "state": step.get("state"), "limit": limit}
    given["node"] = world.node_id(step["of"]) if "of" in step else None

    async def pages(after):
        listed = []
        while True:
            page = await registry.list(**given, after=after)
            if len(page.sessions) > limit:
                raise Failed("a page is longer than its limit")
            listed += [record.id for record in page.sessions]
            if page.next is None:
                return listed
            after = page.next

    got = await attempt(lambda: pages(optional(step, "after")))
    check_set(got, step["expect"], lambda wanted: [world.named(one) for one in texts(wanted)])


@step("registry.stats")
async def stats(world, step):
    registry, wanted = registry_of(world, step), step["expect"]

    async def once():
        got = await registry.stats()
        for name, count in wanted.items():
            if name == "byNode":
                same(name, got.by_node, {world.node_id(node): count for node, count in count.items()})
            else:
                same(name, getattr(got, name), count)

    await (eventually(once) if step.get("eventually") else once())


@step("registry.sweep")
async def sweep(world, step):
    check(await attempt(registry_of(world, step).sweep_stale), step["expect"])


@step("registry.follow")
async def follow(world, step):
    world.closings[step["as"]] = registry_of(world, step).closings()


@step("registry.closings")
async def closings(world, step):
    followed = found(world.closings, step["of"], "follower")
    wanted = sorted([world.named(one["session"]), one["reason"]] for one in step["expect"])
    got = []
    while len(got) < len(wanted):
        closing = await within(followed.next(), f"waited in vain for a closing after {got}")
        if closing is None:
            raise Failed(f"the closings ended after {got}")
        got.append([closing.session_id, closing.reason])
    same("closings", sorted(got), wanted)


@step("registry.closingsEnd")
async def closings_end(world, step):
    closing = await within(found(world.closings, step["of"], "follower").next(), "goes on")
    if closing is not None:
        raise Failed(f"unread {closing}")


@step("registry.drain")
async def drain(world, step):
    same("requests left", await registry_of(world, step).drain(step["deadlineMs"]), step["expect"])


@step("registry.shutdown")
async def shutdown(world, step):
    registry, deadline = registry_of(world, step), step["deadlineMs"]
    got = await attempt(lambda: registry.shutdown(deadline))
    if got.error is None:
        got = Outcome({"closed": got.value.closed, "requestsLeft": got.value.requests_left})
    check(got, step["expect"])


def check_record(world, got, wanted):
    if got.error is not None or (isinstance(wanted, dict) and "error" in wanted):
        check(Outcome(repr(got.value)) if got.error is None else got, wanted)
        return
    record = got.value
    if wanted is None or record is None:
        same("there is such a session", record is not None, wanted is not None)
        return
    idle, info = record.now_ms - record.last_access_ms, record.info
    known = {
        "session": record.id,
        "state": record.state,
        "node": record.node,
        "owned": record.owner is not None,
        "activeRequests": record.active_requests,
        "reason": record.reason or "",
        "metadata": record.metadata,
        "clientInfo": info.client_info if info else None,
        "protocolVersion": (info.protocol_version if info else None) or "",
    }
    limits = {
        "idleAtLeastMs": lambda least: idle >= least,
        "idleBelowMs": lambda below: idle < below,
        "ageAtLeastMs": lambda least: record.now_ms - record.created_ms >= least,
    }
    for name, value in wanted.items():
        if name in limits:
            same(name, limits[name](value), True)
        elif name not in known:
            raise Failed(f"the runner does not know {name} of a record")
        else:
            by_name = {"node": world.node_id, "session": lambda session: world.named(text(session))}
            same(name, known[name], by_name.get(name, lambda as_it_is: as_it_is)(value))


# --- the event log


def log_of(world, step):
    return world.engine(step.get("node")).events(world.named(text(step["scope"])))


def kept(world, got, save, expect):
    """Ids are URL-safe, short enough and never the same again."""
    if got.error is None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,512}", got.value):
            raise Failed(f"{got.value} is no event id")
        if got.value in world.ids:
            raise Failed(f"{got.value} was given twice")
        world.ids.add(got.value)
        if save is not None:
            world.cursors[save] = got.value
        got = Outcome()
    done(got, expect)


@step("events.append")
async def append(world, step):
    log, stream = log_of(world, step), text(step["stream"])
    save, expect = step.get("save"), step.get("expect")
    for payload in texts(step["payload"]):
        kept(world, await attempt(lambda payload=payload: log.append(stream, payload)), save, expect)


@step("events.prime")
async def prime(world, step):
    log, stream = log_of(world, step), text(step["stream"])
    kept(world, await attempt(lambda: log.prime(stream)), step["save"], None)


@step("events.end")
async def events_end(world, step):
    log, stream = log_of(world, step), text(step["stream"])
    kept(world, await attempt(lambda: log.end(stream)), None, None)


@step("events.streamOf")
async def stream_of(world, step):
    log, id = log_of(world, step), await world.cursor_of(step["id"])
    got = await attempt(lambda: log.stream_of(id))
    check(Outcome({"value": got.value}) if got.error is None else got, step["expect"])


@step("events.replay")
async def replay(world, step):
    log, after = log_of(world, step), await world.cursor_of(step["after"])
    check_replay(await attempt(lambda: log.replay(after)), step["expect"])


@step("events.read")
async def read(world, step):
    log, stream = log_of(world, step), text(step["stream"])
    check_replay(await attempt(lambda: log.read(stream)), step["expect"])


@step("events.tail")
async def tail(world, step):
    log, after = log_of(world, step), await world.cursor_of(step["after"])
    held(world, step, await attempt(lambda: log.tail(after)))


@step("events.follow")
async def follow_stream(world, step):
    log, stream = log_of(world, step), text(step["stream"])
    held(world, step, await attempt(lambda: log.follow(stream)))


def held(world, step, got):
    """A tail that was opened is read by its name."""
    world.take_name(step["as"])
    check(Outcome({"gap": got.value.gap}) if got.error is None else got, step["expect"])
    if got.error is None:
        world.tails[step["as"]] = got.value


@step("events.next")
async def next_(world, step):
    reader, save = found(world.tails, step["tail"], "tail"), step.get("save")
    for wanted in texts(step["expect"]):
        event = await within(reader.next(), "waited in vain for an event")
        if event is None:
            raise Failed(f"the tail has ended ({reader.end_reason})")
        same("event", event.payload, wanted)
        if save is not None:
            world.cursors[save] = event.id


@step("events.ended")
async def ended(world, step):
    reader = taken(world.tails, step["tail"], "tail")
    event = await within(reader.next(), "the tail goes on")
    if event is not None:
        raise Failed(f"unread {shown(event.payload)}")
    same("end", reader.end_reason, step["expect"])


@step("events.close")
async def events_close(world, step):
    await taken(world.tails, step["tail"], "tail").close()


@step("events.forget")
async def forget(world, step):
    log, stream = log_of(world, step), text(step["stream"])
    check(await attempt(lambda: log.forget(stream)), step["expect"])


@step("events.forgetAll")
async def forget_all(world, step):
    check(await attempt(log_of(world, step).forget_all), step["expect"])


@step("events.forgeries")
async def forgeries(world, step):
    from .steps import edits_of

    log = log_of(world, step)
    for forged in edits_of(world.saved(step["id"])):
        got = await attempt(lambda forged=forged: log.replay(forged))
        if got.error is None or got.error.code != "invalid_input":
            raise Failed(f"{shown(forged)} was taken for an event id")


def check_replay(got, wanted):
    if got.error is not None or "error" in wanted:
        check(Outcome(repr(got.value)) if got.error is None else got, wanted)
        return
    known = {"events", "gap", "ended", "stream"}
    same("unknown fields of the replay", sorted(wanted.keys() - known), [])
    same("events", [event.payload for event in got.value.events], texts(wanted["events"]))
    same("gap", got.value.gap, wanted["gap"])
    same("ended", got.value.ended, wanted.get("ended", False))
    if "stream" in wanted:
        same("stream", got.value.stream, wanted["stream"])


async def check_leftovers(world):
    """Every closing and every event of a tail was read, and no tail ended unnoticed."""
    world.requests.clear()
    for name, source in [*world.closings.items(), *world.tails.items()]:
        reading = asyncio.ensure_future(source.next())
        for _ in range(3):
            await asyncio.sleep(0)
        if not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
        elif name in world.tails or reading.result() is not None:
            raise Failed(f"at the end, {name}: unread {reading.result()}, or an end that no step expects")


def found(table, name, what):
    if name not in table:
        raise Failed(f"there is no {what} {name}")
    return table[name]


def taken(table, name, what):
    found(table, name, what)
    return table.pop(name)
