"""An HTTP client of the legacy era, byte by byte, for what the SDK's client does not show."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx

VERSION = "2025-11-25"
ACCEPT = {"accept": "application/json, text/event-stream"}
INITIALIZE = {
    "protocolVersion": VERSION,
    "capabilities": {"sampling": {}},
    "clientInfo": {"name": "raw", "version": "1"},
}


class RawClient:
    """One session; every request may go to another worker."""

    def __init__(self, http: httpx.AsyncClient, headers=None) -> None:
        self._http = http
        self.headers = {**ACCEPT, **(headers or {})}
        self._ids = iter(range(1, 10_000))

    async def initialize(self, url, params=INITIALIZE):
        opened = await self._say(url, {"method": "initialize", "params": params, "id": next(self._ids)})
        assert opened.status_code == 200, opened.text
        self.headers |= {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": VERSION}
        told = await self._say(url, {"method": "notifications/initialized"})
        assert told.status_code == 202, told.text
        return self.session_id

    @property
    def session_id(self):
        return self.headers["mcp-session-id"]

    async def call(self, url, tool, **arguments):
        """The status, and the text of the tool's result."""
        params = {"name": tool, "arguments": arguments}
        answer = await self._say(url, {"method": "tools/call", "params": params, "id": next(self._ids)})
        if answer.status_code != 200:
            return answer.status_code, answer.text
        [response] = [json.loads(event["data"]) for event in events_of(answer.text) if event.get("data")]
        return 200, response["result"]["content"][0]["text"] if "result" in response else response

    @contextlib.asynccontextmanager
    async def calling(self, url, tool, *, progress=None, **arguments):
        """A call whose response is read as it comes; its number, and the stream."""
        params = {"name": tool, "arguments": arguments}
        if progress is not None:
            params["_meta"] = {"progressToken": progress}
        id = next(self._ids)
        message = {"jsonrpc": "2.0", "method": "tools/call", "params": params, "id": id}
        async with self._http.stream("POST", url, headers=self.headers, json=message) as response:
            yield id, Stream(response)

    async def answer(self, url, request, result):
        """Answers what the server asked."""
        return await self._say(url, {"id": request["id"], "result": result})

    async def notify(self, url, method, **params):
        return await self._say(url, {"method": method, "params": params})

    async def post(self, url, method, params):
        """A request of any method; the HTTP answer."""
        return await self._say(url, {"method": method, "params": params, "id": next(self._ids)})

    async def delete(self, url):
        return (await self._http.delete(url, headers=self.headers)).status_code

    async def _say(self, url, message):
        return await self._http.post(url, headers=self.headers, json={"jsonrpc": "2.0", **message})

    @contextlib.asynccontextmanager
    async def get(self, url, after=None):
        """The stand-alone stream, or one that is resumed."""
        headers = {**self.headers, **({} if after is None else {"last-event-id": after})}
        async with self._http.stream("GET", url, headers=headers) as response:
            yield Stream(response)


@contextlib.asynccontextmanager
async def listening(http, url, id, uri):
    """A listen stream of the modern era, under any id."""
    method, version = "subscriptions/listen", "2026-07-28"
    meta = {
        "protocolVersion": version,
        "clientInfo": {"name": "raw", "version": "1"},
        "clientCapabilities": {},
    }
    params = {
        "notifications": {"resourceSubscriptions": [uri]},
        "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()},
    }
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    headers = {**ACCEPT, "mcp-protocol-version": version, "mcp-method": method}
    async with http.stream("POST", url, headers=headers, json=message) as response:
        yield Stream(response)


class Stream:
    """What comes on an SSE response."""

    def __init__(self, response) -> None:
        self.status = response.status_code
        self._chunks = response.aiter_text()
        self._text = ""

    async def next(self, seconds=60.0):
        """The next event with data; None at the end."""
        return await asyncio.wait_for(self._next("data"), seconds)

    async def next_id(self, seconds=60.0):
        """The id of the next event, with data or not."""
        return (await asyncio.wait_for(self._next("id"), seconds))["id"]

    async def _next(self, field):
        while True:
            block, end, rest = self._text.replace("\r\n", "\n").partition("\n\n")
            if end:
                self._text = rest
                for event in events_of(block + end):
                    if event.get(field):
                        return event
                continue
            try:
                self._text += await anext(self._chunks)
            except StopAsyncIteration:
                return None


def events_of(text):
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = {}
        for line in block.split("\n"):
            name, colon, value = line.partition(":")
            if colon and name:
                fields[name] = value.removeprefix(" ")
        if fields:
            events.append(fields)
    return events


def message_of(event):
    return json.loads(event["data"])


def text_of(event):
    """The text a tool's call came to."""
    return message_of(event)["result"]["content"][0]["text"]


def uri_of(event):
    """What a resource's update names."""
    return json.loads(event["data"])["params"]["uri"]
