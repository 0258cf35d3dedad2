"""How figures read on a page: money, counts, shares, durations, moments. Pure; nothing here touches the database.

Precision belongs to the column: a list asks `digits_for` once and prints every cell of the column alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

NBSP = "\u00a0"
MINUS = "\u2212"
DASH = "–"
NANOS = 1_000_000_000


def digits_for(amounts: Iterable[int]) -> int:
    """Decimals for a column of nano-dollars: two when its largest is at least a dollar, else four."""
    return 2 if max((abs(a) for a in amounts), default=0) >= NANOS else 4


def usd(nanos: int | None, digits: int | None = None) -> str:
    """`$12,345.67`; below a dollar `$0.0042`; what would round to nothing but is something: `<$0.0001`."""
    if nanos is None:
        return DASH
    size = abs(nanos)
    if digits is None:
        digits = 2 if size >= NANOS or size == 0 else 4
    step = NANOS // 10**digits
    if 0 < size < step:
        return f"{MINUS if nanos < 0 else ''}<${1 / 10**digits:.{digits}f}"
    units = (size + step // 2) // step
    whole, rest = divmod(units, 10**digits)
    return f"{MINUS if nanos < 0 else ''}${whole:,}" + (f".{rest:0{digits}d}" if digits else "")


def usd_exact(nanos: int) -> str:
    """All nine decimals: `$0.011622000`."""
    return usd(nanos, 9)


def rate(nanos_per_million: int) -> str:
    """A price per million units, with as many decimals as it needs, two at least."""
    text = usd_exact(nanos_per_million).rstrip("0")
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest:0<2}"


def count(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"


def compact(number: int) -> str:
    """Tokens in a table: full below a million, then `2.84M`, `1.20B`."""
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.2f}{letter}"
    return f"{number:,}"


def percent(part: int, whole: int, digits: int = 0) -> str:
    """`92 %`. Rounded down for 99.x, so that nothing reads as full before it is."""
    if not whole:
        return DASH
    scale = 10**digits
    tenths = part * 100 * scale // whole if part < whole else -(-part * 100 * scale // whole)
    return f"{tenths / scale:.{digits}f}{NBSP}%"


def share(part: int, whole: int) -> float:
    """Part of a whole in percent for drawing, 0 to 100."""
    return round(min(max(part / whole * 100, 0.0), 100.0), 2) if whole > 0 else 0.0


def microseconds(us: int | None) -> str:
    """`0.3 ms`, `38 ms`, `4.28 s`, then as `span`."""
    if us is None:
        return DASH
    if us == 0:
        return f"0{NBSP}ms"
    if us < 10_000:
        return f"{us / 1000:.1f} ms".replace(" ", NBSP)
    if us < 1_000_000:
        return f"{us / 1000:.0f}{NBSP}ms"
    if us < 120_000_000:
        return f"{us / 1_000_000:.2f}{NBSP}s"
    return span(timedelta(microseconds=us))


def span(delta: timedelta) -> str:
    """`9 h 27 min`, `6 days`, `40 s`; never negative."""
    seconds = max(int(delta.total_seconds()), 0)
    days, hours, minutes = seconds // 86_400, seconds % 86_400 // 3600, seconds % 3600 // 60
    if days >= 2:
        text = f"{days} days"
    elif seconds >= 3600:
        whole = hours + days * 24
        text = f"{whole} h {minutes} min" if minutes else f"{whole} h"
    elif seconds >= 60:
        text = f"{minutes} min"
    else:
        text = f"{seconds} s"
    return text.replace(" ", NBSP)


def relative(at: datetime, now: datetime) -> str:
    """`just now`, `4 s ago`, `in 3 h`; from 24 hours on the date: `19 Nov 16:48`."""
    delta = now - at
    if abs(delta) < timedelta(hours=24):
        if abs(delta) < timedelta(seconds=2):
            return "just now"
        return f"{span(delta)} ago" if delta > timedelta(0) else f"in {span(-delta)}"
    if timedelta(0) < -delta < timedelta(days=100):
        return f"in {span(-delta)}"
    local = at.astimezone(UTC)
    year = f" {local.year}" if local.year != now.astimezone(UTC).year else ""
    return f"{local.day} {local:%b}{year} {local:%H:%M}"


def stamp(at: datetime) -> str:
    """`20 Nov 2026 14:31:58.204 UTC`."""
    local = at.astimezone(UTC)
    return f"{local.day} {local:%b %Y %H:%M:%S}.{local.microsecond // 1000:03d} UTC"


def minute(at: datetime) -> str:
    """`1 Dec 2026 00:00 UTC`."""
    local = at.astimezone(UTC)
    return f"{local.day} {local:%b %Y %H:%M} UTC"


def clock(at: datetime) -> str:
    """`14:32:07.3`, for a table whose zone is written in its head."""
    local = at.astimezone(UTC)
    return f"{local:%H:%M:%S}.{local.microsecond // 100_000}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
