"""A small installation with real rows: two teams, keys, a provider, usage applied through the ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import caches
from django.test import Client

from conduit.access.models import Role, User
from conduit.access.users import create_user
from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from keys.issuing import create_key
from keys.models import Budget, Team, VirtualKey
from keys.teams import create_team
from providers.credentials import add_credential
from providers.models import Credential, Provider, Route
from providers.providers import add_provider
from providers.routes import add_route
from tests.usage.events import refused, settled
from usage import ledger
from usage.models import UsageEvent

PASSWORD = "correct-horse-battery-9"
SECRET = "sk-proj-canary0123456789abcdef"


@pytest.fixture(autouse=True)
def _plain_static_files(settings: Any) -> None:
    """Pages name static files without the manifest that `conduit up` collects."""
    Path(django_settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**django_settings.STORAGES, "staticfiles": plain}


@pytest.fixture(autouse=True)
def _no_tries_left_over() -> None:
    caches["default"].clear()


@dataclass
class World:
    """Alice's team Support with one key, Bob's team Search with another, and a key of no team."""

    support: Team
    search: Team
    alice_key: VirtualKey
    alice_raw: str
    bob_key: VirtualKey
    provider: Provider
    credential: Credential
    route: Route
    events: list[UsageEvent]


def attempt(key: VirtualKey, provider: Provider, credential: Credential, **given: Any) -> Any:
    budgets = Budget.objects.filter(owner_id__in=[key.id, key.team_id])
    fields = {
        "key_id": key.id.bytes,
        "team_id": key.team_id.bytes if key.team_id else None,
        "provider_id": provider.id.bytes,
        "credential_id": credential.id.bytes,
        "credential_version": 1,
        "budgets": [budget.id.bytes for budget in budgets],
        "ttft_us": 400,
        "overhead_us": 300,
    }
    return settled(**{**fields, **given})


@pytest.fixture
def world(db: None) -> World:
    support, search = (create_team(actor=SYSTEM, name=name) for name in ("Support", "Search"))
    provider = add_provider(actor=SYSTEM, name="openai-main", kind="openai")
    credential = add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret(SECRET)}, verify=False)
    route = add_route(actor=SYSTEM, name="support-fast", targets=[{"provider": "openai-main", "model": "gpt-4o-mini"}])
    budget = [{"limit_usd": "1.00", "window": "month"}]
    alice, raw = create_key(actor=SYSTEM, name="support-chat", team=support, budgets=budget, rpm=300)
    bob, _ = create_key(actor=SYSTEM, name="search-answers", team=search)
    first = attempt(alice, provider, credential, attempt=1, final=False, outcome="error", status=529, cost_nanos=0)
    first.time_us -= 1_000_000  # its second attempt comes later, and still before now
    records = [
        *(attempt(alice, provider, credential) for _ in range(3)),
        *(attempt(bob, provider, credential) for _ in range(2)),
        first,
        attempt(alice, provider, credential, request_id=first.request_id, attempt=2, time_us=first.time_us + 600_000),
        refused(
            key_id=alice.id.bytes,
            team_id=support.id.bytes,
            status=429,
            error_code="budget_exceeded",
            error_message="The budget is used up.",
            trace=[{"check": "budget", "ok": False, "scope": "key 'support-chat'", "limit": 5, "settled": 5}],
        ),
    ]
    ledger.apply(records)
    events = list(UsageEvent.objects.order_by("time", "id"))
    return World(support, search, alice, raw.reveal(), bob, provider, credential, route, events)


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Makes users: person("operator", team) is narrowed to that team."""

    def make(role: str, *teams: Team) -> User:
        email = f"{role}{len(teams)}@conduit.local"
        ids = [team.id for team in teams]
        user, _ = create_user(actor=SYSTEM, email=email, role=role, password=Secret(PASSWORD), in_teams=ids)
        return user

    return make


@pytest.fixture
def signed_in(person: Callable[..., User]) -> Callable[..., Client]:
    """A client with the session of a new person of this role."""

    def enter(role: str, *teams: Team, **options: Any) -> Client:
        client = Client(**options)
        client.force_login(person(role, *teams))
        return client

    return enter


@pytest.fixture
def owner(signed_in: Callable[..., Client]) -> Client:
    return signed_in(Role.OWNER)
