"""The rows of budgets in a form: as typed, as the API takes them, and what is wrong with each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd
from keys.budget_specs import BudgetSpec, parse_specs
from keys.budgets import BudgetState

WINDOWS = (("month", "Month"), ("week", "Week"), ("day", "Day"), ("lifetime", "Lifetime"))
COLUMNS = ("limit", "window", "timezone", "kind")
_SEPARATED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?", re.ASCII)
Row = dict[str, str]


@dataclass(slots=True)
class Budgets:
    """`items` and `specs` are the rows that are right, `errors` the others by the id of their field."""

    items: list[dict[str, Any]] = field(default_factory=list)
    specs: list[BudgetSpec] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def plain_amount(text: str) -> str:
    """`1,250.50` as `1250.50`; anything else as it is, to be refused by its parser."""
    return text.replace(",", "") if _SEPARATED.fullmatch(text) else text


def blank_row(number: int = 0) -> Row:
    return {"id": str(number), "limit": "", "window": "month", "timezone": "UTC", "kind": "hard", "error": ""}


def rows_of(states: Iterable[BudgetState]) -> list[Row]:
    """Budgets in force, to be changed. The limit is without raises: those end by themselves."""
    return [
        {
            "id": str(number),
            "limit": format_usd(state.base_nanos),
            "window": state.window,
            "timezone": state.timezone,
            "kind": state.kind,
            "error": "",
        }
        for number, state in enumerate(states)
    ]


def typed_rows(post: QueryDict) -> list[Row]:
    columns = [post.getlist(f"budget_{name}")[:16] for name in COLUMNS]
    rows = [
        {
            "id": str(number),
            "limit": limit.strip()[:40],
            "window": window[:16],
            "timezone": timezone.strip()[:64],
            "kind": kind[:8],
            "error": "",
        }
        for number, (limit, window, timezone, kind) in enumerate(zip(*columns, strict=False))
    ]
    return rows or [blank_row()]


def read(rows: Sequence[Row], present: Iterable[BudgetState] = ()) -> Budgets:
    """One after another, so that each refusal stands at its own row (`error`). An empty limit is no budget.

    What the form does not show (policy and waiting) stays as it is for a budget of the same window, zone and kind.
    """
    kept = {(state.window, state.timezone, state.kind): state for state in present}
    found = Budgets()
    for row in rows:
        if not row["limit"]:
            continue
        item: dict[str, Any] = {"limit_usd": plain_amount(row["limit"])} | {name: row[name] for name in COLUMNS[1:]}
        state = kept.get((row["window"], row["timezone"], row["kind"]))
        if state is not None:
            item |= {"unbounded": state.unbounded, "wait_ms": state.wait_ms}
        try:
            found.specs = parse_specs([*found.items, item])
        except InvalidInput as error:
            row["error"] = error.detail
            found.errors[f"budget-{row['id']}"] = error.detail
            continue
        found.items.append(item)
    return found
