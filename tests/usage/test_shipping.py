"""Journals on disk end up in PostgreSQL, through crashes of workers, of the shipper and of the database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import OperationalError

from conduit.core.ids import uuid7
from tests.usage.events import dispatched, settled
from tests.usage.test_ledger import assert_ledger_adds_up
from usage import journal, records, shipping
from usage.journal import JournalWriter, segments
from usage.models import JournalCursor, UsageEvent
from usage.records import Settled
from usage.shipping import Shipper
from usage.status import read

pytestmark = pytest.mark.django_db
NODE = "a1b2c3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


class Worker:
    """Writes a journal as a web worker does; `die` gives its lock up and settles nothing, as `kill -9` does."""

    def __init__(self, folder: Path, node: str = NODE) -> None:
        self.name = uuid7().hex
        self.journal = JournalWriter(folder, node, self.name, "never")

    def dispatch(self, **given: Any) -> Settled:
        record = settled(**given)
        self.journal.append(records.encode(dispatched(record)))
        return record

    def settle(self, record: Settled) -> None:
        self.journal.append(records.encode(record))

    def serve(self, count: int = 1) -> None:
        for _ in range(count):
            self.settle(self.dispatch())

    def die(self) -> None:
        self.journal.close()


def pass_until_idle(shipper: Shipper) -> None:
    for _ in range(20):
        if shipper.once() == 0:
            return
    raise AssertionError("the shipper never came to rest")


def test_what_workers_settle_arrives_once_and_in_small_steps(folder: Path) -> None:
    alice, bob = Worker(folder), Worker(folder)
    shipper = Shipper(folder, NODE)
    alice.serve(3)
    shipper.once()
    assert UsageEvent.objects.count() == 3
    alice.serve(2)
    bob.serve(4)
    pass_until_idle(shipper)
    assert UsageEvent.objects.count() == 9
    assert shipper.status.duplicates == 0
    assert_ledger_adds_up()
    alice.die()
    bob.die()


def test_a_restarted_shipper_goes_on_where_the_cursor_stands(folder: Path) -> None:
    worker = Worker(folder)
    worker.serve(5)
    Shipper(folder, NODE).once()
    worker.serve(2)
    second = Shipper(folder, NODE)
    pass_until_idle(second)
    assert (second.status.applied, second.status.duplicates) == (2, 0)
    worker.die()


def test_an_attempt_open_across_a_restart_of_the_shipper_settles_normally(folder: Path) -> None:
    worker = Worker(folder)
    record = worker.dispatch()
    Shipper(folder, NODE).once()
    second = Shipper(folder, NODE)
    second.once()
    worker.settle(record)
    worker.die()
    pass_until_idle(second)
    assert UsageEvent.objects.get().exactness == "exact"


def test_open_attempts_of_a_dead_worker_become_uncertain_and_those_of_a_living_one_do_not(folder: Path) -> None:
    dead, alive = Worker(folder), Worker(folder)
    lost, running = dead.dispatch(held_nanos=42), alive.dispatch()
    dead.serve(1)
    shipper = Shipper(folder, NODE)
    shipper.once()
    dead.die()
    pass_until_idle(shipper)
    event = UsageEvent.objects.get(exactness="uncertain")
    assert (event.id.bytes, event.held_nanos, event.cost_nanos) == (lost.attempt_id, 42, 0)
    assert shipper.status.uncertain == 1
    alive.settle(running)
    pass_until_idle(shipper)
    assert UsageEvent.objects.count() == 3
    alive.die()


def test_open_attempts_are_found_again_by_a_shipper_that_never_saw_them_dispatched(folder: Path) -> None:
    worker = Worker(folder)
    worker.dispatch()
    Shipper(folder, NODE).once()
    worker.die()
    pass_until_idle(Shipper(folder, NODE))
    assert UsageEvent.objects.get().exactness == "uncertain"


def test_a_crash_between_uncertain_and_deletion_doubles_nothing(folder: Path) -> None:
    worker = Worker(folder)
    worker.dispatch()
    worker.serve(2)
    worker.die()
    pass_until_idle(Shipper(folder, NODE))
    again = Shipper(folder, NODE)
    pass_until_idle(again)
    assert UsageEvent.objects.count() == 3
    assert again.status.applied == 0
    assert_ledger_adds_up()


def test_applied_segments_of_dead_workers_are_deleted_with_all_that_belongs_to_them(folder: Path) -> None:
    worker = Worker(folder)
    worker.serve(3)
    worker.die()
    (folder / f".{NODE}-{worker.name}-000001.new").touch()
    pass_until_idle(Shipper(folder, NODE, grace=0))
    assert list(folder.iterdir()) == []
    assert not JournalCursor.objects.exists()
    assert UsageEvent.objects.count() == 3


def test_within_the_grace_applied_segments_stay(folder: Path) -> None:
    worker = Worker(folder)
    worker.serve(3)
    worker.die()
    pass_until_idle(Shipper(folder, NODE, grace=60))
    assert len(segments(folder)) == 1
    assert JournalCursor.objects.get().closed


def test_a_full_segment_of_a_living_worker_is_kept_while_an_attempt_in_it_is_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4096)
    monkeypatch.setattr(journal, "RESERVE", 512)
    worker = Worker(folder)
    slow = worker.dispatch()
    worker.serve(20)
    shipper = Shipper(folder, NODE, grace=0)
    pass_until_idle(shipper)
    kept = [segment.name for segment in segments(folder)]
    assert len(kept) == 2  # the one of the open attempt and the one being written
    worker.settle(slow)
    pass_until_idle(shipper)
    assert len(segments(folder)) == 1
    assert UsageEvent.objects.count() == 21
    worker.die()


def test_another_nodes_journals_are_left_alone(folder: Path) -> None:
    other = Worker(folder, f"{NODE}-2")
    other.serve(1)
    pass_until_idle(Shipper(folder, NODE))
    assert not UsageEvent.objects.exists()
    other.die()


def test_damaged_records_are_set_aside_and_reported_and_the_others_arrive(folder: Path) -> None:
    worker = Worker(folder)
    worker.serve(3)
    (segment,) = segments(folder)
    with segment.path.open("r+b") as file:
        file.seek(600)
        file.write(b"\xff" * 8)
    worker.die()
    shipper = Shipper(folder, NODE, grace=0)
    pass_until_idle(shipper)
    assert shipper.status.damaged == 1
    assert UsageEvent.objects.filter(exactness="exact").count() == 2
    assert [path.parent.name for path in folder.rglob("*.bin")] == ["quarantine"]


def test_a_failed_batch_is_read_again_from_its_old_position(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL goes away in the middle of a pass, after a `settled` had already closed its attempt in memory."""
    worker = Worker(folder)
    worker.serve(3)
    shipper = Shipper(folder, NODE)
    real: Callable[..., Any] = shipping.apply
    with monkeypatch.context() as patched:

        def gone(*args: Any, **kwargs: Any) -> None:
            raise OperationalError("server closed the connection")

        patched.setattr(shipping, "apply", gone)
        with pytest.raises(OperationalError):
            shipper.once()
    assert shipping.apply is real
    worker.die()
    pass_until_idle(shipper)
    assert list(UsageEvent.objects.values_list("exactness", flat=True)) == ["exact"] * 3


def test_a_cursor_that_runs_ahead_of_its_rows_would_lose_them(folder: Path) -> None:
    """Negative control: the cursor must move in the transaction that stores the rows, as `apply` does."""
    worker = Worker(folder)
    worker.serve(2)
    (segment,) = segments(folder)
    end = max(position for position, _ in journal.JournalReader(segment.path))
    JournalCursor.objects.create(segment=segment.name, node=NODE, position=end)
    pass_until_idle(Shipper(folder, NODE))
    assert UsageEvent.objects.count() == 0
    JournalCursor.objects.all().delete()
    pass_until_idle(Shipper(folder, NODE))
    assert UsageEvent.objects.count() == 2
    worker.die()


# --- the process ---------------------------------------------------------------------------------------------------


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


class Process:
    """`python -m usage.shipper` on a database and a CONDUIT_HOME of its own."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url, home
        (home / "node").write_text(NODE)
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "DATABASE_URL": self.url, "CONDUIT_HOME": str(self.home)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "usage.shipper"], env=environment, stderr=subprocess.PIPE, text=True
        )

    def count(self) -> int:
        with psycopg.connect(self.url) as session:
            return int(session.execute("SELECT count(*) FROM usage_event").fetchone()[0])  # type: ignore[index]

    def status(self) -> dict[str, Any]:
        return read(self.home / "run" / "shipper.json") or {}

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(how)
        _, told = self.process.communicate(timeout=20)
        return self.process.returncode, told


@pytest.fixture
def process(own_database: str, tmp_path: Path) -> Any:
    running = Process(own_database, tmp_path)
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)


def test_the_process_ships_reports_and_drains_on_sigterm(process: Process, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "journal")
    worker.serve(10)
    until(lambda: process.count() == 10)
    until(lambda: process.status().get("applied") == 10)
    worker.serve(5)
    worker.dispatch()
    worker.die()
    code, told = process.end()
    assert code == 0
    assert process.count() == 16
    assert [json.loads(line)["event"] for line in told.splitlines()][-1] == "journal drained"


def test_kill_9_of_the_shipper_at_any_moment_loses_and_doubles_nothing(process: Process, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "journal")
    total = 0
    for round_ in range(4):
        worker.serve(300)
        total += 300
        time.sleep(0.35 + 0.1 * round_)
        process.end(signal.SIGKILL)
        process.start()
    worker.die()
    until(lambda: process.count() == total)
    with psycopg.connect(process.url) as session:
        once = session.execute("SELECT count(DISTINCT id), sum(cost_nanos) FROM usage_event").fetchone()
        rolled = session.execute("SELECT sum(requests), sum(cost_nanos) FROM usage_usagehour").fetchone()
    assert once == rolled == (total, total * 135_000)


def test_the_process_waits_for_a_database_that_is_away(process: Process, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "journal")
    worker.serve(2)
    until(lambda: process.count() == 2)
    name = process.url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(process.url.replace(name, "postgres", 1), autocommit=True) as session:
        session.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    worker.serve(3)
    until(lambda: process.status().get("working") is False and process.status()["lag"]["records"] == 3)
    with psycopg.connect(process.url.replace(name, "postgres", 1), autocommit=True) as session:
        session.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    until(lambda: process.count() == 5)
    worker.die()
    code, told = process.end()
    events = [json.loads(line)["event"] for line in told.splitlines()]
    assert code == 0
    assert events.count("shipping stopped") == 1
    assert "shipping again" in events


def test_a_second_shipper_for_the_same_node_waits(process: Process, tmp_path: Path) -> None:
    worker = Worker(tmp_path / "journal")
    worker.serve(1)
    until(lambda: process.count() == 1)
    second = Process(process.url, tmp_path)
    try:
        until(lambda: process.status().get("working") is False)  # the second one says so: they share the file
        code, told = process.end(signal.SIGTERM)
        assert code == 0
        worker.serve(1)
        until(lambda: second.count() == 2)
    finally:
        _, told = second.end()
        worker.die()
    assert "another shipper works for node" in told
