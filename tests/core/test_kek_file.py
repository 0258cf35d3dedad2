"""The key file: read again when it changes, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conduit.core import kek_file, keks, keyring
from conduit.core.actor import SYSTEM
from conduit.core.errors import ConfigurationError, Conflict
from tests.core.test_keks import opened, sealed
from tests.harness.key_file import key_file, random_text

__all__ = ["key_file"]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(key_file: Path) -> Path:
    return key_file


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(home: Path) -> None:
    (version,) = sealed()
    good = home.read_text()
    other = random_text()
    home.write_text(f"{good}K2={other}\nPRIMARY=K2\n")
    assert keyring.ring().primary == "K2"
    for broken in ("nonsense", f"{good}K2=short\nPRIMARY=K2\n", f"{good}PRIMARY=K9\n", "", f"{good}K2={other}\n"):
        home.write_text(broken)
        assert keyring.ring().ids == {"K1", "K2"}
        assert opened(version) == "sk-main-0"
    home.write_text(good)
    home.chmod(0o644)
    assert keyring.ring().ids == {"K1", "K2"}
    home.unlink()
    assert keyring.ring().ids == {"K1", "K2"}
    home.write_text(good)
    home.chmod(0o600)
    assert keyring.ring().ids == {"K1"}


def test_a_file_that_only_its_mode_kept_from_being_read_is_read_once_that_is_mended(home: Path) -> None:
    keyring.ring()
    aside = home.with_name("new")
    aside.write_text(f"{home.read_text()}K2={random_text()}\nPRIMARY=K2\n")
    aside.chmod(0o644)
    aside.replace(home)
    assert keyring.ring().primary == "K1"
    home.chmod(0o600)
    assert keyring.ring().primary == "K2"


def test_a_key_that_left_the_file_opens_what_was_read_before_and_is_forgotten_soon(home: Path) -> None:
    good = home.read_text()
    home.write_text(f"{good}K2={random_text()}\nPRIMARY=K2\n")
    wrapped = keyring.ring().wrap(bytes(32), b"")
    home.write_text(good)
    assert keyring.opening("K2").unwrap(*wrapped, b"") == bytes(32)
    keyring.refresh()
    assert keyring.opening("K2").ids == {"K1", "K2"}
    assert keyring._held is not None
    keyring._held.former_until -= keyring.FORMER_KNOWN_FOR
    keyring.refresh()
    assert keyring.opening("K2").ids == {"K1"}


def test_the_file_is_looked_at_once_a_second_and_no_more(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOKED_AT_EVERY", 3600.0)
    looked = []
    stamp = keyring._stamp
    monkeypatch.setattr(keyring, "_stamp", lambda path: looked.append(path) or stamp(path))
    keyring.ring()
    kek_file.add(home, "K2", random_text(), "K1")
    for _ in range(100):
        assert keyring.ring().ids == {"K1"}
    assert len(looked) == 1
    assert keyring.refresh().ids == {"K1", "K2"}


def test_a_change_that_cannot_be_written_changes_nothing(home: Path) -> None:
    keks.add(actor=SYSTEM)
    home.with_name(f".kek.{os.getpid()}").mkdir()  # where the new file would be written
    with pytest.raises(Conflict, match="cannot be written"):
        keks.rotate(actor=SYSTEM, to="K2")
    assert keyring.refresh().primary == "K1"


def test_a_file_with_its_primary_named_twice_is_refused(home: Path) -> None:
    home.write_text(home.read_text() + "PRIMARY=K1\nPRIMARY=K1\n")
    keyring.reset()
    with pytest.raises(ConfigurationError, match="line 4"):
        keyring.ring()
