"""Prices that people set: they win over the synced catalogue, are dated like it, and are never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction

from conduit.access.permissions import demand
from conduit.core import audit, clock
from conduit.core.actor import Actor
from conduit.core.clock import rfc3339
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.fields import nearest, parse_text, parse_time
from conduit.core.money import NANOS_PER_DOLLAR, RATE_UNITS, MoneyError, format_usd, parse_usd
from providers.models import Provider
from providers.providers import find
from usage.models import NIL, Price
from usage.pricing import OVERRIDE
from usage.rates import SINGLE_UNITS, TOKEN_UNITS, StoredRates

_FINEST = 15  # decimals of a dollar per single unit: a nano-dollar per million units
_MOST = NANOS_PER_DOLLAR * RATE_UNITS * 1000  # $1,000 for one unit


def set_price(  # noqa: PLR0913 (the contract's fields)
    model: object,
    *,
    actor: Actor,
    provider: str | None = None,
    effective_from: object = None,
    rates: object = None,
    per: object = None,
) -> Price:
    """Adds a dated price for a model, at one provider (id or name) or at all; from now on where no time is given.

    `rates` are dollars per million units, `per` dollars for one unit, as decimal strings, kept exactly. Raises
    InvalidInput naming the field, NotFound for the provider, Conflict when that instant has a price already.
    """
    demand(actor, "prices")
    name = _named("model", lambda: parse_text(model, 200, shortest=1))
    start = clock.now() if effective_from is None else _named("effective_from", lambda: _time(effective_from))
    stored = {**_parse("rates", rates, TOKEN_UNITS), **_parse("per", per, SINGLE_UNITS)}
    if not stored:
        raise InvalidInput("rates", "Name at least one rate.", "required")
    owner: Provider | None = None if provider is None else find(provider)
    price = Price(
        model=name,
        provider_id=owner.id if owner else NIL,
        effective_from=start,
        source=OVERRIDE,
        rates=stored,
        created_by=actor.name,
    )
    try:
        with transaction.atomic():
            audit.lock()
            price.save(force_insert=True)
            audit.record(
                actor=actor, action="price.set", kind="price", id=price.id, name=price.model, after=outward(price)
            )
    except IntegrityError:
        raise Conflict(f"{name} has a price from {rfc3339(start)} on already. Give another effective_from.") from None
    return price


def _named(field: str, parse: Any) -> Any:
    try:
        return parse()
    except InvalidInput as error:
        raise InvalidInput(field, error.detail, error.code) from None


def _time(value: object) -> datetime:
    return value if isinstance(value, datetime) else parse_time(value)


def _parse(field: str, value: object, units: tuple[str, ...]) -> StoredRates:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(field, "Must be an object of unit and decimal string.", "invalid_object")
    stored: StoredRates = {}
    for unit, text in value.items():
        if unit not in units:
            detail = f"There is no such unit.{nearest(str(unit), units)}"
            raise InvalidInput(f"{field}.{str(unit)[:64]}", detail, "unknown_unit")
        stored[unit] = [[0, _rate(f"{field}.{unit}", text, single=units is SINGLE_UNITS)]]
    return stored


def _rate(field: str, text: object, *, single: bool) -> int:
    """Nano-dollars per million units. A rate has at most nine decimals, the price of one unit fifteen."""
    try:
        parse_usd(text, digits=_FINEST if single else 9)  # type: ignore[arg-type]  # it refuses other types itself
    except MoneyError as error:
        raise InvalidInput(field, f"The amount {error}.", "invalid_amount") from None
    rate = int(Decimal(str(text)).scaleb(_FINEST if single else 9))
    if rate < 0:
        raise InvalidInput(field, "The amount must not be negative.", "too_small")
    if rate > _MOST:
        raise InvalidInput(field, "The amount is too large.", "too_large")
    return rate


def outward(price: Price) -> dict[str, Any]:
    """A price as the API shows it. `tiers`: what is charged from so many input tokens on, where there are steps."""
    tokens = {unit: steps for unit, steps in price.rates.items() if unit not in SINGLE_UNITS}
    return {
        "id": str(price.id),
        "model": price.model,
        "vendor": price.vendor or None,
        "provider": None if price.provider_id == NIL else str(price.provider_id),
        "effective_from": rfc3339(price.effective_from),
        "source": price.source,
        "rates": {unit: format_usd(steps[0][1]) for unit, steps in tokens.items()},
        "per": {unit: exact_usd(steps[0][1]) for unit, steps in price.rates.items() if unit in SINGLE_UNITS},
        "tiers": {
            unit: [{"from_units": start, "rate": format_usd(rate)} for start, rate in steps[1:]]
            for unit, steps in tokens.items()
            if len(steps) > 1
        },
    }


def exact_usd(rate: int) -> str:
    """Nano-dollars per million units as dollars for one unit, exactly: up to fifteen decimals, at least two."""
    whole, _, decimals = f"{Decimal(rate).scaleb(-_FINEST):f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
