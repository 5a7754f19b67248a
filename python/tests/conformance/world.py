"""Runs one scenario: its nodes, its streams, what it saved, and what each step must give."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass

import mcp_sessions

from .backend import snake
from .check import PATIENCE, Failed, attempt, done, eventually, same, shown, within
from .held import FENCE
from .proxy import Route
from .steps import STEPS, cursor_of
from .steps_sessions import check_leftovers


@dataclass
class Node:
    engine: mcp_sessions.Engine
    alive: bool = True


class World:
    """The nodes, streams and names of one scenario."""

    def __init__(self, scenario, place):
        self.place = place
        # Killed ones stay: what they held must not be given back by collecting them.
        self.nodes: dict[str, Node] = {}
        self.streams = {}
        self.subscriptions = {}
        self.cursors: dict[str, str] = {}
        # Of the registry and the event log.
        self.made, self.ids = set(), set()
        self.requests, self.closings, self.tails = {}, {}, {}
        self.routes: dict[str, Route] = {}
        self._cut_off = set(_cut_off(scenario.steps))
        self._names: set[str] = set()
        self._fences = 0
        self._options = scenario.options
        self._first_node = scenario.nodes[0] if scenario.nodes else None

    async def start(self, name, options=None, url=None, expect=None):
        if name in self.nodes:
            raise Failed(f"there is a node {name} already")
        given = {
            snake(option): _snaked(value) for option, value in {**self._options, **(options or {})}.items()
        }
        address = await self._url_of(name) if url is None else url
        try:
            started = await attempt(lambda: mcp_sessions.connect(address, **given))
        except TypeError as error:
            # An option that Python does not know is refused by Python.
            refused = mcp_sessions.ConfigError(str(error), "connect")
            started = await attempt(lambda: _raise(refused))
        if started.error is None:
            self.nodes[name] = Node(started.value)
        done(started, expect)

    async def _url_of(self, name):
        """The URL for a node: its own way to the backend, if that is to be cut."""
        if self.place.port is None or name not in self._cut_off:
            return self.place.url
        route = self.routes[name] = Route(self.place.port)
        return self.place.url_through(await route.listen())

    def name_of(self, node):
        """The name of a step's node: the first one, if it names none."""
        name = self._first_node if node is None else node
        if name is None:
            raise Failed("the step names no node")
        return name

    def live_node(self, name):
        node = self.nodes.get(self.name_of(name))
        if node is None or not node.alive:
            raise Failed(f"there is no live node {self.name_of(name)}")
        return node

    def engine(self, node):
        return self.live_node(node).engine

    def stream(self, name):
        return _found(self.streams, name, "stream")

    def subscription(self, name):
        return _found(self.subscriptions, name, "subscription")

    def take_name(self, name):
        if name in self._names:
            raise Failed(f'the name {name} is taken: give another with "as"')
        self._names.add(name)

    def saved(self, reference):
        """The cursor that was saved as `$name`."""
        name = reference[1:]
        if name not in self.cursors:
            raise Failed(f"no cursor was saved as {name}")
        return self.cursors[name]

    def named(self, written):
        """What was saved or created under this `$name`, else the text itself."""
        return self.cursors.get(written[1:], written) if written.startswith("$") else written

    def node_id(self, name):
        """A node's id, dead or alive."""
        return _found(self.nodes, name, "node").engine.node_id

    async def cursor_of(self, after):
        return await cursor_of(self, after)

    def new_fence(self):
        """A payload that no scenario reads."""
        self._fences += 1
        return f"{FENCE}{self._fences}"

    async def drop(self, kind, name):
        """Forgets a stream or subscription, and waits until it was collected and, if it was live, given back."""
        held = self.stream(name) if kind == "streams" else self.subscription(name)
        del getattr(self, kind)[name]
        node = self.nodes.get(held.node)
        gone, live = weakref.ref(held.source), held.source.end is None
        before = getattr(node.engine.stats(), kind) if node.alive and live else None
        await held.forget()
        del held

        def collected():
            gc.collect()
            if gone() is not None:
                raise Failed("it was not collected")

        await eventually(collected)
        if before is not None:
            await eventually(
                lambda: same(f"{kind} are fewer", getattr(node.engine.stats(), kind) < before, True)
            )

    async def run(self, steps):
        for one in steps:
            if one.branches is not None:
                await self._run_branches(one.branches)
            else:
                await self._run_step(one.at, one.step)

    async def _run_branches(self, branches):
        outcomes = await asyncio.gather(*(self.run(steps) for steps in branches), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _run_step(self, at, step):
        waits = step["ms"] / 1_000 if step["do"] == "advance" and not self.place.manual_clock else 0
        try:
            run = STEPS.get(step["do"])
            if run is None:
                raise Failed(f"the runner does not know {step['do']}")
            await within(every_field_used(run, self, step), "did not come to an end", PATIENCE * 3 + waits)
        except Exception as error:
            raise Failed(f"step {at} {shown(step, 160)}: {error}") from error

    async def check_the_end(self):
        """Nothing unexpected may be left over: no event, no end."""
        await self.catch_up()
        held = [(f"stream {name}", one) for name, one in self.streams.items()]
        held += [(f"subscription {name}", one) for name, one in self.subscriptions.items()]
        for name, one in held:
            if one.node in self.nodes and self.nodes[one.node].alive:
                await _at_the_end(name, one.check_leftovers())

        await check_leftovers(self)

    async def catch_up(self):
        """What was accepted before is here: a notification is, once it was sent."""
        for node in self.nodes.values():
            if node.alive and not node.engine.is_closed and not node.engine.capability.immediate:
                await node.engine.subscriptions.send({"jsonrpc": "2.0", "method": "notifications/fence"})

    async def shut_down(self):
        """Every node that is left leaves in order, and holds nothing afterwards (G11)."""
        for name, node in list(self.nodes.items()):
            if node.alive:
                await _at_the_end(f"node {name}", _leave(node.engine))
                del self.nodes[name]

    async def abandon(self):
        """A scenario that failed leaves nothing running."""
        for one in [*self.streams.values(), *self.subscriptions.values()]:
            await one.forget()
        for node in self.nodes.values():
            if node.alive:
                node.engine.abandon()
        self.requests.clear()
        self.tails.clear()
        for route in self.routes.values():
            await route.close()


async def run(scenario, place):
    """Runs a scenario at a place of its own."""
    world = World(scenario, place)
    try:
        for node in scenario.nodes:
            await world.start(node)
        await world.run(scenario.steps)
        await world.check_the_end()
        await world.shut_down()
    finally:
        await world.abandon()


class Watched:
    """A step that notes which of its fields were looked at."""

    def __init__(self, step):
        self._step = step
        self.used = {"do"}

    def __getitem__(self, name):
        self.used.add(name)
        return self._step[name]

    def __contains__(self, name):
        self.used.add(name)
        return name in self._step

    def get(self, name, default=None):
        self.used.add(name)
        return self._step.get(name, default)


async def every_field_used(run, world, step):
    """A field that a step's code never looked at would be an expectation that nobody checks."""
    watched = Watched(step)
    await run(world, watched)
    same("fields the runner ignores", sorted(step.keys() - watched.used), [])


def _cut_off(steps):
    """The nodes from which the backend is taken."""
    for one in steps:
        if one.branches is not None:
            yield from (node for branch in one.branches for node in _cut_off(branch))
        elif one.step["do"] == "outage":
            yield one.step["node"]


async def _leave(engine):
    await within(engine.shutdown(PATIENCE * 1_000), "it did not shut down", PATIENCE * 2)
    stats = engine.stats()
    same("streams and subscriptions after the shutdown", [stats.streams, stats.subscriptions], [0, 0])


async def _at_the_end(what, check):
    try:
        await check
    except Exception as error:
        raise Failed(f"at the end, {what}: {error}") from error


def _found(table, name, what):
    if name not in table:
        raise Failed(f"there is no {what} {name}")
    return table[name]


def _snaked(value):
    return {snake(name): _snaked(one) for name, one in value.items()} if isinstance(value, dict) else value


def _raise(error):
    raise error
