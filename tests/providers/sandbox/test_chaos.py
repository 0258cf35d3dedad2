"""The chaos proxy does to a connection what its weather says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.harness.chaos import ChaosProxy, Weather


@dataclass
class Echo:
    port: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """A server that says back what it hears."""
    rig = Echo(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            rig.ended.set()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    rig.port = server.sockets[0].getsockname()[1]
    yield rig
    server.close()
    await server.wait_closed()


async def _say(proxy: ChaosProxy, data: bytes, limit: float = 15) -> tuple[bytes, BaseException | None, float]:
    """What came back until all came, the end or the limit; the error; the seconds it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    got, error = b"", None
    try:
        writer.write(data)
        while len(got) < len(data):
            piece = await asyncio.wait_for(reader.read(65536), limit)
            if not piece:
                break
            got += piece
    except (OSError, TimeoutError) as caught:
        error = caught
    finally:
        writer.close()
    return got, error, loop.time() - start


async def test_fair_weather_carries_everything_and_closes_behind_itself(echo: Echo) -> None:
    async with ChaosProxy("127.0.0.1", echo.port, seed=1) as proxy:
        data = bytes(range(256)) * 2000
        got, error, _ = await _say(proxy, data)
        assert (got == data, error) == (True, None)
        await asyncio.wait_for(echo.ended.wait(), 15)
        async with asyncio.timeout(15):
            while proxy.open:  # noqa: ASYNC110 (only a look inside tells)
                await asyncio.sleep(0.01)
        assert proxy.accepted == 1


async def test_latency_and_rate_take_their_time(echo: Echo) -> None:
    async with ChaosProxy("127.0.0.1", echo.port, seed=1, weather=Weather(latency_ms=60)) as proxy:
        assert (await _say(proxy, b"x"))[2] >= 0.12
        proxy.weather = Weather(bytes_per_second=100_000)
        assert (await _say(proxy, b"x" * 20_000))[2] >= 0.3


async def test_a_black_hole_keeps_the_connection_and_says_nothing(echo: Echo) -> None:
    async with ChaosProxy("127.0.0.1", echo.port, seed=1, weather=Weather(black_hole=True)) as proxy:
        got, error, _ = await _say(proxy, b"hello", 0.2)
        assert (got, type(error)) == (b"", TimeoutError)


async def test_a_cut_comes_after_exactly_so_many_bytes_as_a_reset(echo: Echo) -> None:
    async with ChaosProxy("127.0.0.1", echo.port, seed=1, weather=Weather(cut_after=1000)) as proxy:
        got, error, _ = await _say(proxy, b"x" * 50_000)
        assert (len(got), type(error)) == (1000, ConnectionResetError)


async def test_half_open_drops_the_server_and_tells_the_client_nothing(echo: Echo) -> None:
    async with ChaosProxy("127.0.0.1", echo.port, seed=1, weather=Weather(half_open=True)) as proxy:
        got, error, _ = await _say(proxy, b"hello", 0.2)
        assert (got, type(error)) == (b"", TimeoutError)
        await asyncio.wait_for(echo.ended.wait(), 15)


async def test_reset_all_resets_what_is_open(echo: Echo) -> None:
    async with ChaosProxy("127.0.0.1", echo.port, seed=1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.read(5) == b"hello"
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_the_same_seed_brings_the_same_storm(echo: Echo) -> None:
    storms = []
    for seed in (7, 7, 8):
        async with ChaosProxy("127.0.0.1", echo.port, seed=seed, weather=Weather(reset_chance=0.3)) as proxy:
            storms.append([(await _say(proxy, b"hi"))[1] is None for _ in range(24)])
    assert storms[0] == storms[1]
    assert storms[0] != storms[2]
    assert {True, False} <= set(storms[0])
