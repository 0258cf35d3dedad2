from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conduit.core import vault_http
from conduit.core.errors import ConfigurationError
from conduit.core.vault_http import VaultClient, VaultDenied, VaultMissing, VaultRefused, VaultUnreachable
from tests.harness.gateway import wait_for
from tests.harness.vault_server import VaultServer, running_vault


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not what is tested here."""
    monkeypatch.setattr(vault_http, "DEADLINE", 30.0)


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with running_vault() as server:
        server.kv["openai"] = {"api_key": "sk-one"}
        yield server


def client(vault: VaultServer, token: str = "", **environment: str) -> VaultClient:
    environment.setdefault(vault_http.TOKEN, token or vault.root)
    return VaultClient(vault.address, vault.namespace, environment=environment)


def test_a_secret_is_read_and_written(vault: VaultServer) -> None:
    one = client(vault)
    assert one.read("secret/data/openai")["data"] == {"api_key": "sk-one"}
    assert one.write("secret/data/openai", {"data": {"api_key": "sk-two"}})["version"] == 2
    assert one.read("/secret/data/openai")["data"] == {"api_key": "sk-two"}
    assert one.read("secret/data/openai", version=1)["data"] == {"api_key": "sk-one"}


def test_each_cause_has_its_own_error_without_the_token(vault: VaultServer) -> None:
    narrow = vault.token(ttl=60, paths=["secret/data/openai"])
    one = client(vault, narrow)
    with pytest.raises(VaultDenied, match="secret/data/other") as denied:
        one.read("secret/data/other")
    with pytest.raises(VaultMissing):
        client(vault).read("secret/data/absent")
    with pytest.raises(VaultRefused, match="encryption key not found"):
        client(vault).write("transit/encrypt/absent", {"plaintext": ""})
    with pytest.raises(VaultDenied) as wrong:
        client(vault, "hvs.not-a-token-of-ours").read("secret/data/openai")
    assert narrow not in str(denied.value)
    assert "not-a-token" not in str(wrong.value)
    vault.sealed = True
    with pytest.raises(VaultUnreachable, match="sealed"):
        one.read("secret/data/openai")


@pytest.mark.parametrize("path", ["", "secret//data", "../sys/seal", "secret/../sys/seal"])
def test_a_path_cannot_leave_its_place(vault: VaultServer, path: str) -> None:
    one = client(vault)
    with pytest.raises(VaultRefused):
        one.read(path)
    with pytest.raises(VaultMissing):
        one.read("secret/data/openai?version=1#x")  # a part of the name, not a query
    assert vault.requests[-1][1] == "secret/data/openai?version=1#x"


def test_a_server_that_hangs_is_given_up_in_time(vault: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_http, "DEADLINE", 0.3)
    late = client(vault)
    vault.delay = 3.0
    began = time.monotonic()
    with pytest.raises(VaultUnreachable, match="no answer"):
        late.read("secret/data/openai")
    assert time.monotonic() - began < 2.9
    vault.delay = 0.0

    def answered() -> bool:
        with suppress(VaultUnreachable):
            return bool(late.read("secret/data/openai"))
        return False

    wait_for(answered)


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(VaultUnreachable, match="127.0.0.1:9 cannot be reached"):
        VaultClient("http://127.0.0.1:9", environment={vault_http.TOKEN: "t"}).read("secret/data/x")


def test_an_approle_signs_in_and_again_when_its_token_is_gone(vault: VaultServer, tmp_path: Path) -> None:
    role, secret = vault.role("conduit")
    file = tmp_path / "secret-id"
    file.write_text(secret + "\n")
    one = VaultClient(vault.address, environment={vault_http.ROLE_ID: role, f"{vault_http.SECRET_ID}_FILE": str(file)})
    one.read("secret/data/openai")
    one.read("secret/data/openai")
    assert vault.count("approle/login") == 1
    (token,) = set(vault.tokens) - {vault.root}
    vault.revoke(token)
    assert one.read("secret/data/openai")["data"] == {"api_key": "sk-one"}
    assert vault.count("approle/login") == 2
    file.write_text("wrong")
    (token,) = set(vault.tokens) - {vault.root}
    vault.revoke(token)
    with pytest.raises(VaultDenied, match="invalid role or secret ID") as denied:
        one.read("secret/data/openai")
    assert "wrong" not in str(denied.value)


def test_a_token_is_renewed_when_two_thirds_of_its_lease_are_over(vault: VaultServer) -> None:
    one = client(vault, vault.token(ttl=3000))
    one.read("secret/data/openai")
    session = one._session
    assert session is not None
    assert session.renew_at is not None
    assert 1900 < session.renew_at - time.monotonic() <= 2000
    assert vault.count("renew-self") == 0
    session.renew_at = time.monotonic()
    one.read("secret/data/openai")
    one.read("secret/data/openai")
    assert vault.count("renew-self") == 1
    assert one._session is not session


def test_a_token_file_that_an_agent_replaces_is_read_again(vault: VaultServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    first, second = vault.token(ttl=60), vault.token(ttl=60)
    file.write_text(first)
    one = VaultClient(vault.address, environment={f"{vault_http.TOKEN}_FILE": str(file)})
    one.read("secret/data/openai")
    vault.revoke(first)
    with pytest.raises(VaultDenied):
        one.read("secret/data/openai")
    file.write_text(second)
    assert one.read("secret/data/openai")


def test_a_namespace_is_sent_and_redirects_are_not_followed() -> None:
    with running_vault("team/a") as vault:
        vault.kv["openai"] = {"api_key": "sk-one"}
        assert client(vault).read("secret/data/openai")
        with pytest.raises(VaultRefused):
            VaultClient(vault.address, environment={vault_http.TOKEN: vault.root}).read("secret/data/openai")


@pytest.mark.parametrize(
    "address", ["http://vault.example", "vault:8200", "ftp://x", "https://user:pass@vault", "https://vault/?a=b", ""]
)
def test_an_address_that_would_leak_the_token_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        VaultClient(address)


def test_how_to_sign_in_is_named(vault: VaultServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CONDUIT_VAULT_TOKEN.*CONDUIT_VAULT_ROLE_ID"):
        VaultClient(vault.address, environment={}).read("secret/data/openai")
    gone = {f"{vault_http.TOKEN}_FILE": str(tmp_path / "gone")}
    with pytest.raises(ConfigurationError, match="CONDUIT_VAULT_TOKEN_FILE"):
        VaultClient(vault.address, environment=gone).read("secret/data/openai")
    with pytest.raises(ConfigurationError, match="CONDUIT_VAULT_CA"):
        client(vault, **{vault_http.CA: str(tmp_path / "gone")}).read("secret/data/openai")
