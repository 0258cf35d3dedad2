"""Reading, verifying and exporting the audit log: over the API, as a command, as a job."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.test import AsyncClient

from conduit.access import audit_api, audit_log, tasks
from conduit.access.models import Role
from conduit.core import audit, audit_chain, audit_checkpoints, audit_export, keyring
from conduit.core.actor import COMMAND_LINE, SYSTEM, Actor
from conduit.core.audit_chain import Verification
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.models import AuditEntry
from tests.access.clients import ApiClient, client_of, faults
from tests.core.test_audit_chain import tamper, write

BOB = Actor("user", "0191", "bob@example.org", "operator", None)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    audit_log._kept().unlink(missing_ok=True)


def noted(actor: Actor, action: str, **given: Any) -> None:
    with transaction.atomic():
        audit.record(actor=actor, action=action, kind="key", id="k1", **given)


# --- reading -------------------------------------------------------------------------------------------------------


def test_every_filter_narrows_and_pages_follow_one_another(db: None) -> None:
    auditor = client_of(Role.AUDITOR)
    noted(BOB, "key.create", name="app", request_id="req-12345678")
    write(4)
    latest = auditor.get("/audit?limit=1").json()["data"][0]
    assert (latest["number"], latest["id"], latest["address"]) == (6, "6", "")
    mine = {"actor": "bob@example.org", "kind": "key", "object": "k1", "request_id": "req-12345678"}
    for name, value in mine.items():
        found = auditor.get(f"/audit?{name}={value}").json()["data"]
        assert 2 in [row["number"] for row in found], name
        assert 1 not in [row["number"] for row in found], name
    assert [row["number"] for row in auditor.get("/audit?action=key.*").json()["data"]] == [4, 3, 2]
    team = AuditEntry.objects.exclude(team_id=None).latest("id")
    assert [row["number"] for row in auditor.get(f"/audit?team={team.team_id}").json()["data"]] == [team.id]
    assert auditor.get(f"/audit?from={rfc3339(now() + timedelta(hours=1))}").json()["data"] == []
    seen, cursor = [], ""
    while cursor is not None:
        page = auditor.get(f"/audit?limit=4&cursor={cursor}").json()
        seen += [row["number"] for row in page["data"]]
        cursor = page["next"]
    assert seen == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(("query", "field"), [("team=x", "team"), ("from=x", "from"), ("who=x", "who")])
def test_a_filter_that_is_wrong_is_named(auditor: ApiClient, query: str, field: str) -> None:
    assert list(faults(auditor.get(f"/audit?{query}"))) == [field]


# --- verifying -----------------------------------------------------------------------------------------------------


def test_verification_over_the_api_names_the_first_fault(db: None) -> None:
    auditor = client_of(Role.AUDITOR)
    write(5)
    whole = auditor.get("/audit/verify").json()
    assert (whole["ok"], whole["entries"], whole["total"], whole["fault"]) == (True, 6, 6, None)
    tamper("UPDATE core_auditentry SET actor_name = 'Bob' WHERE id = 3")
    broken = auditor.get("/audit/verify").json()
    assert (broken["ok"], broken["fault"]["number"], broken["fault"]["kind"]) == (False, 3, "edited")
    kept = audit_log.last_verification()
    assert kept is not None
    assert kept[0]["fault"]["number"] == 3


def test_a_long_log_is_walked_on_from_where_it_was_intact_and_in_full_when_asked(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "WALKED_WHOLE", 4)
    auditor = client_of(Role.AUDITOR)
    write(5)
    whole = auditor.get("/audit/verify").json()
    assert (whole["first"], whole["entries"], whole["whole_at"]) == (1, 6, whole["time"])
    write(2)
    further = auditor.get("/audit/verify").json()
    assert (further["ok"], further["first"], further["entries"], further["whole_at"]) == (True, 7, 8, whole["time"])
    write(2)
    tamper("UPDATE core_auditentry SET actor_name = 'Bob' WHERE id = 9")
    assert auditor.get("/audit/verify").json()["fault"]["number"] == 9, "what came since is always walked"
    assert auditor.get("/audit/verify").json()["first"] == 1, "what was broken is no place to go on from"
    assert list(faults(auditor.get("/audit/verify?full=yes"))) == ["full"]


@pytest.mark.parametrize(("query", "replaced"), [("?full=true", False), ("", True)])
def test_an_early_edit_shows_in_a_full_walk_and_when_the_entry_to_go_on_from_is_another(
    db: None, monkeypatch: pytest.MonkeyPatch, query: str, replaced: bool
) -> None:
    monkeypatch.setattr(audit_log, "WALKED_WHOLE", 4)
    auditor = client_of(Role.AUDITOR)
    write(5)
    assert auditor.get("/audit/verify").json()["ok"]
    tamper("UPDATE core_auditentry SET actor_name = 'Bob' WHERE id = 2")
    assert auditor.get("/audit/verify").json()["first"] == 7
    if replaced:
        tamper("UPDATE core_auditentry SET mac = %s WHERE id = 6", bytes(32))
    assert auditor.get(f"/audit/verify{query}").json()["fault"]["number"] == 2


def test_while_one_verifies_the_others_get_the_last_outcome_and_its_time(db: None, database_url: str) -> None:
    auditor = client_of(Role.AUDITOR)
    write(3)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [audit_log._LOCK])
        refused = auditor.get("/audit/verify")
        assert (refused.status_code, refused.json()["detail"][:27]) == (409, "A verification is under way")
        kept = audit_log._keep(Verification(2, 2, bytes(32), None))
        told = auditor.get("/audit/verify").json()
        assert (told["entries"], told["time"]) == (2, kept["time"])
        assert told["notes"] == [f"Another verification is under way: this is of {kept['time']}."]
    assert auditor.get("/audit/verify").json()["entries"] == 4


def test_whoever_verifies_without_end_is_slowed_down(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_api, "PACE", "2/d")
    auditor = client_of(Role.AUDITOR)
    answers = [auditor.get("/audit/verify") for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert int(answers[2]["Retry-After"]) > 0


def test_many_that_keep_their_outcome_at_once_leave_a_whole_file_and_nothing_beside_it() -> None:
    def keep(number: int) -> None:
        for _ in range(20):
            audit_log._keep(Verification(number, number, bytes(32), None, notes=("x" * 900 * number,)))
            kept = audit_log.last_verification()
            assert kept is not None
            assert len(kept[0]["notes"][0]) == 900 * kept[0]["entries"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(1, 9)))
    assert [path.name for path in audit_log._kept().parent.glob("*audit*")] == ["audit.json"]


def test_checkpoints_that_cannot_be_read_or_written_are_told_and_stop_nothing(
    db: None, caplog: pytest.LogCaptureFixture
) -> None:
    write(3)
    audit_checkpoints.path().mkdir(parents=True)
    try:
        told = client_of(Role.AUDITOR).get("/audit/verify").json()
        assert (told["ok"], told["checkpoints"]) == (True, 0)
        assert "audit/checkpoints.jsonl cannot be read (Is a directory)" in told["notes"][0]
        assert not audit_chain.checkpoint()
        assert "checkpoint" in list(audit_log.export(COMMAND_LINE))[-1]
    finally:
        audit_checkpoints.path().rmdir()
    assert "no checkpoint in" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is not its own")
def test_what_root_writes_belongs_to_the_owner_of_its_folder(db: None) -> None:
    write(2)
    for path, make in ((audit_checkpoints.path(), audit_chain.checkpoint), (audit_log._kept(), tasks.verify_audit)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = path.parent.stat()
        os.chown(path.parent, 65534, 65534)
        try:
            make()
            assert path.stat().st_uid == 65534, path
        finally:
            os.chown(path.parent, before.st_uid, before.st_gid)


def test_the_hourly_job_anchors_a_whole_log_and_reports_a_broken_one(
    db: None, caplog: pytest.LogCaptureFixture
) -> None:
    def errors() -> list[str]:
        own = [record for record in caplog.records if record.name == "conduit.audit"]
        return [record.getMessage() for record in own if record.levelno >= logging.ERROR]

    write(3)
    caplog.set_level(logging.INFO, "conduit.audit")
    tasks.verify_audit()
    assert audit_checkpoints.path().read_text().count("\n") == 1
    tasks.verify_audit()
    assert audit_checkpoints.path().read_text().count("\n") == 1, "nothing new, no new line"
    assert errors() == []
    tamper("DELETE FROM core_auditentry WHERE id = 2")
    tasks.verify_audit()
    (error,) = errors()
    assert "broken at entry 2 (missing)" in error
    assert audit_checkpoints.path().read_text().count("\n") == 1


# --- exporting -----------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(transactional_db: None, tmp_path: Path) -> Path:
    write(8)
    path = tmp_path / "audit.jsonl"
    path.write_text("".join(audit_log.export(COMMAND_LINE)))
    return path


def test_an_export_verifies_without_the_database(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.reset()
    monkeypatch.setattr(audit_chain, "key_of", lambda version: pytest.fail("asked the database"))
    found = audit_export.verify_file(exported)
    assert (found.intact, found.entries, found.total) == (True, 9, 9)
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert [line["number"] for line in lines[1:-1]] == list(range(1, 10))
    assert lines[-2]["action"] == "audit.export"
    assert keyring.purpose_key("audit")[1].hex() not in exported.read_text()


@pytest.mark.parametrize(
    ("alter", "kind"),
    [
        (lambda rows: [*rows[:3], {**rows[3], "action": "key.read"}, *rows[4:]], "edited"),
        (lambda rows: [*rows[:3], {**rows[3], "after": {**rows[3]["after"], "rpm": 99}}, *rows[4:]], "edited"),
        (lambda rows: [*rows[:3], *rows[4:]], "missing"),
        (lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]], "missing"),
        (lambda rows: [*rows[:6], rows[-1]], "truncated"),
        (lambda rows: rows[:-1], "truncated"),
        (lambda rows: [{**rows[0], "last": 5}, *rows[1:6]], "replaced"),
        (lambda rows: [rows[0], *rows[3:]], "missing"),
        (lambda rows: [*rows[:-1], {"checkpoint": {**rows[-1]["checkpoint"], "number": 8}}], "replaced"),
    ],
)
def test_an_export_that_was_altered_does_not_verify(exported: Path, alter: Any, kind: str) -> None:
    rows = [json.loads(line) for line in exported.read_text().splitlines()]
    exported.write_text("".join(json.dumps(row) + "\n" for row in alter(rows)))
    fault = audit_export.verify_file(exported).fault
    assert fault is not None
    assert fault.kind == kind


def test_a_part_verifies_as_that_part(db: None, tmp_path: Path) -> None:
    write(9)
    start, end = (AuditEntry.objects.get(id=number).time for number in (4, 8))
    path = tmp_path / "part.jsonl"
    path.write_text("".join(audit_log.export(COMMAND_LINE, start, end)))
    found = audit_export.verify_file(path)
    assert (found.intact, found.entries, found.total) == (True, 4, 4)
    assert json.loads(path.read_text().splitlines()[1])["number"] == 4
    with pytest.raises(InvalidInput, match="no entries"):
        list(audit_log.export(COMMAND_LINE, now() + timedelta(hours=1), now() + timedelta(hours=2)))


@pytest.mark.parametrize("text", ["", "{}", "[]\n", "no json", '{"export": "conduit audit log", "format": 1}\n'])
def test_what_is_no_export_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="other.jsonl is not an export"):
        audit_export.verify_file(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        audit_export.verify_file(tmp_path / "nothing.jsonl")


@pytest.mark.django_db(transaction=True)
async def test_the_api_streams_the_same_file(tmp_path: Path) -> None:
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    auditor = await sync_to_async(client_of)(Role.AUDITOR)
    await sync_to_async(write)(3)
    answer = await AsyncClient().get("/api/v1/audit/export", headers={"Authorization": f"Bearer {auditor.raw}"})
    assert answer.status_code == 200
    assert "conduit-audit-" in answer["Content-Disposition"]
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join([part async for part in answer]))
    assert (await sync_to_async(audit_export.verify_file)(path)).entries == 5
    await sync_to_async(lambda: connection.close())()  # the worker thread's, which would outlive this database


# --- as a command --------------------------------------------------------------------------------------------------


def conduit(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conduit.cli", "audit", *words]
    environment = {**os.environ, "DATABASE_URL": url}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.mark.django_db(transaction=True)
def test_list_export_and_verify_from_the_command_line(database_url: str, tmp_path: Path) -> None:
    noted(SYSTEM, "key.create", name="app", after={"rpm": 5})
    listed = conduit(database_url, "list", "--action", "key.*")
    assert listed.stdout.split("  ")[2:] == ["system (system)", "key.create", "app", 'after {"rpm": 5}\n']
    path = tmp_path / "audit.jsonl"
    assert conduit(database_url, "export", "--output", str(path)).returncode == 0
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    offline = conduit(nowhere, "verify", "--file", str(path), "--json")
    assert (offline.returncode, json.loads(offline.stdout)["ok"]) == (0, True), offline.stderr
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE core_auditentry SET after = '{\"rpm\": 500}' WHERE id = 1")
        cursor.execute("RESET session_replication_role")
    broken = conduit(database_url, "verify")
    assert broken.returncode == 1
    assert broken.stdout.startswith("BROKEN at entry 1: edited\n")
