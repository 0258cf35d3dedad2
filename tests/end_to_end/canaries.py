"""Secrets that must not be found anywhere but where they belong, and the search for them in every usual disguise."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

PAGE = bytes(8192)
SHORTEST, HALVED_FROM = 12, 24


def _in_base64(secret: bytes) -> set[bytes]:
    """Both alphabets, wherever the secret may begin in what was encoded."""
    forms = set()
    for lead in range(3):
        # Characters that also carry bits of what stands before or behind are left out.
        text = base64.b64encode(bytes(lead) + secret).rstrip(b"=")[(0, 2, 3)[lead] :]
        text = text if (lead + len(secret)) % 3 == 0 else text[:-1]
        forms |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


def _escaped(text: str) -> set[str]:
    """In URLs, in JSON (as it stands there, in a script of a page, and slashes with a backslash), in HTML, in COPY and
    in what MONITOR prints. Alphanumeric secrets look alike in all of them."""
    in_json = json.dumps(text)[1:-1]
    in_script = in_json.replace("<", "\\u003C").replace(">", "\\u003E").replace("&", "\\u0026")
    in_python = repr(text)[1:-1]
    in_url = {quote(text, safe=""), quote(text), quote_plus(text)}
    lower = {form.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d") for form in in_url}
    more = {in_json.replace("/", "\\/"), html.escape(text, quote=False), text.replace("\\", "\\\\")}
    return {in_json, in_script, in_python, in_script.lower(), html.escape(text)} | in_url | lower | more


def disguises(secret: bytes) -> set[bytes]:
    """Every form to look for. Halves are forms too: a page of the write-ahead log or of a table may end in between."""
    forms = {secret, secret.hex().encode(), secret.hex().upper().encode()} | _in_base64(secret)
    if not secret.isascii():  # 32 random bytes of a key; nobody writes them as text
        return forms
    escaped = {form.encode() for form in _escaped(secret.decode())}
    middle = len(secret) // 2
    halves = {secret[:middle], secret[middle:]} if len(secret) >= HALVED_FROM else set()
    if escaped != {secret}:  # escaped and then encoded, it is the plain half that stays recognisable
        forms |= {form for half in halves for form in _in_base64(half)}
    return forms | escaped | halves


@dataclass
class Search:
    """What was looked through, for the figure: `places` by kind."""

    places: dict[str, int] = field(default_factory=dict)
    read: int = 0  # bytes

    def count(self, kind: str, data: bytes) -> None:
        self.places[kind] = self.places.get(kind, 0) + 1
        self.read += len(data)


class Canaries:
    """`secrets` by a name that a failure may show. `search` counts what was looked through."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        assert all(len(secret) >= SHORTEST for secret in secrets.values()), "a short one would be found by chance"
        self.secrets = dict(secrets)
        self.needles = [(name, form) for name, secret in secrets.items() for form in disguises(secret)]
        self.search = Search()

    def but(self, *names: str) -> Canaries:
        """Without these, which belong where is looked next. Counts into the same figure."""
        fewer = Canaries({name: secret for name, secret in self.secrets.items() if name not in names})
        fewer.search = self.search
        return fewer

    def found_in(self, data: bytes) -> set[str]:
        return {name for name, needle in self.needles if needle in data}

    def hits(self, kind: str, places: Mapping[str, bytes]) -> list[str]:
        found = []
        for place, data in places.items():
            self.search.count(kind, data)
            found += [f"{name} in {kind} {place}" for name in sorted(self.found_in(data))]
        return found

    def hits_in_files(self, folder: Path, *, but: tuple[Path, ...]) -> list[str]:
        """In every file below `folder` that is not below one of `but`."""
        found = []
        for path in _files(folder):
            if not any(one in path.parents for one in but):
                found += self.hits("file", {str(path.relative_to(folder)): _written(path)})
        return found


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _written(path: Path) -> bytes:
    """The file without its pages of zeros, of which preallocated ones consist. One zero keeps the neighbours apart."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return b""  # gone since it was listed: the engines tidy up while they run
    if PAGE not in whole:
        return whole
    pages = (whole[start : start + len(PAGE)] for start in range(0, len(whole), len(PAGE)))
    return b"".join(page if page.strip(b"\0") else b"\0" for page in pages)
