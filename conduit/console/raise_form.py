"""What is typed to raise a budget for a while, as dollars and a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.http import QueryDict

from conduit.console.budget_form import plain_amount
from conduit.core.errors import InvalidInput
from conduit.core.fields import parse_time
from keys import raises
from keys.budgets import BudgetState

LABELS = {"budget": "Budget", "extra_usd": "By", "until": "Until"}
SPANS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
CHOICES = (
    ("window", "This window ends"),
    ("1h", "1 hour from now"),
    ("24h", "24 hours from now"),
    ("7d", "7 days from now"),
    ("30d", "30 days from now"),
)


@dataclass(slots=True)
class RaiseForm:
    """`values` as typed: `until` is one of CHOICES or an RFC 3339 time; `until_at` is a moment in UTC and wins."""

    values: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)

    def wanted(self, state: BudgetState, at: datetime) -> tuple[int, datetime]:
        """(nano-dollars, end). Raises InvalidInput naming `extra_usd` or `until`."""
        end = self._until(state, at)
        return raises.parse(plain_amount(self.values["extra_usd"]), end)

    def _until(self, state: BudgetState, at: datetime) -> str:
        typed, choice = self.values["until_at"], self.values["until"]
        if typed:
            try:
                return datetime.fromisoformat(typed).replace(tzinfo=UTC).isoformat()
            except ValueError:
                raise InvalidInput("until", "Must be a date and a time.", "invalid_time") from None
        if choice in SPANS:
            return (at + SPANS[choice]).replace(microsecond=0).isoformat()
        if choice == "window":
            if state.resets_at is None:
                raise InvalidInput("until", "A lifetime budget has no window that ends. Choose a time.", "required")
            return state.resets_at.isoformat()
        try:
            return parse_time(choice).isoformat()
        except InvalidInput as error:
            raise InvalidInput("until", error.detail, error.code) from None


def read(given: QueryDict) -> RaiseForm:
    names = ("budget", "extra_usd", "until", "until_at")
    values = {name: given.get(name, "").strip()[:64] for name in names}
    return RaiseForm({**values, "until": values["until"] or "24h"})
