"""Which versions of credentials this worker passes over, because their provider rejected them (401).

Only that version is tripped: other credentials, and other versions of the same one, go on. After a pause one request
tries it again; the pause doubles each time it is rejected, up to five minutes. In memory, each worker by itself.
"""

from __future__ import annotations

import time
from uuid import UUID

import msgspec

PAUSE_SECONDS = 15.0
LONGEST_PAUSE = 300.0
PROBE_SECONDS = 10.0  # a probe whose outcome nobody tells does not keep others away for longer


class Trip(msgspec.Struct):
    """`until`: monotonic seconds; `why`: the provider's own words, masked."""

    until: float
    pause: float
    why: str


class Breaker:
    def __init__(self) -> None:
        self.trips: dict[UUID, Trip] = {}

    def trip(self, version: UUID, why: str) -> None:
        before = self.trips.get(version)
        pause = min(before.pause * 2, LONGEST_PAUSE) if before else PAUSE_SECONDS
        self.trips[version] = Trip(time.monotonic() + pause, pause, why)

    def held(self, version: UUID) -> bool:
        """Whether requests pass it over."""
        trip = self.trips.get(version)
        return trip is not None and trip.until > time.monotonic()

    def claim(self, version: UUID) -> bool:
        """A request uses it. After the pause that is a probe (True), and the others wait for its outcome."""
        trip = self.trips.get(version)
        if trip is None or trip.until > time.monotonic():
            return False
        trip.until = time.monotonic() + PROBE_SECONDS
        return True

    def unknown(self, version: UUID) -> None:
        """The probe came to nothing: another request may try."""
        trip = self.trips.get(version)
        if trip is not None:
            trip.until = time.monotonic()

    def until(self, version: UUID) -> float:
        """Unix seconds; 0: it is not tripped."""
        trip = self.trips.get(version)
        return trip.until + time.time() - time.monotonic() if trip else 0.0

    def why(self, version: UUID) -> str:
        trip = self.trips.get(version)
        return trip.why if trip else ""

    def works(self, version: UUID) -> None:
        """The provider took it."""
        self.trips.pop(version, None)

    def keep(self, versions: set[UUID]) -> None:
        """Forgets versions that are not in use any more."""
        for version in self.trips.keys() - versions:
            del self.trips[version]
