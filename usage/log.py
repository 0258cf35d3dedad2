"""The request log: one row per request, newest first, by keyset pages; and all attempts of one request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Count, DateTimeField, Exists, Func, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Cast

from conduit.access.permissions import scope
from conduit.core.actor import Actor
from keys.models import VirtualKey
from providers.models import Provider
from usage.filters import condition
from usage.models import Exactness, UsageEvent

PAGE = 50
WORST = (Exactness.UNCERTAIN, Exactness.ESTIMATED, Exactness.EXACT)
MOST_FRESH = 99


@dataclass(frozen=True, slots=True)
class Filters:
    """`outcome`: "" for all, ok, error, refused or cancelled. `text` is looked for in model and route.

    `exactness`: "" for all; estimated and uncertain also find a request of which only an earlier attempt is.
    `others` are dimensions of usage.filters; a text that is no id raises InvalidInput.
    """

    since: datetime
    key: UUID | None = None
    provider: UUID | None = None
    route: str = ""
    outcome: str = ""
    text: str = ""
    exactness: str = ""
    until: datetime | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    def condition(self) -> Q:
        found = Q(time__gte=self.since) & condition(self.others)
        if self.until:
            found &= Q(time__lt=self.until)
        if self.key:
            found &= Q(key_id=self.key)
        if self.provider:
            found &= Q(provider_id=self.provider)
        if self.route:
            found &= Q(route=self.route)
        if self.text:
            found &= Q(model__icontains=self.text) | Q(route__icontains=self.text)
        if self.outcome == "refused":
            found &= Q(attempt=0)
        elif self.outcome == "error":
            found &= Q(outcome="error", attempt__gt=0)
        elif self.outcome:
            found &= Q(outcome=self.outcome)
        if self.exactness:
            found &= self._exactness()
        return found

    def _exactness(self) -> Q:
        """What is least exact of a request's attempts decides, as in `Row.exactness`."""
        earlier = UsageEvent.objects.filter(request_id=OuterRef("request_id"), key_id=OuterRef("key_id"), final=False)

        def some(names: Sequence[str]) -> Q:
            return Q(exactness__in=names) | Q(Exists(earlier.filter(exactness__in=names)), attempt__gt=1)

        worse = WORST[: WORST.index(Exactness(self.exactness))]
        return some([self.exactness]) & ~some(worse) if worse else some([self.exactness])


@dataclass(frozen=True, slots=True)
class Row:
    """One request: its final attempt (or refusal), with what earlier attempts cost added.

    `exactness` is that of the least exact attempt.
    """

    event: UsageEvent
    key_name: str
    provider_name: str
    cost: int
    exactness: str

    def __getattr__(self, name: str) -> object:
        return getattr(self.event, name)

    @property
    def refused(self) -> bool:
        return self.event.attempt == 0

    @property
    def attempts(self) -> int:
        return self.event.attempt

    @property
    def outcome_word(self) -> str:
        """`200`, `200 absorbed`, `429 budget_exceeded`."""
        if self.event.outcome == "ok":
            return f"{self.event.status} absorbed" if self.event.attempt > 1 else str(self.event.status)
        return f"{self.event.status} {self.event.error_code}".strip()


@dataclass(frozen=True, slots=True)
class Page:
    """`older` is the cursor of the next page, empty at the end."""

    rows: list[Row]
    older: str


def _events(actor: Actor) -> QuerySet[UsageEvent]:
    return scope(UsageEvent.objects.all(), actor)


def page(actor: Actor, filters: Filters, cursor: str = "", limit: int = PAGE) -> Page:
    """Raises ValueError for a cursor that is none."""
    found = _events(actor).filter(filters.condition(), final=True)
    if cursor:
        at, last = _parse_cursor(cursor)
        found = found.filter(Q(time__lt=at) | Q(time=at, id__lt=last))
    events = list(found.order_by("-time", "-id")[: limit + 1])
    more = len(events) > limit
    events = events[:limit]
    return Page(_rows(events), _cursor(events[-1]) if more else "")


def _cursor(event: UsageEvent) -> str:
    return f"{int(event.time.timestamp() * 1_000_000)}-{event.id.hex}"


def _parse_cursor(text: str) -> tuple[datetime, UUID]:
    time, _, ident = text.partition("-")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(time)), UUID(ident)


def _rows(events: Sequence[UsageEvent]) -> list[Row]:
    keys = dict(VirtualKey.objects.filter(id__in={e.key_id for e in events}).values_list("id", "name"))
    providers = dict(Provider.objects.filter(id__in={e.provider_id for e in events}).values_list("id", "name"))
    repeated = [e.request_id for e in events if e.attempt > 1]
    spent = _before(repeated) if repeated else {}
    rows = []
    for event in events:
        cost, seen = spent.get(event.request_id, (0, set())) if event.attempt > 1 else (0, set())
        rows.append(
            Row(
                event,
                keys.get(event.key_id, "deleted key") if event.key_id else "",
                providers.get(event.provider_id, "deleted provider") if event.provider_id else "",
                event.cost_nanos + cost,
                least_exact([event.exactness, *seen]),
            )
        )
    return rows


def _before(request_ids: Sequence[str]) -> dict[str, tuple[int, set[str]]]:
    """What the attempts before the final one cost, and how exact they are."""
    found: dict[str, tuple[int, set[str]]] = {}
    earlier = UsageEvent.objects.filter(request_id__in=request_ids, final=False).order_by()
    for request_id, exactness, cost in earlier.values_list("request_id", "exactness").annotate(cost=Sum("cost_nanos")):
        before, seen = found.get(request_id, (0, set()))
        found[request_id] = (before + cost, seen | {exactness})
    return found


def least_exact(seen: Iterable[str]) -> str:
    """Of several attempts: uncertain before estimated before exact."""
    found = set(seen)
    return next(name.value for name in WORST if name in found)


def fresh(actor: Actor, filters: Filters, after: datetime) -> int:
    """How many requests came after an instant, up to a cap."""
    found = _events(actor).filter(filters.condition(), final=True, time__gt=after)
    return found[: MOST_FRESH + 1].count()


def counted(actor: Actor, filters: Filters, starts: Sequence[datetime]) -> dict[str, list[int]]:
    """Requests per bucket of equal length that begin at `starts`, by what became of them."""
    if len(starts) < 2:
        starts = [starts[0], starts[0] + timedelta(minutes=1)]
    step = starts[1] - starts[0]
    bucket = Func(
        Value(step),
        "time",
        Cast(Value(starts[0]), DateTimeField()),
        function="date_bin",
        output_field=DateTimeField(),
    )
    groups = (
        _events(actor)
        .filter(filters.condition(), final=True, time__gte=starts[0])
        .order_by()
        .annotate(bucket=bucket)
        .values("bucket", "outcome")
        .annotate(number=Count("id"), stopped=Count("id", filter=Q(attempt=0)))
    )
    found: dict[str, list[int]] = {name: [0] * len(starts) for name in ("Served", "Error", "Refused")}
    for group in groups:
        index = min(int((group["bucket"] - starts[0]) / step), len(starts) - 1)
        found["Refused"][index] += group["stopped"]
        found["Error" if group["outcome"] == "error" else "Served"][index] += group["number"] - group["stopped"]
    return found


def exists(actor: Actor, request_id: str) -> bool:
    return _events(actor).filter(request_id=request_id).exists()


def attempts(actor: Actor, request_id: str) -> list[UsageEvent]:
    """All attempts of a request, first to last. Of an id that a caller used several times: the latest request."""
    events = list(_events(actor).filter(request_id=request_id).order_by("-time", "-id")[:200])
    if not events:
        return []
    latest = [events[0]]
    for event in events[1:]:
        if event.final or event.key_id != latest[0].key_id:
            break
        latest.append(event)
    return latest[::-1]


def last_of_key(key_id: UUID, since: datetime) -> Row | None:
    """The key's newest request, for the pages that wait for one."""
    event = UsageEvent.objects.filter(key_id=key_id, final=True, time__gte=since).order_by("-time", "-id").first()
    return _rows([event])[0] if event else None


def count_of_key(key_id: UUID, since: datetime) -> int:
    return UsageEvent.objects.filter(key_id=key_id, final=True, time__gte=since).count()


def last_used(keys: Sequence[UUID]) -> dict[UUID, datetime]:
    """When each key was last used: one step back on the index for each."""
    newest = UsageEvent.objects.filter(key_id=OuterRef("id")).order_by("-time").values("time")[:1]
    rows = VirtualKey.objects.filter(id__in=keys).annotate(used=Subquery(newest)).values_list("id", "used")
    return {key: used for key, used in rows if used is not None}
