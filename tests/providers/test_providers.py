"""Providers and routes: what may be saved, what is refused by name, and what the audit log keeps."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django.fixtures import Settings

from conduit.core.actor import Actor
from conduit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from conduit.core.models import AuditEntry, Epoch
from providers import providers, routes
from providers.adapters.registry import KINDS
from providers.models import Provider, Route, Target
from providers.routing import base_url

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
BOB = Actor("user", "2", "bob@example.org", "auditor", None)
pytestmark = pytest.mark.django_db


def add(**given: Any) -> Provider:
    return providers.add_provider(actor=ALICE, **{"name": "Main", "kind": "openai", **given})


@pytest.mark.parametrize("kind", sorted(kind for kind, row in KINDS.items() if row.base_url))
def test_every_kind_with_its_own_address_needs_only_a_name_and_what_the_address_is_made_of(kind: str) -> None:
    region = "us-east-1" if "{region}" in KINDS[kind].base_url else ""
    provider = add(kind=kind, region=region, options=dict.fromkeys(KINDS[kind].places, "abc123"))
    assert provider.base_url == ""
    assert "{" not in base_url(provider)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "0190c1de-7b5e-7cc0-a000-000000000000"}, "name"),
        ({"kind": "opnai"}, "kind"),
        ({"kind": "custom"}, "base_url"),
        ({"base_url": "https://169.254.169.254/"}, "base_url"),
        ({"base_url": "http://api.openai.com/v1"}, "base_url"),
        ({"base_url": "ftp://api.openai.com"}, "base_url"),
        ({"region": 5}, "region"),
        ({"kind": "azure_openai"}, "base_url"),
        ({"kind": "cloudflare"}, "options.account"),
        ({"kind": "cloudflare", "options": {"account": "../../evil"}}, "options.account"),
        ({"kind": "cloudflare", "options": {"account": "a@evil.example.org"}}, "options.account"),
        ({"kind": "bedrock"}, "region"),
        ({"kind": "bedrock", "region": "evil.example.org/"}, "region"),
        ({"kind": "vertex", "region": "us-east-1@evil"}, "region"),
        ({"kind": "azure_openai", "options": {"authority": "https://evil.example.org"}}, "options.authority"),
        ({"kind": "azure_openai", "options": {"authority": "http://login.microsoftonline.com"}}, "options.authority"),
        ({"kind": "azure_openai", "options": {"deployments": "prod"}}, "options.deployments"),
        ({"kind": "azure_openai", "options": {"deployments": {"gpt-4o": 5}}}, "options.deployments.gpt-4o"),
        ({"kind": "azure_openai", "options": {"deployments": {"gpt-4o": ""}}}, "options.deployments.gpt-4o"),
        ({"kind": "azure_openai", "options": {"api_version": "1 2"}}, "options.api_version"),
        ({"kind": "bedrock", "region": "us-east-1", "options": {"profiles": {"": "m"}}}, "options.profiles."),
        ({"kind": "bedrock", "region": "us-east-1", "options": {"profiles": {"a": "ü"}}}, "options.profiles.a"),
        ({"options": []}, "options"),
        ({"options": {"organisation": "org-1"}}, "options.organisation"),
        ({"options": {"sandbox_headers": {}}}, "options.sandbox_headers"),
        ({"options": {"organization": "org\r\nX-Evil: 1"}}, "options.organization"),
        ({"options": {"organization": 5}}, "options.organization"),
        ({"rpm": 0}, "rpm"),
        ({"rpm": -1}, "rpm"),
        ({"rpm": True}, "rpm"),
        ({"tpm": "1e3"}, "tpm"),
        ({"max_parallel": 2**31}, "max_parallel"),
    ],
)
def test_what_a_provider_may_not_say_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        add(**given)
    assert refused.value.field == field
    assert not Provider.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"dialect": "gemini"}, "options.dialect"),
        ({"auth": "X Key"}, "options.auth"),
        ({"auth": "host"}, "options.auth"),
        ({"headers": "x"}, "options.headers"),
        ({"headers": {"Host": "evil.example"}}, "options.headers.Host"),
        ({"headers": {"Content-Length": "0"}}, "options.headers.Content-Length"),
        ({"headers": {"Authorization": "Bearer sk-1"}}, "options.headers.Authorization"),
        ({"headers": {"X-Api-Key": "sk-1"}}, "options.headers.X-Api-Key"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "options.headers.X-A"),
        ({"headers": {"X A": "1"}}, "options.headers.X A"),
        ({"headers": {"X-A": 1}}, "options.headers.X-A"),
        ({"path_map": {"/chat/completions": "https://evil.example/"}}, "options.path_map./chat/completions"),
        ({"path_map": {"/chat/completions": "//evil.example/"}}, "options.path_map./chat/completions"),
        ({"path_map": {"/chat/completions": "/../admin"}}, "options.path_map./chat/completions"),
        ({"path_map": {"/chat/completions": "@evil.example"}}, "options.path_map./chat/completions"),
        ({"max_tokens_field": "a b"}, "options.max_tokens_field"),
    ],
)
def test_options_of_a_custom_endpoint_can_neither_move_it_nor_carry_secrets(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        add(kind="custom", base_url="https://models.example.org/v1", options=options)
    assert refused.value.field == field


def test_options_are_kept_as_given_and_empty_ones_dropped() -> None:
    options = {"dialect": "anthropic", "headers": {"X-Tenant": "blue"}, "path_map": {"/v1/messages": "/m"}, "auth": ""}
    row = add(kind="custom", base_url="https://models.example.org/", options=options)
    assert row.options == {name: value for name, value in options.items() if value}
    assert row.base_url == "https://models.example.org"


def test_names_of_models_may_be_mapped_where_a_kind_has_names_of_its_own() -> None:
    deployments = {"gpt-4o": "prod-chat", "gpt-4o-mini": "small"}
    row = add(kind="azure_openai", base_url="https://models.example.org", options={"deployments": deployments})
    assert row.options == {"deployments": deployments}


def test_the_sandbox_may_be_at_its_own_address_only(settings: Settings) -> None:
    assert add(kind="sandbox", base_url=settings.SANDBOX_URL).base_url == settings.SANDBOX_URL
    for url in ("http://127.0.0.1:1/v1", "https://api.openai.com/v1", settings.SANDBOX_URL + "0"):
        with pytest.raises(InvalidInput, match=r"lives at|port|URL"):
            add(name="Other", kind="sandbox", base_url=url)


def test_no_other_kind_reaches_the_sandboxs_address(settings: Settings) -> None:
    settings.CONDUIT_EGRESS_ALLOW = []
    with pytest.raises(InvalidInput):
        add(kind="custom", base_url=settings.SANDBOX_URL)


def test_a_name_is_given_once() -> None:
    add()
    with pytest.raises(Conflict, match="already is a provider named Main"):
        add()
    other = add(name="Other")
    with pytest.raises(Conflict):
        providers.update_provider(other, actor=ALICE, changes={"name": "Main"})


def test_changes_are_checked_logged_and_raise_the_snapshot_epoch() -> None:
    row = add(rpm=10)
    epoch = Epoch.objects.get().snapshot
    providers.update_provider(row, actor=ALICE, changes={"rpm": None, "enabled": False, "region": "eu"})
    row.refresh_from_db()
    assert (row.rpm, row.enabled, row.region) == (None, False, "eu")
    entry = AuditEntry.objects.get(action="provider.update")
    assert entry.before == {"rpm": 10, "enabled": True, "region": ""}
    assert entry.after == {"rpm": None, "enabled": False, "region": "eu"}
    assert Epoch.objects.get().snapshot > epoch
    with pytest.raises(InvalidInput) as refused:
        providers.update_provider(row, actor=ALICE, changes={"kind": "custom"})
    assert refused.value.field == "kind"


def test_a_provider_is_found_by_name_and_by_id() -> None:
    row = add()
    assert providers.find("Main") == row
    assert providers.find(str(row.id)) == row
    for text in ("main", "", "0190c1de-7b5e-7cc0-a000-000000000000"):
        with pytest.raises(NotFound):
            providers.find(text)


def test_roles_that_only_read_change_nothing() -> None:
    row = add()
    with pytest.raises(Forbidden):
        providers.add_provider(actor=BOB, name="x", kind="openai")
    with pytest.raises(Forbidden):
        providers.update_provider(row, actor=BOB, changes={"enabled": False})
    with pytest.raises(Forbidden):
        providers.delete_provider(row, actor=BOB)
    with pytest.raises(Forbidden):
        routes.add_route(actor=BOB, name="r", targets=[{"provider": "Main", "model": "m"}])


# --- routes --------------------------------------------------------------------------------------------------------


def route(**given: Any) -> Route:
    target = {"provider": "Main", "model": "gpt-4o"}
    return routes.add_route(actor=ALICE, **{"name": "fast", "targets": [target], **given})


def test_a_route_keeps_its_targets_in_order_by_name_or_id_of_the_provider() -> None:
    one, two = add(), add(name="Second", kind="anthropic")
    made = route(
        targets=[
            {"provider": str(two.id), "model": "claude-sonnet-4-5", "priority": 1},
            {"provider": "Main", "model": "gpt-4o", "weight": 5, "region": "eu"},
        ],
        timeout=30,
        strict=True,
    )
    assert [(t.provider_id, t.model, t.weight, t.priority, t.region) for t in made.targets.all()] == [
        (two.id, "claude-sonnet-4-5", 100, 1, ""),
        (one.id, "gpt-4o", 5, 0, "eu"),
    ]
    entry = AuditEntry.objects.get(action="route.create")
    assert entry.after is not None
    assert [target["provider"] for target in entry.after["targets"]] == ["Second", "Main"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "has blank"}, "name"),
        ({"name": "/etc"}, "name"),
        ({"name": "a//b"}, "name"),
        ({"name": "a/../b"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"targets": []}, "targets"),
        ({"targets": "Main"}, "targets"),
        ({"targets": [{"provider": "Main", "model": "m"}] * 33}, "targets"),
        ({"targets": ["Main"]}, "targets.0"),
        ({"targets": [{"provider": "Nobody", "model": "m"}]}, "targets.0.provider"),
        ({"targets": [{"model": "m"}]}, "targets.0.provider"),
        ({"targets": [{"provider": "Main"}]}, "targets.0.model"),
        ({"targets": [{"provider": "Main", "model": "../files"}]}, "targets.0.model"),
        ({"targets": [{"provider": "Main", "model": "m?key=1"}]}, "targets.0.model"),
        ({"targets": [{"provider": "Main", "model": "m", "wieght": 1}]}, "targets.0.wieght"),
        ({"targets": [{"provider": "Main", "model": "m", "weight": -1}]}, "targets.0.weight"),
        ({"targets": [{"provider": "Main", "model": "m", "weight": 0}]}, "targets"),
        ({"targets": [{"provider": "Main", "model": "m", "priority": True}]}, "targets.0.priority"),
        ({"strategy": "fastest"}, "strategy"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 1.5}, "timeout"),
    ],
)
def test_what_a_route_may_not_say_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    add()
    with pytest.raises(InvalidInput) as refused:
        route(**given)
    assert refused.value.field == field
    assert not Route.objects.exists()


def test_a_weighted_route_has_one_priority() -> None:
    add()
    targets = [{"provider": "Main", "model": "a", "priority": 0}, {"provider": "Main", "model": "b", "priority": 1}]
    with pytest.raises(InvalidInput):
        route(strategy="weighted", targets=targets)
    made = route(targets=targets)
    with pytest.raises(InvalidInput):
        routes.update_route(made, actor=ALICE, changes={"strategy": "weighted"})


def test_given_targets_replace_all_and_others_stay() -> None:
    add()
    made = route()
    before = list(Target.objects.values_list("id", flat=True))
    routes.update_route(made, actor=ALICE, changes={"timeout": 5})
    assert list(Target.objects.values_list("id", flat=True)) == before
    routes.update_route(made, actor=ALICE, changes={"targets": [{"provider": "Main", "model": "gpt-4o-mini"}]})
    assert list(Target.objects.values_list("model", flat=True)) == ["gpt-4o-mini"]
    entry = AuditEntry.objects.filter(action="route.update").latest("id")
    assert entry.before is not None
    assert set(entry.before) == {"targets"}


def test_a_route_that_another_one_falls_back_to_stays() -> None:
    add()
    made, other = route(), route(name="slow")
    Route.objects.filter(pk=other.pk).update(fallbacks=["fast"])
    with pytest.raises(Conflict, match="slow"):
        routes.delete_route(made, actor=ALICE)
    routes.delete_route(other, actor=ALICE)
    routes.delete_route(made, actor=ALICE)
    assert not Route.objects.exists()
    assert not Target.objects.exists()
    assert AuditEntry.objects.filter(action="route.delete").count() == 2


def test_a_route_name_is_given_once() -> None:
    add()
    route()
    with pytest.raises(Conflict, match="already is a route named fast"):
        route()
