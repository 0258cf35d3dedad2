"""Values from elsewhere: read ahead, kept while their place is away, and never waited for where that is not allowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from providers.kept import RETRY_SECONDS, SIDE_BY_SIDE, Kept, Pending, Reading, Unavailable


class Place:
    """What lies there by key; an absent key fails. `reads` counts; a key in `hangs` answers when the test ends."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.reads: list[str] = []
        self.hangs: set[str] = set()
        self.ended = threading.Event()

    def read(self, key: str) -> Reading[str]:
        self.reads.append(key)
        if key in self.hangs:
            self.ended.wait(20)
        if key == "odd":
            raise ValueError("odd-canary-5d1e")
        if key not in self.values:
            raise Unavailable("Nothing lies there.", "Put it there.")
        return Reading(self.values[key], renew=30)


class Clock:
    """Monotonic seconds that a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def place() -> Iterator[Place]:
    found = Place()
    yield found
    found.ended.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("providers.kept.monotonic", found)
    return found


def kept(place: Place, *, seconds: float = 5, grace: float | None = 60) -> Kept[str, str]:
    return Kept(place.read, seconds=seconds, grace=grace)


def test_a_value_is_read_once_and_again_when_it_is_due(place: Place, clock: Clock) -> None:
    place.values["a"] = "one"
    held = kept(place)
    assert [held.get("a"), held.get("a")] == ["one", "one"]
    assert place.reads == ["a"]
    place.values["a"] = "two"
    assert held.get("a") == "one"
    clock.ahead += 30
    assert held.get("a") == "two"
    assert held.get("a", fresh=True) == "two"
    assert len(place.reads) == 3


def test_who_must_not_wait_reads_nothing_and_is_told_when_it_is_there(place: Place, clock: Clock) -> None:
    place.values["a"] = "one"
    held = kept(place)
    with pytest.raises(Pending):
        held.get("a", wait=False)
    assert place.reads == []
    before = held.generation
    held.refresh(["a"])
    assert held.generation > before
    assert held.get("a", wait=False) == "one"
    before = held.generation
    clock.ahead += 30
    held.refresh(["a"])
    assert held.generation == before  # the same value again is no news
    place.values["a"] = "two"
    clock.ahead += 30
    assert held.get("a", wait=False) == "one"
    held.refresh(["a"])
    assert held.generation > before
    assert held.get("a", wait=False) == "two"


def test_a_place_that_fails_keeps_its_last_good_value_for_a_minute_and_no_longer(place: Place, clock: Clock) -> None:
    place.values["a"] = "one"
    held = kept(place)
    held.refresh(["a"])
    del place.values["a"]
    clock.ahead += 30
    held.refresh(["a"])
    clock.ahead += 50
    held.refresh(["a"])
    before = held.generation
    assert held.get("a", wait=False) == "one"
    with pytest.raises(Unavailable):
        held.get("a", fresh=True)  # who asks for a reading learns how it went
    assert held.get("a", wait=False) == "one"
    clock.ahead += 11
    held.refresh(["a"])
    assert held.generation > before  # its end is news too
    with pytest.raises(Unavailable, match="Nothing lies there") as red:
        held.get("a", wait=False)
    assert red.value.fix == "Put it there."
    place.values["a"] = "two"
    clock.ahead += RETRY_SECONDS
    held.refresh(["a"])
    assert held.get("a", wait=False) == "two"


def test_a_value_that_ends_by_itself_is_not_used_after_its_end(place: Place, clock: Clock) -> None:
    held: Kept[str, str] = Kept(lambda key: Reading("token", renew=100, lasts=50), seconds=5, grace=None)
    assert held.get("a") == "token"
    clock.ahead += 51
    with pytest.raises(Unavailable):
        held.get("a", wait=False)


def test_a_place_that_hangs_costs_the_deadline_and_keeps_no_other_back(place: Place) -> None:
    place.values = {"a": "one", "b": "two"}
    place.hangs = {"a"}
    held = kept(place, seconds=1)
    began = time.monotonic()
    held.refresh(["a", "b"])
    assert time.monotonic() - began < 10  # not the 20 that it hangs
    assert held.get("b", wait=False) == "two"
    with pytest.raises(Unavailable, match="No answer came"):
        held.get("a", wait=False)


def test_a_wish_to_read_anew_is_fulfilled_once(place: Place) -> None:
    place.values["a"] = "one"
    held = kept(place)
    held.refresh(["a"])
    place.values["a"] = "two"
    for _ in range(3):
        held.get("a", wait=False, asked=7.0)
        held.refresh(["a"])
    assert held.get("a", wait=False, asked=7.0) == "two"
    assert len(place.reads) == 2


def test_what_nobody_needs_any_more_is_forgotten(place: Place) -> None:
    place.values = {"a": "one", "b": "two"}
    held = kept(place)
    held.refresh(["a", "b"])
    held.refresh(["b"])
    with pytest.raises(Pending):
        held.get("a", wait=False)
    assert held.get("b", wait=False) == "two"


def test_what_hangs_is_not_asked_again_and_its_late_answer_is_kept(place: Place, clock: Clock) -> None:
    place.values, place.hangs = {"a": "one"}, {"a"}
    held = kept(place, seconds=0.2)
    for _ in range(5):
        held.refresh(["a"])
        with pytest.raises(Unavailable, match="No answer came"):
            held.get("a")
        clock.ahead += RETRY_SECONDS
    assert place.reads == ["a"]
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "kept")
    place.ended.set()
    _until(lambda: not held._runs)
    assert held.get("a", wait=False) == "one"
    assert place.reads == ["a"]


def test_what_hangs_takes_no_other_place_down_and_none_of_another_group(place: Place, clock: Clock) -> None:
    many = [f"vault:{number}" for number in range(3 * SIDE_BY_SIDE)]
    place.values = dict.fromkeys([*many, "env:a"], "one")
    held: Kept[str, str] = Kept(place.read, seconds=1.5, grace=60, group=lambda key: key.partition(":")[0])
    while not all(_known(held, key) for key in [*many, "env:a"]):
        held.refresh([*many, "env:a"])
    place.hangs, place.values = set(many), dict.fromkeys([*many, "env:a"], "two")
    clock.ahead += 30
    held.refresh([*many, "env:a"])
    assert held.get("env:a", wait=False) == "two"
    assert len([key for key in many if held._entries[key].failing_since is not None]) == SIDE_BY_SIDE
    place.hangs = set()
    for _ in range(20):  # those whose turn did not come are read next, before the ones that hang are due again
        held.refresh([*many, "env:a"])
    assert len([key for key in many if held.get(key, wait=False) == "two"]) == 2 * SIDE_BY_SIDE


def test_a_reader_that_breaks_is_one_keys_problem_and_is_not_quoted(place: Place, clock: Clock) -> None:
    place.values = {"a": "one", "b": "two"}
    held = kept(place)
    with pytest.raises(Pending):
        held.get("b", wait=False)
    held.refresh(["odd", "a"])
    assert [held.get("a", wait=False), held.get("b", wait=False)] == ["one", "two"]
    for wait in (True, False):
        with pytest.raises(Unavailable, match="ValueError") as red:
            held.get("odd", wait=wait)
        assert "canary" not in str(red.value)


def test_who_asks_for_a_new_reading_does_not_get_one_that_began_before(place: Place) -> None:
    place.values, place.hangs = {"a": "one"}, {"a"}
    held = kept(place)
    first = threading.Thread(target=held.get, args=("a",))
    first.start()
    _until(lambda: place.reads == ["a"])
    second = threading.Thread(target=held.get, args=("a",), kwargs={"fresh": True})
    second.start()
    place.ended.set()
    first.join(10)
    second.join(10)
    assert place.reads == ["a", "a"]


def test_no_value_shows_when_a_reading_is_printed(place: Place) -> None:
    place.values["a"] = "printed-canary-77c2"
    held = kept(place)
    held.refresh(["a"])
    assert "canary" not in repr((held._entries, place.read("a")))


def _known(held: Kept[str, str], key: str) -> bool:
    try:
        return bool(held.get(key, wait=False))
    except Unavailable:
        return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
