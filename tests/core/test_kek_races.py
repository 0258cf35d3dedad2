"""Changes of the key ring that meet: what one has decided, another has undone; and keys that only share a name."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from conduit.core import kek_file, keks, keyring, live, rewrap, tasks
from conduit.core.actor import SYSTEM
from conduit.core.errors import Conflict, NotFound
from conduit.core.kek_kinds import kek_of
from providers.models import CredentialVersion
from tests.core.test_keks import opened, process, report, sealed
from tests.harness.key_file import key_file, random_text

__all__ = ["key_file"]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(key_file: Path) -> Path:
    return key_file


def test_a_key_that_becomes_primary_while_it_is_being_retired_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    keks.add(actor=SYSTEM)
    look = rewrap.open_everything

    def meanwhile() -> list[rewrap.Unopened]:
        keks.rotate(actor=SYSTEM, to="K2")
        return look()

    monkeypatch.setattr(rewrap, "open_everything", meanwhile)
    with pytest.raises(Conflict, match="K2 is primary"):
        keks.retire("K2", actor=SYSTEM)
    assert keyring.load({}, keyring.file_path()).primary == "K2"


def test_a_key_that_is_retired_while_it_becomes_primary_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keks.add(actor=SYSTEM)
    alive, turns = live.alive, iter([True])

    def meanwhile() -> list[Any]:
        if next(turns, False):
            keks.retire("K2", actor=SYSTEM)
        return alive()

    monkeypatch.setattr(live, "alive", meanwhile)
    with pytest.raises(Conflict, match="K2 was retired or replaced meanwhile"):
        keks.rotate(actor=SYSTEM, to="K2")
    assert keyring.load({}, keyring.file_path()).primary == "K1"


def test_no_row_moves_under_a_key_that_is_retired_between_wrapping_and_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    (version,) = sealed()
    keks.add(actor=SYSTEM)
    write, turns = rewrap._write, iter([True])

    def later(*batch: Any) -> None:
        if next(turns, False):
            keks.rotate(actor=SYSTEM, to="K1")
            keks.retire("K2", actor=SYSTEM)
        write(*batch)

    monkeypatch.setattr(rewrap, "_write", later)
    with pytest.raises(Conflict, match="while rows were moved under it"):
        keks.rotate(actor=SYSTEM, to="K2")
    keyring.reset()
    assert opened(version) == "sk-main-0"


def test_two_keys_of_one_name_are_told_apart() -> None:
    (version,) = sealed()
    keks.add(actor=SYSTEM)
    process(1, "K1", "K2")
    held = keyring.ring().checks()
    report(2, {**held, "K2": kek_of(random_text(), "CONDUIT_KEK_K2").check})
    other = "web process 2 on node-2 (holds another key named K2)"
    with pytest.raises(Conflict, match=re.escape(other)):
        keks.rotate(actor=SYSTEM, to="K2")
    assert (keks.status()[1].holders, keks.status()[1].lacking) == (["web process 1 on node-1"], [other])
    report(2, {**held, "K1": "another"}, primary="K1")
    CredentialVersion.objects.filter(pk=version.pk).update(kek_id="K2")
    assert keks.resume() is None
    report(2, held)
    assert keks.rotate(actor=SYSTEM, to="K2").progress.to == "K2"


def test_the_key_of_stored_replies_is_not_rotated() -> None:
    keyring.purpose_key("replies")
    with pytest.raises(Conflict, match="billed again"):
        keks.rotate_purpose("replies", actor=SYSTEM)
    assert set(keyring.purpose_keys("replies")) == {1}


@pytest.mark.django_db(transaction=True)
def test_the_recurring_job_runs_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    (version,) = sealed()
    keks.add(actor=SYSTEM)
    keks.rotate(actor=SYSTEM, to="K2", until=0.0)
    runs = []
    resume = keks.resume

    def counted(**given: Any) -> Any:
        runs.append(given["until"])
        if len(runs) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(elsewhere).result()
        return resume(**given)

    def elsewhere() -> None:
        tasks.rewrap_keys()
        connections.close_all()

    monkeypatch.setattr(keks, "resume", counted)
    tasks.rewrap_keys()
    assert len(runs) == 1
    assert keks.progress().left == 0
    tasks.rewrap_keys()
    assert len(runs) == 2
    assert opened(version) == "sk-main-0"


def test_the_file_refuses_what_would_lose_a_key(home: Path) -> None:
    kek_file.add(home, "K2", random_text(), "K1")
    kek_file.set_primary(home, "K2")
    before = home.read_text()
    for refused in (
        lambda: kek_file.add(home, "K2", random_text(), "K1"),
        lambda: kek_file.set_primary(home, "K9"),
        lambda: kek_file.remove(home, "K2"),
    ):
        with pytest.raises(Conflict, match="K2|K9"):
            refused()
    assert home.read_text() == before
    kek_file.add(home, "K3", random_text(), "K1")
    assert kek_file.read(home).primary == "K2"


def test_a_purpose_gets_a_new_version_and_the_old_one_still_opens() -> None:
    _, first = keyring.purpose_key("pepper")
    assert keks.rotate_purpose("pepper", actor=SYSTEM) == 2
    assert set(keyring.purpose_keys("pepper")) == {1, 2}
    assert keyring.purpose_keys("pepper")[1] == first
    assert [(one.version, one.newest) for one in keks.purposes() if one.purpose == "pepper"] == [(2, True), (1, False)]
    with pytest.raises(NotFound, match="pepper"):
        keks.rotate_purpose("salt", actor=SYSTEM)
