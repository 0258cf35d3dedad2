"""Each kind of key-encryption key keeps the same promises: a local one, AWS KMS (moto) and Vault Transit."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conduit.core import kek_kinds, keyring, vault_http
from conduit.core.errors import ConfigurationError
from conduit.core.kek_kinds import Kek, kek_of
from tests.harness.aws_server import kms_key, running_aws
from tests.harness.vault_server import VaultServer, running_vault

KEY = bytes(range(32))
REGION = "eu-west-1"
KINDS = ("local", "kms", "transit")
Make = Callable[[str], Kek]


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with running_aws() as endpoint:
        yield endpoint


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultServer]:
    with running_vault() as server:
        server.transit_key("conduit")
        monkeypatch.setenv(vault_http.TOKEN, server.root)
        yield server


@pytest.fixture
def make(aws: str, vault: VaultServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A fresh key of a kind."""
    for module in (kek_kinds, vault_http):
        monkeypatch.setattr(module, "DEADLINE", 30.0)  # a busy machine is not what is tested here
    for name, text in {"ACCESS_KEY_ID": "AKIDEXAMPLE", "SECRET_ACCESS_KEY": "of-a-test"}.items():
        monkeypatch.setenv(f"AWS_{name}", text)
    number = 0

    def fresh(kind: str) -> Kek:
        nonlocal number
        number += 1
        if kind == "kms":
            return kek_of(f"aws-kms:{kms_key(aws, REGION)}?endpoint={aws}", "CONDUIT_KEK_A")
        if kind == "transit":
            vault.transit_key(f"key-{number}")
            return kek_of(f"vault-transit:{vault.address}/v1/transit/key-{number}", "CONDUIT_KEK_V")
        return kek_of(base64.b64encode(bytes([number]) * 32).decode(), "CONDUIT_KEK_L")

    kek_kinds.forget()
    yield fresh
    kek_kinds.forget()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_wrapped_opens_with_the_same_key_and_context_only(make: Make, kind: str) -> None:
    kek, other = make(kind), make(kind)
    blob = kek.wrap(KEY, b"row 1")
    kek_kinds.forget()
    assert kek.unwrap(blob, b"row 1") == KEY
    assert KEY not in blob
    assert kek.wrap(KEY, b"row 1") != blob
    for wrong, context in ((other, b"row 1"), (kek, b"row 2"), (kek, b"")):
        with pytest.raises(keyring.KeyRingError):
            wrong.unwrap(blob, context)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_blob_is_tampered_with_and_not_unavailable(make: Make, kind: str) -> None:
    kek = make(kind)
    blob = kek.wrap(KEY, b"row")
    for place in (0, len(blob) // 2, len(blob) - 1):
        changed = bytearray(blob)
        changed[place] ^= 0x41
        with pytest.raises(keyring.Tampered):
            kek.unwrap(bytes(changed), b"row")
    for cut in (b"", blob[:1], blob[: len(blob) // 2]):
        with pytest.raises(keyring.Tampered):
            kek.unwrap(cut, b"row")


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_of_another_kind_does_not_open(make: Make, kind: str) -> None:
    kek = make(kind)
    for other in KINDS:
        if other != kind:
            with pytest.raises(keyring.KeyRingError):
                kek.unwrap(make(other).wrap(KEY, b"row"), b"row")


def test_what_vault_opened_is_not_asked_for_again(make: Make, vault: VaultServer) -> None:
    kek = make("transit")
    blobs = [kek.wrap(KEY, b"row %d" % number) for number in range(5)]
    kek_kinds.forget()
    for _ in range(3):
        for number, blob in enumerate(blobs):
            assert kek.unwrap(blob, b"row %d" % number) == KEY
    assert vault.count("decrypt") == 5
    vault.sealed = True
    assert kek.unwrap(blobs[0], b"row 0") == KEY
    with pytest.raises(keyring.KeyRingError):
        kek.unwrap(blobs[0], b"row 1")  # what is remembered is remembered for its own place
    kek_kinds.forget()
    with pytest.raises(keyring.KekUnavailable, match="sealed"):
        kek.unwrap(blobs[0], b"row 0")


def test_what_is_remembered_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kek_kinds, "REMEMBERED", 3)
    kek = make("transit")
    for number in range(6):
        kek.unwrap(kek.wrap(KEY, b"row %d" % number), b"row %d" % number)
    assert len(kek_kinds._opened) == 3


def test_a_vault_that_ignores_associated_data_is_noticed(
    make: Make, vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = vault._transit

    def forgetful(method: str, rest: str, body: dict[str, object]) -> dict[str, object]:
        return honest(method, rest, {name: value for name, value in body.items() if name != "associated_data"})

    monkeypatch.setattr(vault, "_transit", forgetful)
    kek = make("transit")
    blob = kek.wrap(KEY, b"row 1")
    kek_kinds.forget()
    assert kek.unwrap(blob, b"row 1") == KEY
    with pytest.raises(keyring.Tampered, match="another place"):
        kek.unwrap(blob, b"row 2")


def test_a_key_that_vault_rotated_still_opens_what_it_wrapped(make: Make, vault: VaultServer) -> None:
    kek = make("transit")
    blob = kek.wrap(KEY, b"row")
    (name,) = set(vault.keys) - {"conduit"}
    vault.transit_key(name)
    kek_kinds.forget()
    assert kek.unwrap(blob, b"row") == KEY
    assert b"vault:v2:" in kek.wrap(KEY, b"row")


def test_a_refusal_names_its_cause_and_no_secret(make: Make, vault: VaultServer, aws: str) -> None:
    gone = kek_of(f"vault-transit:{vault.address}/v1/transit/absent", "CONDUIT_KEK_V")
    with pytest.raises(keyring.KekUnavailable, match="encryption key not found"):
        gone.wrap(KEY, b"row")
    absent = f"arn:aws:kms:{REGION}:123456789012:key/00000000-0000-0000-0000-000000000000"
    with pytest.raises(keyring.KekUnavailable, match="NotFoundException") as refused:
        kek_of(f"aws-kms:{absent}?endpoint={aws}", "CONDUIT_KEK_A").wrap(KEY, b"row")
    assert "of-a-test" not in str(refused.value)
    with pytest.raises(keyring.KekUnavailable, match="cannot be reached"):
        kek_of(f"aws-kms:{absent}?endpoint=http://127.0.0.1:9", "CONDUIT_KEK_A").wrap(KEY, b"row")


@pytest.mark.parametrize(
    "text",
    [
        "vault-transit:http://vault.example/v1/transit/key",
        "vault-transit:https://vault.example/transit/key",
        "vault-transit:https://vault.example/v1/key",
        "vault-transit:https://vault.example/v1/transit/key?nonsense=1",
        "aws-kms:alias/conduit",
        "aws-kms:alias/con duit?region=eu-west-1",
        "aws-kms:alias/conduit?region=eu-west-1&endpoint=http://kms.example",
        "aws-kms:alias/conduit?region=eu-west-1&colour=red",
        "azure:vault",
    ],
)
def test_a_malformed_description_names_its_variable(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        keyring.load({"CONDUIT_KEK_K1": text}, tmp_path / "kek")


def test_an_alias_with_a_region_and_an_arn_without_are_taken() -> None:
    assert kek_of("aws-kms:alias/conduit?region=eu-west-1", "K").kind == "AWS KMS alias/conduit"
    arn = "arn:aws-cn:kms:cn-north-1:123456789012:alias/conduit"
    assert kek_of(f"aws-kms:{arn}", "K")._endpoint == "https://kms.cn-north-1.amazonaws.com.cn"  # type: ignore[attr-defined]
