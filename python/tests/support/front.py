"""What stands before the workers: every request goes to the next one."""

import contextlib
import itertools

import httpx

OF_A_HOP = (b"host", b"content-length", b"connection", b"transfer-encoding")


def front(http, *workers):
    """An application that passes requests on, each to the next worker, and their answers as they come."""
    turns = itertools.cycle(workers)

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(name, value) for name, value in scope["headers"] if name not in OF_A_HOP]
        # A worker that is gone is passed over.
        for worker in itertools.islice(turns, len(workers)):
            with contextlib.suppress(httpx.ConnectError):
                await passed_on(http.stream(scope["method"], worker, headers=headers, content=body), send)
                return
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body"})

    return app


async def passed_on(request, send):
    async with request as answer:
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in OF_A_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        with contextlib.suppress(httpx.HTTPError):
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})
