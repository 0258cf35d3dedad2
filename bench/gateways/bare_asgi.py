"""The least a Python gateway can do: read the body, send it on, hand the answer back piece by piece. No logic."""

import os

import aiohttp

UPSTREAMS = {
    "/chat": os.environ["CHAT_UP"],
    "/fast": os.environ["FAST_UP"],
    "/paced": os.environ["PACED_UP"],
}
client = None


async def lifespan(receive, send):
    global client
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
            await send({"type": "lifespan.startup.complete"})
        else:
            await client.close()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    parts, more = [], True
    while more:
        event = await receive()
        parts.append(event.get("body", b""))
        more = event.get("more_body", False)
    kind, _, rest = scope["path"][1:].partition("/")
    base = UPSTREAMS.get("/" + kind)
    if base is None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = {"content-type": "application/json", "authorization": "Bearer sk-upstream"}
    async with client.post(f"{base}/{rest}", data=b"".join(parts), headers=headers) as answer:
        kind_of = answer.headers.get("content-type", "application/json")
        head = [(b"content-type", kind_of.encode())]
        if answer.content_length is not None:
            body = await answer.read()
            head.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": head})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": head})
        async for piece in answer.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
