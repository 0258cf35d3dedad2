"""The life of key-encryption keys: added, primary, everything rewrapped, retired; and what stands in the way."""

from __future__ import annotations

import base64
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections

from conduit.core import audit, keks, keyring, live, rewrap, sealed_columns, vault_http
from conduit.core.actor import SYSTEM
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.models import AuditEntry, PurposeKey
from conduit.core.secret import Secret
from providers import vault
from providers.models import Credential, CredentialField, CredentialVersion, Provider, VersionState
from tests.harness.key_file import key_file, random_text
from tests.harness.vault_server import running_vault

__all__ = ["key_file"]

pytestmark = pytest.mark.django_db
ME = UUID(int=1)


@pytest.fixture(autouse=True)
def home(key_file: Path) -> Path:
    return key_file


def sealed(count: int = 1, name: str = "main") -> list[CredentialVersion]:
    provider, _ = Provider.objects.get_or_create(name="OpenAI", kind="openai")
    made = []
    for number in range(count):
        credential = Credential.objects.create(provider=provider, name=f"{name}-{number}")
        fields = {"api_key": Secret(f"sk-{name}-{number}"), "organisation": Secret("org")}
        made.append(vault.seal_version(credential, fields, number=1, state=VersionState.ACTIVE))
    return made


def opened(version: CredentialVersion) -> str:
    return vault.open_version(CredentialVersion.objects.get(pk=version.pk))["api_key"].reveal()


def process(number: int, *held: str, primary: str = "K1") -> None:
    """One that holds these keys, as this process knows them."""
    report(number, {kek_id: keyring.refresh().checks().get(kek_id, "") for kek_id in held}, primary)


def report(number: int, held: dict[str, str], primary: str = "K1") -> None:
    live.report(UUID(int=number), kind="web", node=f"node-{number}", pid=number, keks=held, primary=primary)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_key_is_added_beside_the_others_and_encrypts_nothing_yet(home: Path) -> None:
    before = lines(home)
    assert keks.add(actor=SYSTEM) == "K2"
    assert lines(home)[:2] == before
    assert lines(home)[2] == "PRIMARY=K1"
    assert lines(home)[3].startswith("K2=")
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    assert [path.name for path in home.parent.iterdir()] == ["kek"]
    ring = keyring.ring()
    assert (ring.primary, ring.ids) == ("K1", {"K1", "K2"})
    assert keks.add(actor=SYSTEM, kek_id="K2") == "K2"
    assert keks.add(actor=SYSTEM, kek_id="blue_1") == "blue_1"
    assert len(lines(home)) == 5
    assert AuditEntry.objects.filter(action="kek.add").count() == 2
    assert lines(home)[3].partition("=")[2] not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize("bad", ["PRIMARY", "a b", "../x", "_a", "x" * 65, "K1\nK2", "Ü", "K2_FILE"])
def test_a_key_with_an_impossible_name_is_refused(bad: str, home: Path) -> None:
    before = lines(home)
    with pytest.raises(InvalidInput, match="id"):
        keks.add(actor=SYSTEM, kek_id=bad)
    assert lines(home) == before


def test_a_key_that_rows_need_is_not_made_anew_under_its_name() -> None:
    CredentialVersion.objects.filter(pk=sealed()[0].pk).update(kek_id="LOST")
    with pytest.raises(InvalidInput, match="LOST"):
        keks.add(actor=SYSTEM, kek_id="LOST")


def test_a_rotation_rewrites_every_wrapping_and_nothing_else() -> None:
    versions = sealed(7)
    keyring.purpose_key("pepper")
    ciphertexts = list(CredentialField.objects.order_by("pk").values_list("ciphertext", flat=True))
    wrapped = set(CredentialVersion.objects.values_list("wrapped_key", flat=True))
    keks.add(actor=SYSTEM)
    done = keks.rotate(actor=SYSTEM, to="K2")
    assert (done.progress.to, done.progress.done, done.progress.left, done.unopened) == (
        "K2",
        9,
        0,
        [],
    )  # the audit chain has one too
    assert set(CredentialVersion.objects.values_list("kek_id", flat=True)) == {"K2"}
    assert set(PurposeKey.objects.values_list("kek_id", flat=True)) == {"K2"}
    assert list(CredentialField.objects.order_by("pk").values_list("ciphertext", flat=True)) == ciphertexts
    assert not wrapped & set(CredentialVersion.objects.values_list("wrapped_key", flat=True))
    assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(7)]
    entry = AuditEntry.objects.get(action="kek.rotate")
    assert (entry.before, entry.after) == ({"primary": "K1"}, {"primary": "K2"})
    assert keks.rotate(actor=SYSTEM, to="K2").progress == done.progress
    assert AuditEntry.objects.filter(action="kek.rotate").count() == 1


def test_without_a_name_the_newest_key_is_meant_and_asking_again_is_no_way_back() -> None:
    assert keks.rotate(actor=SYSTEM).progress.to == "K1"
    keks.add(actor=SYSTEM)
    keks.add(actor=SYSTEM)
    assert [keks.rotate(actor=SYSTEM).progress.to for _ in range(3)] == ["K3", "K3", "K3"]
    assert keyring.ring().primary == "K3"
    keks.add(actor=SYSTEM, kek_id="blue")
    assert keks.rotate(actor=SYSTEM, to="K2").progress.to == "K2"
    assert keks.rotate(actor=SYSTEM).progress.to == "blue"
    with pytest.raises(NotFound, match="K1, K2, K3, blue"):
        keks.rotate(actor=SYSTEM, to="K9")


def test_a_live_process_without_the_new_key_closes_the_gate() -> None:
    (version,) = sealed()
    keks.add(actor=SYSTEM)
    process(1, "K1", "K2")
    process(2, "K1")
    with pytest.raises(Conflict, match="web process 2 on node-2"):
        keks.rotate(actor=SYSTEM, to="K2")
    assert keyring.ring().primary == "K1"
    version.refresh_from_db()
    assert version.kek_id == "K1"
    process(2, "K1", "K2")
    assert keks.rotate(actor=SYSTEM, to="K2").behind == ["web process 1 on node-1", "web process 2 on node-2"]
    live.leave(UUID(int=1))
    process(2, "K1", "K2", primary="K2")
    assert keks.rotate(actor=SYSTEM, to="K2").behind == []


@pytest.mark.django_db(transaction=True)
def test_the_gate_waits_for_a_process_that_is_about_to_say_so() -> None:
    keks.add(actor=SYSTEM)
    process(1, "K1")

    def later() -> None:
        time.sleep(0.5)
        process(1, "K1", "K2")
        connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(later)
        assert keks.rotate(actor=SYSTEM, to="K2", patience=30).progress.left == 0
        told.result()


def test_an_interrupted_rotation_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrap, "BATCH", 3)
    versions = sealed(10)
    keks.add(actor=SYSTEM)

    class Killed(Exception):
        pass

    def die(progress: rewrap.Progress) -> None:
        if progress.done >= 6:
            raise Killed

    with pytest.raises(Killed):
        keks.rotate(actor=SYSTEM, to="K2", tell=die)
    assert 0 < keks.progress().left < 10
    assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(10)]
    told: list[int] = []
    resumed = keks.resume()
    assert resumed is not None
    assert resumed.progress.left == 0
    assert keks.resume() is None
    keks.rotate(actor=SYSTEM, to="K2", tell=lambda progress: told.append(progress.left))
    assert told == []
    assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(10)]


def test_the_recurring_job_moves_nothing_while_processes_disagree() -> None:
    sealed()
    keks.add(actor=SYSTEM)
    keks.rotate(actor=SYSTEM, to="K2")
    (late,) = sealed(name="late")
    CredentialVersion.objects.filter(pk=late.pk).update(kek_id="K1")
    process(1, "K1", "K2", primary="K1")
    assert keks.resume() is None
    process(1, "K1", "K2", primary="K2")
    found = keks.resume()
    assert found is not None
    assert [one.id for one in found.unopened] == [str(late.pk)]  # its blob was made under K2's name


def test_a_version_sealed_by_a_process_one_step_behind_opens_and_is_moved_by_the_next_run() -> None:
    keks.add(actor=SYSTEM)
    behind = keyring.ring()
    keks.rotate(actor=SYSTEM, to="K2")
    ahead, keyring._held.ring = keyring.ring(), behind  # type: ignore[union-attr]
    (version,) = sealed()
    keyring._held.ring = ahead  # type: ignore[union-attr]
    assert version.kek_id == "K1"
    assert opened(version) == "sk-main-0"
    with pytest.raises(Conflict, match="1 in providers.CredentialVersion"):
        keks.retire("K1", actor=SYSTEM)
    assert keks.rotate(actor=SYSTEM, to="K2").progress.left == 0
    assert opened(version) == "sk-main-0"
    keks.retire("K1", actor=SYSTEM)


def test_a_row_that_changes_while_it_is_rewrapped_is_left_to_who_changed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, changed = sealed(2)
    keks.add(actor=SYSTEM)
    write = rewrap._write

    def late(*arguments: Any) -> None:
        CredentialVersion.objects.filter(pk=changed.pk).update(wrapped_key=b"")
        write(*arguments)

    monkeypatch.setattr(rewrap, "_write", late)
    assert keks.rotate(actor=SYSTEM, to="K2").progress.left == 0
    changed.refresh_from_db()
    assert (changed.kek_id, bytes(changed.wrapped_key)) == ("K1", b"")
    assert opened(kept) == "sk-main-0"


def test_a_version_whose_secret_was_destroyed_needs_no_key() -> None:
    (version,) = sealed()
    version.fields.all().delete()
    CredentialVersion.objects.filter(pk=version.pk).update(wrapped_key=b"", state=VersionState.RETIRED)
    keks.add(actor=SYSTEM)
    assert keks.rotate(actor=SYSTEM, to="K2").progress.total == 1  # the audit chain's key
    keks.retire("K1", actor=SYSTEM)
    keyring.check_database()


def test_a_row_that_does_not_open_is_told_and_keeps_the_old_key(home: Path) -> None:
    good, bad = sealed(2)
    CredentialVersion.objects.filter(pk=bad.pk).update(wrapped_key=b"\x01" + bytes(60))
    keks.add(actor=SYSTEM)
    done = keks.rotate(actor=SYSTEM, to="K2")
    assert [(one.table, one.id) for one in done.unopened] == [("providers.CredentialVersion", str(bad.pk))]
    assert done.progress.left == 1
    with pytest.raises(Conflict, match="1 in providers.CredentialVersion"):
        keks.retire("K1", actor=SYSTEM)
    bad.delete()
    CredentialField.objects.filter(version=good, name="organisation").update(ciphertext=b"\x01" + bytes(60))
    with pytest.raises(Conflict, match=f"do not open.*{good.pk}"):
        keks.retire("K1", actor=SYSTEM)
    assert any(line.startswith("K1=") for line in lines(home))


def test_a_key_is_retired_only_when_nobody_needs_it(home: Path) -> None:
    versions = sealed(3)
    keyring.purpose_key("pepper")
    with pytest.raises(Conflict, match="K1 is primary: it encrypts"):
        keks.retire("K1", actor=SYSTEM)
    with pytest.raises(NotFound, match="K1"):
        keks.retire("K7", actor=SYSTEM)
    keks.add(actor=SYSTEM)
    keks.rotate(actor=SYSTEM, to="K2", until=0.0)
    with pytest.raises(Conflict, match=r"2 in core\.PurposeKey, 3 in providers\.CredentialVersion"):
        keks.retire("K1", actor=SYSTEM)
    keks.rotate(actor=SYSTEM, to="K2")
    process(1, "K1", "K2", primary="K1")
    with pytest.raises(Conflict, match="web process 1 on node-1"):
        keks.retire("K1", actor=SYSTEM)
    process(1, "K1", "K2", primary="K2")
    assert "K1" in keks.retire("K1", actor=SYSTEM)
    assert [line.partition("=")[0] for line in lines(home)] == ["# generated", "K2", "PRIMARY"]
    keyring.reset()
    assert keyring.ring().ids == {"K2"}
    keyring.check_database()
    assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(3)]
    assert AuditEntry.objects.filter(action="kek.retire", object_id="K1").count() == 1


def test_the_status_tells_who_holds_what_and_what_needs_it() -> None:
    sealed(2)
    keyring.purpose_key("pepper")
    keks.add(actor=SYSTEM)
    process(1, "K1", "K2")
    process(2, "K1")
    CredentialVersion.objects.filter(pk=sealed(name="lost")[0].pk).update(kek_id="GONE")
    first, gone, second = keks.status()
    assert (first.id, first.kind, first.primary) == ("K1", "local", True)
    assert first.rows == {"core.PurposeKey": 2, "providers.CredentialVersion": 2}
    assert first.encrypting == ["web process 1 on node-1", "web process 2 on node-2"]
    assert (gone.id, gone.kind, gone.needed) == ("GONE", "", 1)
    assert (second.id, second.needed) == ("K2", 0)
    assert (second.holders, second.lacking) == (["web process 1 on node-1"], ["web process 2 on node-2"])
    pepper = next(one for one in keks.purposes() if one.purpose == "pepper")
    assert (pepper.purpose, pepper.version, pepper.newest, pepper.rows) == ("pepper", 1, True, 0)


def test_keys_of_the_environment_are_the_operator_s(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("CONDUIT_KEK_E1", random_text())
    monkeypatch.setenv("CONDUIT_KEK_PRIMARY", "E1")
    keyring.reset()
    versions, before = sealed(3), lines(home)
    with pytest.raises(Conflict, match="environment"):
        keks.add(actor=SYSTEM, kek_id="E2")
    name, _, text = keks.line("E2").partition("=")
    assert name == "CONDUIT_KEK_E2"
    assert len(base64.b64decode(text)) == 32
    monkeypatch.setenv(name, text)
    keyring.reset()
    with pytest.raises(Conflict, match="CONDUIT_KEK_PRIMARY is E1 here. Set it to E2"):
        keks.rotate(actor=SYSTEM, to="E2")
    assert keks.progress().to == "E1"
    monkeypatch.setenv("CONDUIT_KEK_PRIMARY", "E2")
    keyring.reset()
    done = keks.rotate(actor=SYSTEM)
    assert (done.progress.to, done.progress.done, done.progress.left) == ("E2", 4, 0)
    assert "unset CONDUIT_KEK_E1" in keks.retire("E1", actor=SYSTEM)
    assert lines(home) == before
    assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(3)]


def test_everything_moves_under_a_key_that_vault_keeps_and_only_once_it_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vault_http, "DEADLINE", 30.0)
    with running_vault() as service:
        service.transit_key("conduit")
        monkeypatch.setenv("CONDUIT_KEK_E1", random_text())
        monkeypatch.setenv("CONDUIT_KEK_V", f"vault-transit:{service.address}/v1/transit/conduit")
        monkeypatch.setenv("CONDUIT_KEK_PRIMARY", "E1")
        keyring.reset()
        versions = sealed(3)
        monkeypatch.setenv("CONDUIT_KEK_PRIMARY", "V")
        monkeypatch.setenv(vault_http.TOKEN, service.token(paths=["transit/encrypt/*"]))
        keyring.reset()
        with pytest.raises(keyring.KekUnavailable, match="does not allow transit/decrypt/conduit"):
            keks.rotate(actor=SYSTEM)
        assert keks.progress() == rewrap.Progress("V", 0, 3)
        monkeypatch.setenv(vault_http.TOKEN, service.token(paths=["transit/*"]))
        keyring.reset()
        assert keks.rotate(actor=SYSTEM).progress == rewrap.Progress("V", 4, 0)
        assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(3)]
        assert keks.status()[0].kind == f"Vault Transit conduit at {service.address.removeprefix('http://')}"
        asked = service.count("decrypt")
        assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(3)]
        assert service.count("decrypt") == asked
        keks.retire("E1", actor=SYSTEM)
        assert service.count("decrypt") == asked + 4  # the check asked the service itself


def test_what_cannot_be_logged_does_not_happen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lines(home)

    def full(**_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(audit, "record", full)
    with pytest.raises(RuntimeError):
        keks.add(actor=SYSTEM)
    assert lines(home) == before


@pytest.mark.django_db(transaction=True)
def test_rotations_at_once_agree_and_nothing_is_lost() -> None:
    versions = sealed(40)
    keks.add(actor=SYSTEM)

    def turn(_: int) -> str:
        try:
            return str(keks.rotate(actor=SYSTEM, to="K2").progress.to)
        except Conflict:
            return "busy"
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(turn, range(8))) <= {"K2", "busy"}
    assert keks.rotate(actor=SYSTEM, to="K2").progress.left == 0
    assert [opened(version) for version in versions] == [f"sk-main-{number}" for number in range(40)]


def test_the_system_check_finds_what_nobody_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(sealed_columns.undeclared()) == []
    monkeypatch.delitem(sealed_columns._registered, "providers.CredentialVersion")
    monkeypatch.delitem(sealed_columns.BYTES, "keys.KeySecret.digest")
    found = " ".join(sealed_columns.undeclared())
    assert "providers.CredentialVersion has a kek_id but is not registered" in found
    assert "keys.KeySecret.digest holds bytes" in found
    with pytest.raises(SystemCheckError, match=r"keys\.KeySecret\.digest"):
        call_command("check")
