"""V2: whatever is flipped in a stored blob, and wherever a blob is moved to, nothing opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from conduit.core import idempotency, keks, keyring
from conduit.core.actor import SYSTEM
from conduit.core.errors import ConduitError
from conduit.core.models import PurposeKey
from conduit.core.secret import Secret
from providers import vault
from providers.models import Credential, CredentialVersion, Provider, VersionState
from tests.harness.key_file import key_file

__all__ = ["key_file"]
pytestmark = pytest.mark.django_db
MASKS = (0x01, 0x80)


@dataclass(frozen=True)
class Place:
    """Where a blob lies: an attribute of a row, and what opens it there."""

    row: Any
    column: str
    kind: str
    open: Callable[[], object]

    def get(self) -> bytes:
        return bytes(getattr(self.row, self.column))

    def opens(self, blob: bytes, kek_id: str | None = None) -> bool:
        """Whether it opens with this blob in its place (and under this KEK, for a wrapped key)."""
        before, kek = self.get(), getattr(self.row, "kek_id", None)
        setattr(self.row, self.column, blob)
        if kek_id is not None:
            self.row.kek_id = kek_id
        try:
            self.open()
            return True
        except (ConduitError, UnicodeDecodeError):
            return False
        finally:
            setattr(self.row, self.column, before)
            if kek is not None:
                self.row.kek_id = kek


def versions() -> list[CredentialVersion]:
    """Two credentials with two versions each, the first ones under K1 and the others under K2."""
    provider = Provider.objects.create(name="AWS", kind="openai")
    credentials = [Credential.objects.create(provider=provider, name=name) for name in ("Alice", "Bob")]
    for number in (1, 2):
        for credential in credentials:
            fields = {"key_id": Secret(f"AKIA{credential.name}{number}"), "secret": Secret(f"s-{credential.id}")}
            vault.seal_version(credential, fields, number=number, state=VersionState.RETIRED)
        if number == 1:
            keks.add(actor=SYSTEM)
            keks.rotate(actor=SYSTEM, to="K2", until=0.0)
    return list(CredentialVersion.objects.prefetch_related("fields").order_by("id"))


def places() -> Iterator[Place]:
    found = versions()
    assert {version.kek_id for version in found} == {"K1", "K2"}
    for version in found:
        yield Place(version, "wrapped_key", "data key", lambda version=version: vault.open_version(version))
        for row in version.fields.all():
            yield Place(row, "ciphertext", "ciphertext", lambda version=version: vault.open_version(version))
    for purpose in ("pepper", "token-pepper", "replies"):
        keyring.purpose_key(purpose)
        keyring.make_version(purpose, 2)
    for row in PurposeKey.objects.order_by("id"):
        yield Place(row, "wrapped", "purpose key", lambda row=row: keyring.open_row(row))
    keyring.reset()
    version, secret = keyring.purpose_key("replies")
    for context in (b"reply 1", b"reply 2"):
        reply = Reply(idempotency.seal_reply(version, secret, b'{"key": "cdt_vk"}', context), context)
        yield Place(reply, "blob", "reply", reply.open)


@dataclass
class Reply:
    blob: bytes
    context: bytes

    def open(self) -> bytes:
        try:
            return idempotency.open_reply(self.blob, self.context)
        except LookupError as error:  # names a version of the key that does not exist
            raise ConduitError(str(error)) from error


def test_nothing_opens_that_was_changed_or_moved(key_file: Path) -> None:
    all_of_them = list(places())
    assert all(place.opens(place.get()) for place in all_of_them)
    flips = opened = moves = 0
    for place in all_of_them:
        whole = place.get()
        for position in range(len(whole)):
            for mask in MASKS:
                changed = bytearray(whole)
                changed[position] ^= mask
                flips, opened = flips + 1, opened + place.opens(bytes(changed))
        for length in range(len(whole)):
            flips, opened = flips + 1, opened + place.opens(whole[:length])
    for source, target in permutations(all_of_them, 2):
        kek_id = getattr(source.row, "kek_id", None) if hasattr(target.row, "kek_id") else None
        moves, opened = moves + 1, opened + target.opens(source.get(), kek_id)
    for source, target in permutations({id(p.row): p for p in all_of_them if p.kind == "data key"}.values(), 2):
        moves, opened = moves + 1, opened + _moved_whole(source.row, target.row)
    print(f"V2: {flips} flipped or cut bytes and {moves} moves of {len(all_of_them)} blobs: opened {opened}")
    assert opened == 0
    assert all(place.opens(place.get()) for place in all_of_them)


def _moved_whole(source: CredentialVersion, target: CredentialVersion) -> bool:
    """Every blob of a version over those of another one at once, field by field."""
    rows = {row.name: row for row in target.fields.all()}
    before = {name: row.ciphertext for name, row in rows.items()}
    for row in source.fields.all():
        rows[row.name].ciphertext = row.ciphertext
    place = Place(target, "wrapped_key", "data key", lambda: vault.open_version(target))
    try:
        return place.opens(bytes(source.wrapped_key), source.kek_id)
    finally:
        for name, row in rows.items():
            row.ciphertext = before[name]
