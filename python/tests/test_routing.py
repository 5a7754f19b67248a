"""A client's answers, progress and cancellations reach the worker they are for, wherever they arrive."""

from __future__ import annotations

import asyncio
import json

import pytest
from mcp import Client
from mcp_types import CreateMessageResult, ElicitResult, ListRootsResult, Root, TextContent

from .support.client import INITIALIZE, RawClient, message_of, text_of
from .support.front import front
from .support.workers import served
from .test_mcp import two_workers

ABLE = {**INITIALIZE, "capabilities": {"sampling": {}, "elicitation": {}, "roots": {}}}


def accepted(text):
    return {"action": "accept", "content": {"text": text}}


def sampled(text):
    return {"role": "assistant", "model": "m", "content": {"type": "text", "text": text}}


def test_an_answer_to_another_worker_arrives(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            client = RawClient(http)
            await client.initialize(first, ABLE)
            # One session, two workers that ask at once: the numbers of their requests must not be the same.
            async with (
                client.calling(first, "elicit", question="one?") as (_, one),
                client.calling(second, "elicit", question="two?") as (_, two),
            ):
                asked = [message_of(await one.next()), message_of(await two.next())]
                assert [it["params"]["message"] for it in asked] == ["one?", "two?"]
                assert asked[0]["id"] != asked[1]["id"]
                # Each answer goes to the other worker.
                for url, request, text in ((second, asked[0], "1"), (first, asked[1], "2")):
                    answer = await client.answer(url, request, accepted(text))
                    assert (answer.status_code, answer.content) == (202, b"")
                assert text_of(await one.next()) == "accept: 1"
                assert text_of(await two.next()) == "accept: 2"

    run(main())


def test_an_answer_may_come_by_a_worker_that_never_saw_the_session(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, _, b, http):
            client = RawClient(http)
            session = await client.initialize(first, ABLE)
            async with client.calling(first, "sample", question="who?") as (_, call):
                request = message_of(await call.next())
                token = request["params"]["_meta"]["progressToken"]
                for n in range(3):
                    told = await client.notify(
                        second, "notifications/progress", progressToken=token, progress=n, message=f"p{n}"
                    )
                    assert told.status_code == 202
                assert (await client.answer(second, request, sampled("me"))).status_code == 202
                assert json.loads(text_of(await call.next())) == ["p0", "p1", "p2", "me"]
            # An answer alone makes no worker serve the session.
            assert session not in {one.id for one in (await b.registry.list(node=b.node_id)).sessions}

    run(main())


def test_what_is_asked_on_the_get_stream_of_another_worker_is_answered(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            client = RawClient(http)
            await client.initialize(first, ABLE)
            async with client.get(second) as stream, client.calling(first, "roots") as (_, call):
                request = message_of(await stream.next())
                assert request["method"] == "roots/list"
                roots = {"roots": [{"uri": "file:///here"}]}
                assert (await client.answer(second, request, roots)).status_code == 202
                assert text_of(await call.next()) == "file:///here"

    run(main())


def test_nobody_else_can_answer(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            client, stranger = RawClient(http), RawClient(http)
            await client.initialize(first, ABLE)
            await stranger.initialize(second, ABLE)
            async with client.calling(first, "elicit", question="who?") as (_, call):
                request = message_of(await call.next())
                # With a session of its own it answers nothing of another one.
                for url in (first, second):
                    assert (await stranger.answer(url, request, accepted("forged"))).status_code == 202
                nobody = RawClient(http, {"mcp-session-id": "0" * 32})
                assert (await nobody.answer(second, request, accepted("forged"))).status_code == 404
                for id in ("worker-AAAAAAAAAAAAAAAA:1", f"{request['id']}0"):
                    assert (await client.answer(second, {"id": id}, accepted("forged"))).status_code in (
                        202,
                        400,
                    )
                assert (await client.answer(second, request, accepted("me"))).status_code == 202
                assert text_of(await call.next()) == "accept: me"

    run(main())


def test_an_answer_that_nobody_waits_for_is_refused_in_words(registry_url, run):
    async def main():
        async with two_workers(registry_url) as (first, _, _, _, http):
            client = RawClient(http)
            await client.initialize(first, ABLE)
            answer = await client.answer(first, {"id": "worker-AAAAAAAAAAAAAAAA:1"}, accepted("late"))
            assert answer.status_code == 400
            assert "The worker that asked for this is gone" in answer.json()["error"]["message"]

    run(main())


def test_an_answer_that_is_too_large_is_refused(registry_url, run):
    async def main():
        async with two_workers(registry_url, max_payload_bytes=10_000) as (first, second, _, _, http):
            client = RawClient(http)
            await client.initialize(first, ABLE)
            async with client.calling(first, "elicit", question="?") as (_, call):
                request = message_of(await call.next())
                answer = await client.answer(second, request, accepted("x" * 20_000))
                assert answer.status_code == 413
                assert (await client.answer(second, request, accepted("x"))).status_code == 202
                assert text_of(await call.next()) == "accept: x"

    run(main())


@pytest.mark.parametrize("by", ["its own worker", "the other worker"])
def test_a_cancelled_call_ends_on_the_worker_that_runs_it(by, registry_url, run, wait):
    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            client = RawClient(http)
            await client.initialize(first, ABLE)
            async with client.calling(first, "hang", progress="p", name="x") as (id, call):
                assert message_of(await call.next())["method"] == "notifications/progress"
                told = await client.notify(
                    first if by == "its own worker" else second, "notifications/cancelled", requestId=id
                )
                assert told.status_code == 202
                assert "error" in message_of(await call.next())

            async def cancelled():
                while await client.call(first, "hung") != (200, '["x"]'):
                    await asyncio.sleep(0.02)

            await wait(cancelled())

    run(main())


def test_the_sdks_client_answers_through_a_front(registry_url, run):
    """The official client, every request of which goes to the next worker."""

    async def sampling(context, params):
        return CreateMessageResult(
            role="assistant",
            model="m",
            content=TextContent(type="text", text=params.messages[0].content.text),
        )

    async def elicitation(context, params):
        return ElicitResult(action="accept", content={"text": params.message.upper()})

    async def roots(context):
        return ListRootsResult(roots=[Root(uri="file:///root")])

    async def main():
        async with two_workers(registry_url) as (first, second, _, _, http):
            async with (
                served(front(http, first, second)) as url,
                Client(
                    url,
                    mode="legacy",
                    sampling_callback=sampling,
                    elicitation_callback=elicitation,
                    list_roots_callback=roots,
                ) as client,
            ):
                for n in range(4):
                    for tool, arguments, text in (
                        ("elicit", {"question": f"e{n}"}, f"accept: E{n}"),
                        ("sample", {"question": f"s{n}"}, f'["s{n}"]'),
                        ("roots", {}, "file:///root"),
                    ):
                        got = await asyncio.wait_for(client.call_tool(tool, arguments), 30)
                        assert got.content[0].text == text

    run(main())
