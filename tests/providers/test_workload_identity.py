"""Google without a key: identities from elsewhere, exchanged by services that check what they are shown, and the
machine's own. What a configuration may set in motion is narrow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from providers import credentials, routing, supply, vault, workload_identity
from providers.adapters.registry import KINDS
from providers.models import Provider
from providers.providers import add_provider
from providers.secret_fields import parse_fields
from providers.verification import VerificationFailed, check
from tests.harness.clouds import AUDIENCE, Clouds, running_clouds

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
SUBJECT = "subject-canary-9d1e"
pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def server() -> Iterator[Clouds]:
    with running_clouds() as running:
        yield running


@pytest.fixture
def clouds(server: Clouds, settings: Settings) -> Clouds:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    supply.forget()
    server.subjects = {SUBJECT}
    server.refuses, server.denies, server.tokens, server.sent, server.asked = None, False, [], [], []
    return server


def vertex(clouds: Clouds, **options: Any) -> Provider:
    options = {"project": "project-one", **options}
    found = Provider.objects.filter(name="V").first()
    return found or add_provider(
        actor=ALICE, name="V", kind="vertex", region="us-east1", base_url=clouds.url, options=options
    )


def given(**fields: Any) -> Any:
    return parse_fields(KINDS["vertex"], fields=fields)


def impersonating(clouds: Clouds) -> str:
    return f"{clouds.url}/v1/projects/-/serviceAccounts/bot@project-one.iam.gserviceaccount.com:generateAccessToken"


# --- the exchange -------------------------------------------------------------------------------------------------


def test_a_proof_from_an_address_is_exchanged_and_its_token_sent(clouds: Clouds) -> None:
    provider = vertex(clouds)
    done = check(provider, given(credential_config=clouds.federation()))
    assert done.models == ("google/gemini-2.5-flash",)
    assert done.account == AUDIENCE.removeprefix("//iam.googleapis.com/")
    assert clouds.sent[-1][1]["authorization"] == f"Bearer {clouds.tokens[-1]}"
    assert clouds.asked[:2] == ["/subject", "/google/sts/token"]


def test_a_service_account_is_impersonated_where_the_configuration_says_so(clouds: Clouds) -> None:
    config = clouds.federation(service_account_impersonation_url=impersonating(clouds))
    done = check(vertex(clouds), given(credential_config=json.dumps(config)))
    assert done.account == "bot@project-one.iam.gserviceaccount.com"
    assert len(clouds.tokens) == 2
    assert clouds.sent[-1][1]["authorization"] == f"Bearer {clouds.tokens[1]}"
    # Nothing else was asked: google-auth looks nothing up by itself.
    assert [path.rpartition("/")[2].partition("?")[0] for path in clouds.asked] == [
        "subject",
        "token",
        "bot@project-one.iam.gserviceaccount.com:generateAccessToken",
        "models",
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_proof_in_a_file_below_the_allowed_directory_is_read(
    clouds: Clouds, settings: Settings, tmp_path: Path, form: str
) -> None:
    settings.CONDUIT_SECRET_FILES = [str(tmp_path)]
    place = tmp_path / "token"
    place.write_text(SUBJECT if form == "text" else json.dumps({"id_token": SUBJECT}))
    said = {"type": form, **({"subject_token_field_name": "id_token"} if form == "json" else {})}
    config = clouds.federation(credential_source={"file": str(place), "format": said})
    assert check(vertex(clouds), given(credential_config=config)).models


def test_a_file_elsewhere_is_not_read(clouds: Clouds, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    settings.CONDUIT_SECRET_FILES = [str(tmp_path / "allowed")]
    (tmp_path / "outside").write_text(SUBJECT)
    os.symlink(tmp_path / "outside", tmp_path / "allowed" / "link")
    for place in (tmp_path / "outside", tmp_path / "allowed" / "link"):
        fields = given(credential_config=clouds.federation(credential_source={"file": str(place)}))
        with pytest.raises(VerificationFailed, match="CONDUIT_SECRET_FILES"):
            check(vertex(clouds), fields)
    assert clouds.tokens == []


def test_conduits_own_aws_identity_is_a_proof(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    clouds.aws["AKIAIOSFODNN7EXAMPLE"] = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    config = clouds.federation(
        subject_token_type="urn:ietf:params:aws:token-type:aws4_request",
        credential_source={
            "environment_id": "aws1",
            "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
            "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
            "regional_cred_verification_url": "https://sts.{region}.evil.example.org?Action=Other",
        },
    )
    assert check(vertex(clouds), given(credential_config=config)).models
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-canary-secret-0000000000000000000")
    with pytest.raises(VerificationFailed, match="aws4_request") as refused:
        check(vertex(clouds), given(credential_config=config))
    assert "another-canary" not in str(refused.value)


def test_a_refused_exchange_shows_the_services_words_and_no_proof(clouds: Clouds) -> None:
    clouds.subjects = set()  # the service quotes what it was shown
    with pytest.raises(VerificationFailed, match="subject_token") as refused:
        check(vertex(clouds), given(credential_config=clouds.federation()))
    assert "canary" not in str(refused.value)
    clouds.refuses = (403, {"error": "unauthorized_client", "error_description": "The caller lacks a permission."})
    with pytest.raises(VerificationFailed, match="lacks a permission"):
        check(vertex(clouds), given(credential_config=clouds.federation()))


def test_an_impersonation_that_is_denied_names_the_permission(clouds: Clouds) -> None:
    clouds.denies = True
    config = clouds.federation(service_account_impersonation_url=impersonating(clouds))
    with pytest.raises(VerificationFailed, match=r"iam\.serviceAccounts\.getAccessToken"):
        check(vertex(clouds), given(credential_config=config))


@pytest.mark.parametrize("answer", [(200, {}), (200, {"access_token": 7, "expires_in": 9}), (500, {"error": "x"})])
def test_an_exchange_without_a_token_is_told(clouds: Clouds, answer: Any) -> None:
    clouds.refuses = answer
    with pytest.raises(VerificationFailed, match=r"token"):
        check(vertex(clouds), given(credential_config=clouds.federation()))


def test_a_token_serves_and_is_minted_once(clouds: Clouds) -> None:
    provider = vertex(clouds)
    fields = given(credential_config=clouds.federation())
    credentials.add_credential(provider, actor=ALICE, name="main", fields=fields, verify=False)
    routing.load()
    supply.refresh_due()
    (entry,) = routing.load().providers[provider.id].credentials
    assert entry.secrets["access_token"] == clouds.tokens[-1]
    assert entry.secrets["project_id"] == "project-one"
    assert {mask.reveal() for mask in entry.masks()} >= {"proof-canary-71c2", clouds.tokens[-1]}
    assert len(clouds.tokens) == 1


def test_a_project_that_nobody_named_is_asked_for(clouds: Clouds) -> None:
    provider = add_provider(actor=ALICE, name="V", kind="vertex", region="us-east1", base_url=clouds.url)
    with pytest.raises(VerificationFailed, match="No project"):
        check(provider, given(credential_config=clouds.federation()))


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"type": "service_account"}, "", "external_account"),
        ({"audience": "//evil"}, ".audience", "iam.googleapis.com"),
        ({"subject_token_type": 7}, ".subject_token_type", "text"),
        ({"token_url": "https://sts.evil.example.org/v1/token"}, ".token_url", "googleapis.com"),
        ({"token_url": "http://sts.googleapis.com/v1/token"}, ".token_url", "googleapis.com"),
        (
            {"service_account_impersonation_url": "https://evil.example.org/x:generateAccessToken"},
            ".service_account_impersonation_url",
            "googleapis.com",
        ),
        ({"universe_domain": "evil.example.org"}, ".universe_domain", "googleapis.com"),
        ({"credential_source": None}, ".credential_source", "proof of identity"),
        ({"credential_source": {}}, ".credential_source", "either"),
        ({"credential_source": {"file": "/a", "url": "https://b"}}, ".credential_source", "either"),
        ({"credential_source": {"executable": {"command": "/bin/true"}}}, ".credential_source.executable", "program"),
        ({"credential_source": {"file": "/a", "executable": {}}}, ".credential_source.executable", "program"),
        ({"credential_source": {"certificate": {}}}, ".credential_source.certificate", "Certificates"),
        ({"credential_source": {"environment_id": "aws2"}}, ".credential_source.environment_id", "aws1"),
        ({"credential_source": {"url": "http://169.254.169.254/x"}}, ".credential_source.url", "169.254.169.254"),
        ({"credential_source": {"url": "http://10.0.0.1/x?a=b"}}, ".credential_source.url", "private"),
        ({"credential_source": {"url": "ftp://example.org/x"}}, ".credential_source.url", "https"),
        (
            {"credential_source": {"url": "https://example.org/x", "headers": {"A B": "c"}}},
            ".credential_source.headers.A B",
            "plain header",
        ),
        (
            {"credential_source": {"url": "https://example.org/x", "headers": {"A": "c\r\nB: d"}}},
            ".credential_source.headers.A",
            "plain header",
        ),
        ({"credential_source": {"file": "/a", "format": {"type": "xml"}}}, ".credential_source.format", "json"),
        (
            {"credential_source": {"file": "/a", "format": {"type": "json"}}},
            ".credential_source.format.subject_token_field_name",
            "text",
        ),
    ],
)
def test_a_configuration_is_refused_by_its_member(
    clouds: Clouds, changes: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        given(credential_config=clouds.federation(**changes))
    assert refused.value.field == f"fields.credential_config{field}"


def test_what_was_allowed_once_is_asked_no_more(clouds: Clouds, settings: Settings) -> None:
    fields = given(credential_config=clouds.federation())
    settings.CONDUIT_EGRESS_ALLOW = []
    provider = Provider(name="V", kind="vertex", region="us-east1", options={"project": "p"})
    with pytest.raises(vault.Unreadable, match="CONDUIT_EGRESS_ALLOW"):
        supply.complete(provider, fields)
    assert clouds.asked == []


def test_such_tokens_go_to_google_only(clouds: Clouds) -> None:
    provider = Provider(
        name="V", kind="vertex", region="r", base_url="https://models.example.org", options={"project": "p"}
    )
    with pytest.raises(vault.Unreadable, match=r"googleapis\.com"):
        supply.complete(provider, given(credential_config=clouds.federation()))
    assert clouds.tokens == []


@pytest.mark.parametrize("fields", [{}, {"identity": "attached", "credential_config": "{}"}, {"identity": "someone's"}])
def test_one_way_to_sign_in_is_given(clouds: Clouds, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        given(**fields)


# --- the machine's own --------------------------------------------------------------------------------------------


def test_the_machines_own_identity_is_closed_unless_its_address_is_opened(settings: Settings) -> None:
    for allow in ([], ["169.254.0.0/16x"], ["metadata.google.internal"], ["10.0.0.0/8"]):
        settings.CONDUIT_EGRESS_ALLOW = allow
        with pytest.raises(InvalidInput, match="CONDUIT_EGRESS_ALLOW"):
            given(identity="attached")
    settings.CONDUIT_EGRESS_ALLOW = ["169.254.169.254"]
    assert given(identity="attached")["identity"].reveal() == "attached"


def test_the_machines_own_identity_signs_in_with_its_project(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(workload_identity, "METADATA", clouds.url)
    provider = add_provider(actor=ALICE, name="V", kind="vertex", region="us-east1", base_url=clouds.url)
    fields = given(identity="attached")
    done = check(provider, fields)
    assert (done.account, done.models) == ("attached", ("google/gemini-2.5-flash",))
    assert supply.complete(provider, fields)["project_id"] == "project-two"
    clouds.refuses = (404, {})
    with pytest.raises(VerificationFailed, match="metadata server answers with status 404"):
        check(provider, fields)
    settings.CONDUIT_EGRESS_ALLOW = []
    with pytest.raises(vault.Unreadable, match="closed|CONDUIT_EGRESS_ALLOW"):
        supply.complete(provider, fields, fresh=True)
