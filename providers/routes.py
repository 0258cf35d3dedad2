"""Routes: the names callers use as `model`, and the targets behind them.

    add_route(actor=…, name=…, targets=[…], …)   update_route(route, …)   delete_route(route, …)   find(name)

A name may be a pattern such as `claude-*` (patterns.py); its targets then default to the model `*`.

A target is {"provider": name or id, "model", "weight"?, "priority"?, "region"?}. Strategy `priority`: a lower priority
goes first, equal ones share by weight. Strategy `weighted`: all share by weight, so all have one priority.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import IntegrityError, transaction

from conduit.access.permissions import demand
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NameTaken, NotFound
from conduit.core.fields import nearest, parse_choice, parse_text, parse_whole
from providers import patterns
from providers.models import Provider, Route, Target
from providers.providers import field
from providers.providers import find as find_provider

STRATEGIES = ("priority", "weighted")
MAX_TARGETS = 32
MAX_WEIGHT = 10_000
MAX_PRIORITY = 1_000
MAX_SECONDS = 3_600
CHANGEABLE = ("name", "targets", "strategy", "strict", "timeout", "enabled")
TARGET_FIELDS = ("provider", "model", "weight", "priority", "region")


class Settings(TypedDict, total=False):
    """What a route may be given beside name and targets. `timeout` in seconds for the whole answer; None: no own."""

    strategy: str
    strict: bool
    timeout: int | None
    enabled: bool


@dataclass(frozen=True, slots=True)
class _Aim:
    """One target, checked."""

    provider: Provider
    model: str
    weight: int
    priority: int
    region: str

    def plain(self) -> dict[str, Any]:
        return {
            "provider": self.provider.name,
            "model": self.model,
            "weight": self.weight,
            "priority": self.priority,
            "region": self.region,
        }


def find(name: str) -> Route:
    """By name, or by id. Raises NotFound."""
    row = Route.objects.filter(name=name).first()
    if row is None:
        try:
            row = Route.objects.filter(id=UUID(name)).first()
        except ValueError:
            row = None
    if row is None:
        raise NotFound(f"There is no route {name[:120]!r}.")
    return row


def is_served(name: str) -> bool:
    """Whether callers find a route by this name now: one of its own, or else the longest pattern that takes it."""
    own = Route.objects.filter(name=name).first()
    if own is not None or not patterns.is_name(name):
        return own is not None and own.enabled and not patterns.is_pattern(name)
    found = Route.objects.filter(name__endswith=patterns.STAR).values_list("name", "enabled")
    taking = [(len(pattern), enabled) for pattern, enabled in found if patterns.matches(pattern, name)]
    return bool(taking) and max(taking)[1]


def callable_names() -> list[str]:
    """Names of routes that a caller can use as they stand: no patterns."""
    found = Route.objects.filter(enabled=True).exclude(name__endswith=patterns.STAR)
    return list(found.order_by("name").values_list("name", flat=True))


def describe(route: Route) -> dict[str, Any]:
    """A route with its targets as plain values, for the audit log and the API."""
    return {
        "name": route.name,
        "strategy": route.strategy,
        "strict": route.strict,
        "timeout": route.timeout,
        "enabled": route.enabled,
        "targets": [
            {"provider": target.provider.name, **{name: getattr(target, name) for name in TARGET_FIELDS[1:]}}
            for target in route.targets.all()
        ],
    }


def add_route(*, actor: Actor, name: str, targets: Sequence[Mapping[str, Any]], **given: Unpack[Settings]) -> Route:
    """Raises InvalidInput naming the field, such as `targets.0.provider`."""
    demand(actor, "routes")
    route = Route(name=_name(name))
    _apply(route, given)
    aims = _targets(targets, route)
    _check_strategy(route, aims)
    with transaction.atomic():
        audit.lock()
        _save(route)
        _aim(route, aims)
        audit.record(
            actor=actor, action="route.create", kind="route", id=route.id, name=route.name, after=describe(route)
        )
    return route


def update_route(route: Route, *, actor: Actor, changes: Mapping[str, Any]) -> Route:
    """Changes any of CHANGEABLE; given targets replace all. Raises InvalidInput, NotFound."""
    demand(actor, "routes")
    if unknown := set(changes) - set(CHANGEABLE):
        raise InvalidInput(min(unknown), "This field cannot be changed.", "read_only")
    with transaction.atomic():
        current = locked(route)
        before = describe(current)
        if "name" in changes:
            current.name = _name(changes["name"])
        _apply(current, changes)
        aims = _targets(changes["targets"] if "targets" in changes else before["targets"], current)
        _check_strategy(current, aims)
        _save(current)
        if [aim.plain() for aim in aims] != before["targets"]:
            current.targets.all().delete()
            _aim(current, aims)
        old, new = audit.changes(before, describe(current))
        if new:
            audit.record(
                actor=actor,
                action="route.update",
                kind="route",
                id=current.id,
                name=current.name,
                before=old,
                after=new,
            )
    return current


def delete_route(route: Route, *, actor: Actor) -> None:
    """Raises Conflict naming routes that fall back to it."""
    demand(actor, "routes")
    with transaction.atomic():
        current = locked(route)
        users = Route.objects.filter(fallbacks__contains=[current.name]).exclude(pk=current.pk).order_by("name")
        if names := list(users.values_list("name", flat=True)[:10]):
            raise Conflict(f"Other routes fall back to {current.name}: {', '.join(names)}. Change these first.")
        audit.record(
            actor=actor,
            action="route.delete",
            kind="route",
            id=current.id,
            name=current.name,
            before=describe(current),
        )
        current.delete()


# --- parts ---------------------------------------------------------------------------------------------------------


def locked(route: Route) -> Route:
    """The row as it is now, locked for this transaction. Raises NotFound when it is gone."""
    audit.lock()
    row = Route.objects.select_for_update().filter(pk=route.pk).first()
    if row is None:
        raise NotFound("The route is gone.")
    return row


def _name(value: object) -> str:
    return _model_name("name", value)


def _model_name(where: str, value: object) -> str:
    name: str = field(where, parse_text, value, 200, shortest=1)
    if patterns.is_pattern(name):
        if not patterns.is_valid(name):
            raise InvalidInput(where, "A pattern has one star, at its end: claude-*, openai/* or *.", "invalid_pattern")
    elif not patterns.is_name(name):
        raise InvalidInput(
            where, "Must be letters, digits and . _ : / @ + - and start with a letter, a digit or @.", "invalid_name"
        )
    return name


def _target_model(where: str, given: Mapping[str, Any], route: Route) -> str:
    by_pattern = patterns.is_pattern(route.name)
    value = given.get("model", "")
    model = _model_name(where, patterns.STAR if by_pattern and value == "" else value)
    if patterns.is_pattern(model) and not by_pattern:
        raise InvalidInput(where, "Only a route whose own name ends in * may have a model with *.", "invalid_pattern")
    return model


def _apply(route: Route, given: Mapping[str, Any]) -> None:
    if "strategy" in given:
        route.strategy = field("strategy", parse_choice, given["strategy"], STRATEGIES)
    if "timeout" in given:
        seconds = given["timeout"]
        route.timeout = None if seconds is None else field("timeout", parse_whole, seconds, 1, MAX_SECONDS)
    for flag in ("strict", "enabled"):
        if flag in given:
            setattr(route, flag, bool(given[flag]))


def _targets(given: object, route: Route) -> list[_Aim]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not 1 <= len(given) <= MAX_TARGETS:
        raise InvalidInput("targets", f"Must be a list of 1 to {MAX_TARGETS} targets.", "invalid_length")
    return [_target(f"targets.{index}", target, route) for index, target in enumerate(given)]


def _target(where: str, given: object, route: Route) -> _Aim:
    if not isinstance(given, Mapping):
        raise InvalidInput(where, "Must be an object.", "invalid_type")
    for name in given:
        if name not in TARGET_FIELDS:
            detail = f"There is no such field.{nearest(str(name), TARGET_FIELDS)}"
            raise InvalidInput(f"{where}.{str(name)[:64]}", detail, "unknown_field")
    wanted = field(f"{where}.provider", parse_text, given.get("provider", ""), 120, shortest=1)
    try:
        provider = find_provider(wanted)
    except NotFound as error:
        raise InvalidInput(f"{where}.provider", str(error), "not_found") from None
    return _Aim(
        provider=provider,
        model=_target_model(f"{where}.model", given, route),
        weight=field(f"{where}.weight", parse_whole, given.get("weight", 100), 0, MAX_WEIGHT),
        priority=field(f"{where}.priority", parse_whole, given.get("priority", 0), 0, MAX_PRIORITY),
        region=field(f"{where}.region", parse_text, given.get("region", ""), 64),
    )


def _check_strategy(route: Route, aims: Sequence[_Aim]) -> None:
    if route.strategy == "weighted" and len({aim.priority for aim in aims}) > 1:
        raise InvalidInput("targets", "A weighted route has one priority for all its targets.", "invalid_priority")
    if not any(aim.weight for aim in aims):
        raise InvalidInput("targets", "At least one target needs a weight above 0.", "invalid_weight")


def _save(route: Route) -> None:
    try:
        with transaction.atomic():
            route.save()
    except IntegrityError:
        raise NameTaken(f"There already is a route named {route.name}.") from None


def _aim(route: Route, aims: Sequence[_Aim]) -> None:
    # A provider deleted meanwhile fails here by its foreign key; the lock makes that a clear refusal instead.
    ids = {aim.provider.pk for aim in aims}
    if Provider.objects.select_for_update().filter(pk__in=ids).count() < len(ids):
        raise Conflict("A provider of the targets was deleted meanwhile.")
    Target.objects.bulk_create(
        Target(
            route=route,
            position=position,
            provider=aim.provider,
            model=aim.model,
            weight=aim.weight,
            priority=aim.priority,
            region=aim.region,
        )
        for position, aim in enumerate(aims)
    )
