"""A TCP proxy that makes bad weather between two of our parts: the gateway and an upstream, PostgreSQL or Valkey.

Chance is seeded per connection, in the order in which they come, so the same seed brings the same storm. The
weather may be changed while connections are open; it is looked at anew for each piece of data.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """Bytes are counted per connection, on their way from the server to the client.

    black_hole: data vanishes both ways while connections stay open. half_open: the server's side is dropped, the client
    is never told. refuse: new connections are reset at once. cut_after: reset of both sides after so many bytes.
    reset_chance: the same, by chance, with each.
    """

    latency_ms: float = 0
    jitter_ms: float = 0
    bytes_per_second: int = 0
    black_hole: bool = False
    half_open: bool = False
    refuse: bool = False
    cut_after: int | None = None
    reset_chance: float = 0


class ChaosProxy:
    """`async with ChaosProxy(host, port, seed=1) as proxy:` listens on 127.0.0.1 at `proxy.port`.

    `host` may be the path of a UNIX socket.
    """

    def __init__(self, host: str, port: int = 0, *, seed: int, weather: Weather | None = None) -> None:
        self.weather = weather or Weather()
        self.accepted = 0
        self.port = 0
        self._target = (host, port)
        self._seed = seed
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    @property
    def open(self) -> int:
        """Connections now open."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [link.task for link in self._links]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def reset_all(self) -> None:
        """Resets every open connection, both sides."""
        for link in list(self._links):
            link.reset()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target
        if host.startswith("/"):
            return await asyncio.open_unix_connection(host)
        return await asyncio.open_connection(host, port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        link = _Link(self, random.Random(f"{self._seed}/{self.accepted}"), task)
        self._links.add(link)
        link.writers.append(writer)
        try:
            with contextlib.suppress(OSError):
                if self.weather.refuse:
                    link.reset()
                    return
                up_reader, up_writer = await self._connect()
                link.writers.append(up_writer)
                await link.carry(reader, writer, up_reader, up_writer)
        finally:
            for side in link.writers:
                side.close()
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: ChaosProxy, chance: random.Random, task: asyncio.Task[object]) -> None:
        self.task = task
        self.writers: list[asyncio.StreamWriter] = []
        self._proxy = proxy
        self._chance = chance
        self._left = 0

    def reset(self) -> None:
        for writer in self.writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
                writer.transport.abort()

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        """Returns when both directions have ended."""
        await asyncio.gather(self._pump(reader, up_writer, down=False), self._pump(up_reader, writer, down=True))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(64 * 1024):
                weather = self._proxy.weather
                if weather.black_hole:
                    continue
                if down and weather.half_open:
                    source_side = self.writers[1]
                    source_side.transport.abort()
                    return
                if weather.reset_chance and self._chance.random() < weather.reset_chance:
                    self.reset()
                    return
                await self._wait(weather, len(data))
                if down and not await self._fits(weather, data, sink):
                    return
                sink.write(data)
                await sink.drain()
            # The end is passed on, unless this weather is one in which nobody is told.
            if (
                not (down and self._proxy.weather.half_open)
                and not self._proxy.weather.black_hole
                and sink.can_write_eof()
            ):
                sink.write_eof()

    async def _wait(self, weather: Weather, size: int) -> None:
        pause = (weather.latency_ms + weather.jitter_ms * self._chance.random()) / 1000
        if weather.bytes_per_second:
            pause += size / weather.bytes_per_second
        if pause:
            await asyncio.sleep(pause)

    async def _fits(self, weather: Weather, data: bytes, sink: asyncio.StreamWriter) -> bool:
        """Counts; at the cut sends what still fits and resets."""
        self._left += len(data)
        if weather.cut_after is None or self._left < weather.cut_after:
            return True
        kept = len(data) - (self._left - weather.cut_after)
        sink.write(data[: max(0, kept)])
        sink.transport.set_write_buffer_limits(high=0)
        await sink.drain()
        self.reset()
        return False
