"""Credentials are proven by a real call before anything is saved, and their secret never comes back."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from pytest_django.fixtures import Settings

from conduit.core import keyring
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, Forbidden, InvalidInput
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret
from providers import credentials, listing, routes, vault
from providers.adapters.registry import KINDS
from providers.models import Credential, CredentialField, CredentialVersion, Provider, VersionState
from providers.onboarding import NewCredential, add_with_credential
from providers.providers import add_provider, delete_provider, update_provider
from providers.secret_fields import parse_fields
from providers.verification import VerificationFailed
from tests.harness.sandbox import RunningSandbox
from tests.providers.conftest import Scripted

KEY = "sk-sandbox-canary-7f3a9c51e2d8"
ALICE = Actor("user", "1", "alice@example.org", "admin", None)
pytestmark = pytest.mark.django_db


def custom(upstream: Scripted, **more: Any) -> Provider:
    return add_provider(actor=ALICE, name="House", kind="custom", base_url=upstream.url, **more)


def secret(text: str = KEY) -> dict[str, Secret]:
    return {"api_key": Secret(text)}


def nothing_saved() -> bool:
    return not (Credential.objects.exists() or CredentialVersion.objects.exists() or CredentialField.objects.exists())


def test_a_credential_is_proven_saved_sealed_and_logged(sandbox: RunningSandbox) -> None:
    provider = add_provider(actor=ALICE, name="Sandbox", kind="sandbox")
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    version = credentials.active(made)
    assert version is not None
    assert (version.number, version.state) == (1, VersionState.ACTIVE)
    assert vault.open_version(version) == secret()
    assert version.kek_id == keyring.ring().primary
    assert made.last_verified_at is not None
    assert credentials.hint(made) == "sk-sandbox-…e2d8" or credentials.hint(made).endswith("e2d8")
    assert credentials.readable(made) is None
    assert credentials.health(made) == "ok"
    entry = AuditEntry.objects.get(action="credential.create")
    assert entry.actor_name == "alice@example.org"
    assert entry.after is not None
    assert entry.after["verified"] is True
    assert KEY not in str(entry.after)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_the_sandbox_proves_keys_in_each_wire_format(sandbox: RunningSandbox, dialect: str) -> None:
    provider = add_provider(actor=ALICE, name="Sandbox", kind="sandbox", options={"dialect": dialect})
    credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    assert "sandbox-echo" in listing.list_models(provider)
    with pytest.raises(VerificationFailed) as refused:
        credentials.add_credential(provider, actor=ALICE, name="bad", fields=secret("sk-wrong-0123456789abcdef"))
    assert refused.value.status == 401
    assert Credential.objects.count() == 1


def test_a_rejected_credential_shows_the_providers_own_words_and_saves_nothing(upstream: Scripted) -> None:
    provider = custom(upstream)
    upstream.says(401, '{"error":{"message":"Incorrect API key provided: ' + KEY + '. Ask Bob."}}')
    with pytest.raises(VerificationFailed) as refused:
        credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    assert "Incorrect API key provided: " in refused.value.detail
    assert "Ask Bob." in refused.value.detail
    assert KEY not in str(refused.value)
    assert refused.value.field == "secret"
    assert "check the key" in refused.value.guidance
    assert nothing_saved()
    assert not AuditEntry.objects.filter(object_kind="credential").exists()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, '{"error":{"message":"Country not supported"}}', "Country not supported"),
        (404, "<html>Not Found</html>", "404"),
        (429, '{"error":{"message":"Slow down"}}', "Slow down"),
        (500, "", "500"),
        (503, '{"error":"maintenance"}', "503"),
        (302, "", "redirect"),
        (200, "<html>Welcome</html>", ""),
        (200, '{"data": 3}', ""),
    ],
)
def test_whatever_is_not_a_list_of_models_is_a_refusal(upstream: Scripted, status: int, body: str, words: str) -> None:
    provider = custom(upstream)
    upstream.says(status, body, location="http://127.0.0.1:1/")
    with pytest.raises(VerificationFailed) as refused:
        credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    assert words in refused.value.detail
    assert refused.value.detail
    assert nothing_saved()


def test_a_provider_that_cannot_be_reached_is_named(settings: Settings) -> None:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        provider = add_provider(actor=ALICE, name="Gone", kind="custom", base_url=url)
        with pytest.raises(VerificationFailed, match=r"127\.0\.0\.1 could not be reached") as refused:
            credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    assert refused.value.field == "base_url"
    assert nothing_saved()


def test_a_silent_provider_ends_after_the_deadline(upstream: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.verification.SECONDS", 0.3)
    upstream.pause = 1.0
    with pytest.raises(VerificationFailed, match="did not answer within"):
        credentials.add_credential(custom(upstream), actor=ALICE, name="main", fields=secret())
    assert nothing_saved()


def test_an_endless_or_compressed_answer_is_refused(upstream: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.verification.MAX_ANSWER_BYTES", 1000)
    provider = custom(upstream)
    upstream.says(200, "x" * 100_000)
    with pytest.raises(VerificationFailed, match="too large"):
        credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    upstream.says(200, "", content_encoding="gzip")
    with pytest.raises(VerificationFailed, match="compresses"):
        credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())


def test_the_call_carries_the_key_and_the_options_and_nothing_of_ours(upstream: Scripted) -> None:
    provider = custom(upstream, options={"auth": "X-House-Key", "headers": {"X-Tenant": "blue"}})
    credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    ((path, headers),) = upstream.seen
    assert path == "/v1/models"
    assert headers["x-house-key"] == KEY
    assert headers["x-tenant"] == "blue"
    assert "authorization" not in headers
    assert "cookie" not in headers


def test_an_address_that_was_allowed_once_is_checked_again_at_the_call(upstream: Scripted, settings: Settings) -> None:
    provider = custom(upstream)
    settings.CONDUIT_EGRESS_ALLOW = []
    with pytest.raises(VerificationFailed, match="CONDUIT_EGRESS_ALLOW"):
        credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    assert upstream.seen == []


def test_verify_false_saves_without_a_call(upstream: Scripted) -> None:
    made = credentials.add_credential(custom(upstream), actor=ALICE, name="main", fields=secret(), verify=False)
    assert upstream.seen == []
    assert made.last_verified_at is None
    assert credentials.health(made) == "unverified"


def test_an_endpoint_that_needs_no_key_takes_a_credential_without_fields(upstream: Scripted) -> None:
    made = credentials.add_credential(custom(upstream), actor=ALICE, name="none", fields={})
    assert "authorization" not in upstream.seen[0][1]
    assert credentials.hint(made) == ""
    assert credentials.readable(made) is None


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        ("openai", {}, "secret"),
        ("openai", {"secret": ""}, "secret"),
        ("openai", {"secret": "   "}, "secret"),
        ("openai", {"secret": "sk-two\nlines"}, "secret"),
        ("openai", {"secret": "sk-schlüssel"}, "secret"),
        ("openai", {"secret": "x" * 20_000}, "secret"),
        ("openai", {"secret": "sk-1", "fields": {"api_key": "sk-1"}}, "fields"),
        ("openai", {"fields": {"api_kee": "sk-1"}}, "fields.api_kee"),
        ("openai", {"fields": {"api_key": 7}}, "fields.api_key"),
        ("openai", {"fields": {"api_key": None}}, "fields.api_key"),
    ],
)
def test_fields_are_refused_by_name_and_never_quoted(kind: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fields(KINDS[kind], **given)
    assert refused.value.field == field
    assert "sk-1" not in str(refused.value)
    assert "sk-two" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"weight": -1}, "weight"),
        ({"weight": True}, "weight"),
        ({"weight": 10_001}, "weight"),
        ({"expires_at": now() - timedelta(seconds=1)}, "expires_at"),
        ({"account": "x" * 121}, "account"),
    ],
)
def test_settings_of_a_credential_are_checked_before_the_call(
    upstream: Scripted, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        credentials.add_credential(custom(upstream), actor=ALICE, **{"name": "main", "fields": secret(), **given})
    assert refused.value.field == field
    assert upstream.seen == []


def test_a_name_is_given_once_per_provider(upstream: Scripted) -> None:
    provider = custom(upstream)
    credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    with pytest.raises(Conflict, match="already has a credential named main"):
        credentials.add_credential(provider, actor=ALICE, name="main", fields=secret("sk-other-0123456789abcdef"))
    assert Credential.objects.count() == 1
    assert len(upstream.seen) == 1


def test_a_stored_credential_that_the_provider_now_rejects_is_marked_and_recovers(upstream: Scripted) -> None:
    provider = custom(upstream)
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    upstream.says(401, '{"error":{"message":"Key ' + KEY + ' was revoked"}}')
    (outcome,) = credentials.verify_all(provider, actor=ALICE)
    assert (outcome.ok, "was revoked" in outcome.detail) == (False, True)
    made.refresh_from_db()
    assert "was revoked" in made.last_error
    assert KEY not in made.last_error
    assert credentials.health(made) == "failing"
    upstream.says(200, '{"data":[{"id":"house-1"}]}')
    (outcome,) = credentials.verify_all(provider, actor=ALICE)
    assert (outcome.ok, outcome.models) == (True, ("house-1",))
    made.refresh_from_db()
    assert (made.last_error, credentials.health(made)) == ("", "ok")
    assert AuditEntry.objects.filter(action="credential.verify").count() == 2


def test_conduits_own_checks_enter_the_audit_log_only_when_the_outcome_changes(upstream: Scripted) -> None:
    made = credentials.add_credential(custom(upstream), actor=ALICE, name="main", fields=secret())
    credentials.verify(made, actor=SYSTEM)
    assert not AuditEntry.objects.filter(action="credential.verify").exists()
    upstream.says(401, "{}")
    for _ in range(2):
        with pytest.raises(VerificationFailed):
            credentials.verify(made, actor=SYSTEM)
    assert AuditEntry.objects.filter(action="credential.verify").count() == 1


def test_an_unreadable_credential_is_red_with_reason_and_fix_and_hides_no_other(upstream: Scripted) -> None:
    provider = custom(upstream)
    good = credentials.add_credential(provider, actor=ALICE, name="good", fields=secret())
    bad = credentials.add_credential(provider, actor=ALICE, name="bad", fields=secret("sk-other-0123456789abcdef"))
    CredentialVersion.objects.filter(credential=bad).update(kek_id="GONE")
    red = credentials.problem(bad)
    assert red is not None
    assert "CONDUIT_KEK_GONE" in red.fix
    assert (credentials.health(bad), credentials.health(good)) == ("unreadable", "ok")
    outcomes = {outcome.credential.name: outcome for outcome in credentials.verify_all(provider, actor=ALICE)}
    assert outcomes["good"].ok
    assert not outcomes["bad"].ok
    assert "GONE" in outcomes["bad"].guidance
    assert listing.list_models(provider) == ("house-1", "house-2")


def test_the_last_credential_of_a_routed_provider_cannot_be_deleted(upstream: Scripted) -> None:
    provider = custom(upstream)
    one = credentials.add_credential(provider, actor=ALICE, name="one", fields=secret())
    routes.add_route(actor=ALICE, name="fast", targets=[{"provider": "House", "model": "house-1"}])
    with pytest.raises(Conflict, match="route fast"):
        credentials.delete_credential(one, actor=ALICE)
    two = credentials.add_credential(provider, actor=ALICE, name="two", fields=secret())
    credentials.delete_credential(one, actor=ALICE)
    assert list(Credential.objects.values_list("name", flat=True)) == ["two"]
    assert CredentialVersion.objects.get().credential_id == two.id
    assert AuditEntry.objects.filter(action="credential.delete", object_name="one").exists()


def test_a_provider_in_use_names_what_uses_it(upstream: Scripted) -> None:
    provider = custom(upstream)
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    route = routes.add_route(actor=ALICE, name="fast", targets=[{"provider": "House", "model": "house-1"}])
    with pytest.raises(Conflict, match="credential main, route fast"):
        delete_provider(provider, actor=ALICE)
    routes.delete_route(route, actor=ALICE)
    credentials.delete_credential(made, actor=ALICE)
    delete_provider(provider, actor=ALICE)
    assert not Provider.objects.exists()


def test_stored_credentials_cannot_be_sent_to_another_host(upstream: Scripted) -> None:
    provider = custom(upstream)
    credentials.add_credential(provider, actor=ALICE, name="main", fields=secret())
    for url in ("https://evil.example/v1", "http://127.0.0.1:1/v1", upstream.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(Conflict, match="stored credentials would be sent there"):
            update_provider(provider, actor=ALICE, changes={"base_url": url})
    moved = update_provider(provider, actor=ALICE, changes={"base_url": upstream.url.replace("/v1", "/v2")})
    assert moved.base_url.endswith("/v2")


def test_only_roles_that_write_may_add_or_test(upstream: Scripted) -> None:
    provider = custom(upstream)
    for role in ("analyst", "auditor"):
        bob = Actor("user", "2", "bob@example.org", role, None)
        with pytest.raises(Forbidden):
            credentials.add_credential(provider, actor=bob, name="main", fields=secret())
        with pytest.raises(Forbidden):
            credentials.verify_all(provider, actor=bob)
    assert upstream.seen == []


def test_the_database_holds_the_secret_nowhere(upstream: Scripted) -> None:
    provider = custom(upstream)
    upstream.says(401, '{"error":{"message":"no ' + KEY + '"}}')
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=secret(), verify=False)
    with pytest.raises(VerificationFailed):
        credentials.verify(made, actor=ALICE)
    dump = ""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT coalesce(string_agg(t::text, chr(10)), $$$$) FROM "{table}" t')
            dump += cursor.fetchone()[0]
    assert str(made.id) in dump
    assert KEY not in dump
    assert KEY.encode().hex() not in dump


def test_a_provider_and_its_first_credential_are_saved_together_after_one_call_or_not_at_all(
    upstream: Scripted,
) -> None:
    given = {"name": "House", "kind": "custom", "base_url": upstream.url}
    new = NewCredential("main", secret())
    upstream.says(401, "{}")
    with pytest.raises(VerificationFailed):
        add_with_credential(actor=ALICE, provider=given, credential=new)
    assert not Provider.objects.exists()
    assert not AuditEntry.objects.exists()
    upstream.says(200, '{"data":[]}')
    upstream.seen.clear()
    made = add_with_credential(actor=ALICE, provider=given, credential=new)
    assert len(upstream.seen) == 1
    assert credentials.health(made.credentials.get()) == "ok"
