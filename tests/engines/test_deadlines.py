"""Slow clients over real sockets against the real web server class, with deadlines of tenths of a second."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from conduit.engines.deadlines import DeadlineProtocol, Deadlines
from tests.engines.rig import application
from tests.harness.gateway import serving


class Hasty(DeadlineProtocol):
    limits = Deadlines(headers=0.5, body_idle=0.5, body_grace=1.5, body_rate=1e6, reader=0.5)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(application, Hasty) as url:
        yield int(url.rpartition(":")[2])


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def rest(client: socket.socket) -> bytes:
    """All that the server sends until it closes; the socket's timeout fails the test if it never does."""
    parts = b""
    while part := client.recv(65536):
        parts += part
    return parts


def drip(client: socket.socket, text: bytes, pause: float) -> None:
    for byte in text:
        try:
            client.sendall(bytes([byte]))
        except OSError:
            return
        time.sleep(pause)


def test_a_silent_connection_is_closed(port: int) -> None:
    with connected(port) as client:
        assert rest(client).startswith(b"HTTP/1.1 408")


def test_headers_that_drip_are_cut_however_steadily_they_drip(port: int) -> None:
    with connected(port) as client:
        dripping = threading.Thread(target=drip, args=(client, b"GET / HTTP/1.1\r\nx-slow: " + b"a" * 60, 0.05))
        began = time.monotonic()
        dripping.start()
        assert rest(client).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 3
        dripping.join()


def test_the_second_request_of_a_connection_has_the_same_deadline(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        assert b"200 OK" in client.recv(65536)
        time.sleep(1.7)  # idle between requests is keep-alive, not slowness
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert rest(client).startswith(b"HTTP/1.1 408")


def test_a_body_that_stops_is_cut(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nabc")
        assert rest(client).startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_for_too_long_is_cut(port: int) -> None:
    with connected(port) as client:
        head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n"
        dripping = threading.Thread(target=drip, args=(client, head[-4:] + b"a" * 200, 0.1))
        client.sendall(head[:-4])
        began = time.monotonic()
        dripping.start()
        assert rest(client).startswith(b"HTTP/1.1 408")
        assert 1.0 < time.monotonic() - began < 5
        client.close()
        dripping.join()


def test_an_answer_that_takes_long_is_not_the_clients_fault(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc")
        answer = rest(client)
        assert b"200 OK" in answer
        assert answer.endswith(b"3")
