"""Every endpoint that writes, taken from the URL configuration: what it does is in the audit log, and no secret is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.cache import caches
from django.test import Client

from conduit.access.models import Role
from conduit.access.signing_in import TRIES
from conduit.access.users import create_user
from conduit.core import audit_chain
from conduit.core.actor import SYSTEM
from conduit.core.clock import now, rfc3339
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret
from keys.models import Budget
from providers.catalogue_sync import sync_models
from providers.models import CatalogueModel
from tests.access.clients import ApiClient, client_of
from tests.access.test_signing_in import MIDDLE
from tests.access.test_who_may_what import METHODS, ROUTES, has_method
from tests.keys.test_lost_workers import lease, worker
from tests.providers.conftest import Scripted, upstream
from tests.usage.uncertain_rows import period_of, uncertain_attempt
from usage.price_sync import sync_prices

__all__ = ["upstream"]
SECRET = "sk-proj-canary0123456789abcdef"
PASSWORD = "correct-horse-battery-9"
LATER = rfc3339(now() + timedelta(days=2))

WRITES = {
    f"{method} {route.removeprefix('api/v1/')}"
    for (route, _), pattern in ROUTES
    if route.startswith("api/v1/") and (view := getattr(pattern.callback, "view_class", None)) is not None
    for method in METHODS
    if method != "GET" and has_method(view, method) and method not in view.reads
}
# Ask and change nothing, each with its reason.
ASK = {"POST simulate": "says what would happen to a request"}
# These need a key file or a history of use: their own tests look at the entries.
ELSEWHERE = {
    "POST keks": "tests/access/test_keks_api.py",
    "POST keks/<str:kek_id>/retire": "tests/access/test_keks_api.py",
    "POST keks/<str:kek_id>/rotate": "tests/access/test_keks_api.py",
    "POST keks/purposes/<str:purpose>/rotate": "tests/access/test_keks_api.py",
    "POST keys/<uuid:key_id>/shrink": "tests/keys/test_review.py",
}
VARIABLE = "CONDUIT_SECRET_ON_RECORD"


@dataclass
class Place:
    """What the calls below act on."""

    owner: ApiClient
    upstream: Scripted

    def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.owner.post(path, body)
        assert answer.status_code == 201, answer.content
        made: dict[str, Any] = answer.json()
        return made

    def key(self, **given: Any) -> str:
        return str(self.make("/keys", {"name": "app", "budgets": [{"limit_usd": "5"}], **given})["id"])

    def budget(self) -> str:
        key = self.key()
        return str(Budget.objects.get(owner_id=key).id)

    def provider(self) -> str:
        body = {"name": "p", "kind": "custom", "base_url": self.upstream.url}
        return str(self.make("/providers", body)["id"])

    def credential(self, provider: str | None = None) -> str:
        path = f"/providers/{provider or self.provider()}/credentials"
        return str(self.make(path, {"name": "main", "secret": SECRET})["id"])

    def rotating(self, **given: Any) -> str:
        """A credential whose rotation is under way."""
        found = self.credential()
        answer = self.owner.post(f"/credentials/{found}/rotate", {"secret": f"{SECRET}-2", **given})
        assert answer.status_code == 200, answer.content
        return found

    def canary(self) -> str:
        return self.rotating(canary={"steps": [10]})

    def referring(self) -> str:
        """A credential whose secret is read from elsewhere."""
        os.environ[VARIABLE] = SECRET
        fields = {"api_key": {"from": f"env:{VARIABLE}"}}
        return str(self.make(f"/providers/{self.provider()}/credentials", {"name": "main", "fields": fields})["id"])

    def rotating_key(self) -> str:
        key = self.key()
        assert self.owner.post(f"/keys/{key}/rotate", {}).status_code == 200
        return key

    def tested(self) -> str:
        provider = self.provider()
        self.credential(provider)
        return provider

    def route(self) -> str:
        self.provider()
        return str(self.make("/routes", {"name": "fast", "targets": [{"provider": "p", "model": "m"}]})["name"])

    def team(self) -> str:
        return str(self.make("/teams", {"name": "Search"})["id"])

    def raised(self) -> str:
        budget = self.budget()
        made = self.owner.post(f"/budgets/{budget}/raise", {"extra_usd": "1", "until": LATER})
        return f"{budget}/raises/{made.json()['raises'][0]['id']}"

    def user(self) -> str:
        return str(self.make("/users", {"email": "bob@example.org", "role": "operator"})["id"])

    def token(self) -> str:
        return str(self.make("/tokens", {"name": "ci", "role": "analyst"})["id"])

    def model(self) -> str:
        sync_models()
        return str(CatalogueModel.objects.order_by("name")[0].id)

    def lost(self) -> str:
        gone = worker(4_000, node="gone", pid=4321)
        lease(gone, period_of(Budget.objects.get(id=self.budget())), 700_000_000)
        worker(0, node="here", pid=77)
        return str(gone.id)


Call = Callable[[Place], tuple[str, dict[str, Any] | None]]
# "METHOD route" → the path and body of a call that succeeds and changes something.
CALLS: dict[str, Call] = {
    "POST keys": lambda at: ("keys", {"name": "x", "rpm": 5}),
    "PATCH keys/<uuid:key_id>": lambda at: (f"keys/{at.key()}", {"rpm": 7}),
    "DELETE keys/<uuid:key_id>": lambda at: (f"keys/{at.key()}", None),
    "POST keys/<uuid:key_id>/disable": lambda at: (f"keys/{at.key()}/disable", None),
    "POST keys/<uuid:key_id>/revoke": lambda at: (f"keys/{at.key()}/revoke", None),
    "POST budgets/<uuid:budget_id>/raise": lambda at: (
        f"budgets/{at.budget()}/raise",
        {"extra_usd": "1", "until": LATER},
    ),
    "DELETE budgets/<uuid:budget_id>/raises/<int:raise_id>": lambda at: (f"budgets/{at.raised()}", None),
    "PUT customers/<path:name>": lambda at: ("customers/eve", {"rpm": 5}),
    "POST teams": lambda at: ("teams", {"name": "Search"}),
    "PATCH teams/<uuid:team_id>": lambda at: (f"teams/{at.team()}", {"rpm": 9}),
    "DELETE teams/<uuid:team_id>": lambda at: (f"teams/{at.team()}", None),
    "POST providers": lambda at: ("providers", {"name": "q", "kind": "custom", "base_url": at.upstream.url}),
    "PATCH providers/<str:id>": lambda at: (f"providers/{at.provider()}", {"rpm": 9}),
    "DELETE providers/<str:id>": lambda at: (f"providers/{at.provider()}", None),
    "POST providers/<str:id>/test": lambda at: (f"providers/{at.tested()}/test", None),
    "POST providers/<str:id>/credentials": lambda at: (
        f"providers/{at.provider()}/credentials",
        {"name": "second", "secret": SECRET},
    ),
    "PATCH credentials/<str:id>": lambda at: (f"credentials/{at.credential()}", {"weight": 9}),
    "DELETE credentials/<str:id>": lambda at: (f"credentials/{at.credential()}", None),
    "POST credentials/<str:id>/rotate": lambda at: (f"credentials/{at.credential()}/rotate", {"secret": f"{SECRET}-2"}),
    "POST credentials/<str:id>/verify": lambda at: (f"credentials/{at.credential()}/verify", None),
    "POST credentials/<str:id>/promote": lambda at: (f"credentials/{at.canary()}/promote", {"share": 50}),
    "POST credentials/<str:id>/rollback": lambda at: (f"credentials/{at.canary()}/rollback", None),
    "POST credentials/<str:id>/finish": lambda at: (f"credentials/{at.rotating()}/finish", None),
    "POST credentials/<str:id>/extend": lambda at: (f"credentials/{at.rotating()}/extend", {"overlap_seconds": 99}),
    "POST credentials/<str:id>/revoke": lambda at: (f"credentials/{at.credential()}/revoke", {"version": 1}),
    "PATCH credentials/<str:id>/rotation": lambda at: (f"credentials/{at.canary()}/rotation", {"step_seconds": 77}),
    "POST credentials/<str:id>/refresh": lambda at: (f"credentials/{at.referring()}/refresh", None),
    "POST keys/<uuid:key_id>/expire": lambda at: (f"keys/{at.key()}/expire", None),
    "POST keys/<uuid:key_id>/rotate": lambda at: (f"keys/{at.key()}/rotate", {}),
    "POST keys/<uuid:key_id>/replace": lambda at: (f"keys/{at.key()}/replace", None),
    "POST keys/<uuid:key_id>/finish": lambda at: (f"keys/{at.rotating_key()}/finish", None),
    "POST keys/<uuid:key_id>/extend": lambda at: (f"keys/{at.rotating_key()}/extend", {"overlap_seconds": 999_999}),
    "POST routes": lambda at: (
        f"routes{at.provider()[:0]}",
        {"name": "r", "targets": [{"provider": "p", "model": "m"}]},
    ),
    "PATCH routes/<path:name>": lambda at: (f"routes/{at.route()}", {"timeout": 9}),
    "DELETE routes/<path:name>": lambda at: (f"routes/{at.route()}", None),
    "PATCH models/<str:id>": lambda at: (f"models/{at.model()}", {"context_window": 1234}),
    "POST prices": lambda at: ("prices", {"model": "m", "rates": {"input": "1"}}),
    "POST tokens": lambda at: ("tokens", {"name": "x", "role": "analyst"}),
    "DELETE tokens/<uuid:token_id>": lambda at: (f"tokens/{at.token()}", None),
    "POST users": lambda at: ("users", {"email": "eve@example.org", "role": "analyst"}),
    "PATCH users/<uuid:user_id>": lambda at: (f"users/{at.user()}", {"role": "analyst"}),
    "POST uncertain/<uuid:attempt_id>/resolve": lambda at: (
        f"uncertain/{uncertain_attempt(Budget.objects.get(id=at.budget())).id}/resolve",
        {"outcome": "unbilled"},
    ),
    "POST workers/<uuid:worker_id>/release": lambda at: (f"workers/{at.lost()}/release", None),
}


def _enable(at: Place) -> tuple[str, None]:
    key = at.key()
    assert at.owner.post(f"/keys/{key}/disable").status_code == 200
    return f"keys/{key}/enable", None


def _route(at: Place) -> tuple[str, dict[str, Any]]:
    at.provider()
    return "routes", {"name": "r", "targets": [{"provider": "p", "model": "m"}]}


CALLS |= {"POST keys/<uuid:key_id>/enable": _enable, "POST routes": _route}


@pytest.fixture
def sign_in_page(settings: Any) -> None:
    """Static files without the manifest that `conduit up` collects, and passwords that are checked quickly."""
    settings.PASSWORD_HASHERS = ["tests.access.test_signing_in.QuickHasher"]
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture
def place(owner: ApiClient, upstream: Scripted) -> Iterator[Place]:
    yield Place(owner, upstream)
    os.environ.pop(VARIABLE, None)
    for entry in AuditEntry.objects.all():
        text = f"{entry.before} {entry.after} {entry.object_name} {entry.object_id} {entry.actor_name}"
        for secret in (SECRET, PASSWORD, owner.raw or "", "cdt_vk_", "cdt_mk_"):
            assert secret not in text, entry


def test_the_calls_below_are_all_there_are() -> None:
    unknown = WRITES - set(CALLS) - set(ASK) - set(ELSEWHERE)
    assert not unknown, f"endpoints that write and are not called here: add them to CALLS: {sorted(unknown)}"
    assert set(CALLS) - WRITES == set()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_each_success_leaves_an_entry_that_says_who_from_where_and_in_which_request(place: Place, name: str) -> None:
    path, body = CALLS[name](place)
    before = AuditEntry.objects.count()
    answer = place.owner.call(name.split()[0], f"/{path}", body, X_Request_Id="req-of-this-call")
    assert answer.status_code in (200, 201, 204), (name, answer.content)
    entries = list(AuditEntry.objects.order_by("id")[before:])
    assert entries, name
    for entry in entries:
        assert (entry.actor_kind, entry.actor_name) == ("token", "owner of the test")
        assert (entry.address, entry.request_id) == ("127.0.0.1", "req-of-this-call")
    assert audit_chain.verify().intact


def test_what_is_refused_leaves_nothing(place: Place) -> None:
    auditor, stranger = client_of(Role.AUDITOR), ApiClient(None)
    before = AuditEntry.objects.count()
    for (route, path), _ in ROUTES:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            if f"{method} {route.removeprefix('api/v1/')}" in CALLS:
                for caller, refused in ((auditor, 403), (stranger, 401)):
                    assert caller.call(method, path.removeprefix("/api/v1"), {}).status_code == refused
    assert AuditEntry.objects.count() == before


# --- beside the endpoints ------------------------------------------------------------------------------------------


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def test_a_secret_that_is_shown_again_is_on_record(place: Place) -> None:
    raw = [place.owner.post("/keys", {"name": "x"}, Idempotency_Key="same").json()["key"] for _ in range(2)]
    assert raw[0] == raw[1]
    assert actions()[-2:] == ["key.create", "reply.repeat"]
    assert AuditEntry.objects.latest("id").object_name == "/api/v1/keys"


def test_taking_usage_the_audit_log_or_a_support_bundle_along_is_on_record(place: Place) -> None:
    assert place.owner.get("/usage/export?format=jsonl&status=200").status_code == 200
    assert place.owner.get("/audit/export").status_code == 200
    user, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.OWNER, password=Secret(PASSWORD))
    client = Client()
    client.force_login(user)
    assert client.get("/system/support-bundle").status_code == 200
    assert [a for a in actions() if a.endswith(".export")] == ["usage.export", "audit.export", "bundle.export"]
    entry = AuditEntry.objects.get(action="usage.export")
    assert entry.after == {"format": "jsonl", "filters": {"status": "200"}}
    assert AuditEntry.objects.get(action="bundle.export").actor_name == "alice@example.org"


def test_prices_that_the_sync_brings_are_on_record_once(db: None) -> None:
    assert sync_prices().changes
    assert AuditEntry.objects.get(action="prices.sync").after["new_prices"] > 100
    sync_prices()
    assert AuditEntry.objects.filter(action="prices.sync").count() == 1


def test_signing_in_out_failing_and_being_locked_out_are_on_record(db: None, sign_in_page: None) -> None:
    caches["default"].clear()
    user, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.ADMIN, password=Secret(PASSWORD))
    client = Client(REMOTE_ADDR="192.0.2.7")
    sent = {"email": "Alice@Example.org", "password": PASSWORD}
    assert client.post("/login", sent).status_code == 303
    client.post("/logout")
    assert actions()[-2:] == ["user.sign_in", "user.sign_out"]
    assert {entry.address for entry in AuditEntry.objects.filter(actor_kind="user")} == {"192.0.2.7"}
    client.post("/login", {"email": PASSWORD, "password": "in the wrong field"})
    client.post("/login", {**sent, "password": "wrong-password"})
    unknown, known = AuditEntry.objects.filter(action="user.sign_in_failed").order_by("id")
    assert (unknown.object_id, unknown.object_name) == ("", "an unknown address")
    assert (known.object_id, known.object_name, known.actor_name) == (str(user.id), user.email, "not signed in")
    with time_machine.travel(MIDDLE, tick=False):  # far from where a window of counting ends
        for _ in range(int(TRIES.split("/")[0]) + 5):
            client.post("/login", {**sent, "password": "wrong-password"})
    assert 1 <= actions().count("user.locked_out") <= 2, "once for the address typed, once for the network address"
    assert actions().count("user.sign_in_failed") <= int(TRIES.split("/")[0]) + 2
    assert PASSWORD not in str(list(AuditEntry.objects.values()))
