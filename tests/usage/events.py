"""Records as a worker would write them, for the tests of the ledger."""

from __future__ import annotations

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
