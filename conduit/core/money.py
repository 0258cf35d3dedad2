"""Money is an integer of nano-dollars (10^-9 US dollars). No float ever enters.

A price ("rate") is nano-dollars per million units: $3.00 per million tokens is 3_000_000_000.
cost = sum over units of ceil(units x rate / 10^6), so a cost is never rounded in the caller's favour.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

NANOS_PER_DOLLAR = 1_000_000_000
RATE_UNITS = 1_000_000
MAX_NANOS = 2**63 - 1  # BIGINT
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,12})(?:\.[0-9]{1,15})?", re.ASCII)


class MoneyError(ValueError):
    """The text is not an amount of dollars."""


def parse_usd(text: str | int, *, digits: int = 9) -> int:
    """`"12.50"` to nano-dollars. Exact: at most `digits` decimals, no exponent, no sign but a leading minus.

    Raises MoneyError for anything else, bool, float, NaN and "1,0" included.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise MoneyError('must be a decimal string such as "12.50"')
    plain = str(text)
    if not _PLAIN.fullmatch(plain):
        raise MoneyError('must be a decimal string such as "12.50"')
    if len(plain.partition(".")[2].rstrip("0")) > digits:
        raise MoneyError(f"has more than {digits} decimals")
    nanos = int(Decimal(plain).scaleb(9).to_integral_exact(ROUND_CEILING))
    if abs(nanos) > MAX_NANOS:
        raise MoneyError("is too large")
    return nanos


def format_usd(nanos: int) -> str:
    """Nano-dollars as the API's decimal string: at least two decimals, no trailing zeros beyond them."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    dollars, rest = divmod(nanos, NANOS_PER_DOLLAR)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def cost_of(units: int, rate: int) -> int:
    """Nano-dollars for `units` at `rate` (nano-dollars per million units), rounded up."""
    return -(-units * rate // RATE_UNITS)
