"""Records as a worker would write them, for the tests of the ledger."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from conduit.core.ids import uuid7
from conduit.core.money import RATE_UNITS, cost_of
from keys.models import Budget, OwnerKind, Team, VirtualKey
from usage.ledger import microseconds
from usage.records import Dispatched, Refused, Settled

ATTEMPT_FIELDS = set(Dispatched.__struct_fields__)


def now_us() -> int:
    return time.time_ns() // 1000


def settled(**given: Any) -> Settled:
    """One good answer of $0.000135: 100 tokens in at $0.15 and 200 out at $0.60 per million."""
    lines = [("input", 100, 150_000_000, 15_000), ("output", 200, 600_000_000, 120_000)]
    fields: dict[str, Any] = {
        "attempt_id": uuid7().bytes,
        "time_us": now_us(),
        "request_id": f"req_{uuid7().hex}",
        "attempt": 1,
        "route": "sandbox-echo",
        "model": "sandbox-echo",
        "dialect": "openai",
        "endpoint": "chat",
        "status": 200,
        "outcome": "ok",
        "input_tokens": 100,
        "output_tokens": 200,
        "cost_nanos": 135_000,
        "arithmetic": lines,
        "latency_us": 1_000,
    }
    return Settled(**{**fields, **given})


def costing(nanos: int, **given: Any) -> Settled:
    line = ("output", 1, nanos * RATE_UNITS, cost_of(1, nanos * RATE_UNITS))
    return settled(cost_nanos=nanos, arithmetic=[line], **given)


def dispatched(record: Settled) -> Dispatched:
    return Dispatched(**{name: getattr(record, name) for name in ATTEMPT_FIELDS})


def refused(**given: Any) -> Refused:
    fields: dict[str, Any] = {
        "attempt_id": uuid7().bytes,
        "time_us": now_us(),
        "request_id": f"req_{uuid7().hex}",
        "attempt": 0,
        "dialect": "openai",
        "endpoint": "chat",
        "status": 429,
        "outcome": "error",
        "error_code": "budget_exceeded",
    }
    return Refused(**{**fields, **given})


def budget(owner: Team | VirtualKey, **given: Any) -> Budget:
    """Made an hour ago, so that it is in force for what the test dispatches."""
    kind = OwnerKind.TEAM if isinstance(owner, Team) else OwnerKind.KEY
    fields = {"owner_kind": kind, "owner_id": owner.id, "limit_nanos": 10**12, **given}
    made = Budget.objects.create(**fields)
    Budget.objects.filter(id=made.id).update(created_at=datetime.now(UTC) - timedelta(hours=1))
    made.refresh_from_db()
    return made


def at(when: datetime) -> int:
    return microseconds(when)


def random_records(chance: random.Random, number: int, start: datetime, days: int) -> list[Any]:
    """Attempts and refusals of every kind, some of them without key, team, customer or tags."""
    ids = {name: [None, *(uuid7().bytes for _ in range(3))] for name in ("key", "team", "provider", "credential")}
    records = []
    for _ in range(number):
        given: dict[str, Any] = {
            "time_us": at(start) + chance.randrange(days * 86_400_000_000),
            "customer": chance.choice(["", "Alice", "Bob"]),
            "route": chance.choice(["", "fast", "cheap"]),
            "endpoint": chance.choice(["chat", "embeddings"]),
            "tags": chance.choices(["prod", "eu", "night"], k=chance.randrange(4)),
            "key_id": chance.choice(ids["key"]),
            "team_id": chance.choice(ids["team"]),
        }
        if chance.random() < 0.1:
            records.append(refused(**given))
            continue
        given |= {
            "provider_id": chance.choice(ids["provider"]),
            "credential_id": chance.choice(ids["credential"]),
            "model": chance.choice(["gpt", "claude", "gemini"]),
            "final": chance.random() < 0.9,
            "outcome": chance.choice(["ok", "ok", "error", "cancelled"]),
            "exactness": chance.choice(["exact", "exact", "estimated", "uncertain"]),
            "latency_us": chance.randrange(10**6),
            "ttft_us": chance.choice([None, chance.randrange(10**5)]),
            "cache_read_tokens": chance.randrange(50),
            "reasoning_tokens": chance.randrange(50),
        }
        records.append(costing(chance.randrange(10**9), **given))
    return records
