"""Targets of a provider that its workers leave alone because they fail: what each said last (core/live.py)."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from conduit.core import live, wording


def problems(provider: UUID) -> list[dict[str, str]]:
    """A title and a sentence for each model, for the provider's page."""
    workers = [one for one in live.alive() if one.kind == "web"]
    found: dict[str, list[live.TargetTrouble]] = {}
    for worker in workers:
        for said in worker.targets:
            if said["provider"] == str(provider):
                found.setdefault(said["model"], []).append(said)
    return [
        {"title": f"Model {model} is left alone", "detail": _words(told, len(workers))}
        for model, told in sorted(found.items())
    ]


def _words(told: list[live.TargetTrouble], workers: int) -> str:
    last = max(told, key=lambda one: one["until"])
    times = max(one["failures"] for one in told)
    again = datetime.fromtimestamp(last["until"], UTC).strftime("%H:%M:%S")
    return (
        f"It failed {wording.plural(times, 'time')} in a row, last with: {last['why']} {len(told)} of"
        f" {wording.plural(workers, 'worker')} pass it over; one request tries it again at {again} UTC."
    )
