"""Does the ledger add up? Each invariant is one SQL statement, so it sees one state of the database, traffic or not.

A check counts what is wrong and shows a few examples; `ok` means none. Every guard of the ledger has a test that breaks
it and sees its check turn red.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from usage import rollups

SHOWN = 5
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)

_ONCE = "SELECT id::text AS what, count(*) AS found FROM events GROUP BY id HAVING count(*) > 1"

_ARITHMETIC = """
SELECT id::text AS what, cost_nanos AS recorded, total AS computed FROM events
 CROSS JOIN LATERAL (
   SELECT coalesce(sum((line->>3)::numeric), 0) AS total,
     coalesce(bool_and((line->>3)::numeric = ceil((line->>1)::numeric * (line->>2)::numeric / 1000000)), true) AS exact
   FROM jsonb_array_elements(arithmetic) AS line) AS lines
 WHERE cost_nanos <> total OR NOT exact
"""

_SANE = """
SELECT id::text AS what, cost_nanos, input_tokens, output_tokens FROM events
 WHERE least(cost_nanos, held_nanos, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, latency_us) < 0
    OR (attempt = 0 AND (provider_id IS NOT NULL OR cost_nanos <> 0))
"""

_PRICED = """
SELECT id::text AS what, model, input_tokens, output_tokens FROM events
 WHERE price_id IS NOT NULL AND cost_nanos = 0 AND input_tokens + output_tokens > 0
   AND jsonb_array_length(arithmetic) = 0 AND NOT 'unpriced' = ANY(flags)
"""

# An attempt counts against every budget that was in force for it: its key's, and those of its team and all teams above.
# Two minutes after a budget or a team was changed every worker knows of it.
_BUDGETS = """
WITH RECURSIVE above (team_id, owner_id, changed_at) AS (
  SELECT id, id, updated_at FROM keys_team
  UNION ALL
  SELECT a.team_id, p.id, greatest(a.changed_at, p.updated_at)
    FROM above a JOIN keys_team t ON t.id = a.owner_id JOIN keys_team p ON p.id = t.parent_id
), owned AS (
  SELECT id, time, budgets, 'key' AS owner_kind, key_id AS owner_id, time AS changed_at
    FROM events WHERE attempt > 0 AND exactness <> 'uncertain' AND key_id IS NOT NULL
  UNION ALL
  SELECT e.id, e.time, e.budgets, 'team', a.owner_id, a.changed_at + interval '2 minutes'
    FROM events e JOIN above a ON a.team_id = e.team_id WHERE e.attempt > 0 AND e.exactness <> 'uncertain'
)
SELECT o.id::text AS what, b.id::text AS budget FROM owned o JOIN keys_budget b USING (owner_kind, owner_id)
 WHERE NOT b.id = ANY(o.budgets) AND o.time >= o.changed_at AND o.time > b.created_at + interval '2 minutes'
   AND (b.removed_at IS NULL OR o.time < b.removed_at)
"""

_PERIODS = """
WITH spent AS (
  SELECT named.id AS period, sum(e.cost_nanos) AS nanos
    FROM usage_event e CROSS JOIN LATERAL (SELECT DISTINCT unnest(e.periods) AS id) AS named
   WHERE e.cost_nanos <> 0 GROUP BY 1
)
SELECT coalesce(p.budget_id::text, s.period::text) AS what, p.starts_at::text AS period,
       coalesce(p.settled_nanos, 0) AS recorded, coalesce(s.nanos, 0) AS computed
  FROM keys_budgetperiod p FULL JOIN spent s ON s.period = p.id
 WHERE coalesce(p.settled_nanos, 0) <> coalesce(s.nanos, 0)
"""

_LEASES = """
WITH lent AS (
  SELECT period_id AS id, sum(greatest(granted_nanos - spent_nanos, 0)) AS nanos FROM keys_lease GROUP BY 1
)
SELECT p.budget_id::text AS what, p.starts_at::text AS period, p.leased_nanos AS recorded,
       coalesce(l.nanos, 0) AS computed
  FROM keys_budgetperiod p LEFT JOIN lent l USING (id) WHERE p.leased_nanos <> coalesce(l.nanos, 0)
"""

_UNCERTAIN = """
WITH kept AS (
  SELECT named.id, sum(u.held_nanos) AS nanos
    FROM keys_uncertainattempt u CROSS JOIN LATERAL (SELECT DISTINCT unnest(u.periods) AS id) AS named
   WHERE u.resolved_at IS NULL GROUP BY 1
)
SELECT p.budget_id::text AS what, p.starts_at::text AS period, p.uncertain_nanos AS recorded,
       coalesce(k.nanos, 0) AS computed
  FROM keys_budgetperiod p LEFT JOIN kept k USING (id) WHERE p.uncertain_nanos <> coalesce(k.nanos, 0)
"""


def _same(rollup: rollups.Rollup) -> str:
    key = ", ".join(rollup.keys)
    row = ", ".join([*rollup.keys, *rollup.measures])
    first = rollup.measures[0]
    # Events under examination begin with an hour, so the first day of a daily rollup may be cut: it is left out.
    return f"""
    WITH computed AS (SELECT {row} FROM ({rollup.select("events")}) AS made WHERE {rollup.unit} >= %(since)s),
    recorded AS (SELECT {row} FROM {rollup.table} WHERE {rollup.unit} >= %(since)s),
    missing AS (SELECT {row} FROM computed EXCEPT SELECT {row} FROM recorded),
    surplus AS (SELECT {row} FROM recorded EXCEPT SELECT {row} FROM computed)
    SELECT concat_ws(' ', {key}) AS what, s.cost_nanos AS recorded, m.cost_nanos AS computed,
           s.{first} AS recorded_{first}, m.{first} AS computed_{first}
      FROM missing m FULL JOIN surplus s USING ({key})
    """  # noqa: S608 (own names)


# name → (what must hold, SELECT of the violations over `events`, the usage events under examination)
CHECKS: dict[str, tuple[str, str]] = {
    "attempts-once": ("Every attempt is one usage event.", _ONCE),
    "arithmetic": ("Every cost is the sum of its lines, and every line is units x rate, rounded up.", _ARITHMETIC),
    "sane": ("No figure is negative, and a refused request has no provider and no cost.", _SANE),
    "priced": ("No work at a known price is recorded without its arithmetic.", _PRICED),
    "budgets": ("Every attempt counts against each budget in force for its key and teams.", _BUDGETS),
    "periods": ("Every budget period's settled amount is the sum of its usage events.", _PERIODS),
    "leases": ("What is leased of every period is the sum of its workers' leases.", _LEASES),
    "uncertain": ("What is set aside of every period is the holds of its uncertain attempts.", _UNCERTAIN),
    "hours": ("The hourly rollup equals the usage events.", _same(rollups.HOURS)),
    "days": ("The daily rollup equals the usage events.", _same(rollups.DAYS)),
    "tag-hours": ("The hourly rollup by tag equals the usage events.", _same(rollups.TAG_HOURS)),
    "tag-days": ("The daily rollup by tag equals the usage events.", _same(rollups.TAG_DAYS)),
}


ALWAYS_WHOLE = ("periods", "leases", "uncertain")


@dataclass(frozen=True, slots=True)
class Check:
    """`wrong` violations of `statement`; `examples` are the first few, as column → value."""

    name: str
    statement: str
    wrong: int
    examples: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        return self.wrong == 0


@dataclass(frozen=True, slots=True)
class Verification:
    """`events` and `cost_nanos`: how much was examined."""

    events: int
    cost_nanos: int
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def verify(*, since: datetime | None = None) -> Verification:
    """Runs every check, over the events dispatched since then (to the hour), or over all of them.

    `since` leaves out what goes over all there is, because a period may last for ever (ALWAYS_WHOLE).
    """
    start = (since or _ALWAYS).replace(minute=0, second=0, microsecond=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), coalesce(sum(cost_nanos), 0) FROM usage_event WHERE time >= %s", [start])
        events, cost_nanos = cursor.fetchone() or (0, 0)
    names = [name for name in CHECKS if since is None or name not in ALWAYS_WHOLE]
    return Verification(events, int(cost_nanos), [_run(name, start) for name in names])


def _run(name: str, since: datetime) -> Check:
    statement, select = CHECKS[name]
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE events AS (SELECT * FROM usage_event WHERE time >= %(since)s),"  # noqa: S608 (own text)
            f" wrong AS ({select}) SELECT count(*) OVER () AS total, wrong.* FROM wrong LIMIT {SHOWN}",
            {"since": since},
        )
        columns = [column[0] for column in cursor.description or ()][1:]
        rows = cursor.fetchall()
    examples = [dict(zip(columns, (_plain(value) for value in row[1:]), strict=True)) for row in rows]
    return Check(name, statement, rows[0][0] if rows else 0, examples)


def _plain(value: Any) -> Any:
    """Sums arrive as Decimal; every amount here is whole."""
    return value if value is None or isinstance(value, str | int) else int(value)


def rebuild() -> int:
    """Recreates all rollups from the usage events; returns how many hourly rows there are.

    The lock lets batches that are under way commit first and holds later ones back until the new rows are there; pages
    go on reading the former ones.
    """
    tables = [rollup.table for rollup in rollups.ROLLUPS]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE")
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608 (own name)
        cursor.execute(f"WITH {rollups.steps('usage_event')} SELECT count(*) FROM hour_sums")  # noqa: S608 (own text)
        (made,) = cursor.fetchone() or (0,)
    return int(made)
