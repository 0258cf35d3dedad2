"""The transport over real sockets: each fault of an upstream is the right error, and leaving early closes at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from providers.adapters.base import UpstreamRequest
from providers.errors import (
    ConnectFailed,
    EgressRefused,
    InvalidResponse,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from providers.transport import Transport

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = ("127.0.0.1",)


@asynccontextmanager
async def upstream(talk: Talk) -> AsyncIterator[str]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


@asynccontextmanager
async def transport(allow: tuple[str, ...] = LOOPBACK) -> AsyncIterator[Transport]:
    opened = Transport(allow)
    try:
        yield opened
    finally:
        await opened.close()


def get(url: str) -> UpstreamRequest:
    return UpstreamRequest(method="GET", url=url, headers={"authorization": "Bearer sk-canary"})


def answers(*parts: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return talk


async def read_whole(client: Transport, url: str) -> bytes:
    answer = await client.send(get(url))
    try:
        return await answer.read()
    finally:
        answer.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def test_a_whole_answer_is_read() -> None:
    async with upstream(answers(HEAD + b"content-length: 2\r\n\r\n{}")) as url, transport() as client:
        answer = await client.send(get(url))
        assert (answer.status, await answer.read()) == (200, b"{}")


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((), UpstreamCut),
        ((b"HTTP/1.1 200 OK\r\ncontent-len",), UpstreamCut),
        ((b"this is not HTTP\r\n\r\n",), InvalidResponse),
        ((HEAD + b"content-length: 100\r\n\r\n{",), UpstreamCut),
        ((HEAD + b'transfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n',), UpstreamCut),
        ((HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",), InvalidResponse),
        ((HEAD + b"content-length: 99999999999\r\n\r\n",), InvalidResponse),
        ((HEAD + b"x-long: " + b"a" * 40_000 + b"\r\n\r\n",), InvalidResponse),
    ],
)
async def test_a_broken_answer_is_an_error_of_ours(parts: tuple[bytes, ...], error: type[UpstreamError]) -> None:
    async with upstream(answers(*parts)) as url, transport() as client:
        with pytest.raises(error) as caught:
            await read_whole(client, url)
        assert "sk-canary" not in str(caught.value)


async def test_an_endless_answer_without_length_is_cut_at_the_limit() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with upstream(talk) as url, transport() as client:
        answer = await client.send(get(url))
        with pytest.raises(InvalidResponse):
            await answer.read(limit=1_000_000)
        answer.close()


async def test_silence_is_a_timeout_that_may_be_billed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(talk) as url, transport() as client:
        with pytest.raises(UpstreamTimeout) as caught:
            await client.send(get(url), timeout=0.2)
        assert caught.value.billed == "maybe"


async def test_nobody_listening_is_surely_not_billed() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with transport() as client:
        with pytest.raises(ConnectFailed) as caught:
            await client.send(get(f"http://127.0.0.1:{port}/v1"))
        assert caught.value.billed == "no"


async def test_a_redirect_is_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with upstream(answers(moved)) as url, transport() as client:
        assert (await client.send(get(url))).status == 302


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"])
async def test_private_addresses_are_refused_unless_allowed(host: str) -> None:
    async with transport(()) as client:
        with pytest.raises(EgressRefused):
            await client.send(get(f"https://{host}:1/v1"))


async def test_a_name_that_resolves_to_loopback_is_refused_at_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def rebound(host: str, port: int, **options: object) -> list[object]:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    async with transport(()) as client:
        with pytest.raises(EgressRefused):
            await client.send(get("https://models.example.com/v1"))


async def test_leaving_a_stream_closes_the_upstream_connection_at_once() -> None:
    closed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await reader.read()
        closed.set_result(time.monotonic())

    async with upstream(talk) as url, transport() as client:
        answer = await client.send(get(url))
        assert await answer.more() == b"first"
        left = time.monotonic()
        answer.close()
        assert await asyncio.wait_for(closed, 2) - left < 0.5
