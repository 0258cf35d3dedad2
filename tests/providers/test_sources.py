"""Fields by reference: the reference is sealed, the secret is read where it lives, and what cannot be read is red."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.session import Session
from django.test import Client
from pytest_django.fixtures import Settings

from conduit.access.tokens import create_token
from conduit.core import keyring
from conduit.core.actor import SYSTEM, Actor
from conduit.core.errors import Conflict, Forbidden, InvalidInput
from conduit.core.models import AuditEntry, Epoch
from conduit.core.secret import Secret
from providers import aws as aws_calls
from providers import credentials, kept, routing, sources, supply, vault
from providers.adapters.registry import KINDS
from providers.models import Credential, CredentialField, Provider, VersionState
from providers.providers import add_provider
from providers.references import Reference, parse_reference
from providers.secret_fields import parse_fields
from providers.verification import VerificationFailed
from tests.harness.vault_server import VaultServer
from tests.providers.conftest import Scripted

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
BOB = Actor("user", "2", "bob@example.org", "auditor", None)
KEY = "sk-external-canary-90b2c7d41e"
NAME = "CONDUIT_SECRET_TEST_KEY"
pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    """A directory that secrets may be read from."""
    settings.CONDUIT_SECRET_FILES = [str(tmp_path / "allowed")]
    (tmp_path / "allowed").mkdir()
    return tmp_path / "allowed"


def house(upstream: Scripted) -> Provider:
    return add_provider(actor=ALICE, name="House", kind="custom", base_url=upstream.url)


def added(provider: Provider, reference: str, **given: Any) -> Credential:
    fields = {"api_key": {"from": reference}}
    return credentials.add_credential(provider, actor=ALICE, name="main", fields=fields, **given)


def read(reference: str) -> str:
    return sources.resolve({"api_key": Reference(reference)}, fresh=True)["api_key"].reveal()


def red(reference: str) -> vault.Unreadable:
    with pytest.raises(vault.Unreadable) as found:
        read(reference)
    return found.value


# --- what may be named ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        "env:CONDUIT_KEK_K1",
        "env:DJANGO_SECRET_KEY",
        "env:DATABASE_URL",
        "env:CONDUIT_SECRET_",
        "env:conduit_secret_x",
        "env:CONDUIT_SECRET_A\nB",
        "file:relative/path",
        "file:/run/secrets/../../etc/passwd",
        "vault:secret/openai",
        "vault:secret#key",
        "vault:secret/../sys/raw#key",
        "vault:secret/./x#key",
        "vault:secret//x#key",
        "aws-sm:",
        "aws-sm:name#",
        "aws-sm:na me",
        "http://example.org/key",
        KEY,
        "",
        f"env:CONDUIT_SECRET_{'X' * 400}",
    ],
)
def test_what_may_not_be_named_is_refused_by_field_and_never_quoted(reference: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fields(KINDS["openai"], fields={"api_key": {"from": reference}})
    assert refused.value.field == "fields.api_key"
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("value", [{"from": 7}, {"from": "env:CONDUIT_SECRET_A", "else": 1}, {}, ["env:X"]])
def test_other_shapes_of_a_reference_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        parse_fields(KINDS["openai"], fields={"api_key": value})


# --- where it is read ----------------------------------------------------------------------------------------------


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, f"{KEY}\n")
    assert read(f"env:{NAME}") == KEY
    monkeypatch.delenv(NAME)
    assert NAME in red(f"env:{NAME}").reason


def test_a_file_is_read_below_the_named_directories_only(folder: Path) -> None:
    (folder / "key").write_text(KEY + "\n")
    assert read(f"file:{folder}/key") == KEY
    outside = folder.parent / "outside"
    outside.write_text("not-for-you")
    (folder / "link-out").symlink_to(outside)
    (folder / "link-in").symlink_to(folder / "key")
    assert read(f"file:{folder}/link-in") == KEY
    for path in (outside, folder / "link-out", folder.parent / "allowed-too"):
        refused = red(f"file:{path}")
        assert "CONDUIT_SECRET_FILES" in refused.reason
        assert "not-for-you" not in str(refused)


def test_conduits_own_secrets_are_not_read_although_they_lie_there(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "kek").write_text("not-for-you")
    (folder / "home").mkdir()
    (folder / "home" / "secrets").write_text("not-for-you")
    (folder / "link").symlink_to(folder / "kek")
    assert read(f"file:{folder}/kek") == "not-for-you"
    monkeypatch.setenv("CONDUIT_KEK_K9_FILE", str(folder / "kek"))
    (folder / "near").write_text("not-for-you")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DJANGO_SECRET_KEY_FILE", "near")
    settings.CONDUIT_HOME = folder / "home"
    for name in ("kek", "link", "home/secrets", "near"):
        refused = red(f"file:{folder}/{name}")
        assert "of Conduit itself" in refused.reason
        assert "not-for-you" not in str(refused)


def test_what_is_no_readable_text_is_red_and_hangs_nobody(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "empty").write_text("\n")
    (folder / "large").write_text("x" * 70_000)
    began = time.monotonic()
    for name in ("pipe", "binary", "empty", "large", "absent", "."):
        assert red(f"file:{folder}/{name}").reason.startswith("api_key from file:")
    assert time.monotonic() - began < 10


def test_a_field_in_vault_is_read_with_a_token(vault_server: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    vault_server.kv["team/openai"] = {"api_key": KEY, "number": 7}
    token = vault_server.token(ttl=60, paths=["secret/data/team/*"])
    monkeypatch.setenv("CONDUIT_VAULT_TOKEN", token)
    assert read("vault:secret/team/openai#api_key") == KEY
    vault_server.kv["team/openai"] = {"api_key": "sk-newer"}
    assert read("vault:secret/team/openai#api_key") == "sk-newer"
    assert "no text named other" in red("vault:secret/team/openai#other").reason
    assert "nothing at secret/team/absent" in red("vault:secret/team/absent#api_key").reason
    denied = red("vault:secret/private/openai#api_key")
    assert "secret/data/private/openai" in denied.fix
    vault_server.sealed = True
    sealed = red("vault:secret/team/openai#api_key")
    assert "sealed" in sealed.reason
    assert token not in f"{denied}{sealed}"


def test_a_field_in_vault_is_read_with_an_approle(vault_server: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    vault_server.kv["openai"] = {"api_key": KEY}
    role, secret = vault_server.role("conduit", paths=["secret/data/openai"])
    monkeypatch.delenv("CONDUIT_VAULT_TOKEN", raising=False)
    monkeypatch.setenv("CONDUIT_VAULT_ROLE_ID", role)
    monkeypatch.setenv("CONDUIT_VAULT_SECRET_ID", secret)
    assert read("vault:secret/openai#api_key") == KEY
    assert vault_server.count("auth/approle/login") == 1
    assert read("vault:secret/openai#api_key") == KEY
    assert vault_server.count("auth/approle/login") == 1  # the token is kept


def test_a_vault_that_hangs_ends_at_the_deadline(vault_server: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUIT_VAULT_TOKEN", vault_server.root)
    vault_server.kv["openai"] = {"api_key": KEY}
    vault_server.delay = 8.0
    began = time.monotonic()
    red("vault:secret/openai#api_key")
    assert time.monotonic() - began < 7.5
    vault_server.delay = 0.0


def test_without_a_vault_the_variable_is_named(settings: Settings) -> None:
    settings.CONDUIT_VAULT_ADDR = ""
    assert "CONDUIT_VAULT_ADDR" in red("vault:secret/openai#api_key").fix


def _aws(url: str, target: str, **body: str) -> dict[str, Any]:
    headers = {
        "x-amz-target": f"secretsmanager.{target}",
        "content-type": "application/x-amz-json-1.1",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIAGATEWAY/20260101/eu-west-1/secretsmanager/aws4_request",
    }
    answer = httpx.post(url, headers=headers, content=json.dumps(body), trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_secret_of_aws_secrets_manager_is_read(aws: str) -> None:
    arn = _aws(aws, "CreateSecret", Name="prod/openai", SecretString=json.dumps({"key": KEY}))["ARN"]
    _aws(aws, "CreateSecret", Name="prod/plain", SecretString=KEY)
    assert read("aws-sm:prod/plain") == KEY
    assert read("aws-sm:prod/openai#key") == KEY
    assert read(f"aws-sm:{arn}#key") == KEY
    _aws(aws, "PutSecretValue", SecretId="prod/plain", SecretString="sk-newer")
    assert read("aws-sm:prod/plain") == "sk-newer"
    assert "no" in red("aws-sm:prod/openai#other").reason
    absent = red("aws-sm:prod/absent")
    assert "ResourceNotFoundException" in absent.reason
    assert "region" in absent.fix


def test_the_client_of_conduits_own_identity_is_made_once_and_again_after_a_refusal(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _aws(aws, "CreateSecret", Name="kept/plain", SecretString=KEY)
    made: list[str] = []
    create = Session.create_client

    def counted(self: Session, service: str, *rest: Any, **options: Any) -> Any:
        made.append(service)
        return create(self, service, *rest, **options)

    monkeypatch.setattr(Session, "create_client", counted)
    assert [read("aws-sm:kept/plain") for _ in range(3)] == [KEY] * 3
    assert "ResourceNotFoundException" in red("aws-sm:kept/absent").reason
    assert made == ["secretsmanager"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    aws_calls._own_client.cache_clear()
    assert "no AWS identity" in red("aws-sm:kept/plain").reason
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAGATEWAY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "own")
    assert read("aws-sm:kept/plain") == KEY


def test_aws_that_cannot_be_reached_or_has_no_region_is_told(
    aws: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    assert "profile" in red("aws-sm:prod/plain").reason
    monkeypatch.delenv("AWS_PROFILE")
    settings.CONDUIT_AWS_ENDPOINT = "http://127.0.0.1:9"
    assert "could not be asked" in red("aws-sm:prod/plain").reason
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    assert "AWS_REGION" in red("aws-sm:prod/plain").fix


# --- in a credential -----------------------------------------------------------------------------------------------


def test_the_reference_is_sealed_and_the_secret_is_stored_nowhere(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    made = added(house(upstream), f"file:{folder}/key")
    assert upstream.seen[-1][1]["authorization"] == f"Bearer {KEY}"
    version = credentials.active(made)
    assert version is not None
    assert vault.open_version(version) == {"api_key": Reference(f"file:{folder}/key")}
    row = version.fields.get()
    assert row.source
    assert credentials.hint(made) == f"file:{folder}/key"
    for entry in AuditEntry.objects.all():
        assert KEY not in str(entry.after)
    assert credentials.health(made) == "ok"


def test_a_mark_that_was_turned_does_not_open(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    provider = house(upstream)
    made = added(provider, f"file:{folder}/key")
    plain = credentials.add_credential(
        provider, actor=ALICE, name="plain", fields={"api_key": Secret(f"file:{folder}/key")}
    )
    for credential in (made, plain):
        version = credentials.active(credential)
        assert version is not None
        row = version.fields.get()
        CredentialField.objects.filter(pk=row.pk).update(source=not row.source)
        assert credentials.health(credentials.find(str(credential.id))) == "unreadable"


def test_a_source_that_gives_nothing_saves_nothing(upstream: Scripted, folder: Path) -> None:
    with pytest.raises(VerificationFailed) as refused:
        added(house(upstream), f"file:{folder}/absent")
    assert "No such file" in refused.value.detail
    assert refused.value.guidance
    assert not Credential.objects.exists()
    assert upstream.seen == []


def test_a_value_that_no_header_can_carry_is_red(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text("sk-two\nlines")
    made = added(house(upstream), f"file:{folder}/key", verify=False)
    problem = credentials.problem(made)
    assert problem is not None
    assert "line break" in problem.reason
    assert "sk-two" not in str(problem)


def test_a_credential_whose_source_is_gone_turns_red_and_recovers(
    upstream: Scripted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "key").write_text(KEY)
    made = added(house(upstream), f"file:{folder}/key")
    (folder / "key").unlink()
    assert credentials.health(made) == "ok"  # what was read a moment ago is still good
    ahead = 0.0
    monkeypatch.setattr(kept, "monotonic", lambda: time.monotonic() + ahead)
    ahead = sources.REFRESH_SECONDS
    assert credentials.health(made) == "ok"  # the last good value, for a minute
    ahead += sources.GRACE_SECONDS
    assert credentials.health(made) == "unreadable"
    problem = credentials.problem(made)
    assert problem is not None
    assert f"file:{folder}/key" in problem.reason
    assert problem.fix
    (folder / "key").write_text(KEY)
    ahead += kept.RETRY_SECONDS
    assert credentials.health(made) == "ok"


def _picture(provider: Provider) -> dict[str, str]:
    """What the data plane would send now, by credential."""
    entry = routing.load().providers[provider.id]
    return {one.name: one.secrets["api_key"] for one in entry.credentials}


def test_the_data_planes_picture_never_waits_and_follows_the_source(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    provider = house(upstream)
    made = added(provider, f"file:{folder}/key", verify=False)
    assert _picture(provider) == {}
    assert routing.load().providers[provider.id].unreadable == ()  # pending is no failure
    before = supply.generation()
    supply.refresh_due()
    assert supply.generation() != before
    assert _picture(provider) == {"main": KEY}
    (folder / "key").write_text("sk-newer-0123456789")
    assert _picture(provider) == {"main": KEY}
    before = supply.generation()
    epoch = Epoch.objects.get(id=1).snapshot
    supply.refresh(made, actor=ALICE)
    assert supply.generation() != before
    assert Epoch.objects.get(id=1).snapshot > epoch  # every other worker hears of it
    assert _picture(provider) == {"main": "sk-newer-0123456789"}


def test_another_worker_reads_anew_when_it_hears_of_a_refresh(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    provider = house(upstream)
    made = added(provider, f"file:{folder}/key", verify=False)
    _picture(provider)
    supply.refresh_due()
    (folder / "key").write_text("sk-newer-0123456789")
    CredentialField.objects.filter(version__credential=made).update(asked_at="2026-01-01T00:00:00Z")  # by the other
    assert _picture(provider) == {"main": KEY}
    supply.refresh_due()
    assert _picture(provider) == {"main": "sk-newer-0123456789"}


def test_a_version_that_will_serve_soon_is_read_before(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    (folder / "next").write_text("sk-next-0123456789")
    provider = house(upstream)
    made = added(provider, f"file:{folder}/key", verify=False)
    vault.seal_version(made, {"api_key": parse_reference("", f"file:{folder}/next")}, number=2)
    _picture(provider)
    supply.refresh_due()
    assert sources.secrets.get(f"file:{folder}/next", wait=False) == "sk-next-0123456789"


@pytest.mark.parametrize("instead", [VersionState.RETIRING, VersionState.VERIFYING])
def test_while_the_active_version_is_not_read_another_one_serves(
    upstream: Scripted, folder: Path, instead: VersionState
) -> None:
    provider = house(upstream)
    made = added(provider, f"file:{folder}/absent", verify=False)
    other = vault.seal_version(made, {"api_key": Secret("sk-instead-0123456789")}, number=2, state=instead)
    other.share = 10 if instead == VersionState.VERIFYING else 0
    other.save(update_fields=["share"])
    assert _picture(provider) == {"main": "sk-instead-0123456789"}  # pending
    supply.refresh_due()
    assert _picture(provider) == {"main": "sk-instead-0123456789"}  # unreadable
    (folder / "absent").write_text(KEY)
    supply.refresh(made, actor=ALICE)
    assert _picture(provider) == {"main": KEY}


def test_refreshing_by_the_api_tells_each_source_and_needs_the_role(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    made = added(house(upstream), f"file:{folder}/key")
    _, raw = create_token(actor=SYSTEM, name="t", role="operator")
    client = Client(headers={"authorization": f"Bearer {raw.reveal()}"})
    path = f"/api/v1/credentials/{made.id}/refresh"
    answer = client.post(path, "{}", content_type="application/json")
    assert answer.status_code == 200
    assert answer.json() == {
        "ok": True,
        "sources": [{"field": "api_key", "source": f"file:{folder}/key", "ok": True, "detail": ""}],
    }
    shown = client.get(f"/api/v1/credentials/{made.id}").json()
    assert shown["sources"] == {"api_key": f"file:{folder}/key"}
    (folder / "key").unlink()
    told = client.post(path, "{}", content_type="application/json").json()
    # the last good value is still in use, and yet the person who asked learns that the source failed
    assert told["ok"] is False
    assert "No such file" in told["sources"][0]["detail"]
    assert KEY not in str(told)
    entry = AuditEntry.objects.filter(action="credential.refresh").latest("id")
    assert entry.after is not None
    assert "No such file" in str(entry.after)
    with pytest.raises(Forbidden):
        supply.refresh(made, actor=BOB)
    own = credentials.add_credential(made.provider, actor=ALICE, name="own", fields={"api_key": Secret(KEY)})
    with pytest.raises(Conflict, match="No field of the credential own"):
        supply.refresh(own, actor=ALICE)


def test_a_credential_by_reference_is_added_by_the_api(upstream: Scripted, folder: Path) -> None:
    (folder / "key").write_text(KEY)
    provider = house(upstream)
    _, raw = create_token(actor=SYSTEM, name="t", role="operator")
    client = Client(headers={"authorization": f"Bearer {raw.reveal()}"})
    body = {"name": "main", "fields": {"api_key": {"from": f"file:{folder}/key"}}}
    path = f"/api/v1/providers/{provider.id}/credentials"
    made = client.post(path, json.dumps(body), content_type="application/json")
    assert made.status_code == 201, made.content
    assert made.json()["hint"] == f"file:{folder}/key"
    body = {"name": "bad", "fields": {"api_key": {"from": "env:DATABASE_URL"}}}
    refused = client.post(path, json.dumps(body), content_type="application/json")
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] == "fields.api_key"


def test_the_key_ring_is_asked_before_any_source(upstream: Scripted, folder: Path, ring: pytest.MonkeyPatch) -> None:
    (folder / "key").write_text(KEY)
    made = added(house(upstream), f"file:{folder}/key")
    (folder / "key").unlink()  # would be a problem too, if one came so far
    ring.setenv("CONDUIT_KEK_OTHER", "A" * 43 + "=")
    keyring.reset()
    problem = credentials.problem(made)
    assert problem is not None
    assert "key-encryption key" in problem.reason
