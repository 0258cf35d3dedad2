"""A text that must not leak by accident: printing, formatting, JSON and pickling refuse or mask it."""

from __future__ import annotations

import html
import json
import re
from typing import Any, NoReturn
from urllib.parse import quote

SHORTEST_MASKED = 6  # characters: shorter ones are part of any message
_RUN = re.compile(r"[0-9A-Za-z_\-]{16,}")


class Secret:
    """Wraps a secret string. `reveal()` is the only way to the text; every other view is masked or raises."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def hint(self) -> str:
        """What a person may see: the vendor's prefix and the last four characters, never half of a short secret.

        What does not print shows as a dot: a NUL would not even be storable.
        """
        text = self._text
        if len(text) < 16:
            return "…"
        head, dash, _ = text[:8].rpartition("-")
        return "".join(each if each.isprintable() else "·" for each in f"{head}{dash}…{text[-4:]}")

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __iter__(self) -> NoReturn:
        raise TypeError("a Secret cannot be iterated")


def mask(text: str, secrets: list[Secret]) -> str:
    """`text` without the given secrets: for messages of upstreams, which like to quote the key that they refuse.

    A secret is found as it is and escaped for URLs, JSON and HTML; any longer run of letters and digits of it, whatever
    happened to the characters between; and its beginning, where the message was cut in the middle of it.
    """
    for secret in secrets:
        plain = secret.reveal()
        if len(plain) < SHORTEST_MASKED:
            continue
        text = text.replace(plain, secret.hint())
        for form in _forms(plain):
            text = _without_beginning(text.replace(form, "…"), form)
    return text


def _forms(plain: str) -> list[str]:
    """Longest first: a form may be part of another one."""
    in_json = json.dumps(plain)[1:-1]
    escaped = {plain, in_json, in_json.replace("/", "\\/"), quote(plain, safe=""), quote(plain), html.escape(plain)}
    return sorted(escaped | set(_RUN.findall(plain)), key=len, reverse=True)


def _without_beginning(text: str, form: str) -> str:
    """`text` without the beginning of `form` at its end."""
    kept = text.rstrip("….")
    for length in range(min(len(form), len(kept)), SHORTEST_MASKED - 1, -1):
        if kept.endswith(form[:length]):
            return kept[:-length] + "…"
    return text
