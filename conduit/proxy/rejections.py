"""A provider rejected a version of a credential: this worker passes it over, and a rotation that brought it in is
rolled back for everybody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from django.db import DatabaseError

from providers import rotation
from providers.breaker import Breaker
from providers.candidates import Candidate
from providers.errors import AuthRejected, UpstreamError

if TYPE_CHECKING:
    from conduit.proxy.snapshot import Database

RETRY_SECONDS = 0.5
FORBIDDEN = 403  # the credential is known, and may not do this: that says nothing about other requests
log = structlog.get_logger("conduit.rejections")


class Rejections:
    def __init__(self, database: Database, breaker: Breaker) -> None:
        self._database, self._breaker = database, breaker
        self._rolling: dict[UUID, asyncio.Task[None]] = {}

    def note(self, candidate: Candidate, error: UpstreamError) -> None:
        """`error.message` is masked already."""
        if not isinstance(error, AuthRejected):
            return
        version, other = candidate.credential, candidate.other
        canary, replaced = candidate.is_canary, other is not None and other is version.previous
        if error.status == FORBIDDEN and not canary:
            return
        self._breaker.trip(version.version_id, error.message)
        if (canary or replaced) and version.version_id not in self._rolling:
            task = asyncio.get_running_loop().create_task(self._roll_back(candidate, error.message))
            self._rolling[version.version_id] = task

    async def _roll_back(self, candidate: Candidate, problem: str) -> None:
        version = candidate.credential
        try:
            while True:
                try:
                    done = await self._database.write(rotation.roll_back_failed, version.id, version.version, problem)
                    break
                except DatabaseError:
                    await asyncio.sleep(RETRY_SECONDS)
            if done:
                log.warning("rotation_rolled_back", credential=version.name, version=version.version, reason=problem)
        except Exception as error:  # noqa: BLE001 (the task's edge: the breaker holds the version back meanwhile)
            log.error("roll_back_failed", credential=version.name, exc_info=error)
        finally:
            self._rolling.pop(version.version_id, None)

    async def close(self) -> None:
        for task in list(self._rolling.values()):
            task.cancel()
        await asyncio.gather(*self._rolling.values(), return_exceptions=True)
