"""An event loop whose clock stands still while anything runs and jumps to the next timer when nothing does.

The same program with the same seed takes the same steps at the same instants, on any machine under any load.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from keys import holds

MOST_TURNS = 100_000


class Stuck(BaseException):
    """Everybody waits and no timer is set, or somebody turns in circles and time stands still."""


class _Selector(selectors.DefaultSelector):  # type: ignore[misc]  # a class chosen at run time
    """Never waits: the time it was told to wait has passed."""

    loop: VirtualLoop
    turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        self.turns = self.turns + 1 if timeout == 0 else 0
        if self.turns > MOST_TURNS:
            raise Stuck
        if not found:
            if timeout is None:
                raise Stuck
            self.loop.instant += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """`instant`: seconds since the loop was made."""

    def __init__(self) -> None:
        self.instant = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.instant


@contextmanager
def virtual_time() -> Iterator[VirtualLoop]:
    """The loop, with `keys.holds` on its clock."""
    loop = VirtualLoop()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(holds, "time", SimpleNamespace(monotonic=loop.time))
        try:
            yield loop
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.close()
