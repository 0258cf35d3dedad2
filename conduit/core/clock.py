"""Time, in one place. Wall clock in UTC; monotonic seconds for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime

monotonic = time.monotonic


def now() -> datetime:
    """Aware, UTC."""
    return datetime.now(UTC)


def rfc3339(at: datetime) -> str:
    """`2026-11-20T14:32:08.123456Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
