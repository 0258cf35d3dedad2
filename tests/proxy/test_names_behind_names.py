"""A model has the same price and window by every name that a provider takes for it (L3, U2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import pytest
from genai_prices import data as vendor_data

from conduit.proxy.snapshot import Snapshot
from providers import routing
from providers.adapters.base import Upstream
from providers.adapters.registry import KINDS
from providers.adapters.types import ChatRequest, Message, Text
from providers.catalogue import Matcher
from providers.catalogue_sync import _from_data
from providers.models import CatalogueModel
from providers.route_table import RouteTable
from providers.routing import ProviderEntry, Routing, TargetEntry
from usage import price_data
from usage.models import NIL
from usage.pricing import PriceBook, PriceRow
from usage.rates import compile_rates

PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PUBLISHED = {"google": "gemini-2.5-pro", "anthropic": "claude-sonnet-4-5@20250929"}


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    rows = [
        CatalogueModel(vendor=vendor, name=name, source="catalogue", **asdict(known))
        for (vendor, name), known in _from_data().items()
    ]
    fallbacks = {vendor.id: list(vendor.fallback_model_providers or ()) for vendor in vendor_data.providers}
    return Matcher(rows, fallbacks)


@pytest.fixture(scope="module")
def listed() -> list[PriceRow]:
    wanted = ("google", "anthropic", "aws")
    return [
        PriceRow(uuid4(), one.vendor, one.model, NIL, one.effective_from, "catalogue", compile_rates(one.rates))
        for one in price_data.listed()
        if one.vendor in wanted
    ]


def provider(kind: str, options: Mapping[str, Any] = MappingProxyType({})) -> ProviderEntry:
    return ProviderEntry(
        id=UUID(int=5),
        name=kind,
        kind=kind,
        vendor=KINDS[kind].price_provider,
        base_url="https://upstream.example.com",
        region="us-east-1",
        options=options,
        client_headers={},
        credentials=(),
        unreadable=(),
    )


def aimed(given: ProviderEntry, model: str, matcher: Matcher) -> TargetEntry:
    return routing._for_model(given, model, matcher, weight=1, priority=0)


def snapshot(matcher: Matcher, rows: list[PriceRow]) -> Snapshot:
    table = RouteTable([], matcher, routing.aimed, frozenset())
    return Snapshot(Routing(table, {}, matcher), PriceBook(rows, matcher.names))


def forms() -> list[tuple[str, str]]:
    """Each pattern by which Vertex AI takes models of a publisher it prices, made into names."""
    found = []
    for pattern, _ in KINDS["vertex"].by_model:
        publisher = "anthropic" if "anthropic" in pattern or "claude" in pattern else "google"
        name = PUBLISHED[publisher] if "embedding" not in pattern else f"{pattern.rpartition('/')[2][:-1]}005"
        if pattern.endswith("/*"):
            found += [(f"{pattern[:-1]}{name}", name), (f"{pattern[:-1]}models/{name}", name)]
        else:
            found.append((f"{pattern.rpartition('/')[0]}/{name}".lstrip("/"), name))
    return found


@pytest.mark.parametrize(("model", "plain"), forms())
def test_every_form_of_a_name_on_vertex_has_the_plain_one_s_price_and_window(
    model: str, plain: str, matcher: Matcher, listed: list[PriceRow]
) -> None:
    vertex, prices = provider("vertex", {"project": "p"}), snapshot(matcher, listed)
    one, other = aimed(vertex, model, matcher), aimed(vertex, plain, matcher)
    assert (one.context_window, one.max_output_tokens) == (other.context_window, other.max_output_tokens)
    assert prices.price(one) == prices.price(other)
    if "embedding" not in plain:  # else the two may be alike in knowing nothing
        assert prices.price(one) is not None
        assert one.context_window or "claude" not in plain


@pytest.mark.parametrize(("model", "plain"), [form for form in forms() if "embedding" not in form[0]])
def test_the_name_that_is_priced_is_the_one_that_is_sent(model: str, plain: str, matcher: Matcher) -> None:
    vertex = provider("vertex", {"project": "p"})
    asked = ChatRequest(model="r", messages=(Message(role="user", parts=(Text(text="Hello"),)),), max_output_tokens=5)
    upstream = Upstream(
        base_url=vertex.base_url, model=model, secrets={"access_token": "t"}, options=vertex.options, region="us-east1"
    )
    url = aimed(vertex, model, matcher).adapter.build_request(asked, upstream).url
    assert f"/models/{vertex.known_as(model)}:" in url
    assert vertex.known_as(model) == plain


def test_an_application_profile_has_price_and_window_of_the_model_behind_it(
    matcher: Matcher, listed: list[PriceRow]
) -> None:
    told, prices = provider("bedrock", {"profiles": {PROFILE: SONNET}}), snapshot(matcher, listed)
    behind = aimed(told, SONNET, matcher)
    assert prices.price(behind) is not None
    assert prices.price(aimed(told, PROFILE, matcher)) == prices.price(behind)
    assert aimed(told, PROFILE, matcher).context_window == behind.context_window
    assert prices.price(aimed(provider("bedrock"), PROFILE, matcher)) is None


def test_a_price_set_for_the_given_name_goes_before_that_of_the_name_behind_it(
    matcher: Matcher, listed: list[PriceRow]
) -> None:
    told, yesterday = provider("bedrock", {"profiles": {PROFILE: SONNET}}), datetime.now(UTC) - timedelta(days=1)
    rates = compile_rates({"input": [[0, 7]]})
    for_profile = PriceRow(uuid4(), "", PROFILE, told.id, yesterday, "override", rates)
    for_model = replace(for_profile, id=uuid4(), model=SONNET)
    for rows, found in (([for_model], for_model), ([for_model, for_profile], for_profile)):
        assert snapshot(matcher, [*listed, *rows]).price(aimed(told, PROFILE, matcher)) == found
