"""Key-encryption keys (KEKs), and the keys they wrap.

A KEK never touches data: it wraps 256-bit data keys and purpose keys. KEKs come from CONDUIT_KEK_<ID> (see kek_kinds;
CONDUIT_KEK_<ID>_FILE reads a file), else from CONDUIT_HOME/secrets/kek (see kek_file). The file may change while the
process runs: it is looked at again at most once a second, and a file that has become wrong leaves the ring as it was.

How things are sealed, and the errors, are in core/sealing.py; changing keys online is core/keks.py.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from django.conf import settings
from django.db import transaction

from conduit.core import kek_file, kek_kinds, sealed_columns
from conduit.core.errors import ConfigurationError
from conduit.core.kek_kinds import Kek
from conduit.core.models import PurposeKey
from conduit.core.sealing import (
    FORMAT,
    KEY_BYTES,
    NONCE_BYTES,
    VARIABLE,
    KekMissing,
    KekUnavailable,
    KeyRingError,
    Tampered,
    context,
    open_sealed,
    seal,
)

__all__ = [
    "FORMAT", "KEY_BYTES", "NONCE_BYTES", "PRIMARY", "VARIABLE", "KekMissing", "KekUnavailable", "KeyRing",
    "KeyRingError", "Tampered", "certain", "check_database", "configured", "context", "ids_in_use", "load",
    "open_sealed", "purpose_key", "reset", "ring", "seal",
]  # fmt: skip
PRIMARY = "CONDUIT_KEK_PRIMARY"
LOOKED_AT_EVERY = 1.0  # seconds
FORMER_KNOWN_FOR = 60.0  # seconds that a ring outlives its file, for rows read before: a snapshot's reload takes less
LATEST_KNOWN_FOR = 5.0  # seconds that a process goes on with a purpose's older version after another one made a newer
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", re.ASCII)
log = structlog.get_logger("conduit.keyring")


class KeyRing:
    """The KEKs this process holds; `primary` is the id of the one that wraps.

    `file`: they come from the file, which `conduit kek` may change; else from the environment.
    `chosen`: the environment says which is primary.
    """

    def __init__(self, keks: Mapping[str, Kek], primary: str, *, file: bool = False, chosen: bool = False) -> None:
        self._keks = dict(keks)
        self.primary, self.file, self.chosen = primary, file, chosen
        self.ids = frozenset(self._keks)
        self.newest = next(reversed(self._keks))  # the last line of the file

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(sorted(self.ids))}; primary {self.primary})"

    def checks(self) -> dict[str, str]:
        """Id → check value: equal where two processes hold the same key under that id."""
        return {kek_id: kek.check for kek_id, kek in sorted(self._keks.items())}

    def kind(self, kek_id: str) -> str:
        """Local, or the service that keeps it; for people."""
        return self._keks[kek_id].kind

    def wrap(self, key: bytes, context: bytes, kek_id: str = "") -> tuple[str, bytes]:
        """(id of the KEK used, blob); under the primary unless said otherwise. Raises KekUnavailable, KekMissing."""
        kek_id = kek_id or self.primary
        return kek_id, self._kek(kek_id).wrap(key, _wrapping(kek_id, context))

    def unwrap(self, kek_id: str, blob: bytes, context: bytes) -> bytes:
        """The key that `wrap` was given. Raises KekMissing, KekUnavailable or Tampered."""
        return self._kek(kek_id).unwrap(blob, _wrapping(kek_id, context))

    def _kek(self, kek_id: str) -> Kek:
        kek = self._keks.get(kek_id)
        if kek is None:
            raise KekMissing(kek_id)
        return kek


def _wrapping(kek_id: str, inner: bytes) -> bytes:
    return context("wrapped-key", kek_id, inner)


@dataclass(slots=True)
class _Held:
    """This process's ring, and which state of the file it was read from."""

    ring: KeyRing
    stamp: tuple[int, ...] | None
    look_at: float
    former: KeyRing | None = None  # the one before the last change of the file
    former_until: float = 0.0


_held: _Held | None = None
_reading = threading.Lock()
_purpose_keys: dict[tuple[str, int], bytes] = {}
_latest: dict[str, tuple[int, float]] = {}


def ring() -> KeyRing:
    """This process's key ring. Raises ConfigurationError naming the variable or file and the fix."""
    held = _held
    if held is not None and (not held.ring.file or time.monotonic() < held.look_at):
        return held.ring
    return _read_again()


def opening(kek_id: str) -> KeyRing:
    """The ring to open a row with that was read a moment ago: where the key was retired since then, the one before."""
    now = ring()
    former = _held.former if _held is not None else None
    return former if former is not None and kek_id not in now.ids and kek_id in former.ids else now


def refresh() -> KeyRing:
    """The ring as the file is now, whenever it was looked at last."""
    if _held is not None:
        _held.look_at = 0.0
    return ring()


def certain() -> KeyRing:
    """What a change of the ring is decided on, under its lock: never a key that is held here and gone from the file.

    Raises ConfigurationError where the file as it is now does not load.
    """
    held = refresh()
    return load(os.environ, file_path()) if held.file else held


def _read_again() -> KeyRing:
    global _held
    with _reading:
        held, path = _held, file_path()
        if held is not None and time.monotonic() < held.look_at:
            return held.ring
        stamp = _stamp(path)
        fresh = _Held(load(os.environ, path), stamp, 0.0) if held is None else held
        if held is not None and stamp != held.stamp:
            held.stamp = stamp
            try:
                until = time.monotonic() + FORMER_KNOWN_FOR
                fresh = _Held(load(os.environ, path), stamp, 0.0, former=held.ring, former_until=until)
                if held.look_at:  # else this process changed it itself
                    log.info("key_ring_read", keks=sorted(fresh.ring.ids), primary=fresh.ring.primary)
            except ConfigurationError as error:
                # What was held keeps opening: a half-made edit must not stop a gateway.
                log.error("key_ring_unreadable", reason=str(error))
        now = time.monotonic()
        fresh.look_at = now + LOOKED_AT_EVERY
        if now >= fresh.former_until:
            fresh.former = None
        _held = fresh
        return fresh.ring


def file_path() -> Path:
    return Path(settings.CONDUIT_HOME) / "secrets" / "kek"


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Also of the mode: a file that others could read is to be tried again once they cannot."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode


def reset() -> None:
    """Forgets the ring and every unwrapped key: for tests."""
    global _held
    _held = None
    _purpose_keys.clear()
    _latest.clear()
    kek_kinds.forget()


def configured() -> bool:
    """Whether this installation has any key-encryption key yet; `conduit up` makes one on its first start."""
    return any(name.startswith(VARIABLE) for name in os.environ) or file_path().exists()


def load(environment: Mapping[str, str], path: Path) -> KeyRing:
    """The ring that an environment and a key file describe."""
    keks, said = _from_environment(environment), ""
    from_file = not keks
    if from_file:
        keks, said = _from_file(path)
    if not keks:
        raise ConfigurationError(
            f"There is no key-encryption key: set {VARIABLE}<ID> to the base64 text of 32 random bytes, "
            f"or put the line ID=base64 into {path} (mode 0600)."
        )
    chosen = _read(environment, PRIMARY).strip()
    primary = chosen or said
    if not primary and len(keks) > 1:
        raise ConfigurationError(f"{PRIMARY} must say which of {', '.join(sorted(keks))} encrypts.")
    primary = primary or next(iter(keks))
    if primary not in keks:
        raise ConfigurationError(
            f"{PRIMARY} is {primary}, but {VARIABLE}{primary} is not set. "
            f"Set it, or choose one of {', '.join(sorted(keks))}."
        )
    return KeyRing(keks, primary, file=from_file, chosen=bool(chosen))


def _read(environment: Mapping[str, str], name: str) -> str:
    if f"{name}_FILE" not in environment:
        return environment.get(name, "")
    path = environment[f"{name}_FILE"]
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}_FILE names {path}, which cannot be read. Correct the path.") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Kek]:
    names = {name.removesuffix("_FILE") for name in environment if name.startswith(VARIABLE)} - {PRIMARY}
    return {name.removeprefix(VARIABLE): _kek(name, _read(environment, name)) for name in sorted(names)}


def _from_file(path: Path) -> tuple[dict[str, Kek], str]:
    """The keys and the primary that the file names, empty where it does not."""
    found = kek_file.read(path)
    keks = {
        kek_id: _kek(f"{VARIABLE}{kek_id}", text, f"{path} line {number}")
        for kek_id, (number, text) in found.keks.items()
    }
    return keks, found.primary


def valid_id(kek_id: str) -> bool:
    return _ID.fullmatch(kek_id) is not None and kek_id != kek_file.PRIMARY and not kek_id.endswith("_FILE")


def _kek(name: str, text: str, place: str = "") -> Kek:
    if not valid_id(name.removeprefix(VARIABLE)):
        raise ConfigurationError(f"{place or name}: an id has letters, digits and _ only. Rename it.")
    return kek_kinds.kek_of(text, name, place)


def purpose_key(purpose: str, version: int | None = None) -> tuple[int, bytes]:
    """(version, 256-bit key) of a purpose; the newest version by default, made on first use.

    Raises ConfigurationError when its KEK is missing or wrong, LookupError for a version that does not exist.
    """
    known = _known_latest(purpose) if version is None else version
    if known is not None and (purpose, known) in _purpose_keys:
        return known, _purpose_keys[purpose, known]
    rows = PurposeKey.objects.filter(purpose=purpose)
    row = rows.order_by("-version").first() if version is None else rows.filter(version=version).first()
    if row is None:
        if version is not None:
            raise LookupError(f"purpose key {purpose} has no version {version}")
        row = _first(purpose)
    key = _unwrap_row(row)

    def remember() -> None:
        _purpose_keys[purpose, row.version] = key
        if version is None:
            _latest[purpose] = row.version, time.monotonic() + LATEST_KNOWN_FOR

    # Only what is committed may be remembered: a key made in a transaction that rolls back never existed.
    transaction.on_commit(remember)
    return row.version, key


def _known_latest(purpose: str) -> int | None:
    version, until = _latest.get(purpose, (None, 0.0))
    return version if time.monotonic() < until else None


def forget_latest(purpose: str) -> None:
    """The newest version is asked for again, after a change is committed."""
    transaction.on_commit(lambda: _latest.pop(purpose, None))


def purpose_keys(purpose: str) -> dict[int, bytes]:
    """Every version there is, the first one made on first use. Raises ConfigurationError."""
    purpose_key(purpose)
    versions = PurposeKey.objects.filter(purpose=purpose).values_list("version", flat=True)
    return dict(purpose_key(purpose, version) for version in versions)


def _first(purpose: str) -> PurposeKey:
    make_version(purpose, 1)
    return PurposeKey.objects.get(purpose=purpose, version=1)


def make_version(purpose: str, version: int) -> bool:
    """A new random key; whether this call made it. Raises KekUnavailable."""
    kek_id, wrapped = ring().wrap(secrets.token_bytes(KEY_BYTES), _purpose_context(purpose, version))
    fresh = PurposeKey(purpose=purpose, version=version, kek_id=kek_id, wrapped=wrapped)
    # Two processes may race here: the second waits for the first one's commit, inserts nothing and reads the winner.
    PurposeKey.objects.bulk_create([fresh], ignore_conflicts=True)
    found = PurposeKey.objects.get(purpose=purpose, version=version)
    return bytes(found.wrapped) == wrapped


def _purpose_context(purpose: str, version: int) -> bytes:
    return context("purpose-key", purpose, version)


def context_of_row(row: PurposeKey) -> bytes:
    return _purpose_context(row.purpose, row.version)


def open_row(row: PurposeKey) -> bytes:
    """Raises KeyRingError."""
    return ring().unwrap(row.kek_id, bytes(row.wrapped), context_of_row(row))


def _unwrap_row(row: PurposeKey) -> bytes:
    try:
        return open_row(row)
    except (KekMissing, KekUnavailable) as error:
        raise ConfigurationError(str(error)) from error
    except Tampered as error:
        raise ConfigurationError(
            f"{VARIABLE}{row.kek_id} is not the key that this database was encrypted with. "
            f"Set {VARIABLE}{row.kek_id} to the right one."
        ) from error


def ids_in_use() -> dict[str, frozenset[str]]:
    """Table → ids of the KEKs its rows need. Every model with a `kek_id` column counts, whichever app it is of."""
    return {
        model._meta.label: frozenset(sealed_columns.rows_with_a_key(model).values_list("kek_id", flat=True).distinct())
        for model in sealed_columns.models_with_keks()
    }


def check_database() -> None:
    """Start-up check: each KEK the database needs is in the ring and is the right one, else ConfigurationError."""
    missing = sorted(frozenset().union(*ids_in_use().values()) - ring().ids)
    if missing:
        raise ConfigurationError(
            f"The database holds secrets under key-encryption keys that are not set: "
            f"{', '.join(VARIABLE + kek_id for kek_id in missing)}. Set each to its base64 text."
        )
    for row in PurposeKey.objects.all():
        _unwrap_row(row)


sealed_columns.register("core.PurposeKey", sealed_columns.Wrapped("wrapped", context=context_of_row, open=open_row))
