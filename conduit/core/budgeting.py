"""Budgets of owners in any app. The app `keys` keeps all budgets; an app beside it whose rows own some too (providers)
may not import it and reaches them through the keeper that `keys` puts here when Django starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conduit.core.errors import ConfigurationError
from conduit.core.fields import Choice, Flag, MoneyField, Parsed, RFC3339Field, Strict, Text, WholeNumber

WINDOWS = ("lifetime", "day", "week", "month")
KINDS = ("hard", "soft")
UNBOUNDED = ("deny", "exclusive", "soft")
LONGEST_WAIT = 60_000
# What a budget's body says that changes without anybody's decision: money spent, a window or a raise that ends.
MOVING = frozenset(
    {"limit_usd", "raises", "settled_usd", "held_usd", "remaining_usd", "period_start", "resets_at", "owner"}
)


@dataclass(frozen=True, slots=True)
class Keeper:
    """What keys offers to an owner's app.

    parse(value, field): the items of `budgets`, checked; raises InvalidInput with a field such as `budgets.0.limit_usd`
    put(owner_kind, owner_id, specs, actor=…): makes them the owner's budgets, within the caller's transaction
    remove(owner_kind, ids): out of force with their owner
    bodies(owner_kind, {id: name}): each owner's budgets as the API shows them
    """

    parse: Callable[[object, str], Sequence[Any]]
    put: Callable[..., None]
    remove: Callable[[str, Iterable[UUID]], None]
    bodies: Callable[[str, Mapping[UUID, str]], Mapping[UUID, list[dict[str, Any]]]]


_registered: list[Keeper] = []


def register(keeper: Keeper) -> None:
    _registered[:] = [keeper]


def keeper() -> Keeper:
    """Raises ConfigurationError in an installation without the app `keys`."""
    if not _registered:
        raise ConfigurationError("The app keys is not installed: add it to INSTALLED_APPS.")
    return _registered[0]


def decided(body: Mapping[str, Any]) -> dict[str, Any]:
    """An owner's body with only what people decided of its budgets: what an ETag may be made of."""
    terms = [{name: value for name, value in row.items() if name not in MOVING} for row in body.get("budgets", ())]
    return {**body, "budgets": terms}


# --- how budgets look in the management API ---------------------------------------------------------------------------


class BudgetInput(Strict):
    limit_usd = MoneyField()
    window = Choice(choices=WINDOWS, required=False)
    timezone = Text(longest=64, required=False, help_text="IANA name; windows start at its midnight")
    kind = Choice(choices=KINDS, required=False)
    unbounded = Choice(choices=UNBOUNDED, required=False)
    wait_ms = WholeNumber(low=0, high=LONGEST_WAIT, required=False)
    reset = Flag(required=False, help_text="the running period begins anew")


@extend_schema_field(BudgetInput(many=True))
class BudgetsField(Parsed):
    """The items of `budgets`; errors name the member, such as `budgets.0.limit_usd`."""

    def parse(self, value: object) -> Sequence[Any]:
        return keeper().parse(value, "")


class BudgetOwner(serializers.Serializer[Any]):
    kind = serializers.CharField()
    id = serializers.UUIDField()
    name = serializers.CharField()


class BudgetRaiseOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    extra_usd = MoneyField()
    until = RFC3339Field()


class BudgetOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    owner = BudgetOwner()
    limit_usd = MoneyField(help_text="what holds now: base_limit_usd and every raise in force")
    base_limit_usd = MoneyField(help_text="without raises")
    raises = BudgetRaiseOutput(many=True)
    window = serializers.CharField()
    timezone = serializers.CharField()
    kind = serializers.CharField()
    unbounded = serializers.CharField()
    wait_ms = serializers.IntegerField()
    settled_usd = MoneyField()
    held_usd = MoneyField(help_text="lent to workers for requests in flight, and held by uncertain attempts")
    remaining_usd = MoneyField(minimum=None, help_text="below zero: overdrawn")
    period_start = RFC3339Field()
    resets_at = RFC3339Field(allow_null=True)
