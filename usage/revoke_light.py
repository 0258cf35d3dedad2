"""Whether a version of a credential can be revoked at its provider without a request failing: red, yellow or green.

red      it serves: requests of the last ten minutes or requests under way, or new ones would go to it
yellow   it is drained, but something is not proven yet; data that is missing is never a proof
green    every check is met
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from conduit.core import clock, wording
from conduit.core import live as live_processes
from conduit.core.models import Epoch, LiveProcess
from keys.models import UncertainAttempt, Worker
from providers.models import CredentialVersion, VersionState
from usage import status, version_use
from usage.models import UsageEvent
from usage.version_use import WINDOW, Live

Colour = Literal["red", "yellow", "green"]
SERVING = (VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE)
LATE_SECONDS = 30.0  # a shipper that works is never so far behind


@dataclass(frozen=True, slots=True)
class Check:
    """`met` None: it cannot be said now. `needs` tells what would meet it. A `serious` check that is not met is red."""

    name: str
    met: bool | None
    found: str
    needs: str = ""
    serious: bool = False


@dataclass(frozen=True, slots=True)
class Light:
    colour: Colour
    sentence: str
    checks: tuple[Check, ...]


def safe_to_revoke(version: CredentialVersion) -> Light:
    """From what is known now: usage events, the living processes, and journals that wait to be applied."""
    at = clock.now()
    web = [process for process in live_processes.alive() if process.kind == "web"]
    said = version_use.live(web).get(version.id, Live())
    name = f"v{version.number}"
    newer = _newer(version)
    checks = (
        _in_force(version, newer),
        _traffic(version, said, at),
        _open(name, said, web),
        _known(newer, web),
        _replayed(version, name),
    )
    if any(check.serious and check.met is False for check in checks):
        serving = not checks[0].met
        return Light("red", f"No, {name} {'is in force' if serving else 'carries live traffic'}", checks)
    if all(check.met for check in checks):
        return Light("green", f"Yes, nothing uses {name} any more", checks)
    return Light("yellow", f"Not yet, {name} is drained but not proven unused", checks)


def _newer(version: CredentialVersion) -> CredentialVersion | None:
    return CredentialVersion.objects.filter(
        credential=version.credential_id, state=VersionState.ACTIVE, number__gt=version.number
    ).first()


def _in_force(version: CredentialVersion, newer: CredentialVersion | None) -> Check:
    """A version that new requests are sent to is never safe, however quiet it is."""
    if version.state in SERVING:
        found = f"v{version.number} is {version.state}"
        return Check("in_force", False, found, "needs another version active", serious=True)
    if newer is None:
        return Check("in_force", True, f"v{version.number} is {version.state}")
    return Check("in_force", True, f"New requests go to v{newer.number}")


def _traffic(version: CredentialVersion, said: Live, at: datetime) -> Check:
    requests, journalled = version_use.used_since(version, at - WINDOW)
    # A request that is journalled but not yet in the ledger is known to its process only.
    last = max((moment for moment in (said.last, journalled) if moment), default=None)
    recent = last is not None and last > at - WINDOW
    words = f"{wording.plural(requests, 'request')} on v{version.number} in the last 10 min"
    if last is not None and recent:
        words += f", the last {wording.relative(last, at)}"
    return Check("traffic", not recent, words, "needs 0 for 10 min", serious=True)


def _open(name: str, said: Live, web: list[LiveProcess]) -> Check:
    if not web:
        return Check(
            "open_requests",
            None,
            f"Open requests on {name} are not known: no web process has reported within "
            f"{live_processes.SILENT_SECONDS} s",
            "needs a web process that lives",
        )
    found = f"{wording.plural(said.open, 'open request')} on {name}"
    return Check("open_requests", said.open == 0, found, "needs 0", serious=True)


def _known(newer: CredentialVersion | None, web: list[LiveProcess]) -> Check:
    what = f"v{newer.number}" if newer else "the present versions"
    if not web:
        return Check("known", None, f"Who knows {what} is not known", "needs a web process that lives")
    epoch = Epoch.objects.values_list("snapshot", flat=True).get(id=1)
    number = sum(process.snapshot >= epoch for process in web)
    processes = "web process" if len(web) == 1 else "web processes"
    words = f"{number} of {len(web)} {processes} know{'s' if len(web) == 1 else ''} {what}"
    return Check("known", number == len(web), words, "needs all")


def _replayed(version: CredentialVersion, name: str) -> Check:
    """Requests on it may lie in a journal that nobody has applied, or be known only as attempts without an answer."""
    events = UsageEvent.objects.filter(
        time=OuterRef("time"),
        id=OuterRef("id"),
        credential_id=version.credential_id,
        credential_version=version.number,
    )
    uncertain = UncertainAttempt.objects.filter(Exists(events), resolved_at=None).count()
    if uncertain:
        found = f"{wording.plural(uncertain, 'uncertain attempt')} on {name}"
        return Check("replayed", False, found, "resolve them on the System page")
    silent = Worker.objects.filter(
        stopped_at=None, seen_at__lt=Now() - timedelta(seconds=live_processes.SILENT_SECONDS)
    ).count()
    if silent:
        found = f"{wording.plural(silent, 'journal')} of a process that ended, not applied yet"
        return Check("replayed", False, found, "needs none; a node that never returns is released on the System page")
    if (waiting := _waiting()) > 0:
        return Check("replayed", False, f"{wording.plural(waiting, 'record')} not yet in the ledger", "needs none")
    return Check("replayed", True, f"No journal replay pending on {name}")


def _waiting() -> int:
    """Records of this node that have waited too long; those of a moment ago are known to their process."""
    lag = (status.read(settings.CONDUIT_HOME / "run" / "shipper.json") or {}).get("lag") or {}
    return int(lag.get("records", 0)) if float(lag.get("oldest_seconds", 0)) > LATE_SECONDS else 0
