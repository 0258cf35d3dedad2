"""A disk that is full or fails, and a journal that is torn: admission stops, and what was recorded stays (J4, J5)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import transaction

from keys.models import BudgetPeriod, VirtualKey
from tests.usage.events import budget, costing, dispatched
from tests.usage.test_journal import numbers, record
from tests.usage.test_ledger import assert_ledger_adds_up
from tests.usage.test_shipping import NODE, Worker, pass_until_idle
from usage import journal, records
from usage.errors import JournalFull
from usage.journal import JournalReader, JournalWriter, segments
from usage.models import UsageEvent
from usage.shipping import Shipper

MEGABYTE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_stops_admission_and_keeps_what_settles(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", MEGABYTE)
    monkeypatch.setattr(journal, "RESERVE", MEGABYTE // 4)
    writer = JournalWriter(small_disk / "journal", "node", "worker")
    payload = [records.encode(record(number)) for number in range(30_000)]
    appended = 0
    while writer.accepting:  # the disk takes three more segments at most
        writer.append(payload[appended])
        appended += 1
        assert appended < len(payload), "the disk never filled up"
    admitted = appended
    for _ in range(500):  # what was in flight settles
        writer.append(payload[appended])
        appended += 1
    assert not writer.accepting
    writer.close()
    kept = [number for segment in segments(small_disk / "journal") for number in numbers(segment.path)]
    assert kept == list(range(appended))
    print(f"J4: full disk: stopped after {admitted:,} records, 500 more settled, lost {appended - len(kept)}")


_CHILD = """
import asyncio, json, sys, time
from pathlib import Path
from tests.usage.test_journal import record
from usage import records
from usage.errors import JournalFull
from usage.journal import JournalWriter

async def main() -> None:
    writer = JournalWriter(Path(sys.argv[1]), "node", "child", sys.argv[2])
    admitted = writer.accepting
    writer.append(records.encode(record(0)))
    async def durable():
        try:
            await asyncio.wait_for(writer.durable(), 20)
        except JournalFull:
            return True
        return False
    refused = await asyncio.gather(*[durable() for _ in range(5)])
    for _ in range(200):
        if not writer.accepting:
            break
        await asyncio.sleep(0.1)
    writer.append(records.encode(record(1)))
    writer.close()
    print(json.dumps({"admitted": admitted, "refused": sum(refused), "accepting": writer.accepting}))

asyncio.run(main())
"""


@pytest.mark.parametrize(("policy", "refused"), [("always", 5), ("interval", 0)])
def test_a_disk_that_fails_to_sync_stops_admission_and_keeps_what_settles(
    tmp_path: Path, policy: str, refused: int
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace makes the disk fail")
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO"]
    command = [*traced, sys.executable, "-c", _CHILD, str(tmp_path), policy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "ptrace" in done.stderr.lower():
        pytest.skip("tracing is not permitted here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"admitted": True, "refused": refused, "accepting": False}
    assert [number for segment in segments(tmp_path) for number in numbers(segment.path)] == [0, 1]
    print(f"J4: fsync fails ({policy}): admission stopped, settled records lost 0")


async def test_one_failed_sync_is_told_to_everybody_who_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: int) -> None:
        raise OSError(5, "Input/output error")

    writer = JournalWriter(tmp_path, "node", "worker", "always")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(JournalFull, match="disk failed"):
            await writer.durable()
    with pytest.raises(JournalFull, match="disk failed"):
        await writer.durable()  # what was dropped does not come back with a disk that works again
    writer.close()


@pytest.mark.django_db
def test_torn_and_flipped_records_cost_only_themselves_at_every_offset(tmp_path: Path) -> None:
    """Flipped bytes and a torn end all over a dead worker's segment: the others arrive, and the books are right."""
    own = budget(VirtualKey.objects.create(name="torn"))
    whole, ends, kinds = _segment(tmp_path / "whole", own.id.bytes)
    runs = 0
    for at in [*range(len(journal.FILE_MAGIC), len(whole), 23), len(whole) - 1]:
        for torn in (False, True):
            hit = next(index for index, end in enumerate(ends) if at < end)
            bytes_ = whole[:at] if torn else whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
            with transaction.atomic():
                lost = range(hit, len(ends)) if torn else [hit]
                _arrives(tmp_path / f"{at}-{torn}", bytes_, {kinds[index] for index in lost})
                transaction.set_rollback(True)
            runs += 1
    print(f"J5: {runs} damaged segments: only what was damaged is quarantined, books wrong 0")
    assert runs > 50


def _segment(folder: Path, budget_id: bytes) -> tuple[bytes, list[int], list[tuple[str, int]]]:
    """Three attempts of 10, 20 and 30: the bytes, where each record ends, and whose it is."""
    worker = Worker(folder)
    for nanos in (10, 20, 30):
        settled = costing(nanos, budgets=[budget_id], held_nanos=100)
        worker.journal.append(records.encode(dispatched(settled)))
        worker.journal.append(records.encode(settled))
    used = worker.journal._position
    worker.die()
    path = segments(folder)[0].path
    whole = path.read_bytes()[:used]
    ends = [position for position, _ in JournalReader(path)]
    return whole, ends, [(kind, nanos) for nanos in (10, 20, 30) for kind in ("dispatched", "settled")]


def _arrives(folder: Path, data: bytes, lost: set[tuple[str, int]]) -> None:
    folder.mkdir()
    name = f"{NODE}-{'0' * 32}"
    (folder / f"{name}-000000.seg").write_bytes(data)
    (folder / f"{name}.lock").touch()
    shipper = Shipper(folder, NODE)
    pass_until_idle(shipper)
    here = [nanos for nanos in (10, 20, 30) if ("settled", nanos) not in lost]
    doubtful = [n for n in (10, 20, 30) if ("settled", n) in lost and ("dispatched", n) not in lost]
    assert sorted(UsageEvent.objects.filter(exactness="exact").values_list("cost_nanos", flat=True)) == here
    assert UsageEvent.objects.filter(exactness="uncertain").count() == len(doubtful)
    period = BudgetPeriod.objects.filter(settled_nanos__gt=0).first() or BudgetPeriod.objects.first()
    kept = (period.settled_nanos, period.uncertain_nanos) if period else (0, 0)
    assert kept == (sum(here), 100 * len(doubtful))
    assert len(list((folder / "quarantine").glob("*.bin"))) <= 1
    assert shipper.status.damaged <= 1
    assert_ledger_adds_up()
