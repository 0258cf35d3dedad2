"""Which processes are alive, and what each knows: the configuration's epoch, its key-encryption keys, and how far it
uses each version of each credential. Gates ask here before they take something away.

    report(me, …)   a process says so, every REPORT_SECONDS
    alive()         those that said so lately
    leave(me)       a process ends in order
    keep_reporting  the same by a thread, for processes without an event loop

What a process that was killed said last counts for SILENT_SECONDS more, then it is forgotten.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

import structlog
from django.db import Error, connections
from django.db.models.functions import Now

from conduit.core import keyring
from conduit.core.errors import ConfigurationError
from conduit.core.ids import uuid7
from conduit.core.models import LiveProcess

REPORT_SECONDS = 2.0
SILENT_SECONDS = 15
log = structlog.get_logger("conduit.live")


class VersionUse(TypedDict):
    """`open`: requests under way. `last`: Unix seconds of its last use. `tripped`: until when it is passed over after a
    401 (Unix seconds; 0: it is not), and `why`, in the provider's words, masked."""

    open: int
    last: float
    tripped: float
    why: str


class TargetTrouble(TypedDict):
    """A provider's (id) model that is left alone until `until` (Unix seconds) because it failed so often in a row."""

    provider: str
    model: str
    failures: int
    until: float
    why: str


class Known(TypedDict, total=False):
    """`keks`: id of each key-encryption key held → its check value (KeyRing.checks)."""

    snapshot: int
    keks: dict[str, str]
    primary: str
    versions: Mapping[str, VersionUse]
    targets: list[TargetTrouble]


def report(me: UUID, *, kind: str, node: str, pid: int, **known: Unpack[Known]) -> None:
    """Writes the row of this process. `kind`: web or jobs."""
    values: dict[str, Any] = {"kind": kind, "node": node, "pid": pid, "seen_at": Now(), **known}
    if not LiveProcess.objects.filter(pk=me).update(**values):
        LiveProcess.objects.bulk_create([LiveProcess(id=me, **values)], ignore_conflicts=True)
    LiveProcess.objects.filter(seen_at__lt=Now() - timedelta(seconds=4 * SILENT_SECONDS)).delete()


def leave(me: UUID) -> None:
    LiveProcess.objects.filter(pk=me).delete()


def alive() -> list[LiveProcess]:
    """By the database's clock, oldest first."""
    since = Now() - timedelta(seconds=SILENT_SECONDS)
    return list(LiveProcess.objects.filter(seen_at__gt=since).order_by("started_at", "id"))


def name_of(process: LiveProcess) -> str:
    return f"{process.kind} process {process.pid} on {process.node}"


def lacks(process: LiveProcess, kek_id: str, checks: Mapping[str, str]) -> bool:
    """Whether it has not reported this very key. `checks`: those of the key ring here.

    A key of the same name and another check value is another key; one that is not held here cannot be compared.
    """
    return kek_id not in process.keks or process.keks[kek_id] != checks.get(kek_id, process.keks[kek_id])


def lacking(kek_id: str, checks: Mapping[str, str], processes: list[LiveProcess]) -> list[str]:
    """Names of those that lack it, and why where they hold another key under that name."""
    return [
        f"{name_of(one)} (holds another key named {kek_id})" if kek_id in one.keks else name_of(one)
        for one in processes
        if lacks(one, kek_id, checks)
    ]


def keep_reporting(kind: str, node: str) -> Callable[[], None]:
    """Reports this process's key-encryption keys from a thread until the returned function is called."""
    me, ended = uuid7(), threading.Event()

    def loop() -> None:
        while not ended.is_set():
            try:
                ring = keyring.ring()
                report(me, kind=kind, node=node, pid=os.getpid(), keks=ring.checks(), primary=ring.primary)
            except (Error, ConfigurationError) as error:
                # The thread goes on: without reports every gate would take this process for dead.
                log.warning("live_report_failed", reason=(str(error).strip() or type(error).__name__).splitlines()[0])
            connections.close_all()
            ended.wait(REPORT_SECONDS)
        with suppress(Error):
            leave(me)
        connections.close_all()

    thread = threading.Thread(target=loop, name="live", daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join(5)

    return end
