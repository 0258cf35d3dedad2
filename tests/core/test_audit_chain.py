"""S8: what is done to the audit log behind Conduit's back shows."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from conduit.core import audit, audit_chain, audit_checkpoints, keyring
from conduit.core.actor import SYSTEM, Actor
from conduit.core.audit_chain import Verification
from conduit.core.models import AuditEntry, AuditHead

ALICE = Actor("user", "0190", "alice@example.org", "owner", None)
COLUMNS = (
    "time", "actor_kind", "actor_id", "actor_name", "action", "object_kind", "object_id", "object_name", "team_id",
    "before", "after", "request_id", "address", "key_version", "mac",
)  # fmt: skip


def write(count: int) -> None:
    """One transaction each, as changes are."""
    for number in range(count):
        with transaction.atomic():
            audit.record(
                actor=ALICE if number % 3 else SYSTEM,
                action=("key.create", "key.update", "credential.rotate", "budget.set")[number % 4],
                kind="key",
                id=uuid4(),
                name=f"app {number}",
                team_id=uuid4() if number % 2 else None,
                before={"rpm": number, "weight": 0.25} if number % 5 else None,
                after={"rpm": number + 1, "weight": 2.0, "large": 1e16, "models": ["é", '"', "\\"]},
                request_id=f"req-{number:08}",
            )


def tamper(statement: str, *values: Any) -> None:
    """As a superuser who switches the triggers off."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(statement, values)


def fault(found: Verification) -> tuple[int, str]:
    assert found.fault is not None, "nothing was found"
    return found.fault.number, found.fault.kind


# --- an honest log -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_entries_are_numbered_without_gaps_and_verify() -> None:
    assert audit_chain.verify() == Verification(0, 0, audit_chain.START, None, notes=audit_chain.verify().notes)
    write(7)
    with transaction.atomic():
        audit.record(actor=SYSTEM, action="key.create", kind="key", id=1)
        transaction.set_rollback(True)
    write(5)
    assert list(AuditEntry.objects.order_by("id").values_list("id", flat=True)) == list(range(1, 13))
    found = audit_chain.verify()
    assert (found.intact, found.entries, found.total) == (True, 12, 12)
    assert found.head == bytes(AuditEntry.objects.get(id=12).mac)


def test_what_is_read_back_is_what_was_sealed_whatever_the_values(db: None) -> None:
    odd = {"tiny": 1e-7, "huge": 10**30, "minus": -0.0, "third": 1 / 3, "deep": {"b": [None, True], "a": "\u2028😀"}}
    with transaction.atomic():
        audit.record(actor=SYSTEM, action="x", kind="x", id=1, before=odd, after={"": "", "1": [], "2.50": 2.50})
    assert audit_chain.verify().intact
    assert AuditEntry.objects.get().before == {**odd, "minus": 0}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE core_auditentry SET actor_name = 'Bob' WHERE id = 2",
        "UPDATE core_auditentry SET mac = NULL WHERE id = 2",
        "DELETE FROM core_auditentry WHERE id = 3",
        "TRUNCATE core_auditentry",
        "DELETE FROM core_audithead",
        "TRUNCATE core_audithead",
        "INSERT INTO core_auditentry (id, time, actor_kind, actor_id, actor_name, action, object_kind, object_id,"
        " object_name, request_id, address) VALUES (9, now(), 'user', '', 'x', 'x', 'x', 'x', '', '', '')",
    ],
)
def test_the_table_only_grows(db: None, statement: str) -> None:
    write(3)
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert audit_chain.verify().entries == 3


@pytest.mark.django_db(transaction=True)
def test_entries_of_the_time_before_the_chain_are_numbered_and_sealed_once_in_their_order() -> None:
    call_command("migrate", "core", "0004_live_processes", verbosity=0)
    old = (
        "INSERT INTO core_auditentry (id, time, actor_kind, actor_id, actor_name, action, object_kind, object_id,"
        " object_name, request_id, after)"
        " VALUES (%s, now(), 'system', '', 'system', %s, 'key', '', '', '', '{\"a\": 1.0}')"
    )
    with connection.cursor() as cursor:
        for number in (9, 3, 4, 27, 5):
            cursor.execute(old, [number, f"old.{number}"])
    call_command("migrate", "core", verbosity=0)
    assert audit_chain.verify().notes[0].startswith("The entries are not chained yet")
    with CaptureQueriesContext(connection) as seen:
        write(2)
    assert "CASE" not in str(seen.captured_queries), "no expression per entry"
    actions = list(AuditEntry.objects.order_by("id").values_list("id", "action"))
    assert actions[:5] == [(1, "old.3"), (2, "old.4"), (3, "old.5"), (4, "old.9"), (5, "old.27")]
    assert audit_chain.verify().entries == 7
    tamper("UPDATE core_auditentry SET action = 'old.28' WHERE id = 5")
    assert fault(audit_chain.verify()) == (5, "edited")


# --- what was done to the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE core_auditentry SET actor_name = 'Bob' WHERE id = 4", (4, "edited")),
        ("UPDATE core_auditentry SET after = after || '{\"rpm\": 9}' WHERE id = 4", (4, "edited")),
        ("UPDATE core_auditentry SET time = time + interval '1 microsecond' WHERE id = 10", (10, "edited")),
        ("ALTER TABLE core_auditentry DROP CONSTRAINT audit_chained;"
         " UPDATE core_auditentry SET mac = NULL WHERE id = 4", (4, "inserted")),
        ("DELETE FROM core_auditentry WHERE id = 1", (1, "missing")),
        ("DELETE FROM core_auditentry WHERE id IN (4, 5)", (4, "missing")),
        ("DELETE FROM core_auditentry WHERE id > 8", (9, "truncated")),
        ("DELETE FROM core_auditentry", (1, "truncated")),
        ("UPDATE core_auditentry SET id = CASE id WHEN 4 THEN -7 ELSE -4 END WHERE id IN (4, 7);"
         " UPDATE core_auditentry SET id = -id WHERE id < 0", (4, "reordered")),
        ("UPDATE core_auditentry SET id = -3 WHERE id = 10", (-3, "inserted")),
        ("UPDATE core_audithead SET number = 9", (11, "forged head")),
        ("UPDATE core_audithead SET number = 11", (11, "forged head")),
        ("DELETE FROM core_audithead", (11, "forged head")),
        ("DELETE FROM core_purposekey WHERE purpose = 'audit'", (1, "edited")),
    ],
)  # fmt: skip
def test_each_kind_of_tampering_is_named_with_its_entry(db: None, statement: str, expected: tuple[int, str]) -> None:
    write(10)
    for part in statement.split(";"):
        tamper(part)
    keyring.reset()
    assert fault(audit_chain.verify()) == expected


def test_an_old_head_put_back_with_its_shorter_log_shows_against_the_checkpoints(db: None) -> None:
    write(4)
    old = AuditHead.objects.get()
    write(4)
    assert audit_chain.checkpoint()
    assert not audit_chain.checkpoint(), "the same again says nothing new"
    assert audit_chain.verify().checkpoints == 1
    path = audit_checkpoints.path()
    assert path.stat().st_mode & 0o777 == 0o600
    tamper("DELETE FROM core_auditentry WHERE id > 4")
    values = [old.number, bytes(old.mac), old.key_version, bytes(old.seal)]
    tamper("UPDATE core_audithead SET number = %s, mac = %s, key_version = %s, seal = %s", *values)
    assert fault(audit_chain.verify()) == (5, "truncated")
    write(6)
    assert fault(audit_chain.verify()) == (8, "replaced"), "also when the log has grown beyond it again"
    path.unlink()
    found = audit_chain.verify()
    assert found.intact, "without the file nothing outside can tell"
    assert "no checkpoints" in found.notes[0]


def test_lines_that_a_power_cut_tore_are_told_and_forged_ones_are_a_fault(db: None) -> None:
    write(3)
    audit_chain.checkpoint()
    with audit_checkpoints.path().open("a") as file:
        file.write('{"number": 3, "mac": "ab')
    write(2)
    audit_chain.checkpoint()
    found = audit_chain.verify()
    assert (found.intact, found.checkpoints) == (True, 2)
    assert found.notes == ("Line 2 of audit/checkpoints.jsonl cannot be read.",)
    lines = audit_checkpoints.path().read_text().splitlines()
    forged = {**json.loads(lines[0]), "number": 2, "mac": bytes(AuditEntry.objects.get(id=2).mac).hex()}
    audit_checkpoints.path().write_text(json.dumps(forged) + "\n")
    assert fault(audit_chain.verify()) == (2, "replaced")


@pytest.mark.django_db(transaction=True)
def test_a_checkpoint_is_written_with_the_first_entry_and_every_hundred() -> None:
    write(audit_chain.CHECKPOINT_EVERY + 1)
    lines = audit_checkpoints.path().read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, audit_chain.CHECKPOINT_EVERY]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM core_auditentry WHERE id > 6",
        "UPDATE core_audithead SET number = 5",
        "DELETE FROM core_audithead",
        "UPDATE core_auditentry SET id = 12 WHERE id = 10",
    ],
)
def test_the_next_entry_does_not_cover_up_what_was_done_before_it(db: None, statement: str) -> None:
    write(10)
    tamper(statement)
    before = fault(audit_chain.verify())
    write(3)
    after = fault(audit_chain.verify())
    assert after[0] <= max(before[0], 11)
    assert AuditEntry.objects.filter(action="key.create").exists(), "changes go on"


def test_clearing_every_mac_does_not_pass_for_an_old_installation(db: None) -> None:
    write(5)
    tamper("ALTER TABLE core_auditentry DROP CONSTRAINT audit_chained")
    tamper("UPDATE core_auditentry SET mac = NULL, key_version = NULL, actor_name = 'Bob'")
    tamper("DELETE FROM core_audithead")
    write(1)
    assert fault(audit_chain.verify()) == (1, "inserted")


# --- a thousand at random ------------------------------------------------------------------------------------------


@dataclass
class Log:
    """A copy of the log in memory, for the same verifier."""

    entries: list[AuditEntry]
    head: AuditHead | None
    keys: Callable[[int], bytes]

    def scan(self, after: int) -> Iterable[AuditEntry]:
        ordered = sorted(self.entries, key=lambda entry: entry.id)
        return iter(ordered if not after else [entry for entry in ordered if entry.id > after])

    def verify(self) -> Verification:
        found = audit_chain.examine(self.scan, self.head, self.keys)
        return audit_chain.compare(found, lambda numbers: {e.id: bytes(e.mac) for e in self.entries if e.id in numbers})


def _edit(log: Log, rng: random.Random) -> None:
    index = rng.randrange(len(log.entries))
    entry = log.entries[index] = copy.copy(log.entries[index])
    column = rng.choice(COLUMNS)
    former = getattr(entry, column)
    if column == "time":
        setattr(entry, column, former + timedelta(microseconds=rng.choice([-1, 1, 10**9])))
    elif column == "team_id":
        setattr(entry, column, None if former else uuid4())
    elif column in ("before", "after"):
        setattr(entry, column, {**(former or {}), "rpm": rng.choice([None, 10**6, "1", 0.5])})
    elif column == "key_version":
        setattr(entry, column, former + 1)
    elif column == "mac":
        at = rng.randrange(32)
        setattr(entry, column, bytes(byte ^ (rng.randrange(1, 256) if i == at else 0) for i, byte in enumerate(former)))
    else:
        setattr(entry, column, rng.choice([former + "x", former[:-1] if former else "y", "z" + former]))


def _delete(log: Log, rng: random.Random) -> None:
    start = rng.randrange(len(log.entries))
    del log.entries[start : start + rng.choice([1, 1, 1, 2, 5, 40])]


def _close_up(log: Log, rng: random.Random) -> None:
    """A deletion whose gap is closed by numbering the rest anew."""
    start = rng.randrange(len(log.entries) - 1)
    del log.entries[start]
    for index in range(start, len(log.entries)):
        log.entries[index] = copy.copy(log.entries[index])
        log.entries[index].id = index + 1


def _reorder(log: Log, rng: random.Random) -> None:
    one, other = rng.sample(range(len(log.entries)), 2)
    first, second = copy.copy(log.entries[one]), copy.copy(log.entries[other])
    first.id, second.id = second.id, first.id
    if rng.random() < 0.3:  # the MACs stay where they were
        first.mac, second.mac = second.mac, first.mac
    log.entries[one], log.entries[other] = first, second


def _truncate(log: Log, rng: random.Random) -> None:
    del log.entries[rng.randrange(len(log.entries)) :]


def _restore(log: Log, rng: random.Random, heads: list[AuditHead]) -> None:
    """An old head with its shorter log, as from a backup: both genuine."""
    kept = rng.randrange(1, len(log.entries))
    del log.entries[kept:]
    log.head = heads[kept - 1]


def _forge_head(log: Log, rng: random.Random) -> None:
    kept = rng.randrange(1, len(log.entries))
    del log.entries[kept:]
    log.head = AuditHead(number=kept, mac=log.entries[-1].mac, key_version=1, seal=rng.randbytes(32))


def _insert(log: Log, rng: random.Random) -> None:
    twin = copy.copy(rng.choice(log.entries))
    twin.id = rng.choice([len(log.entries) + 1, 0, -1])
    log.entries.append(twin)


@pytest.fixture
def log() -> tuple[Log, list[AuditHead]]:
    """120 entries in memory, with every head there ever was."""
    write(120)
    version, key = keyring.purpose_key(audit_chain.PURPOSE)
    entries = list(AuditEntry.objects.order_by("id"))
    for entry in entries:
        entry.mac = bytes(entry.mac)
    heads = [
        AuditHead(
            number=entry.id,
            mac=entry.mac,
            key_version=version,
            seal=audit_chain.seal(key, entry.id, entry.mac, version),
        )
        for entry in entries
    ]
    assert bytes(AuditHead.objects.get().seal) == heads[-1].seal
    audit_chain.checkpoint()

    def keys(asked: int) -> bytes:
        if asked != version:
            raise LookupError(asked)
        return key

    return Log(entries, heads[-1], keys), heads


def _mutations(heads: list[AuditHead]) -> list[Callable[[Log, random.Random], None]]:
    return [_edit, _edit, _delete, _close_up, _reorder, _truncate, partial(_restore, heads=heads), _forge_head, _insert]


@pytest.mark.django_db(transaction=True)
def test_a_thousand_random_edits_deletions_reorderings_and_truncations_are_found(
    log: tuple[Log, list[AuditHead]],
) -> None:
    whole, heads = log
    assert whole.verify().intact
    ways, found = _mutations(heads), 0
    for number in range(1000):
        rng = random.Random(number)  # noqa: S311 (a reproducible attack, not a secret)
        altered = Log(list(whole.entries), whole.head, whole.keys)
        ways[number % len(ways)](altered, rng)
        assert not altered.verify().intact, (number, ways[number % len(ways)])
        found += 1
    print(f"S8: random edits, deletions, reorderings and truncations of the audit log found: {found} of 1000")  # noqa: T201


@pytest.mark.django_db(transaction=True)
def test_without_the_macs_most_of_them_pass(log: tuple[Log, list[AuditHead]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the thousand are found by the check, not by chance."""
    whole, _ = log
    monkeypatch.setattr(audit_chain, "_follows", lambda entry, previous, keys: previous is not audit_chain.RESTART)
    passed = 0
    for number in range(100):
        altered = Log(list(whole.entries), whole.head, whole.keys)
        (_edit, _reorder)[number % 2](altered, random.Random(number))  # noqa: S311
        passed += altered.verify().intact
    assert passed > 50


def test_random_tampering_with_the_real_table_is_found(db: None) -> None:
    write(30)
    audit_chain.checkpoint()
    found = 0
    for number in range(40):
        rng = random.Random(number)  # noqa: S311
        one, other = rng.sample(range(1, 31), 2)
        ways = [
            f"UPDATE core_auditentry SET {rng.choice(COLUMNS[1:8])} = 'x' WHERE id = {one}",
            f"UPDATE core_auditentry SET after = '{{}}' WHERE id = {one}",
            f"DELETE FROM core_auditentry WHERE id BETWEEN {min(one, other)} AND {max(one, other)}",
            f"DELETE FROM core_auditentry WHERE id >= {one}",
            f"UPDATE core_auditentry SET mac = (SELECT mac FROM core_auditentry WHERE id = {other}) WHERE id = {one}",
        ]
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(ways[number % len(ways)])
            found += not audit_chain.verify().intact
            transaction.set_rollback(True)
        assert found == number + 1, ways[number % len(ways)]
    assert audit_chain.verify().intact
    print(f"S8: random tampering with the table itself found: {found} of 40")  # noqa: T201
