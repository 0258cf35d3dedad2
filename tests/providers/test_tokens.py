"""Credentials of several fields: each cloud's own way to sign in, proved by services that check what they are shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from pytest_django.fixtures import Settings

from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret
from providers import credentials, kept, masks, routing, supply, tokens, vault
from providers.adapters.registry import KINDS
from providers.models import Provider
from providers.providers import add_provider
from providers.secret_fields import parse_fields
from providers.verification import VerificationFailed, check
from tests.harness.clouds import CLIENT, CLIENT_SECRET, TENANT, Clouds, private_key, running_clouds

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AWS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET_KEY}
ENTRA = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": CLIENT_SECRET}
pytestmark = pytest.mark.django_db


@pytest.fixture
def clouds(settings: Settings) -> Iterator[Clouds]:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    with running_clouds() as running:
        running.aws[AWS["access_key_id"]] = SECRET_KEY
        yield running


def vertex(clouds: Clouds, **options: Any) -> Provider:
    return add_provider(
        actor=ALICE, name="V", kind="vertex", region="us-east1", base_url=clouds.url, options=options or {}
    )


def azure(clouds: Clouds, **options: Any) -> Provider:
    options = {"authority": clouds.url, **options}
    return add_provider(actor=ALICE, name="A", kind="azure_openai", base_url=f"{clouds.url}/openai/v1", options=options)


def bedrock(clouds: Clouds) -> Provider:
    url = f"{clouds.url}/openai/v1"
    return add_provider(actor=ALICE, name="B", kind="bedrock", region="us-east-1", base_url=url)


def given(provider: Provider, **fields: Any) -> dict[str, Secret]:
    return parse_fields(KINDS[provider.kind], fields=fields)


# --- Google --------------------------------------------------------------------------------------------------------


def test_a_service_account_signs_in_and_tells_its_project(clouds: Clouds) -> None:
    provider = vertex(clouds)
    done = check(provider, given(provider, service_account=clouds.account()))
    assert done.models == ("google/gemini-2.5-flash",)
    assert done.account == "project-one"
    assert clouds.sent[-1][1]["authorization"] == f"Bearer {clouds.tokens[-1]}"


def test_a_key_file_pasted_as_text_is_taken_and_sealed_whole(clouds: Clouds) -> None:
    provider = vertex(clouds)
    text = json.dumps(clouds.account(), indent=2)
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields={"service_account": Secret(text)})
    version = credentials.active(made)
    assert version is not None
    assert json.loads(vault.open_version(version)["service_account"].reveal()) == clouds.account()
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(f::text, '') FROM providers_credentialfield f")
        stored = cursor.fetchone()[0]
    assert private_key()[100:140] not in stored
    assert "PRIVATE KEY" not in stored


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "authorized_user"}, ""),
        ({"type": None}, ""),
        ({"project_id": ""}, ".project_id"),
        ({"client_email": 7}, ".client_email"),
        ({"client_email": "nobody"}, ".client_email"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nnonsense-canary\n-----END PRIVATE KEY-----\n"}, ".private_key"),
        ({"token_uri": "https://evil.example.org/token"}, ".token_uri"),
        ({"token_uri": "https://googleapis.com.evil.example.org/token"}, ".token_uri"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, ".token_uri"),
        ({"token_uri": "https://evilgoogleapis.com/token"}, ".token_uri"),
        ({"token_uri": "not a url"}, ".token_uri"),
    ],
)
def test_a_key_file_that_cannot_work_is_refused_by_its_member(
    clouds: Clouds, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fields(KINDS["vertex"], fields={"service_account": clouds.account(**changes)})
    assert refused.value.field == f"fields.service_account{field}"
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("value", ["{", "[]", 7, '"text"', "x" * 20_000])
def test_what_is_no_key_file_at_all_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fields(KINDS["vertex"], fields={"service_account": value})
    assert refused.value.field == "fields.service_account"


def test_an_address_that_was_allowed_once_gets_no_assertion_later(clouds: Clouds, settings: Settings) -> None:
    provider = vertex(clouds)
    fields = given(provider, service_account=clouds.account())
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=fields, verify=False)
    settings.CONDUIT_EGRESS_ALLOW = []
    problem = credentials.problem(made)
    assert problem is not None
    assert "CONDUIT_EGRESS_ALLOW" in problem.reason
    assert clouds.tokens == []
    routing.load()
    supply.refresh_due()  # nor does it end the thread


def test_a_token_uri_of_google_is_taken() -> None:
    account = Clouds("").account(token_uri="https://oauth2.googleapis.com/token")
    assert parse_fields(KINDS["vertex"], fields={"service_account": account})


def test_a_refused_assertion_shows_the_services_words_and_no_secret(clouds: Clouds) -> None:
    provider = vertex(clouds)
    clouds.refuses = (400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"})
    with pytest.raises(VerificationFailed) as refused:
        check(provider, given(provider, service_account=clouds.account()))
    assert "account not found" in refused.value.detail
    assert refused.value.guidance
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize("answer", [(200, {}), (200, {"access_token": 7, "expires_in": 1}), (503, {}), (302, {})])
def test_a_token_service_that_gives_no_token_is_told(clouds: Clouds, answer: tuple[int, dict[str, Any]]) -> None:
    provider = vertex(clouds)
    clouds.refuses = answer
    with pytest.raises(VerificationFailed, match=r"127\.0\.0\.1"):
        check(provider, given(provider, service_account=clouds.account()))
    assert clouds.sent == []


def _carried(provider: Provider) -> dict[str, str]:
    (entry,) = routing.load().providers[provider.id].credentials
    return dict(entry.secrets)


def test_a_token_is_minted_ahead_and_renewed_before_it_ends(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = 0.0
    monkeypatch.setattr(kept, "monotonic", lambda: time.monotonic() + ahead)
    provider = vertex(clouds)
    fields = given(provider, service_account=clouds.account())
    credentials.add_credential(provider, actor=ALICE, name="main", fields=fields, verify=False)
    assert routing.load().providers[provider.id].credentials == ()
    assert clouds.tokens == []  # drawing the picture mints nothing
    supply.refresh_due()
    assert len(clouds.tokens) == 1
    assert _carried(provider)["access_token"] == clouds.tokens[0]
    for _ in range(3):
        supply.refresh_due()
        _carried(provider)
    assert len(clouds.tokens) == 1
    ahead = 3600 - 240  # within its last five minutes, and still good
    assert _carried(provider)["access_token"] == clouds.tokens[0]
    before = supply.generation()
    supply.refresh_due()
    assert supply.generation() != before
    assert _carried(provider)["access_token"] == clouds.tokens[1]


def test_a_token_is_used_to_its_end_while_the_service_is_away_and_no_longer(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    monkeypatch.setattr(kept, "monotonic", lambda: time.monotonic() + ahead)
    provider = vertex(clouds)
    fields = given(provider, service_account=clouds.account())
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=fields)
    routing.load()
    supply.refresh_due()
    clouds.refuses = (503, {"error": "unavailable"})
    ahead = 3500
    supply.refresh_due()
    assert _carried(provider)["access_token"] == clouds.tokens[-1]
    ahead = 3600
    supply.refresh_due()
    picture = routing.load().providers[provider.id]
    assert (picture.credentials, picture.unreadable) == ((), ("main",))
    assert credentials.health(made) == "unreadable"
    clouds.refuses = None
    ahead += kept.RETRY_SECONDS
    supply.refresh_due()
    assert _carried(provider)["access_token"] == clouds.tokens[-1]


def test_neither_token_nor_secret_shows_when_printed(clouds: Clouds) -> None:
    provider = vertex(clouds)
    fields = given(provider, service_account=clouds.account())
    plain = supply.complete(provider, fields)
    wanted = tokens.claim(KINDS["vertex"], {name: secret.reveal() for name, secret in fields.items()}, provider)
    assert "PRIVATE" not in repr(wanted)
    masked = {secret.reveal() for secret in masks.masks(plain)}
    assert {plain["access_token"], clouds.account()["private_key"]} <= masked
    assert "project-one" not in masked


# --- Azure ---------------------------------------------------------------------------------------------------------


def test_an_application_of_entra_id_signs_in_and_tells_its_tenant(clouds: Clouds) -> None:
    provider = azure(clouds)
    done = check(provider, given(provider, **ENTRA))
    assert (done.models, done.account) == (("gpt-4o",), TENANT)
    path, headers, _ = clouds.sent[-1]
    assert path == "/openai/v1/models"
    assert headers["authorization"] == f"Bearer {clouds.tokens[-1]}"
    assert "api-key" not in headers


def test_a_wrong_client_secret_is_told_in_the_services_words_without_it(clouds: Clouds) -> None:
    provider = azure(clouds)
    wrong = "entra-wrong-canary-0a1b2c3d"
    with pytest.raises(VerificationFailed, match="AADSTS7000215") as refused:
        check(provider, given(provider, **{**ENTRA, "client_secret": wrong}))
    assert wrong not in str(refused.value)


def test_a_key_of_the_resource_is_sent_in_azures_header(clouds: Clouds) -> None:
    provider = azure(clouds)
    clouds.api_keys.add("azure-key-0123456789abcdef")
    done = check(provider, given(provider, api_key="azure-key-0123456789abcdef"))
    assert done.account == ""
    assert "authorization" not in clouds.sent[-1][1]
    assert clouds.tokens == []


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("azure_openai", {}, "fields"),
        ("azure_openai", {"api_key": "k", "client_secret": "s"}, "fields"),
        ("azure_openai", {"tenant_id": "t", "client_id": "c"}, "fields.client_secret"),
        ("bedrock", {}, "fields"),
        ("bedrock", {"region": "us-east-1"}, "fields.region"),
        ("bedrock", {"access_key_id": "AKIA"}, "fields.secret_access_key"),
        ("bedrock", {"api_key": "k", **AWS}, "fields"),
        ("bedrock", {"role_arn": "arn:aws:iam::1:role/x"}, "fields"),
    ],
)
def test_exactly_one_way_to_sign_in_is_given_whole(kind: str, fields: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fields(KINDS[kind], fields=fields)
    assert refused.value.field == field
    assert SECRET_KEY not in str(refused.value)


# --- AWS -----------------------------------------------------------------------------------------------------------


def test_aws_keys_sign_the_call_and_tell_their_account(clouds: Clouds, aws: str) -> None:
    provider = bedrock(clouds)
    done = check(provider, given(provider, **AWS))
    assert done.models == ("openai.gpt-oss-20b-1:0",)
    assert done.account == "123456789012"
    path, headers, _ = clouds.sent[-1]
    assert path == "/foundation-models"
    assert "us-east-1/bedrock/aws4_request" in headers["authorization"]


def test_wrong_aws_keys_are_rejected_with_guidance(clouds: Clouds, aws: str) -> None:
    provider = bedrock(clouds)
    with pytest.raises(VerificationFailed) as refused:
        check(provider, given(provider, **{**AWS, "secret_access_key": "wrong-canary-0123456789abcdef"}))
    assert refused.value.status == 401
    assert "bedrock:InvokeModel" in refused.value.guidance


def test_a_role_is_assumed_and_its_keys_sign(clouds: Clouds, aws: str) -> None:
    provider = bedrock(clouds)
    fields = given(provider, **AWS, role_arn="arn:aws:iam::210987654321:role/models", external_id="ours")
    plain = supply.complete(provider, fields)
    assert plain["access_key_id"].startswith("ASIA")
    assert plain["session_token"]
    clouds.aws[plain["access_key_id"]] = plain["secret_access_key"]
    credentials.add_credential(provider, actor=ALICE, name="main", fields=fields, verify=False)
    routing.load()
    supply.refresh_due()
    assert _carried(provider)["access_key_id"].startswith("ASIA")


def test_a_region_service_that_is_away_makes_the_role_unreadable(clouds: Clouds, aws: str, settings: Settings) -> None:
    settings.CONDUIT_AWS_ENDPOINT = "http://127.0.0.1:9"
    provider = bedrock(clouds)
    with pytest.raises(VerificationFailed, match="could not be asked") as refused:
        check(provider, given(provider, **AWS, role_arn="arn:aws:iam::210987654321:role/models"))
    assert SECRET_KEY not in str(refused.value)


@pytest.mark.parametrize("told", ["xml", "nonsense"])
def test_what_aws_quotes_of_a_secret_is_masked(clouds: Clouds, aws: str, settings: Settings, told: str) -> None:
    settings.CONDUIT_AWS_ENDPOINT = clouds.url
    error = f"<Error><Code>AccessDenied</Code><Message>Not with {SECRET_KEY} and outside-canary.</Message></Error>"
    clouds.says = f"<ErrorResponse>{error}</ErrorResponse>".encode() if told == "xml" else SECRET_KEY.encode()
    provider = bedrock(clouds)
    fields = given(provider, **AWS, role_arn="arn:aws:iam::210987654321:role/models", external_id="outside-canary")
    with pytest.raises(vault.Unreadable, match="AccessDenied: Not with" if told == "xml" else "ParserError") as red:
        supply.complete(provider, fields)
    assert SECRET_KEY not in str(red.value)
    assert "outside-canary" not in str(red.value)


def test_a_bedrock_key_is_sent_as_a_bearer(clouds: Clouds) -> None:
    provider = bedrock(clouds)
    clouds.api_keys.add("ABSKbedrock-0123456789")
    assert check(provider, given(provider, api_key="ABSKbedrock-0123456789")).account == ""
    assert clouds.sent[-1][1]["authorization"] == "Bearer ABSKbedrock-0123456789"


# --- secret headers ------------------------------------------------------------------------------------------------


def test_secret_headers_of_a_custom_endpoint_are_sealed_sent_and_masked(clouds: Clouds) -> None:
    provider = add_provider(actor=ALICE, name="C", kind="custom", base_url=f"{clouds.url}/v1", options={"auth": "none"})
    clouds.api_keys.add("header-canary-0123456789")
    headers = {"Api-Key": "header-canary-0123456789", "X-Tenant": "t"}
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields={"headers": headers})
    assert clouds.sent[-1][1]["api-key"] == "header-canary-0123456789"
    assert clouds.sent[-1][1]["x-tenant"] == "t"
    plain = supply.complete(provider, vault.open_version(credentials.active(made)))  # type: ignore[arg-type]
    assert "header-canary-0123456789" in {secret.reveal() for secret in masks.masks(plain)}
    assert "canary" not in credentials.hint(made)


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Host": "evil"}, "fields.headers.Host"),
        ({"Content-Length": "1"}, "fields.headers.Content-Length"),
        ({"X-A": "one\r\nX-B: two"}, "fields.headers.X-A"),
        ({"X A": "v"}, "fields.headers.X A"),
        ({"X-A": 7}, "fields.headers.X-A"),
        ({"X-A": "ü"}, "fields.headers.X-A"),
        ({f"X-{n}": "v" for n in range(40)}, "fields.headers"),
        ("{", "fields.headers"),
        ([], "fields.headers"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_by_name(headers: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_fields(KINDS["custom"], fields={"headers": headers})
    assert refused.value.field == field


def test_each_field_of_a_credential_is_encrypted_by_itself(clouds: Clouds) -> None:
    provider = bedrock(clouds)
    made = credentials.add_credential(provider, actor=ALICE, name="main", fields=given(provider, **AWS), verify=False)
    version = credentials.active(made)
    assert version is not None
    rows = {row.name: bytes(row.ciphertext) for row in version.fields.all()}
    assert rows.keys() == AWS.keys()
    assert all(text.encode() not in blob for blob in rows.values() for text in AWS.values())
