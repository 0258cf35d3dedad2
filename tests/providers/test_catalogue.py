"""The catalogue follows the installed price data, and finds models under the names vendors and callers use."""

from __future__ import annotations

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from genai_prices import data as price_data

from conduit.core.models import AuditEntry, Epoch
from providers import catalogue
from providers.catalogue import Matcher, compile_match
from providers.catalogue_sync import Synced, sync_models
from providers.models import CatalogueModel

pytestmark = pytest.mark.django_db


def test_a_sync_brings_every_model_of_the_data_and_the_sandbox_in_three_seconds_of_work_and_few_statements() -> None:
    CatalogueModel.objects.all().delete()
    started = time.thread_time()  # the clock on the wall is the machine's affair
    with CaptureQueriesContext(connection) as asked:
        done = sync_models()
    assert time.thread_time() - started < 3
    assert len(asked) <= 25
    assert done.added == CatalogueModel.objects.count()
    assert done.added >= sum(len(vendor.models) for vendor in price_data.providers)
    assert CatalogueModel.objects.filter(vendor="sandbox", name="sandbox-echo").exists()
    assert AuditEntry.objects.filter(action="catalogue.sync").count() == 1


def test_a_second_sync_writes_nothing_and_wakes_nobody() -> None:
    sync_models()
    epoch = Epoch.objects.get().snapshot
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert sync_models() == Synced(0, 0, 0)
    assert not [query for query in queries if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    assert Epoch.objects.get().snapshot == epoch


def test_a_sync_repairs_catalogue_rows_and_leaves_overrides_alone() -> None:
    sync_models()
    CatalogueModel.objects.filter(vendor="openai", name="gpt-4o").update(context_window=1, position=9999)
    CatalogueModel.objects.filter(vendor="openai", name="gpt-4").update(context_window=2, source="override")
    CatalogueModel.objects.create(vendor="openai", name="gone-1", match={"equals": "gone-1"})
    assert sync_models() == Synced(added=0, changed=1, retired=1)
    assert CatalogueModel.objects.get(vendor="openai", name="gpt-4o").context_window == 128_000
    assert CatalogueModel.objects.get(vendor="openai", name="gpt-4").context_window == 2
    assert CatalogueModel.objects.get(name="gone-1").deprecated
    assert sync_models() == Synced(0, 0, 0)


@pytest.mark.parametrize(
    ("vendor", "model", "name"),
    [
        ("openai", "gpt-4o", "gpt-4o"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "GPT-4o", "gpt-4o"),
        ("openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("anthropic", "claude-3-5-haiku-latest", "claude-3-5-haiku-latest"),
        ("sandbox", "sandbox-echo", "sandbox-echo"),
        ("google", "gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_names_in_use_find_their_model(vendor: str, model: str, name: str) -> None:
    sync_models()
    found = catalogue.matcher().match(vendor, model)
    assert found is not None
    assert found.name == name
    assert catalogue.match(vendor, model) == found
    assert catalogue.matcher().names(vendor, model) == (vendor, name)


@pytest.mark.parametrize(
    ("vendor", "model"), [("", "gpt-4o"), ("openai", "no-such"), ("sandbox", "sandbox-echo-2"), ("x", "")]
)
def test_unknown_names_find_nothing(vendor: str, model: str) -> None:
    sync_models()
    assert catalogue.matcher().match(vendor, model) is None


def test_every_model_of_the_data_finds_what_the_data_itself_finds() -> None:
    sync_models()
    found = catalogue.matcher()
    wrong = []
    for vendor in price_data.providers:
        for model in vendor.models:
            expected = vendor.find_model(model.id, all_providers=price_data.providers)
            row = found.match(vendor.id, model.id)
            if (expected.id if expected else None) != (row.name if row else None):
                wrong.append((vendor.id, model.id))
    assert wrong == []


def test_a_resellers_model_is_found_at_the_vendor_it_comes_from() -> None:
    rows = [CatalogueModel(vendor="maker", name="m-1", match={"equals": "m-1"})]
    matcher = Matcher(rows, {"shop": ("maker",)})
    assert matcher.names("shop", "m-1") == ("maker", "m-1")
    assert matcher.names("other", "m-1") is None


def test_an_override_goes_before_the_catalogue() -> None:
    rows = [
        CatalogueModel(vendor="v", name="wide", match={"starts_with": "m"}, position=0),
        CatalogueModel(vendor="v", name="mine", match={"equals": "m-1"}, position=5, source="override"),
    ]
    assert Matcher(rows).names("v", "m-1") == ("v", "mine")
    assert Matcher(rows).names("v", "m-2") == ("v", "wide")


@pytest.mark.parametrize(
    ("expression", "yes", "no"),
    [
        ({"equals": "Abc"}, "abc", "abcd"),
        ({"starts_with": "a"}, "abc", "ba"),
        ({"ends_with": "c"}, "abc", "cb"),
        ({"contains": "B"}, "abc", "ac"),
        ({"regex": "^a.c$"}, "abc", "abcc"),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", "c"),
        ({"and": [{"starts_with": "a"}, {"ends_with": "z"}]}, "a-z", "a-y"),
    ],
)
def test_match_expressions_mean_what_they_say(expression: dict[str, object], yes: str, no: str) -> None:
    test = compile_match(expression)
    assert (test(yes), test(no)) == (True, False)


@pytest.mark.parametrize(
    "expression", [{}, {"equals": 1}, {"like": "a"}, {"regex": "("}, {"or": "a"}, {"equals": "a", "contains": "b"}]
)
def test_what_is_no_match_expression_is_refused(expression: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_match(expression)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("eu.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-6",
            "regional.anthropic.claude-sonnet-4-6-v1:0",
        ),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-sonnet-4-6",
            "global.anthropic.claude-sonnet-4-6-v1:0",
        ),
    ],
)
def test_models_of_bedrock_are_found_by_id_by_profile_and_by_arn(model: str, name: str) -> None:
    sync_models()
    found = catalogue.match("aws", model)
    assert found is not None
    assert found.name == name


def test_a_profile_of_opaque_name_has_no_price_of_its_own() -> None:
    sync_models()
    assert catalogue.match("aws", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3") is None
