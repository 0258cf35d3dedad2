"""Secrets that must not be found anywhere but where they belong, and the search for them in every usual disguise."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.end_to_end.installation import Installation


def disguises(secret: bytes) -> set[bytes]:
    """As it is, in hexadecimal, and in both base64 alphabets wherever it may begin in what was encoded."""
    forms = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for lead in range(3):
        # Characters that also carry bits of what stands before or behind are left out.
        text = base64.b64encode(bytes(lead) + secret).rstrip(b"=")[(0, 2, 3)[lead] :]
        text = text if (lead + len(secret)) % 3 == 0 else text[:-1]
        forms |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


class Canaries:
    """`secrets` by a name that a failure may show."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        assert all(len(secret) >= 12 for secret in secrets.values()), "a short one would be found by chance"
        self._needles = [(name, form) for name, secret in secrets.items() for form in disguises(secret)]

    def found_in(self, data: bytes) -> set[str]:
        return {name for name, needle in self._needles if needle in data}

    def hits(self, places: Mapping[str, bytes]) -> list[str]:
        return [f"{name} in {place}" for place, data in places.items() for name in sorted(self.found_in(data))]

    def hits_in_files(self, folder: Path, *, but: Path) -> list[str]:
        """In every file below `folder`, `but` one folder's."""
        found = []
        for path in _files(folder):
            if but in path.parents:
                continue
            found += [f"{name} in {path.relative_to(folder)}" for name in sorted(self.found_in(path.read_bytes()))]
        return found


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def dump(conduit: Installation) -> dict[str, bytes]:
    """Every table of the database as text, `bytea` in hexadecimal."""
    tables = (
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
    )
    with conduit.database() as connection, connection.cursor() as cursor:
        names = [name for (name,) in cursor.execute(tables).fetchall()]
        rows = {}
        for name in names:
            with cursor.copy(f"COPY (SELECT * FROM {name}) TO STDOUT") as copy:  # type: ignore[call-overload]
                rows[name] = b"".join(bytes(piece) for piece in copy)
        return rows
