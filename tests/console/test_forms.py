from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from conduit.access.models import Role
from conduit.core import raw_keys
from conduit.core.models import AuditEntry
from keys.budgets import current
from keys.models import OwnerKind, VirtualKey
from providers.models import Credential, Provider, Route
from tests.console.conftest import World
from tests.console.pages import Markup
from tests.harness.sandbox import RunningSandbox, running_sandbox

NEW_KEY = {
    "name": "acme-app",
    "owner": "alice",
    "tags": "prod, tier-2",
    "route": ["support-fast"],
    "endpoint": ["chat", "messages"],
    "models": "gpt-*",
    "ip_allowlist": "10.20.0.0/16, 127.0.0.1",
    "budget_limit": ["1,250.50", "5"],
    "budget_window": ["month", "day"],
    "budget_timezone": ["UTC", "Europe/Berlin"],
    "budget_kind": ["hard", "soft"],
    "rpm": "300",
    "tpm": "400,000",
    "max_parallel": "20",
    "max_output_tokens": "1024",
    "expires_at": "2099-01-31",
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RunningSandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


def new_provider(upstream: RunningSandbox, secret: str) -> dict[str, str]:
    return {
        "name": "acme",
        "base_url": f"{upstream.url}/v1",
        "credential": "main",
        "field-api_key": secret,
    }


def test_a_key_is_created_with_every_field_and_its_secret_is_shown_once(world: World, owner: Client) -> None:
    answer = owner.post("/keys/new", NEW_KEY)
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    page = answer.content.decode()
    raw = answer.context["raw"]
    assert raw_keys.public_id(raw_keys.VIRTUAL_KEY, raw)
    holders = page.split("data-secret")
    assert raw not in holders[0]
    assert Markup(page).offences() == []
    key = VirtualKey.objects.get(name="acme-app")
    assert (key.rpm, key.tpm, key.max_parallel, key.max_output_tokens) == (300, 400_000, 20, 1024)
    assert (key.allowed_models, key.allowed_endpoints) == (["support-fast", "gpt-*"], ["chat", "messages"])
    assert (key.tags, key.ip_allowlist) == (["prod", "tier-2"], ["10.20.0.0/16", "127.0.0.1"])
    budgets = [(b.limit_nanos, b.window, b.timezone, b.kind) for b in current(OwnerKind.KEY, key.id)]
    assert budgets == [(1_250_500_000_000, "month", "UTC", "hard"), (5_000_000_000, "day", "Europe/Berlin", "soft")]
    for path in ("/keys", f"/keys/{key.id}", "/"):
        assert raw not in owner.get(path).content.decode()
    assert raw not in str(dict(owner.session.items()))


@pytest.mark.parametrize(
    ("field", "typed", "place"),
    [
        ("name", "", "name"),
        ("rpm", "-5", "rpm"),
        ("rpm", "0", "rpm"),
        ("rpm", "1,0", "rpm"),
        ("tpm", "1e3", "tpm"),
        ("max_parallel", "9" * 30, "max_parallel"),
        ("max_output_tokens", "many", "max_output_tokens"),
        ("expires_at", "2001-01-01", "expires_at"),
        ("expires_at", "soon", "expires_at"),
        ("ip_allowlist", "10.0.0.0/33", "ip_allowlist"),
        ("models", "bad name", "models"),
        ("tags", "<b>", "tags"),
        ("budget_limit", ["-1", ""], "budget-0"),
        ("budget_limit", ["1", "NaN"], "budget-1"),
        ("budget_limit", ["1e400", ""], "budget-0"),
        ("budget_timezone", ["Mars/Olympus", "UTC"], "budget-0"),
        ("budget_window", ["century", "day"], "budget-0"),
        ("team", "no-such-team", "team"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_saved(
    field: str, typed: Any, place: str, world: World, owner: Client
) -> None:
    before = VirtualKey.objects.count()
    answer = owner.post("/keys/new", {**NEW_KEY, field: typed})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert place in answer.context["errors"]
    links = [a["href"] for tag, a in Markup(page).tags if tag == "a" and (a.get("href") or "").startswith("#")]
    assert f"#{place}" in links
    assert VirtualKey.objects.count() == before
    if field != "owner":
        assert 'value="alice"' in page  # what was typed stays


def test_the_preview_says_what_the_key_may_do_and_saves_nothing(world: World, owner: Client) -> None:
    before = VirtualKey.objects.count()
    words = " ".join("".join(Markup(owner.post("/keys/new/preview", NEW_KEY).content.decode()).text).split())
    assert "may spend $1,250.50 each month (hard) and $5.00 each day (soft) on support-fast, gpt-*" in words
    assert "300 requests and 400,000 tokens per minute, 20 parallel" in words
    assert "$CONDUIT_TOKEN" in words
    assert VirtualKey.objects.count() == before


def test_a_key_is_disabled_enabled_and_revoked_by_its_typed_name(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    for act, state in (("disable", "disabled"), ("enable", "active")):
        assert owner.post(f"{path}/{act}").status_code == 303
        world.alice_key.refresh_from_db()
        assert world.alice_key.state == state
    assert owner.post(f"{path}/revoke", {"confirm": "support"}).status_code == 409
    world.alice_key.refresh_from_db()
    assert world.alice_key.state == "active"
    assert owner.post(f"{path}/revoke", {"confirm": "support-chat"}).status_code == 303
    world.alice_key.refresh_from_db()
    assert world.alice_key.state == "revoked"
    assert owner.post(f"{path}/enable").status_code == 409
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions[-3:] == ["key.disable", "key.enable", "key.revoke"]


def test_those_who_only_read_can_change_nothing(world: World, signed_in: Callable[..., Client]) -> None:
    for role in (Role.ANALYST, Role.AUDITOR):
        client = signed_in(role)
        assert client.post("/keys/new", NEW_KEY).status_code == 403
        assert client.post(f"/keys/{world.alice_key.id}/disable").status_code == 403
        assert client.post(f"/routes/{world.route.id}/delete", {"confirm": "support-fast"}).status_code == 403
        assert "Revoke" not in client.get(f"/keys/{world.alice_key.id}").content.decode()


def test_the_kinds_of_provider_are_narrowed_by_what_is_shown_of_them(owner: Client) -> None:
    def shown(q: str) -> list[str]:
        return [one["kind"] for one in owner.get("/providers/new", {"q": q}).context["kinds"]]

    assert len(shown("")) > 30
    assert shown("groq") == ["groq"]  # its name
    assert shown("ANTHROPIC sk-ant") == ["anthropic"]  # how its keys begin, each word on its own
    assert shown("api.mistral") == ["mistral"]  # its address
    page = owner.get("/providers/new", {"q": '"><b>nobody'}).content.decode()
    assert "No kind of provider matches" in page
    assert 'href="?kind=custom"' in page
    assert "<b>nobody" not in page
    assert "No kind of provider matches" not in owner.get("/providers/new").content.decode()


def test_a_rejected_credential_shows_the_providers_words_and_saves_nothing(
    world: World, owner: Client, upstream: RunningSandbox, settings: Any
) -> None:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    secret = "wrong-canary-0123456789"
    audits = AuditEntry.objects.count()
    for headers in ({}, {"HX-Request": "true"}):
        answer = owner.post("/providers/new?kind=custom", new_provider(upstream, secret), headers=headers)
        page = answer.content.decode()
        assert answer.status_code == 422
        assert "The provider answered: " in page
        assert "HTTP 401" in page
        assert secret not in page
        assert ("<html" in page) is not bool(headers)
    assert not Provider.objects.filter(name="acme").exists()
    assert Credential.objects.count() == 1
    assert AuditEntry.objects.count() == audits


def test_a_provider_that_cannot_be_reached_or_is_private_is_refused(world: World, owner: Client, settings: Any) -> None:
    settings.CONDUIT_EGRESS_ALLOW = []
    form = {"name": "acme", "credential": "main", "base_url": "http://127.0.0.1:9/v1", "field-api_key": "sk-sandbox-1"}
    assert "base_url" in owner.post("/providers/new?kind=custom", form).context["errors"]
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    answer = owner.post("/providers/new?kind=custom", form)
    assert answer.status_code == 422
    assert "The test failed" in answer.content.decode()
    assert not Provider.objects.filter(name="acme").exists()


def test_a_field_by_reference_is_read_where_it_lies_and_the_reference_stays_typed(
    world: World, owner: Client, upstream: RunningSandbox, settings: Any, tmp_path: Path
) -> None:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    settings.CONDUIT_SECRET_FILES = [str(tmp_path)]
    secret = "sk-sandbox-canary5555566666"
    form = {**new_provider(upstream, ""), "source-api_key": f"file:{tmp_path}/key"}
    refused = owner.post("/providers/new?kind=custom", form)
    assert refused.status_code == 422
    assert "No such file" in refused.content.decode()
    assert f'value="file:{tmp_path}/key"' in refused.content.decode()
    both = owner.post("/providers/new?kind=custom", {**form, "field-api_key": secret})
    assert "Give either a value or a reference" in both.content.decode()
    assert secret not in both.content.decode()
    (tmp_path / "key").write_text(secret)
    assert owner.post("/providers/new?kind=custom", form).status_code == 303
    made = Credential.objects.get(provider__name="acme")
    assert made.versions.get().fields.get().source
    page = owner.get(f"/providers/{made.provider_id}").content.decode()
    assert secret not in page


def test_an_accepted_credential_is_saved_with_its_provider_and_never_shown(
    world: World, owner: Client, upstream: RunningSandbox, settings: Any
) -> None:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    secret = "sk-sandbox-canary0123456789"
    answer = owner.post("/providers/new?kind=custom", new_provider(upstream, secret), headers={"HX-Request": "true"})
    provider = Provider.objects.get(name="acme")
    assert answer["HX-Redirect"] == f"/providers/{provider.id}"
    page = owner.get(f"/providers/{provider.id}").content.decode()
    assert secret not in page
    assert "Accepted" in page
    tested = owner.post(f"/providers/{provider.id}/test", follow=True).content.decode()
    assert "accepted in" in tested
    second = {"name": "second", "field-api_key": "sk-sandbox-canary9876543210", "weight": "50", "account": "eu"}
    assert owner.post(f"/credentials/new?provider={provider.id}", second).status_code == 303
    wrong = {"name": "third", "field-api_key": "wrong-canary-000000"}
    assert owner.post(f"/credentials/new?provider={provider.id}", wrong).status_code == 422
    assert sorted(provider.credentials.values_list("name", flat=True)) == ["main", "second"]
    for path, form in (
        ("/providers/new?kind=custom", new_provider(upstream, secret)),
        (f"/credentials/new?provider={provider.id}", second),
    ):
        twice = owner.post(path, form)
        assert twice.status_code == 422
        assert "already" in twice.content.decode()


def test_a_route_is_created_changed_and_deleted_by_its_typed_name(world: World, owner: Client) -> None:
    form = {
        "name": "fast",
        "strategy": "priority",
        "enabled": "on",
        "strict": "",
        "timeout": "30",
        "target_provider": [str(world.provider.id)] * 2,
        "target_model": ["gpt-5-mini", "gpt-4o-mini"],
        "target_priority": ["0", "1"],
        "target_weight": ["100", "100"],
    }
    assert owner.post("/routes/new", form).status_code == 303
    route = Route.objects.get(name="fast")
    assert [(t.model, t.priority) for t in route.targets.all()] == [("gpt-5-mini", 0), ("gpt-4o-mini", 1)]
    form["target_model"] = ["gpt-5-mini", ""]  # an emptied row is a target taken away
    assert owner.post(f"/routes/{route.id}", form).status_code == 303
    assert route.targets.count() == 1
    for wrong, place in (({"target_weight": ["x", "1"]}, "weight-0"), ({"timeout": "0"}, "timeout")):
        answer = owner.post(f"/routes/{route.id}", {**form, **wrong})
        assert (answer.status_code, list(answer.context["errors"])) == (422, [place])
    taken = owner.post("/routes/new", {**form, "name": "support-fast"})
    assert taken.status_code == 422
    assert "There already is a route named support-fast." in taken.content.decode()
    assert 'value="gpt-5-mini"' in taken.content.decode()
    assert owner.post(f"/routes/{route.id}/delete", {"confirm": "slow"}).status_code == 409
    assert owner.post(f"/routes/{route.id}/delete", {"confirm": "fast"}).status_code == 303
    assert not Route.objects.filter(name="fast").exists()


def test_a_name_that_is_taken_or_too_long_is_named_at_its_field(
    world: World, owner: Client, upstream: RunningSandbox, settings: Any
) -> None:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    taken = {"name": "openai-main", "base_url": f"{upstream.url}/v1", "credential": "main"}
    secret = {"field-api_key": "sk-sandbox-0123456789abcdef"}
    target = {"target_provider": str(world.provider.id), "target_model": "gpt-4o", "target_weight": "100"}
    target |= {"target_priority": "0", "strategy": "priority", "enabled": "on"}
    for path, form in [
        ("/providers/new?kind=custom", taken | secret),
        ("/providers/new?kind=custom", taken | secret | {"name": "n" * 121}),
        (
            f"/credentials/new?provider={world.provider.id}",
            {"name": "n" * 121, "weight": "100", "account": ""} | secret,
        ),
        ("/routes/new", target | {"name": "support-fast"}),
        ("/routes/new", target | {"name": "n" * 201}),
        ("/keys/new", NEW_KEY | {"name": "n" * 121}),
    ]:
        answer = owner.post(path, form)
        assert (answer.status_code, list(answer.context["errors"])) == (422, ["name"]), path
        assert f'value="{form["name"]}"' in answer.content.decode(), path  # what was typed stays, all of it
        fields = [a for tag, a in Markup(answer.content.decode()).tags if tag == "input" and a.get("name") == "name"]
        assert "maxlength" not in fields[0], path
    assert (Provider.objects.count(), Route.objects.count(), Credential.objects.count()) == (1, 1, 1)


def test_the_preview_never_calls_a_wrong_limit_no_limit(world: World, owner: Client) -> None:
    typed = NEW_KEY | {"budget_limit": ["1e400", ""]}
    words = " ".join("".join(Markup(owner.post("/keys/new/preview", typed).content.decode()).text).split())
    assert "may spend an amount still to be set" in words
    assert "without a limit" not in words
