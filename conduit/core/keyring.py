"""Key-encryption keys (KEKs), and the keys they wrap.

A KEK never touches data: it wraps 256-bit data keys and purpose keys. KEKs come from CONDUIT_KEK_<ID> (base64 of
32 bytes; CONDUIT_KEK_<ID>_FILE reads a file), else from CONDUIT_HOME/secrets/kek with lines `ID=base64`.

Every blob is AES-256-GCM: one format byte, a random 96-bit nonce, ciphertext with tag. The associated data is a
length-prefixed list of what the blob belongs to, so a blob moved to another row, field or purpose does not open, and
no two different lists encode alike.

KeyRingError
├── KekMissing   no KEK of that id in the ring; names the variable
└── Tampered     the blob was altered, moved, or sealed under another key
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.apps import apps
from django.conf import settings
from django.db import transaction

from conduit.core.errors import ConduitError, ConfigurationError
from conduit.core.models import PurposeKey

FORMAT = b"\x01"
KEY_BYTES = 32
NONCE_BYTES = 12
VARIABLE = "CONDUIT_KEK_"
PRIMARY = "CONDUIT_KEK_PRIMARY"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", re.ASCII)


class KeyRingError(ConduitError):
    """A wrapped key or sealed text does not open."""


class KekMissing(KeyRingError):
    def __init__(self, kek_id: str) -> None:
        super().__init__(f"The key-encryption key {kek_id} is missing. Set {VARIABLE}{kek_id} to its base64 text.")
        self.kek_id = kek_id


class Tampered(KeyRingError):
    """Altered, moved from another place, or sealed under another key."""


def context(*parts: str | int | bytes) -> bytes:
    """The parts as one unambiguous byte string: each with its type and its length before it."""
    out = b""
    for part in parts:
        if isinstance(part, bytes):
            mark, raw = b"b", part
        elif isinstance(part, int):
            mark, raw = b"i", str(int(part)).encode()
        else:
            mark, raw = b"s", part.encode()
        out += mark + len(raw).to_bytes(8, "big") + raw
    return out


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """`plain` under a 256-bit `key`; opens only with the same key and context."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return FORMAT + nonce + AESGCM(key).encrypt(nonce, plain, FORMAT + context)


def open_sealed(key: bytes, blob: bytes, context: bytes) -> bytes:
    """The inverse of `seal`. Raises Tampered."""
    blob = bytes(blob)
    nonce, body = blob[1 : 1 + NONCE_BYTES], blob[1 + NONCE_BYTES :]
    if blob[:1] != FORMAT or len(nonce) != NONCE_BYTES:
        raise Tampered("A sealed value has an unknown format.")
    try:
        return AESGCM(key).decrypt(nonce, body, FORMAT + context)
    except InvalidTag:
        raise Tampered("A sealed value does not open: altered, moved, or sealed under another key.") from None


class KeyRing:
    """The KEKs this process holds; `primary` is the id of the one that wraps."""

    def __init__(self, keks: Mapping[str, bytes], primary: str) -> None:
        self._keks = dict(keks)
        self.primary = primary
        self.ids = frozenset(self._keks)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(sorted(self.ids))}; primary {self.primary})"

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """(id of the KEK used, blob)."""
        return self.primary, seal(self._keks[self.primary], key, _wrapping(self.primary, context))

    def unwrap(self, kek_id: str, blob: bytes, context: bytes) -> bytes:
        """The key that `wrap` was given. Raises KekMissing or Tampered."""
        kek = self._keks.get(kek_id)
        if kek is None:
            raise KekMissing(kek_id)
        return open_sealed(kek, blob, _wrapping(kek_id, context))


def _wrapping(kek_id: str, inner: bytes) -> bytes:
    return context("wrapped-key", kek_id, inner)


_ring: KeyRing | None = None
_purpose_keys: dict[tuple[str, int], bytes] = {}
_latest: dict[str, int] = {}


def ring() -> KeyRing:
    """This process's key ring. Raises ConfigurationError naming the variable or file and the fix."""
    global _ring
    if _ring is None:
        _ring = load(os.environ, _file())
    return _ring


def _file() -> Path:
    return Path(settings.CONDUIT_HOME) / "secrets" / "kek"


def reset() -> None:
    """Forgets the ring and every unwrapped key: for tests, and for a process that is told of a new KEK."""
    global _ring
    _ring = None
    _purpose_keys.clear()
    _latest.clear()


def configured() -> bool:
    """Whether this installation has any key-encryption key yet; `conduit up` makes one on its first start."""
    return any(name.startswith(VARIABLE) for name in os.environ) or _file().exists()


def load(environment: Mapping[str, str], path: Path) -> KeyRing:
    """The ring that an environment and a key file describe."""
    keks = _from_environment(environment) or _from_file(path)
    if not keks:
        raise ConfigurationError(
            f"There is no key-encryption key: set {VARIABLE}<ID> to the base64 text of 32 random bytes, "
            f"or put the line ID=base64 into {path} (mode 0600)."
        )
    primary = _read(environment, PRIMARY).strip()
    if not primary and len(keks) > 1:
        raise ConfigurationError(f"{PRIMARY} must say which of {', '.join(sorted(keks))} encrypts.")
    primary = primary or next(iter(keks))
    if primary not in keks:
        raise ConfigurationError(
            f"{PRIMARY} is {primary}, but {VARIABLE}{primary} is not set. "
            f"Set it, or choose one of {', '.join(sorted(keks))}."
        )
    return KeyRing(keks, primary)


def _read(environment: Mapping[str, str], name: str) -> str:
    if f"{name}_FILE" not in environment:
        return environment.get(name, "")
    path = environment[f"{name}_FILE"]
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}_FILE names {path}, which cannot be read. Correct the path.") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, bytes]:
    names = {name.removesuffix("_FILE") for name in environment if name.startswith(VARIABLE)} - {PRIMARY}
    return {name.removeprefix(VARIABLE): _decode(name, _read(environment, name)) for name in sorted(names)}


def _from_file(path: Path) -> dict[str, bytes]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return {}
    if mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")
    keks: dict[str, bytes] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        kek_id, equals, text = line.strip().partition("=")
        if not kek_id or kek_id.startswith("#"):
            continue
        if not equals or kek_id in keks:
            raise ConfigurationError(f"{path} line {number} must be ID=base64, each id once. Correct the line.")
        keks[kek_id] = _decode(f"{VARIABLE}{kek_id}", text, f"{path} line {number}")
    return keks


def _decode(name: str, text: str, place: str = "") -> bytes:
    if not _ID.fullmatch(name.removeprefix(VARIABLE)):
        raise ConfigurationError(f"{place or name}: an id has letters, digits and _ only. Rename it.")
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        # The text itself is never quoted: it may be a key with one typing error.
        raise ConfigurationError(
            f"{place or name} must be the base64 text of exactly {KEY_BYTES} bytes. Correct {name}."
        )
    return key


def purpose_key(purpose: str, version: int | None = None) -> tuple[int, bytes]:
    """(version, 256-bit key) of a purpose; the newest version by default, made on first use.

    Raises ConfigurationError when its KEK is missing or wrong, LookupError for a version that does not exist.
    """
    known = _latest.get(purpose) if version is None else version
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
            _latest[purpose] = row.version

    # Only what is committed may be remembered: a key made in a transaction that rolls back never existed.
    transaction.on_commit(remember)
    return row.version, key


def _first(purpose: str) -> PurposeKey:
    kek_id, wrapped = ring().wrap(secrets.token_bytes(KEY_BYTES), _purpose_context(purpose, 1))
    fresh = PurposeKey(purpose=purpose, version=1, kek_id=kek_id, wrapped=wrapped)
    # Two processes may race here: the second waits for the first one's commit, inserts nothing and reads the winner.
    PurposeKey.objects.bulk_create([fresh], ignore_conflicts=True)
    return PurposeKey.objects.get(purpose=purpose, version=1)


def _purpose_context(purpose: str, version: int) -> bytes:
    return context("purpose-key", purpose, version)


def _unwrap_row(row: PurposeKey) -> bytes:
    try:
        return ring().unwrap(row.kek_id, bytes(row.wrapped), _purpose_context(row.purpose, row.version))
    except KekMissing as error:
        raise ConfigurationError(str(error)) from error
    except Tampered as error:
        raise ConfigurationError(
            f"{VARIABLE}{row.kek_id} is not the key that this database was encrypted with. "
            f"Set {VARIABLE}{row.kek_id} to the right one."
        ) from error


def ids_in_use() -> dict[str, frozenset[str]]:
    """Table → ids of the KEKs its rows need. Every model with a `kek_id` column counts, whichever app it is of."""
    used: dict[str, frozenset[str]] = {}
    for model in apps.get_models():
        if any(field.name == "kek_id" for field in model._meta.get_fields()):
            ids = model._base_manager.order_by().values_list("kek_id", flat=True).distinct()
            used[model._meta.label] = frozenset(ids)
    return used


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
