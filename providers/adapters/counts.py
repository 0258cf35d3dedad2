"""Sane token counts out of whatever a provider put into its usage (testing.md U2).

    counts = Counts()
    tokens = counts.read(value)   an int >= 0, whatever `value` is
    counts.flags                  what was wrong: "missing", "negative", "text", "not_integer", "huge", "inconsistent"
    checked(usage, generated=…)   the same usage, flagged "zero" where nothing is reported of what surely happened

A figure that is no count becomes 0 and is flagged: whoever settles then estimates.
"""

from __future__ import annotations

import msgspec

from providers.adapters.types import Usage

LARGEST = 10**9  # tokens; no answer comes near, a larger figure is a fault of the provider's


class Counts:
    __slots__ = ("_flags",)

    def __init__(self) -> None:
        self._flags: list[str] = []

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(self._flags)

    def read(self, value: object, *, required: bool = False) -> int:
        """`value` as a count. Absent (None) is 0, and flagged only when `required`."""
        if type(value) is int and 0 <= value <= LARGEST:
            return value
        if value is None:
            if required:
                self.note("missing")
            return 0
        if isinstance(value, float) and value.is_integer() and 0 <= value <= LARGEST:
            return int(value)
        self.note(_fault(value))
        return 0

    def part(self, value: object, whole: int) -> int:
        """A count that cannot be larger than the `whole` it belongs to."""
        count = self.read(value)
        if count > whole:
            self.note("inconsistent")
        return min(count, whole)

    def note(self, flag: str) -> None:
        if flag not in self._flags:
            self._flags.append(flag)


def checked(usage: Usage, *, generated: bool) -> Usage:
    """No prompt has no tokens, and nothing that was `generated` has none either: such a figure is not believed."""
    if usage.flags or (usage.input_tokens and (usage.output_tokens or not generated)):
        return usage
    return msgspec.structs.replace(usage, flags=("zero",))


def _fault(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "text"
    if value < 0:
        return "negative"
    return "huge" if value > LARGEST else "not_integer"
