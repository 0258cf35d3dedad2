"""Which price applies, keeping the table up to date, and prices that people set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conduit.core import clock
from conduit.core.actor import SYSTEM
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.models import AuditEntry
from providers.adapters.types import Usage
from providers.models import Provider
from providers.sandbox import prices as sandbox
from usage import price_data
from usage.models import NIL, Price
from usage.overrides import outward, set_price
from usage.price_data import Listed
from usage.price_sync import sync_prices
from usage.pricing import PriceBook, PriceRow, cost, load_book
from usage.rates import compile_rates

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GROQ, OTHER = UUID(int=7), UUID(int=8)


def row(number: int, **given: Any) -> PriceRow:
    fields = {
        "id": UUID(int=number),
        "vendor": "openai",
        "model": "gpt-4o",
        "provider_id": NIL,
        "effective_from": NOW - DAY,
        "source": "catalogue",
        "rates": compile_rates({"input": [[0, number]]}),
    }
    return PriceRow(**{**fields, **given})


def found(book: PriceBook, **asked: Any) -> int | None:
    question = {"vendor": "openai", "model": "gpt-4o", "provider_id": GROQ, "at": NOW}
    price = book.find(**{**question, **asked})
    return price.id.int if price else None


OVERRIDE = {"vendor": "", "source": "override"}


def test_the_providers_own_price_goes_before_the_models_and_the_catalogues() -> None:
    book = PriceBook([row(1), row(2, **OVERRIDE), row(3, **OVERRIDE, provider_id=GROQ)])
    assert found(book) == 3
    assert found(book, provider_id=OTHER) == 2
    assert found(PriceBook([row(1)])) == 1


def test_the_latest_price_in_force_applies_and_announced_ones_wait() -> None:
    book = PriceBook([row(3, effective_from=NOW + DAY), row(1, effective_from=NOW - 2 * DAY), row(2)])
    assert found(book) == 2
    assert found(book, at=NOW - DAY) == 2
    assert found(book, at=NOW - DAY - timedelta(microseconds=1)) == 1
    assert found(book, at=NOW + DAY) == 3
    assert found(book, at=NOW - 3 * DAY) is None


def test_an_announced_override_leaves_the_catalogue_in_force() -> None:
    assert found(PriceBook([row(1), row(2, **OVERRIDE, effective_from=NOW + DAY)])) == 1


def test_names_of_upstreams_are_found_under_the_catalogues_name() -> None:
    names = {("azure", "gpt-4o-2024-08-06"): ("openai", "gpt-4o")}
    book = PriceBook(
        [row(1), row(2, vendor="", source="override", model="gpt-4o-2024-08-06", provider_id=OTHER)],
        lambda v, m: names.get((v, m)),
    )
    assert found(book, vendor="azure", model="gpt-4o-2024-08-06") == 1
    assert found(book, vendor="azure", model="gpt-4o-2024-08-06", provider_id=OTHER) == 2
    assert found(book, vendor="azure", model="gpt-4o-2099") is None
    assert found(PriceBook([row(1)]), vendor="azure", model="gpt-4o-2024-08-06") is None


def test_an_unknown_model_has_no_price() -> None:
    assert found(PriceBook([row(1)]), model="gpt-4o-mini") is None
    assert found(PriceBook([row(1)]), vendor="anthropic") is None


def test_the_first_sync_takes_every_dated_price_and_the_second_changes_nothing() -> None:
    first = sync_prices()
    assert first.models > 2_000
    assert Price.objects.count() == len(first.changes)
    with connection.cursor() as cursor:
        cursor.execute("SELECT snapshot FROM core_epoch")
        before = cursor.fetchone()
        assert sync_prices().changes == []
        cursor.execute("SELECT snapshot FROM core_epoch")
        assert cursor.fetchone() == before
    assert load_book().find(vendor="openai", model="gpt-4o", provider_id=NIL, at=clock.now()) is not None


def test_a_changed_price_is_a_new_row_from_now_and_the_former_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [Listed("v", "m", price_data.ALWAYS, {"input": [[0, 5]]})]
    monkeypatch.setattr(price_data, "listed", lambda: iter(listed))
    sync_prices()
    listed[0] = Listed("v", "m", price_data.ALWAYS, {"input": [[0, 6]]})
    started = clock.now()
    assert len(sync_prices(dry_run=True).changes) == 1
    assert Price.objects.count() == 1
    assert [change.before for change in sync_prices().changes] == [{"input": [[0, 5]]}]
    old, new = Price.objects.order_by("effective_from")
    assert (old.effective_from, old.rates) == (price_data.ALWAYS, {"input": [[0, 5]]})
    assert started <= new.effective_from <= clock.now()
    assert sync_prices().changes == []


def test_a_sync_takes_its_turn_before_it_writes_and_a_dry_run_locks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_data, "listed", lambda: iter([Listed("v", "m", price_data.ALWAYS, {"input": [[0, 5]]})]))

    def statements(*, dry_run: bool) -> list[str]:
        with CaptureQueriesContext(connection) as seen:
            assert len(sync_prices(dry_run=dry_run).changes) == 1
        plain = ("SELECT", "SAVEPOINT", "RELEASE")
        found = [one["sql"].strip() for one in seen.captured_queries]
        return [one for one in found if "FOR UPDATE" in one or not one.startswith(plain)]

    assert statements(dry_run=True) == []
    assert "core_epoch" in statements(dry_run=False)[0]


def test_announced_prices_are_kept_and_replaced_until_they_are_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    later = clock.now() + DAY
    base = Listed("v", "m", price_data.ALWAYS, {"input": [[0, 5]]})
    listed = [base, Listed("v", "m", later, {"input": [[0, 9]]})]
    monkeypatch.setattr(price_data, "listed", lambda: iter(listed))
    sync_prices()
    assert sync_prices().changes == []
    listed[1] = Listed("v", "m", later, {"input": [[0, 8]]})
    assert len(sync_prices().changes) == 1
    assert Price.objects.get(effective_from=later).rates == {"input": [[0, 8]]}
    listed.pop()
    sync_prices()
    assert Price.objects.get().effective_from == price_data.ALWAYS


def test_overrides_are_never_synced_over() -> None:
    price = set_price("gpt-4o", actor=SYSTEM, rates={"input": "1"})
    sync_prices()
    assert Price.objects.get(id=price.id).rates == {"input": [[0, 1_000_000_000]]}
    assert load_book().find(vendor="openai", model="gpt-4o", provider_id=NIL, at=clock.now()).id == price.id  # type: ignore[union-attr]


@pytest.mark.parametrize("model", sorted(sandbox.PRICES))
def test_our_cost_of_a_sandbox_call_is_what_the_sandbox_invoices(model: str) -> None:
    sync_prices()
    book = load_book()
    price = sandbox.PRICES[model]
    tokens = 1_234 if "input" in price["rates"] else 0
    output = 567 if "output" in price["rates"] else 0
    cached = 100 if "cache_read" in price["rates"] else 0
    units = dict.fromkeys(price["per"], 3)
    usage = Usage(input_tokens=tokens, cache_read_tokens=cached, output_tokens=output, units=units)
    ours = cost(usage, book.find(vendor="sandbox", model=model, provider_id=NIL, at=clock.now()))
    theirs = sandbox.cost(model, input_tokens=tokens, cached_tokens=cached, output_tokens=output, units=units)
    assert (ours.nanos, ours.flags) == (theirs, [])
    assert theirs > 0


def test_hours_of_the_day_are_priced_at_the_dearest() -> None:
    """DeepSeek's data has a cheap half of the day; whoever calls then is billed less than our hold, never more."""
    rates = next(
        one.rates for one in price_data.listed() if (one.vendor, one.model) == ("deepseek", "deepseek-reasoner")
    )
    assert rates["output"] == [[0, 2_190_000_000]]


def test_tiers_of_the_data_begin_above_their_threshold() -> None:
    rates = next(
        one.rates for one in price_data.listed() if (one.vendor, one.model) == ("anthropic", "claude-sonnet-4-5")
    )
    assert rates["input"] == [[0, 3_000_000_000], [200_001, 6_000_000_000]]


# --- prices set by people ------------------------------------------------------------------------------------------


def test_a_price_is_kept_to_the_last_digit_and_audited() -> None:
    provider = Provider.objects.create(name="Local", kind="ollama")
    price = set_price(
        "llama",
        actor=SYSTEM,
        provider="Local",
        rates={"input": "0.000000001", "output": "12.50"},
        per={"second": "0.000000000000001", "image": "0.01"},
    )
    shown = outward(price)
    assert shown["rates"] == {"input": "0.000000001", "output": "12.50"}
    assert shown["per"] == {"second": "0.000000000000001", "image": "0.01"}
    assert (shown["provider"], shown["tiers"]) == (str(provider.id), {})
    # 10^15 seconds at 10^-15 dollars are one dollar
    book = load_book()
    found = book.find(vendor="", model="llama", provider_id=provider.id, at=clock.now())
    assert cost(Usage(units={"second": 10**15}), found).nanos == 10**9
    assert AuditEntry.objects.get(action="price.set").object_name == "llama"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"rates": {"input": "-1"}}, "rates.input"),
        ({"rates": {"input": 1.5}}, "rates.input"),
        ({"rates": {"input": "NaN"}}, "rates.input"),
        ({"rates": {"input": "1e3"}}, "rates.input"),
        ({"rates": {"input": "1,0"}}, "rates.input"),
        ({"rates": {"input": True}}, "rates.input"),
        ({"rates": {"input": "0.0000000001"}}, "rates.input"),
        ({"rates": {"input": "9223372036854775808"}}, "rates.input"),
        ({"rates": {"inptu": "1"}}, "rates.inptu"),
        ({"rates": {"image": "1"}}, "rates.image"),
        ({"rates": "1"}, "rates"),
        ({"per": {"image": "1001"}}, "per.image"),
        ({}, "rates"),
        ({"rates": {"input": "1"}, "effective_from": "yesterday"}, "effective_from"),
    ],
)
def test_what_is_no_price_is_refused_by_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        set_price("m", actor=SYSTEM, **given)
    assert refused.value.field == field
    assert not Price.objects.exists()


def test_a_second_price_from_the_same_instant_is_a_conflict_and_is_not_audited() -> None:
    set_price("m", actor=SYSTEM, rates={"input": "1"}, effective_from="2026-01-01T00:00:00Z")
    with pytest.raises(Conflict):
        set_price("m", actor=SYSTEM, rates={"input": "2"}, effective_from="2026-01-01T00:00:00Z")
    assert AuditEntry.objects.count() == 1


def test_a_price_at_an_unknown_provider_is_refused() -> None:
    with pytest.raises(NotFound):
        set_price("m", actor=SYSTEM, provider="nobody", rates={"input": "1"})
