"""The printed form of virtual keys and management tokens (contract 5).

`cdt_vk_` or `cdt_mk_`, 10 characters of public id, 32 random base62 characters (190 bits), 6 characters of base62
CRC-32 over all before it. The checksum lets a typo be refused without a query; it is no protection. Stored is only
HMAC-SHA256(pepper, whole text): with 190 random bits a slow hash would add cost and no safety.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from conduit.core.secret import Secret

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PATTERN = re.compile(r"cdt_(vk|mk)_[0-9A-Za-z]{48}", re.ASCII)
VIRTUAL_KEY, MANAGEMENT_TOKEN = "vk", "mk"


@dataclass(frozen=True, slots=True)
class Minted:
    """A fresh key: `raw` is shown once and then forgotten."""

    public_id: str
    raw: Secret


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A text of a key's shape within another text. `well_formed`: its checksum is right."""

    kind: str
    public_id: str
    raw: Secret
    well_formed: bool
    start: int

    @property
    def hint(self) -> str:
        """What may be shown of it; of a text with a wrong checksum nobody knows which part is secret."""
        return f"cdt_{self.kind}_{self.public_id}…" if self.well_formed else f"cdt_{self.kind}_…"


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(head: str) -> str:
    number, out = zlib.crc32(head.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        out = ALPHABET[digit] + out
    return out


def mint(kind: str) -> Minted:
    public_id = _random(10)
    head = f"cdt_{kind}_{public_id}{_random(32)}"
    return Minted(public_id, Secret(head + _checksum(head)))


def public_id(kind: str, raw: str) -> str | None:
    """The public id of a well-formed key of this kind, else None. Tells nothing about whether the key exists."""
    if len(raw) != 55 or not PATTERN.fullmatch(raw) or raw[4:6] != kind or _checksum(raw[:49]) != raw[49:]:
        return None
    return raw[7:17]


def occurrences(text: str) -> Iterator[Occurrence]:
    """Every match of the published pattern, in order, each as often as it stands there."""
    for match in PATTERN.finditer(text):
        kind, found = match[1], public_id(match[1], match[0])
        yield Occurrence(kind, found or "", Secret(match[0]), found is not None, match.start())


def digest(raw: str, pepper: bytes) -> bytes:
    return hmac.digest(pepper, raw.encode(), "sha256")


def same(left: bytes, right: bytes) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(left, right)
