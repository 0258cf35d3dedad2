"""A route whose name is a pattern serves every model name that it takes, each as the model that it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret
from providers import route_table
from providers.credentials import add_credential
from providers.models import CatalogueModel, Provider, Route
from providers.routes import add_route, describe, update_route
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import Speaker, client
from tests.harness.stub_upstream import Stub, answering, stub_upstream

pytestmark = pytest.mark.usefixtures("module_books")
DRY = {"x-conduit-dry-run": "1"}


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with stub_upstream() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def patterns(gateway: RunningGateway, stub: Stub) -> None:
    sandbox, other = gateway.provider("sandbox"), gateway.provider("sandbox-anthropic")
    echo = Provider.objects.create(name="echo", kind="custom", base_url=stub.url)
    add_credential(echo, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-x")}, verify=False)
    add_route(actor=SYSTEM, name="sandbox-*", targets=[{"provider": "sandbox-anthropic"}])
    add_route(actor=SYSTEM, name="sandbox-e*", targets=[{"provider": sandbox.name, "model": "*"}])
    add_route(actor=SYSTEM, name="box/*", targets=[{"provider": other.name}])
    add_route(actor=SYSTEM, name="any/*", targets=[{"provider": "echo", "model": "vendor/*"}])
    add_route(actor=SYSTEM, name="box/closed", targets=[{"provider": "sandbox", "model": "m"}], enabled=False)
    Route.objects.filter(name__in=("sandbox-think", "sandbox-embed")).delete()
    gateway.refresh()


def served(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-conduit-provider"], answer.headers["x-conduit-model"]


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("sandbox-echo", ("sandbox", "sandbox-echo")),  # an exact name first
        ("sandbox-echo-2", ("sandbox", "sandbox-echo-2")),  # then the longest pattern
        ("sandbox-think", ("sandbox-anthropic", "sandbox-think")),
        ("box/sandbox-lorem", ("sandbox-anthropic", "sandbox-lorem")),
    ],
)
def test_the_longest_match_serves_the_callers_model(
    gateway: RunningGateway, speaker: Speaker, name: str, by: tuple[str, str]
) -> None:
    answer = speaker.ask(gateway.url, gateway.raw_key, model=name)
    if name == "sandbox-echo-2":  # a model that the provider does not have
        assert answer.status_code == 404, answer.text
        event = gateway.event(answer)
        assert (event.model, event.provider_id) == (name, gateway.provider(by[0]).id)
        return
    assert served(answer) == by
    event = gateway.event(answer)
    assert (event.route, event.model, event.exactness) == (name, by[1], "exact")


def test_the_provider_is_asked_for_what_the_target_says(gateway: RunningGateway, stub: Stub) -> None:
    stub.says = answering
    stub.asked.clear()
    assert served(gateway.chat(model="any/x-1:free")) == ("echo", "vendor/x-1:free")
    assert [asked.body["model"] for asked in stub.asked] == ["vendor/x-1:free"]


@pytest.mark.parametrize(
    "name", ["box/", "box/closed", "box/../x", "box/a//b", "box/a?b", "box/a b", "box/*", "any/%2e", "zzz"]
)
def test_what_no_route_serves_is_not_found(gateway: RunningGateway, stub: Stub, name: str) -> None:
    stub.asked.clear()
    answer = gateway.chat(model=name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert stub.asked == []


def test_prices_are_those_of_the_real_model(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "1"}])
    by_pattern = gateway.event(gateway.chat(model="box/sandbox-dear", key=key))
    plain = gateway.event(gateway.chat(model="anthropic/sandbox-dear", key=key))
    assert by_pattern.price_id == plain.price_id is not None
    cheap = gateway.event(gateway.chat(model="box/sandbox-echo", key=key))
    assert cheap.price_id not in (by_pattern.price_id, None)
    refused = gateway.chat(model="box/nameless", key=key)
    assert refused.json()["error"]["code"] == "price_unknown", "no price, no request under a hard budget"


def test_a_disabled_pattern_leaves_its_names_to_no_other(gateway: RunningGateway) -> None:
    for name, model, enabled in (
        ("part/*", "*", True),
        ("part/sandbox-*", "*", False),
        ("part/sandbox-e*", "sandbox-echo", True),
    ):
        target = {"provider": "sandbox-anthropic", "model": model}
        add_route(actor=SYSTEM, name=name, targets=[target], enabled=enabled)
    gateway.refresh()
    asked = [gateway.chat(model=f"part/{name}").status_code for name in ("sandbox-echo", "sandbox-lorem")]
    assert asked == [200, 404]
    assert not [model for model in _get(gateway, "/v1/models")["data"] if model["id"].startswith("part/")]


def test_the_window_is_that_of_the_real_model(gateway: RunningGateway) -> None:
    CatalogueModel.objects.filter(vendor="sandbox", name="sandbox-tools").update(context_window=50, source="override")
    gateway.route("renew the snapshot", (gateway.provider("sandbox"), "sandbox-echo"))
    try:
        assert (
            gateway.chat("word " * 200, model="box/sandbox-tools").json()["error"]["code"] == "context_length_exceeded"
        )
        assert gateway.chat("word " * 200, model="box/sandbox-lorem").status_code == 200
    finally:
        CatalogueModel.objects.filter(vendor="sandbox", name="sandbox-tools").update(context_window=128_000)


def test_a_keys_models_are_matched_by_the_name_that_was_asked_for(gateway: RunningGateway) -> None:
    key = gateway.key(models=["box/sandbox-l*"])
    assert gateway.chat(model="box/sandbox-lorem", key=key).status_code == 200
    refused = gateway.chat(model="box/sandbox-echo", key=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")


def _get(gateway: RunningGateway, path: str, key: str = "", **headers: str) -> Any:
    return client().get(gateway.url + path, headers={"x-api-key": key or gateway.raw_key, **headers}).json()


def test_lists_of_models_name_what_the_pattern_leads_to(gateway: RunningGateway) -> None:
    names = [model["id"] for model in _get(gateway, "/v1/models")["data"]]
    assert {"sandbox-echo", "sandbox-think", "box/sandbox-echo", "box/sandbox-think"} <= set(names)
    assert names == sorted(names)
    assert not [name for name in names if "*" in name or name.startswith("any/") or name == "box/closed"]
    anthropic = _get(gateway, "/v1/models", **{"anthropic-version": "2023-06-01"})
    gemini = _get(gateway, "/v1beta/models")
    assert [model["id"] for model in anthropic["data"]] == names
    assert [model["name"] for model in gemini["models"]] == [f"models/{name}" for name in names]
    narrow = gateway.key(models=["box/sandbox-e*"])
    mine = ["box/sandbox-echo", "box/sandbox-embed"]
    assert [model["id"] for model in _get(gateway, "/v1/models", narrow)["data"]] == mine
    assert _get(gateway, "/v1/key", narrow)["models"] == mine


@pytest.mark.parametrize("name", ["box/sandbox-echo", "box/not-in-the-catalogue"])
def test_one_model_of_a_pattern_in_each_shape(gateway: RunningGateway, name: str) -> None:
    one = _get(gateway, f"/v1/models/{name}")
    assert (one["id"], one["owned_by"]) == (name, "sandbox-anthropic")
    assert _get(gateway, f"/v1/models/{name}", **{"anthropic-version": "2023-06-01"})["id"] == name
    assert _get(gateway, f"/v1beta/models/{name}")["name"] == f"models/{name}"


def test_a_dry_run_names_the_pattern(gateway: RunningGateway) -> None:
    body = gateway.chat(model="box/sandbox-echo", headers=DRY).json()
    assert (body["decision"], body["route"], body["model"]) == ("allowed", "box/*", "sandbox-echo")


def test_many_names_do_not_fill_the_memory(gateway: RunningGateway, stub: Stub) -> None:
    table = gateway.app.gateway.snapshot.routing.routes
    for number in range(route_table.RESOLVED + 50):
        assert table.get(f"any/{number}") is not None
    assert len(table._resolved) == route_table.RESOLVED


def test_the_wire_format_is_that_of_the_real_model(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind's `by_model` sees the provider's own name."""
    from dataclasses import replace

    from providers.adapters import registry
    from providers.adapters.types import Dialect

    row = replace(registry.KINDS["custom"], by_model=(("vendor/claude-*", Dialect.ANTHROPIC),))
    monkeypatch.setattr(registry, "KINDS", {**registry.KINDS, "custom": row})
    table = gateway.app.gateway.snapshot.routing.routes
    wires = [table.get(f"any/{name}-{id(row)}").targets[0].adapter.wire for name in ("claude-1", "gpt-1")]
    assert wires == [Dialect.ANTHROPIC, Dialect.OPENAI]


# --- saving


@pytest.mark.parametrize("name", ["a*b", "**", "*x", "/*", "a//*"])
def test_a_pattern_that_is_none_is_refused(gateway: RunningGateway, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        add_route(actor=SYSTEM, name=name, targets=[{"provider": "sandbox", "model": "*"}])
    assert (refused.value.field, refused.value.code) == ("name", "invalid_pattern")


def test_only_a_pattern_has_targets_with_a_star(gateway: RunningGateway) -> None:
    with pytest.raises(InvalidInput) as refused:
        add_route(actor=SYSTEM, name="plain", targets=[{"provider": "sandbox", "model": "*"}])
    assert (refused.value.field, refused.value.code) == ("targets.0.model", "invalid_pattern")
    route = add_route(actor=SYSTEM, name="turned/*", targets=[{"provider": "sandbox"}])
    assert describe(route)["targets"][0]["model"] == "*"
    with pytest.raises(InvalidInput) as refused:
        update_route(route, actor=SYSTEM, changes={"name": "turned"})
    assert refused.value.field == "targets.0.model"
