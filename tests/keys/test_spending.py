"""What a worker believes to be settled never exceeds the truth, and a new period starts at zero."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from keys import entries, spending
from keys.entries import BudgetEntry
from keys.models import Budget
from keys.spending import Spending


def budget(window: str = "day", limit: int = 1_000) -> BudgetEntry:
    row = Budget(id=uuid4(), owner_kind="key", owner_id=uuid4(), limit_nanos=limit, window=window, timezone="UTC")
    row.created_at = datetime.now(UTC)
    return entries.budget_entry(row, "alice")


def start_of(entry: BudgetEntry) -> float:
    return entry.bounds(datetime.now(UTC))[0].timestamp()


def test_own_spend_counts_at_once_and_the_databases_figure_overrides_upwards_only() -> None:
    view, entry = Spending(), budget()
    view.track([entry], {})
    view.add([entry], 300)
    assert view.settled(entry) == 300
    view.update({(entry.id, start_of(entry)): 250})
    assert view.settled(entry) == 300, "the ledger has not applied everything yet"
    view.update({(entry.id, start_of(entry)): 900})
    assert view.settled(entry) == 900, "other workers spent too"


def test_a_figure_of_another_period_is_not_taken() -> None:
    view, entry = Spending(), budget()
    view.track([entry], {(entry.id, start_of(entry) - 86_400): 5_000})
    assert view.settled(entry) == 0


def test_the_next_period_starts_at_zero_and_says_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    view, entry = Spending(), budget()
    view.track([entry], {})
    view.add([entry], 700)
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(spending.time, "time", lambda: tomorrow)
    assert view.settled(entry) == 0
    resets = view.resets_at(entry)
    assert resets is not None
    assert timedelta(0) < resets - datetime.fromtimestamp(tomorrow, UTC) <= timedelta(days=1)


def test_a_lifetime_budget_never_resets() -> None:
    view, entry = Spending(), budget("lifetime")
    view.track([entry], {})
    assert view.resets_at(entry) is None


def test_following_again_keeps_what_was_spent() -> None:
    view, entry = Spending(), budget()
    view.track([entry], {})
    view.add([entry], 42)
    view.track([entry], {})
    assert view.settled(entry) == 42
    assert view.followed() == [entry.id]
    view.forget()
    followed: list[UUID] = view.followed()
    assert followed == []
