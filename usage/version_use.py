"""How far each version of a credential is used: each minute, of late, by whom, and what it cost this month.

How many requests a version carries is told to everybody who may read credentials: it says how the version is, and
nothing about who called. Amounts and callers are only those of the actor's teams. Nano-dollars and microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, Max, Q, Sum

from conduit.access.permissions import scope
from conduit.core.actor import Actor
from conduit.core.models import LiveProcess
from keys.models import VirtualKey
from providers.errors import AuthRejected
from providers.models import Credential, CredentialVersion, Route
from usage.models import NIL, UsageDay, UsageEvent, UsageHour

WINDOW = timedelta(minutes=10)  # what "of late" means
MINUTES = 60
MOST_CALLERS = 50
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """One version in a span. `errors` are those that are no authentication failures; `p95_us` None: no attempt."""

    requests: int = 0
    auth_failures: int = 0
    errors: int = 0
    p95_us: int | None = None
    cost: int = 0
    last: datetime | None = None

    @property
    def failed(self) -> int:
        return self.auth_failures + self.errors


@dataclass(frozen=True, slots=True)
class Caller:
    """A key on a route, with its requests by version number. `key` None: none that the actor may see is there."""

    key_id: UUID | None
    key: str
    route: str
    requests: Mapping[int, int]

    @property
    def total(self) -> int:
        return sum(self.requests.values())


@dataclass(frozen=True, slots=True)
class Live:
    """What the living web processes say of one version. `tripped`: until when it is passed over after a 401."""

    open: int = 0
    last: datetime | None = None
    tripped: datetime | None = None
    why: str = ""

    def health(self, at: datetime) -> str:
        """closed | tripped | half_open: passed over, or about to be tried again by one request."""
        if self.tripped is None:
            return "closed"
        return "tripped" if self.tripped > at else "half_open"


@dataclass(frozen=True, slots=True)
class Use:
    """A credential since the month began, for the actor: how many routes and keys used it, and what they spent."""

    routes: int = 0
    keys: int = 0
    cost: int = 0


# --- from the events -----------------------------------------------------------------------------------------------

# Every query names the versions, so that the index (credential, version, time) is read from `since` on only.
_FIGURES = """
SELECT credential_version, count(*), count(*) FILTER (WHERE error_code = %(auth)s),
       count(*) FILTER (WHERE outcome = 'error' AND error_code <> %(auth)s),
       percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_us),
       coalesce(sum(cost_nanos) FILTER (WHERE %(all)s OR team_id = ANY(%(teams)s::uuid[])), 0), max(time)
  FROM usage_event
 WHERE credential_id = %(credential)s AND time >= %(since)s AND credential_version = ANY(ARRAY(
       SELECT number FROM providers_credentialversion WHERE credential_id = %(credential)s))
 GROUP BY credential_version
"""
_MINUTES = """
SELECT credential_version, floor(extract(epoch FROM time - %(since)s) / 60)::int, count(*)
  FROM usage_event
 WHERE credential_id = %(credential)s AND time >= %(since)s AND credential_version = ANY(ARRAY(
       SELECT number FROM providers_credentialversion WHERE credential_id = %(credential)s))
 GROUP BY 1, 2
"""
_EDGES = """
SELECT v.number,
       (SELECT min(time) FROM usage_event
         WHERE credential_id = %(credential)s AND credential_version = v.number AND time >= %(since)s),
       (SELECT max(time) FROM usage_event
         WHERE credential_id = %(credential)s AND credential_version = v.number AND time >= %(since)s)
  FROM unnest(%(numbers)s::int[]) AS v (number)
"""
_SHARED = """
SELECT e.credential_version, sum(e.cost_nanos)
  FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS r (a, b)
  JOIN usage_event e ON e.credential_id = %(credential)s AND e.credential_version = ANY(%(numbers)s)
   AND e.time >= r.a AND e.time < r.b
 WHERE %(all)s OR e.team_id = ANY(%(teams)s::uuid[])
 GROUP BY 1
"""


def _rows(query: str, actor: Actor | None = None, **given: Any) -> list[tuple[Any, ...]]:
    teams = None if actor is None or actor.teams is None else list(actor.teams)
    with connection.cursor() as cursor:
        cursor.execute(query, {"all": teams is None, "teams": teams or [], "auth": AuthRejected.code, **given})
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def figures(actor: Actor, credential: UUID, since: datetime) -> dict[int, Figures]:
    """By version number, from `since` on; only versions that were used."""
    found = _rows(_FIGURES, actor, credential=credential, since=since)
    return {
        number: Figures(asked, refused, failed, p95, int(cost), last)
        for number, asked, refused, failed, p95, cost, last in found
    }


def used_since(version: CredentialVersion, since: datetime) -> tuple[int, datetime | None]:
    """Attempts from `since` on, and when the last of them began."""
    events = UsageEvent.objects.filter(
        credential_id=version.credential_id, credential_version=version.number, time__gte=since
    )
    found = events.aggregate(attempts=Count("*"), last=Max("time"))
    return found["attempts"], found["last"]


def first_minute(at: datetime) -> datetime:
    """The first of the sixty minutes that end with the one of `at`."""
    return at.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)


def per_minute(credential: UUID, at: datetime) -> dict[int, list[int]]:
    """Attempts in each of the last sixty minutes, oldest first, by version number."""
    found: dict[int, list[int]] = defaultdict(lambda: [0] * MINUTES)
    for number, minute, attempts in _rows(_MINUTES, credential=credential, since=first_minute(at)):
        found[number][min(minute, MINUTES - 1)] += attempts
    return dict(found)


def callers(actor: Actor, credential: UUID, since: datetime) -> list[Caller]:
    """Who used which version from `since` on, busiest first, at most MOST_CALLERS."""
    numbers = list(CredentialVersion.objects.filter(credential=credential).values_list("number", flat=True))
    events = UsageEvent.objects.filter(credential_id=credential, credential_version__in=numbers, time__gte=since)
    found: dict[tuple[UUID | None, str], dict[int, int]] = defaultdict(dict)
    rows = scope(events, actor).order_by().values_list("key_id", "route", "credential_version")
    for key, route, version, attempts in rows.annotate(attempts=Count("id")):
        found[key, route][version or 0] = attempts
    busiest = sorted(found.items(), key=lambda item: (-sum(item[1].values()), str(item[0])))[:MOST_CALLERS]
    named = VirtualKey.objects.filter(id__in=[key for (key, _), _ in busiest if key])
    names = dict(named.values_list("id", "name"))
    return [Caller(key, names.get(key, "") if key else "", route, counts) for (key, route), counts in busiest]


def spend_by_version(actor: Actor, credential: UUID, numbers: Sequence[int], since: datetime) -> dict[int, int]:
    """What each version cost from `since` on, the beginning of an hour.

    Rollups do not know versions. An hour in which only one version was used is that version's; only the hours that
    several share, those of a rotation, are added up from the events.
    """
    numbers = list(numbers)
    used = {
        number: (_hour(first), _hour(last))
        for number, first, last in _rows(_EDGES, credential=credential, since=since, numbers=numbers)
        if first is not None
    }
    found = dict.fromkeys(numbers, 0)
    shared: list[datetime] = []
    hours = scope(UsageHour.objects.filter(hour__gte=since, credential_id=credential), actor)
    for hour, cost in hours.order_by("hour").values_list("hour").annotate(cost=Sum("cost_nanos")):
        own = [number for number, (first, last) in used.items() if first <= hour <= last]
        if len(own) == 1:
            found[own[0]] += cost
        elif own:
            shared.append(hour)
    if shared:
        spans = _spans(shared)
        starts, ends = [span[0] for span in spans], [span[1] for span in spans]
        rows = _rows(_SHARED, actor, credential=credential, numbers=numbers, starts=starts, ends=ends)
        for number, cost in rows:
            found[number] += int(cost)
    return found


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _spans(hours: Iterable[datetime]) -> list[tuple[datetime, datetime]]:
    """Ascending hours as spans without gaps."""
    spans: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if spans and spans[-1][1] == hour:
            spans[-1] = (spans[-1][0], hour + HOUR)
        else:
            spans.append((hour, hour + HOUR))
    return spans


def recent(credentials: Iterable[UUID], since: datetime) -> dict[UUID, int]:
    """Attempts from `since` on, by credential."""
    rows = UsageEvent.objects.filter(time__gte=since, credential_id__in=list(credentials), attempt__gt=0)
    counted = rows.order_by().values_list("credential_id").annotate(attempts=Count("id"))
    return {credential: attempts for credential, attempts in counted if credential is not None}


def who_uses(actor: Actor, since: datetime) -> dict[UUID, Use]:
    """Every credential that was used from the day of `since` on."""
    rows = scope(UsageDay.objects.filter(day__gte=since).exclude(credential_id=NIL), actor).order_by()
    summed = rows.values_list("credential_id").annotate(
        routes=Count("route", distinct=True, filter=~Q(route="")),
        keys=Count("key_id", distinct=True, filter=~Q(key_id=NIL)),
        cost=Sum("cost_nanos"),
    )
    return {credential: Use(routes, keys, cost) for credential, routes, keys, cost in summed}


def routes_to(credential: Credential) -> list[str]:
    """Enabled routes with a target at the credential's provider, by name."""
    found = Route.objects.filter(enabled=True, targets__provider=credential.provider_id).order_by("name").distinct()
    return list(found.values_list("name", flat=True))


# --- from the living processes -------------------------------------------------------------------------------------


def live(processes: Iterable[LiveProcess]) -> dict[UUID, Live]:
    """By the version's id, all processes together."""
    found: dict[UUID, Live] = {}
    for process in processes:
        for ident, said in process.versions.items():
            before = found.get(UUID(ident), Live())
            tripped, why = _moment(said.get("tripped")), str(said.get("why", ""))
            later = tripped is not None and (before.tripped is None or tripped > before.tripped)
            found[UUID(ident)] = Live(
                open=before.open + int(said.get("open", 0)),
                last=_latest(before.last, _moment(said.get("last"))),
                tripped=tripped if later else before.tripped,
                why=why if later else before.why,
            )
    return found


def _moment(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int | float) and seconds > 0 else None


def _latest(*moments: datetime | None) -> datetime | None:
    return max((at for at in moments if at is not None), default=None)
