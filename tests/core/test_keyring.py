from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from conduit.core import keyring
from conduit.core.errors import ConfigurationError
from conduit.core.kek_kinds import LocalKek
from conduit.core.models import PurposeKey

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.fixture(autouse=True)
def _fresh_ring() -> Iterator[None]:
    keyring.reset()
    yield
    keyring.reset()


parts = st.lists(st.one_of(st.text(), st.binary(), st.integers()), max_size=5)


@given(parts, parts)
def test_two_contexts_are_equal_only_when_their_parts_are(left: list[str], right: list[str]) -> None:
    same = [(type(part), part) for part in left] == [(type(part), part) for part in right]
    assert (keyring.context(*left) == keyring.context(*right)) == same


def test_what_is_sealed_opens_with_the_same_key_and_context_only() -> None:
    blob = keyring.seal(KEY, b"secret", b"row 1")
    assert keyring.open_sealed(KEY, blob, b"row 1") == b"secret"
    assert b"secret" not in blob
    for key, context in ((OTHER, b"row 1"), (KEY, b"row 2"), (KEY, b"")):
        with pytest.raises(keyring.Tampered):
            keyring.open_sealed(key, blob, context)
    assert keyring.seal(KEY, b"secret", b"row 1") != blob


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    blob = keyring.seal(KEY, b"secret", b"row")
    for place in range(len(blob)):
        for bit in range(8):
            changed = bytearray(blob)
            changed[place] ^= 1 << bit
            with pytest.raises(keyring.Tampered):
                keyring.open_sealed(KEY, bytes(changed), b"row")
        with pytest.raises(keyring.Tampered):
            keyring.open_sealed(KEY, blob[:place], b"row")


def test_a_wrapped_key_does_not_pass_for_a_sealed_text_or_under_another_kek_name() -> None:
    ring = keyring.KeyRing({"K1": LocalKek(KEY), "K2": LocalKek(KEY)}, "K1")
    kek_id, blob = ring.wrap(OTHER, b"purpose")
    assert kek_id == "K1"
    assert ring.unwrap("K1", blob, b"purpose") == OTHER
    with pytest.raises(keyring.Tampered):
        ring.unwrap("K2", blob, b"purpose")
    with pytest.raises(keyring.Tampered):
        keyring.open_sealed(KEY, blob, b"purpose")
    with pytest.raises(keyring.KekMissing, match="CONDUIT_KEK_K9"):
        ring.unwrap("K9", blob, b"purpose")
    assert text(KEY) not in repr(ring)
    assert repr(KEY) not in repr(ring)


def test_the_environment_comes_before_the_file_and_names_its_primary(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(f"# made by hand\nF1={text(KEY)}\n")
    path.chmod(0o600)
    assert keyring.load({}, path).primary == "F1"
    only = keyring.load({"CONDUIT_KEK_E1": text(KEY)}, path)
    assert (only.primary, only.ids) == ("E1", {"E1"})
    two = {"CONDUIT_KEK_E1": text(KEY), "CONDUIT_KEK_E2": text(OTHER)}
    assert keyring.load({**two, "CONDUIT_KEK_PRIMARY": "E2"}, path).primary == "E2"
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_PRIMARY"):
        keyring.load(two, path)
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_E3"):
        keyring.load({**two, "CONDUIT_KEK_PRIMARY": "E3"}, path)
    secret = tmp_path / "from-a-mount"
    secret.write_text(text(OTHER) + "\n")
    from_file = keyring.load({"CONDUIT_KEK_M1_FILE": str(secret)}, path)
    assert from_file.unwrap(*from_file.wrap(KEY, b""), b"") == KEY
    assert from_file.primary == "M1"


@pytest.mark.parametrize("bad", ["", "x", text(KEY[:31]), text(KEY + b"x"), text(KEY)[:-2] + "!="])
def test_a_malformed_key_is_named_and_not_quoted(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_K1") as failure:
        keyring.load({"CONDUIT_KEK_K1": bad}, tmp_path / "kek")
    assert not bad or len(bad) < 5 or bad not in str(failure.value)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(f"K1={text(KEY)}\n")
    for mode in (0o640, 0o604, 0o644):
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            keyring.load({}, path)


def test_no_key_at_all_names_the_variable_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_<ID>.*kek"):
        keyring.load({}, tmp_path / "kek")
    (tmp_path / "kek").write_text(f"K1={text(KEY)}\nK1={text(KEY)}\n")
    (tmp_path / "kek").chmod(0o600)
    with pytest.raises(ConfigurationError, match="line 2"):
        keyring.load({}, tmp_path / "kek")


def test_a_purpose_key_is_made_once_and_read_back_after_a_restart(db: None) -> None:
    first = keyring.purpose_key("test")
    keyring.reset()
    assert keyring.purpose_key("test") == first
    assert keyring.purpose_key("test", 1) == first
    assert keyring.purpose_key("other")[1] != first[1]
    assert first[1] not in bytes(PurposeKey.objects.get(purpose="test").wrapped)
    with pytest.raises(LookupError):
        keyring.purpose_key("test", 2)


@pytest.mark.django_db(transaction=True)
def test_a_purpose_key_of_a_transaction_that_rolled_back_is_forgotten() -> None:
    with transaction.atomic():
        lost = keyring.purpose_key("test")
        transaction.set_rollback(True)
    found = keyring.purpose_key("test")
    assert found != lost
    keyring.reset()
    assert keyring.purpose_key("test") == found


@pytest.mark.django_db(transaction=True)
def test_processes_that_race_for_a_new_purpose_key_agree() -> None:
    def ask(_: int) -> bytes:
        try:
            keyring._purpose_keys.clear()
            keyring._latest.clear()
            return keyring.purpose_key("raced")[1]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ask, range(24)))) == 1
    assert PurposeKey.objects.filter(purpose="raced").count() == 1


def test_a_purpose_key_moved_to_another_purpose_does_not_open(db: None) -> None:
    keyring.purpose_key("test")
    PurposeKey.objects.filter(purpose="test").update(purpose="replies")
    keyring.reset()
    with pytest.raises(ConfigurationError):
        keyring.purpose_key("replies")


def test_start_up_names_a_missing_and_a_wrong_kek(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.purpose_key("test")
    keyring.check_database()
    used = keyring.ids_in_use()
    assert used["core.PurposeKey"] == {"K1"}
    assert "providers.CredentialVersion" in used

    keyring.reset()
    monkeypatch.setenv("CONDUIT_KEK_NEW", text(KEY))
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_K1"):
        keyring.check_database()
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_K1"):
        keyring.purpose_key("test")

    keyring.reset()
    monkeypatch.delenv("CONDUIT_KEK_NEW")
    monkeypatch.setenv("CONDUIT_KEK_K1", text(KEY))
    with pytest.raises(ConfigurationError, match="CONDUIT_KEK_K1 is not the key"):
        keyring.check_database()
    with pytest.raises(SystemCheckError, match="CONDUIT_KEK_K1"):
        call_command("check", "--database", "default")


def test_the_system_check_names_a_malformed_kek(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUIT_KEK_K1", "not a key")
    with pytest.raises(SystemCheckError, match="CONDUIT_KEK_K1"):
        call_command("check")


def test_no_kek_is_left_in_the_environment_by_these_tests() -> None:
    assert not [name for name in os.environ if name.startswith("CONDUIT_KEK_")]
