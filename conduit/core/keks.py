"""The life of key-encryption keys while everything runs: added, made primary, everything rewrapped, retired.

    add(id)       a new key, which opens and wraps nothing yet; every process comes to hold it
    rotate(id)    gate: every live process holds it; it becomes primary; everything is rewrapped under it
    retire(id)    gate: nothing needs it, no process encrypts with it, everything opens without it; then it goes

Keys in CONDUIT_HOME/secrets/kek are changed here, and every process of that data directory reads them again. Keys in
the environment are the operator's: these functions check the same gates and say what to set or unset.
A step out of order is a Conflict that names what stands in the way. Each step may be repeated.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import OperationalError, connection, transaction
from django.db.models import Count

from conduit.core import audit, kek_file, keyring, live, rewrap, sealed_columns
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.models import Epoch, PurposeKey
from conduit.core.rewrap import Progress, Unopened

SETTLED = 3.0  # seconds after which every process has read a changed file again (it looks each second)
FIXED = {
    "replies": "The key of stored replies has one version for good: a repeated request is recognised by digests under "
    "it, and would be carried out and billed again under another. Nothing lasting depends on it: a reply is kept a day."
}
_LOCK = 0x6B656B73  # of PostgreSQL's advisory locks: one change of the key ring at a time
_LOCK_WAIT = "5s"


@dataclass(frozen=True, slots=True)
class KekStatus:
    """`rows`: table → wrapped keys under it. `kind` is empty for a key that rows need and this process has not.

    `holders` and `lacking`: live processes that report this very key, and those that do not, or another one under its
    name; `encrypting`: with it.
    """

    id: str
    kind: str
    primary: bool
    rows: dict[str, int]
    holders: list[str]
    lacking: list[str]
    encrypting: list[str]

    @property
    def needed(self) -> int:
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True)
class PurposeStatus:
    """A version of a purpose's own key. `rows`: how many still name it; None where rows name no version."""

    purpose: str
    version: int
    kek_id: str
    newest: bool
    rows: int | None


@dataclass(frozen=True, slots=True)
class Rotated:
    """`behind`: live processes that still encrypt with another key; what they write is rewrapped by the next run."""

    progress: Progress
    unopened: list[Unopened] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


def status() -> list[KekStatus]:
    """Every key that this process holds or that a row needs, the primary first."""
    ring, alive = keyring.refresh(), live.alive()
    checks = ring.checks()
    rows: dict[str, dict[str, int]] = {kek_id: {} for kek_id in ring.ids}
    for model in sealed_columns.models_with_keks():
        counted = sealed_columns.rows_with_a_key(model).values("kek_id").annotate(number=Count("pk"))
        for row in counted.values_list("kek_id", "number"):
            rows.setdefault(row[0], {})[model._meta.label] = row[1]
    found = [
        KekStatus(
            id=kek_id,
            kind=ring.kind(kek_id) if kek_id in ring.ids else "",
            primary=kek_id == ring.primary,
            rows=dict(sorted(needed.items())),
            holders=[live.name_of(one) for one in alive if not live.lacks(one, kek_id, checks)],
            lacking=live.lacking(kek_id, checks, alive),
            encrypting=[live.name_of(one) for one in alive if one.primary == kek_id],
        )
        for kek_id, needed in rows.items()
    ]
    return sorted(found, key=lambda one: (not one.primary, one.id))


def source() -> str:
    """Where this process has its keys from; for people."""
    return str(keyring.file_path()) if keyring.ring().file else "the environment"


def purposes() -> list[PurposeStatus]:
    """Every version of every purpose's key, the newest first."""
    found, newest = [], set()
    for row in PurposeKey.objects.order_by("purpose", "-version"):
        place = sealed_columns.VERSIONED.get(row.purpose)
        rows = None
        if place is not None:
            rows = apps.get_model(place[0])._base_manager.filter(**{place[1]: row.version}).count()
        found.append(PurposeStatus(row.purpose, row.version, row.kek_id, row.purpose not in newest, rows))
        newest.add(row.purpose)
    return found


def progress() -> Progress:
    """How much lies under the primary."""
    return rewrap.progress(keyring.refresh().primary)


def add(*, actor: Actor, kek_id: str = "") -> str:
    """Generates a key into the file; its id. It becomes primary only by `rotate`. The same id again changes nothing.

    Raises InvalidInput, and Conflict where the keys come from the environment: see `line`.
    """
    if not keyring.refresh().file:
        raise Conflict(
            "The key-encryption keys come from the environment, which only you can change: "
            f"`conduit kek add {_fresh_id(kek_id)}` prints a line to set on every node."
        )
    with _one_change():
        ring = keyring.certain()
        kek_id = _fresh_id(kek_id)
        if kek_id in ring.ids:
            return kek_id
        _record(actor, "kek.add", kek_id, {"source": "file"})
        _edit(lambda path: kek_file.add(path, kek_id, _random(), ring.primary))
    keyring.refresh()
    return kek_id


def line(kek_id: str = "") -> str:
    """For keys in the environment: the assignment to set on every node, stored nowhere. Raises InvalidInput."""
    return f"{keyring.VARIABLE}{_fresh_id(kek_id)}={_random()}"


def rotate(
    *,
    actor: Actor,
    to: str = "",
    patience: float = 0.0,
    until: float | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Rotated:
    """Makes a key primary and moves everything under it.

    Without `to`: the newest key of the file; what the environment says is primary.

    patience  seconds to wait for processes that have not yet said that they hold it
    until     monotonic seconds when to stop rewrapping; the recurring job goes on

    Raises NotFound, Conflict (who does not hold it; which variable to set; what changed meanwhile), KekUnavailable,
    ConfigurationError where the key file does not load.
    """
    tried = keyring.refresh()
    to = _target(tried, to)
    _try_out(tried, to)
    _await_holders(tried, to, patience)
    with _one_change():
        ring = keyring.certain()
        if ring.checks().get(to) != tried.checks()[to]:
            raise Conflict(f"{to} was retired or replaced meanwhile. Nothing was changed.")
        _await_holders(ring, to, 0.0)
        _make_primary(ring, to, actor)
    keyring.refresh()
    return go_on(to, until=until, tell=tell)


def go_on(to: str, *, until: float | None = None, tell: Callable[[Progress], None] | None = None) -> Rotated:
    """Rewraps what does not lie under `to` yet."""
    done, unopened = rewrap.rewrap(to, until=until, tell=tell)
    return Rotated(done, unopened, [live.name_of(one) for one in live.alive() if one.primary and one.primary != to])


def resume(*, until: float | None = None) -> Rotated | None:
    """For the recurring job: goes on with a rotation that was interrupted; None where there is nothing to do.

    Only when every live process encrypts with the same key as this one: while a primary changes, a process that is a
    step behind must not move rows back.
    """
    ring = keyring.refresh()
    primary, checks = ring.primary, ring.checks()
    if any(one.primary and (one.primary != primary or live.lacks(one, primary, checks)) for one in live.alive()):
        return None
    return go_on(primary, until=until) if rewrap.progress(primary).left else None


def retire(kek_id: str, *, actor: Actor) -> str:
    """Takes a key away that nothing needs any more; a sentence about what is left to do.

    Raises NotFound, and Conflict naming the rows that need it, the processes that encrypt with it, or what does not
    open.
    """
    ring = keyring.refresh()
    _check_unneeded(ring, kek_id)
    if ring.file:
        time.sleep(_unsettled())
    unopened = rewrap.open_everything()
    if unopened:
        first = unopened[0]
        raise Conflict(
            f"{len(unopened)} stored secrets do not open, the first in {first.table} {first.id}: {first.reason} "
            "Repair or delete them first: afterwards nobody could tell whether this key would have opened them."
        )
    with _one_change():
        ring = keyring.certain()
        if ring.file and _unsettled():
            raise Conflict("The key file was changed a moment ago. Try again when every process has read it.")
        _lock_tables()  # waits for whoever is just writing something wrapped, and keeps others from it
        _check_unneeded(ring, kek_id)
        _record(actor, "kek.retire", kek_id, None, {"source": "file" if ring.file else "environment"})
        if ring.file:
            _edit(lambda path: kek_file.remove(path, kek_id))
    keyring.refresh()
    if ring.file:
        return f"{kek_id} is removed from {keyring.file_path()}. Backups taken before need it: keep a copy with them."
    return f"Nothing needs {kek_id}: unset {keyring.VARIABLE}{kek_id} on every node. Backups taken before need it."


def rotate_purpose(purpose: str, *, actor: Actor) -> int:
    """Makes a new version of a purpose's own key; its number. Older versions go on opening what they sealed.

    Digests under a pepper move to the newest version one by one, as their keys are used. Raises NotFound, Conflict for
    a purpose in FIXED.
    """
    if purpose in FIXED:
        raise Conflict(FIXED[purpose])
    with _one_change():
        newest = PurposeKey.objects.filter(purpose=purpose).order_by("-version").first()
        if newest is None:
            raise NotFound(f"There is no purpose {purpose[:32]!r}; there are {', '.join(_purpose_names())}.")
        version = newest.version + 1
        keyring.make_version(purpose, version)
        audit.record(
            actor=actor,
            action="purpose_key.rotate",
            kind="purpose_key",
            id=purpose,
            name=purpose,
            before={"version": newest.version},
            after={"version": version},
        )
    keyring.forget_latest(purpose)
    return version


# --- gates ---------------------------------------------------------------------------------------------------------


def _target(ring: keyring.KeyRing, to: str) -> str:
    """Without a name never the way back: said twice, it must not undo what the first time did."""
    if not to:
        return ring.primary if ring.chosen or not ring.file else ring.newest
    _demand(ring, to)
    return to


def _demand(ring: keyring.KeyRing, kek_id: str) -> None:
    if kek_id not in ring.ids:
        raise NotFound(f"There is no key-encryption key {kek_id[:64]}; there are {', '.join(sorted(ring.ids))}.")


def _try_out(ring: keyring.KeyRing, to: str) -> None:
    """A key that cannot open what it wraps must not become primary."""
    probe, bound = secrets.token_bytes(keyring.KEY_BYTES), keyring.context("probe", to)
    _, blob = ring.wrap(probe, bound, to)
    if ring.unwrap(to, blob, bound) != probe:
        raise Conflict(f"The key-encryption key {to} does not open what it wraps.")


def _await_holders(ring: keyring.KeyRing, to: str, patience: float) -> None:
    until = time.monotonic() + patience
    while lacking := live.lacking(to, ring.checks(), live.alive()):
        if time.monotonic() >= until:
            raise Conflict(
                f"{len(lacking)} live processes do not hold {to} yet: {', '.join(lacking[:5])}. "
                "Give it to their node (the same line in its file or environment) and rotate again."
            )
        time.sleep(0.2)


def _check_unneeded(ring: keyring.KeyRing, kek_id: str) -> None:
    _demand(ring, kek_id)
    if kek_id == ring.primary:
        raise Conflict(f"{kek_id} is primary: it encrypts. Rotate to another key first.")
    encrypting = [live.name_of(one) for one in live.alive() if one.primary == kek_id]
    if encrypting:
        raise Conflict(f"{', '.join(encrypting[:5])} still encrypts with {kek_id}. Rotate on that node too, or wait.")
    needed = {model._meta.label: rows for model in sealed_columns.models_with_keks() if (rows := _under(model, kek_id))}
    if needed:
        told = ", ".join(f"{number} in {label}" for label, number in sorted(needed.items()))
        raise Conflict(f"{kek_id} is in use: {told}. `conduit kek rotate` moves them under the primary.")


def _under(model: Any, kek_id: str) -> int:
    return sealed_columns.rows_with_a_key(model).filter(kek_id=kek_id).count()


def _make_primary(ring: keyring.KeyRing, to: str, actor: Actor) -> None:
    """Within `_one_change`; records it where it changes anything or leaves rows to move."""
    if ring.primary == to:
        if left := rewrap.progress(to).left:
            _record(actor, "kek.rotate", to, {"primary": to, "rows_to_move": left})
        return
    if ring.chosen or not ring.file:
        raise Conflict(
            f"{keyring.PRIMARY} is {ring.primary} here. Set it to {to} on every node, restart them one after "
            f"another, then rotate again: what is encrypted moves then."
        )
    _record(actor, "kek.rotate", to, {"primary": to}, {"primary": ring.primary})
    _edit(lambda path: kek_file.set_primary(path, to))


# --- writing -------------------------------------------------------------------------------------------------------


@contextmanager
def _one_change() -> Iterator[None]:
    """A transaction that holds the key ring's lock. Raises Conflict while another change is under way."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
            taken = cursor.fetchone()[0]
        if not taken:
            raise Conflict("Another change of the key ring is under way. Try again when it is done.")
        Epoch.objects.select_for_update().get(id=1)  # the first lock of every change; see core/rewrap.py
        yield


def _lock_tables() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_WAIT])
        for model in sealed_columns.models_with_keks():
            name = connection.ops.quote_name(model._meta.db_table)
            try:
                with transaction.atomic():
                    cursor.execute(f"LOCK TABLE {name} IN SHARE MODE")
            except OperationalError:
                raise Conflict(f"{model._meta.label} is being written for long. Try again in a moment.") from None


def _unsettled() -> float:
    """Seconds until every process of this data directory has read the file since it was last changed."""
    age = time.time() - keyring.file_path().stat().st_mtime
    return SETTLED - age if 0 <= age < SETTLED else 0.0


def _edit(change: Callable[[Path], None]) -> None:
    path = keyring.file_path()
    try:
        change(path)
    except OSError as error:
        raise Conflict(f"{path} cannot be written ({error.strerror}). Nothing was changed.") from None


def _fresh_id(kek_id: str) -> str:
    if not kek_id:
        taken = keyring.ring().ids | frozenset().union(*keyring.ids_in_use().values())
        numbers = [int(one[1:]) for one in taken if one[:1] == "K" and one[1:].isdigit()]
        return f"K{max(numbers, default=0) + 1}"
    if not keyring.valid_id(kek_id):
        raise InvalidInput("id", "Must have 1 to 64 letters, digits and _, and begin with no _.", "invalid_id")
    if kek_id not in keyring.ring().ids and any(kek_id in used for used in keyring.ids_in_use().values()):
        raise InvalidInput("id", f"Rows need a key of the name {kek_id} that is not set. Choose another id.", "taken")
    return kek_id


def _random() -> str:
    return base64.b64encode(secrets.token_bytes(keyring.KEY_BYTES)).decode()


def _purpose_names() -> list[str]:
    return sorted(set(PurposeKey.objects.values_list("purpose", flat=True)))


def _record(
    actor: Actor, action: str, kek_id: str, after: dict[str, Any] | None, before: dict[str, Any] | None = None
) -> None:
    audit.record(actor=actor, action=action, kind="kek", id=kek_id, name=kek_id, before=before, after=after)
