"""The journal keeps every record that was appended, and gives up only the ones that were damaged (J4, J5)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage import journal, records
from usage.errors import JournalFull
from usage.journal import Damaged, JournalReader, JournalWriter, frame, segments


def record(number: int) -> records.Refused:
    return records.Refused(
        attempt_id=number.to_bytes(16, "big"),
        time_us=1_700_000_000_000_000 + number,
        request_id=f"req_{number:08d}",
        attempt=0,
        dialect="openai",
        endpoint="chat",
        status=429,
        outcome="error",
        error_message="x" * (number % 50),
    )


def numbers(path: Path, position: int = 0, *, complete: bool = True) -> list[int]:
    reader = JournalReader(path, position, complete=complete)
    return [int.from_bytes(found.attempt_id, "big") for _, found in reader if not isinstance(found, Damaged)]


def damaged(path: Path) -> int:
    return sum(isinstance(found, Damaged) for _, found in JournalReader(path, complete=True))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A segment with ten records, cut to what is used so that every byte counts."""
    writer = JournalWriter(tmp_path, "node", "worker")
    for number in range(10):
        writer.append(records.encode(record(number)))
    used = writer._position
    writer.close()
    path = segments(tmp_path)[0].path
    os.truncate(path, used)
    return path


def test_what_was_appended_is_read_back_in_order_and_from_any_position(written: Path) -> None:
    assert numbers(written) == list(range(10))
    positions = [position for position, _ in JournalReader(written, complete=True)]
    for index, position in enumerate(positions):
        assert numbers(written, position) == list(range(index + 1, 10))


def test_every_flipped_byte_costs_at_most_the_record_it_is_in(written: Path) -> None:
    whole = written.read_bytes()
    ends = [position for position, _ in JournalReader(written, complete=True)]
    for at in range(len(journal.FILE_MAGIC), len(whole)):
        written.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        hit = next(index for index, end in enumerate(ends) if at < end)
        assert numbers(written) == [number for number in range(10) if number != hit], f"byte {at}"
        assert damaged(written) == 1, f"byte {at}"


def test_a_torn_tail_is_damage_only_once_nobody_writes_any_more(written: Path) -> None:
    whole = written.read_bytes()
    last = [position for position, _ in JournalReader(written, complete=True)][-2]
    for cut in range(last + 1, len(whole)):
        written.write_bytes(whole[:cut])
        assert numbers(written, complete=False) == list(range(9))
        assert [found for _, found in JournalReader(written, complete=False) if isinstance(found, Damaged)] == []
        assert numbers(written) == list(range(9))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20), st.binary(max_size=40))
def test_rubbish_between_records_never_hides_a_later_record(payloads: list[bytes], rubbish: bytes) -> None:
    frames = [frame(records.encode(record(index))) + rubbish for index in range(len(payloads))]
    path = Path(os.environ["CONDUIT_HOME"]) / "rubbish.seg"
    path.write_bytes(journal.FILE_MAGIC + b"".join(frames))
    assert numbers(path) == list(range(len(payloads)))


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4096)
    writer = JournalWriter(tmp_path, "node", "worker")
    for number in range(100):
        writer.append(records.encode(record(number)))
    found = segments(tmp_path)
    assert len(found) > 2
    assert [segment.sealed for segment in found] == [True] * (len(found) - 1) + [False]
    assert all(segment.writer_alive for segment in found)
    assert [number for segment in found for number in numbers(segment.path)] == list(range(100))
    writer.close()
    assert all(segment.sealed and not segment.writer_alive for segment in segments(tmp_path))


def test_a_full_disk_stops_admission_while_there_is_still_room_to_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 64 * 1024)
    monkeypatch.setattr(journal, "RESERVE", 32 * 1024)
    writer = JournalWriter(tmp_path, "node", "worker")

    def no_space(*args: object) -> None:
        raise OSError(28, "No space left on device")

    payload = records.encode(record(1))
    writer._next = None
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    admitted = 0
    while writer.accepting:
        writer.append(payload)
        admitted += 1
    settled = (journal.SEGMENT_BYTES - writer._position) // len(frame(payload))
    for _ in range(settled):
        writer.append(payload)
    with pytest.raises(JournalFull):
        writer.append(payload)
    assert admitted > 100
    assert settled > 100
    assert len(numbers(segments(tmp_path)[0].path)) == admitted + settled
    writer.close()


async def test_policy_always_returns_only_after_the_bytes_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(writer._position), real(file)))
    writer = JournalWriter(tmp_path, "node", "worker", "always")

    async def one(number: int) -> None:
        writer.append(records.encode(record(number)))
        mine = writer._position
        await writer.durable()
        assert synced[-1] >= mine

    await asyncio.gather(*(one(number) for number in range(50)))
    assert len(synced) < 50, "syncs are shared by the requests that wait at the same time"
    writer.close()


_CHILD = """
import os, sys
from pathlib import Path
from tests.usage.test_journal import record
from usage import records
from usage.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]), "node", "child")
number = 0
while True:
    writer.append(records.encode(record(number)))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


def test_what_a_killed_process_had_appended_is_all_there(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(2000):
        last = int(child.stdout.readline())
    assert segments(tmp_path)[0].writer_alive
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    last = int(rest[-1]) if rest else last
    found = segments(tmp_path)
    assert not found[0].writer_alive
    read = [number for segment in found for number in numbers(segment.path)]
    assert read[: last + 1] == list(range(last + 1))
    assert len(read) - (last + 1) <= 1, "at most the record whose number was not yet told"
