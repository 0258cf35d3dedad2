"""The small measurements that the records in this folder quote. From the repository root:

    .venv/bin/python -P -m tests.harness.engines .venv/bin/python docs/adr/measure.py

Prints microseconds per operation, the best of five rounds: the machine's other work only ever adds to a round.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")

import django

django.setup()

import msgspec
import orjson
import pydantic
from django.core.handlers.asgi import ASGIRequest
from django.core.management import call_command
from django.db import OperationalError, connections
from django.http import HttpResponse
from prometheus_client import CollectorRegistry, Counter, Histogram
from redis.asyncio import Redis
from rest_framework import serializers
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from conduit.core.ids import uuid7
from conduit.engines import web
from conduit.engines.deadlines import DeadlineProtocol, sweep
from conduit.proxy import metrics
from conduit.proxy.call import Answer, Incoming
from conduit.proxy.dialects.openai_chat import ChatBody
from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.snapshot import Pictures
from keys.entries import RateScope
from keys.limits import RateLimits
from providers.adapters.types import Dialect, Endpoint
from providers.catalogue_sync import sync_models
from usage import journal, records
from usage.models import Price
from usage.price_sync import sync_prices

ROUNDS = 5
BODY = json.dumps(
    {
        "model": "sandbox-echo",
        "temperature": 0.2,
        "messages": [
            {"role": "system", "content": "Answer in one short sentence."},
            {"role": "user", "content": "Why is the sky blue? " * 10},
        ],
    }
).encode()


def show(what: str, seconds: float) -> None:
    sys.stdout.write(f"{what:<58} {seconds * 1e6:8.2f} us\n")


def timed(what: str, call: Callable[[], object], times: int = 20_000) -> None:
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            call()
        rounds.append((time.perf_counter() - began) / times)
    show(what, min(rounds))


async def timed_async(what: str, call: Callable[[], Awaitable[object]], times: int = 3_000) -> None:
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            await call()
        rounds.append((time.perf_counter() - began) / times)
    show(what, min(rounds))


class NullTransport(asyncio.Transport):
    """Takes everything, keeps nothing."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def null_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def deadlines() -> None:
    """One request through uvicorn's own protocol and through ours; and one look at 1,000 idle connections."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
    kinds: list[type[HttpToolsProtocol]] = [HttpToolsProtocol, DeadlineProtocol]
    for kind in kinds * 2:  # the first pass warms everything up; read the second
        config: Config = web.config("conduit.asgi:application")
        config.app = null_app
        config.load()
        protocol = kind(config, ServerState(), {})
        protocol.connection_made(NullTransport())

        async def request(protocol: HttpToolsProtocol = protocol) -> None:
            protocol.data_received(head + BODY)
            while protocol.cycle is None or not protocol.cycle.response_complete:
                await asyncio.sleep(0)

        await timed_async(f"one request through {kind.__name__}", request)
    idle = [protocol] * 1_000
    timed("one sweep over 1,000 connections", lambda: sweep(idle, 0.0), 100)


def settled(number: int) -> records.Settled:
    some = uuid7().bytes
    return records.Settled(
        attempt_id=some, time_us=time.time_ns() // 1000, request_id=f"req_{number:032d}", attempt=1, key_id=some,
        provider_id=some, credential_id=some, credential_version=1, route="sandbox-echo", model="sandbox-echo",
        dialect="openai", endpoint="chat", held_nanos=1_000_000, budgets=[some, some, some], tags=["demo"],
        price_id=some, status=200, outcome="ok", input_tokens=60, output_tokens=20, cost_nanos=21_000,
        arithmetic=[("input", 60, 150_000_000, 9_000), ("output", 20, 600_000_000, 12_000)], latency_us=1_500,
        overhead_us=250, trace=[{"check": "budget", "ok": True, "scope": "key first-key", "limit": 10**9}],
    )  # fmt: skip


def journals() -> None:
    """A settled record: encoded, appended, and what it would cost to wait for the disk each time."""
    record = settled(1)
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
    plain["budgets"] = [budget.hex() for budget in record.budgets]
    sys.stdout.write(f"a settled record: {len(records.encode(record))} bytes, {len(orjson.dumps(plain))} as JSON\n")
    timed("encode a settled record (msgspec, msgpack array)", lambda: records.encode(record))
    timed("encode the same as JSON (orjson)", lambda: orjson.dumps(plain))
    timed("encode the same as JSON (json)", lambda: json.dumps(plain), 5_000)
    encoded = records.encode(record)
    with tempfile.TemporaryDirectory() as folder:
        writer = journal.JournalWriter(Path(folder), "node", "worker", "never")
        timed("append it to the journal (checksum and pwrite)", lambda: writer.append(encoded), 5_000)
        file = os.open(Path(folder) / "synced", os.O_CREAT | os.O_WRONLY)

        def synced() -> None:
            os.write(file, encoded)
            os.fdatasync(file)

        timed("write and fdatasync it", synced, 200)
        os.close(file)
        writer.close()


class Message(pydantic.BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None


class Chat(pydantic.BaseModel):
    model: str
    messages: list[Message]
    temperature: float | None = None


class MessageStruct(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatStruct(msgspec.Struct):
    model: str
    messages: list[MessageStruct]
    temperature: float | None = None


class MessageSerializer(serializers.Serializer[Any]):
    role = serializers.CharField()
    content = serializers.CharField()


class ChatSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    messages = MessageSerializer(many=True)
    temperature = serializers.FloatField(required=False)


def validation() -> None:
    """The same chat request checked and taken apart: the same three fields by each library, then our whole dialect."""
    small, whole, dialect = msgspec.json.Decoder(ChatStruct), msgspec.json.Decoder(ChatBody), DIALECTS[Dialect.OPENAI]
    timed("three fields of a chat request, msgspec", lambda: small.decode(BODY))
    timed("three fields of a chat request, pydantic", lambda: Chat.model_validate_json(BODY))
    timed(
        "three fields of a chat request, DRF serializer",
        lambda: ChatSerializer(data=json.loads(BODY)).is_valid(raise_exception=True),
        500,
    )
    timed(f"all {len(ChatBody.__struct_fields__)} fields of our OpenAI dialect, msgspec", lambda: whole.decode(BODY))
    timed("the same with our checks of depth, repeats and values", lambda: dialect.parse(Endpoint.CHAT, BODY))


def counting() -> None:
    """The metrics of one request: two counters and a histogram."""
    registry = CollectorRegistry()
    requests = Counter("r", "r", ["endpoint", "provider", "model", "status"], registry=registry)
    tokens = Counter("t", "t", ["provider", "model", "direction"], registry=registry)
    seconds = Histogram("s", "s", ["endpoint"], buckets=metrics.SECONDS, registry=registry)

    def direct() -> None:
        requests.labels("chat", "sandbox", "sandbox-echo", "200").inc()
        tokens.labels("sandbox", "sandbox-echo", "input").inc(8)
        seconds.labels("chat").observe(0.004)

    tally, turns = metrics.Tally(), count()

    def tallied() -> None:
        tally.add(metrics.REQUESTS, ("chat", "sandbox", "sandbox-echo", "200"))
        tally.add(metrics.TOKENS, ("sandbox", "sandbox-echo", "input"), 8)
        tally.observe(metrics.DURATION, "chat", 0.004)
        if next(turns) % 3_000 == 0:
            tally.flush()  # once a second, at 3,000 requests a second

    timed("three metrics, straight into prometheus-client", direct)
    timed("three metrics, tallied, flushes included", tallied)


def request_objects() -> None:
    """What the proxy's view is handed for each request: Django's request, and our own record of the same facts."""
    headers = [(f"x-header-{number}".encode(), b"value") for number in range(12)]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "query_string": b""}
    timed("an ASGIRequest", lambda: ASGIRequest(scope, BytesIO(BODY)))
    timed(
        "an Incoming",
        lambda: Incoming(request_id="req", body=BODY, headers=dict(headers), address="127.0.0.1", started=0.0),
    )
    timed("a Django response with eight headers", lambda: HttpResponse(BODY, headers=dict(ANSWER_HEADERS)))
    timed("an Answer with eight headers", lambda: Answer(200, list(ANSWER_HEADERS.items()), BODY))


ANSWER_HEADERS: Any = {f"x-conduit-{number}": "value" for number in range(8)}


async def limits() -> None:
    """A request limit decided from the worker's slice, and by asking Valkey each time."""
    from conduit import settings

    valkey = Redis.from_url(settings.VALKEY_URL)
    rates = RateLimits(valkey, "measure")
    scope = RateScope(id=uuid7(), kind="key", name="demo", rpm=10_000_000, tpm=None, max_parallel=None)

    async def leased() -> None:
        rates.release(await rates.admit([scope], 0), 0)  # type: ignore[arg-type]

    await timed_async("one request limit, from the leased slice", leased)
    await timed_async("one request limit, INCR in Valkey each time", lambda: valkey.incr("measure"))
    await valkey.aclose()


def dead_connections() -> None:
    """A question after PostgreSQL ended five pooled connections, by Django's backend and by ours."""
    own = connections.settings["default"]
    theirs = {**own, "ENGINE": "django.db.backends.postgresql", "CONN_HEALTH_CHECKS": True}
    connections.settings.update({"Django's backend": theirs, "conduit.database": own})

    def ask(alias: str, together: Barrier) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            together.wait(20)
        connections[alias].close()

    for alias in ("Django's backend", "conduit.database"):
        together = Barrier(5)
        with ThreadPoolExecutor(5) as threads:
            list(threads.map(ask, [alias] * 5, [together] * 5))
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        began = time.perf_counter()
        with suppress(OperationalError):
            ask(alias, Barrier(1))
        show(f"a question that meets five dead connections, {alias}", time.perf_counter() - began)
        connections[alias].close_pool()  # type: ignore[attr-defined]


def reloads() -> None:
    """What a changed configuration costs a web process: with models and prices read again, and kept."""
    call_command("migrate", verbosity=0)
    sync_models()
    sync_prices()
    pictures = Pictures()
    timed(f"a reload that reads {Price.objects.count():,} prices and their models", lambda: Pictures().load(), 1)
    pictures.load()
    timed("a reload that keeps them", lambda: pictures.load(), 1)


def steps() -> Iterator[Callable[[], object]]:
    yield lambda: asyncio.run(deadlines())
    yield journals
    yield validation
    yield counting
    yield request_objects
    yield lambda: asyncio.run(limits())
    yield dead_connections
    yield reloads


for step in steps():
    step()
