from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from conduit.access.models import Role, User
from conduit.console.bootstrap import MODELS, bootstrap
from conduit.core.models import AuditEntry
from keys.budgets import current
from keys.models import OwnerKind, VirtualKey
from providers.models import Provider, Route
from usage.models import Price

LINES = [
    r"console: http://127\.0\.0\.1:\d+",
    r"administrator: admin@conduit\.local",
    r"password: [0-9A-Za-z]{20}",
    r"key: cdt_vk_[0-9A-Za-z]{48}",
    r"curl http://127\.0\.0\.1:\d+/v1/chat/completions -H "
    r"\"Authorization: Bearer cdt_vk_[0-9A-Za-z]{48}\" .*sandbox-echo.*",
]


@pytest.fixture
def sandbox_on(db: None, settings: Any) -> None:
    settings.CONDUIT_SANDBOX = True


def test_the_first_start_prints_the_lines_of_the_contract_and_they_work(sandbox_on: None, client: Client) -> None:
    lines = bootstrap()
    assert len(lines) == len(LINES)
    for line, wanted in zip(lines, LINES, strict=True):
        assert re.fullmatch(wanted, line), line
    printed = dict(line.split(": ", 1) for line in lines[:4])
    form = {"email": printed["administrator"], "password": printed["password"]}
    assert client.post("/login", form).status_code == 303
    assert User.objects.get().role == Role.OWNER
    (budget,) = current(OwnerKind.KEY, VirtualKey.objects.get(name="first-key").id)
    assert (budget.limit_nanos, budget.window, budget.kind) == (1_000_000_000, "day", "hard")
    assert set(Route.objects.values_list("name", flat=True)) == set(MODELS)
    assert Price.objects.filter(model="sandbox-echo").exists()
    assert client.get("/first-run").status_code == 200


def test_a_second_start_prints_the_address_only_and_makes_nothing(sandbox_on: None) -> None:
    bootstrap()
    counts = [model.objects.count() for model in (User, VirtualKey, Provider, Route, AuditEntry)]
    (line,) = bootstrap()
    assert re.fullmatch(LINES[0], line)
    assert counts == [model.objects.count() for model in (User, VirtualKey, Provider, Route, AuditEntry)]


def test_a_changed_port_moves_the_sandbox_provider_along(sandbox_on: None, settings: Any) -> None:
    bootstrap()
    settings.SANDBOX_URL = "http://127.0.0.1:4321"
    bootstrap()
    assert Provider.objects.get(kind="sandbox").base_url == "http://127.0.0.1:4321/v1"


def test_without_the_sandbox_there_is_neither_a_key_nor_a_call(db: None, settings: Any) -> None:
    settings.CONDUIT_SANDBOX = False
    lines = bootstrap()
    assert [line.split(":")[0] for line in lines] == ["console", "administrator", "password"]
    assert not VirtualKey.objects.exists()
    assert not Provider.objects.exists()


def test_a_start_that_is_cut_short_leaves_nothing(sandbox_on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("conduit.console.bootstrap.create_key", cut)
        with pytest.raises(KeyboardInterrupt):
            bootstrap()
    assert not User.objects.exists()
    assert not Provider.objects.exists()
    assert len(bootstrap()) == len(LINES)


def test_the_guide_leads_through_an_empty_installation_step_by_step(db: None, owner: Client) -> None:
    steps = owner.get("/first-run").context["steps"]
    assert [step["done"] for step in steps] == [False] * 4
    assert owner.get("/first-run").context["next"]["title"] == "Provider"


def test_with_the_sandbox_the_guide_shows_the_call_at_once(sandbox_on: None, client: Client) -> None:
    bootstrap()
    client.force_login(User.objects.get())
    context = client.get("/first-run").context
    assert [step["title"] for step in context["steps"] if step["current"]] == ["Call"]
    assert [step["done"] for step in context["steps"]] == [True, False, True, False]
    assert any("curl" in tab["text"] for tab in context["snippets"])
