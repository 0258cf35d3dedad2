"""AES-256-GCM of small secrets, each bound to what it belongs to.

Every blob is one format byte, a random 96-bit nonce, ciphertext with tag. The associated data is a length-prefixed
list of what the blob belongs to, so a blob moved to another row, field or purpose does not open, and no two different
lists encode alike.

KeyRingError
├── KekMissing      no KEK of that id in the ring; names the variable
├── KekUnavailable  the service that keeps the KEK did not answer or refused; says why
└── Tampered        the blob was altered, moved, or sealed under another key
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conduit.core.errors import ConduitError

FORMAT = b"\x01"
KEY_BYTES = 32
NONCE_BYTES = 12
VARIABLE = "CONDUIT_KEK_"


class KeyRingError(ConduitError):
    """A wrapped key or sealed text does not open."""


class KekMissing(KeyRingError):
    def __init__(self, kek_id: str) -> None:
        super().__init__(f"The key-encryption key {kek_id} is missing. Set {VARIABLE}{kek_id} to its base64 text.")
        self.kek_id = kek_id


class KekUnavailable(KeyRingError):
    """The key may be right, but the service that keeps it cannot be asked now, or does not let us."""


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
