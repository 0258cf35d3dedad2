"""A tap on the wire to a provider: forwards bytes both ways and keeps what was sent."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Tap:
    """`sent`: what clients wrote, piece by piece, of all connections. Clear it at will."""

    url: str
    sent: list[bytes] = field(default_factory=list)


@contextmanager
def tapped(host: str, port: int) -> Iterator[Tap]:
    """A tap before host:port on a free loopback port."""
    tap = Tap("")

    class Link(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, port)) as server:
                back = threading.Thread(target=_pump, args=(server, self.request, None), daemon=True)
                back.start()
                _pump(self.request, server, tap.sent)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Link) as listener:
        listener.daemon_threads = True
        listener.block_on_close = False
        tap.url = f"http://127.0.0.1:{listener.server_address[1]}"
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield tap
        finally:
            listener.shutdown()


def _pump(source: socket.socket, sink: socket.socket, kept: list[bytes] | None) -> None:
    """Until the source ends; then the sink is told."""
    with suppress(OSError):
        while piece := source.recv(65536):
            if kept is not None:
                kept.append(piece)
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
