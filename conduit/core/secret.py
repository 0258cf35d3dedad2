"""A text that must not leak by accident: printing, formatting, JSON and pickling refuse or mask it."""

from __future__ import annotations

from typing import Any, NoReturn


class Secret:
    """Wraps a secret string. `reveal()` is the only way to the text; every other view is masked or raises."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def hint(self) -> str:
        """What a person may see: the vendor's prefix and the last four characters, never half of a short secret."""
        text = self._text
        if len(text) < 16:
            return "…"
        head, dash, _ = text[:8].rpartition("-")
        return f"{head}{dash}…{text[-4:]}"

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
    """`text` with every occurrence of the given secrets replaced: for upstream error messages."""
    for secret in secrets:
        if len(secret.reveal()) >= 6:
            text = text.replace(secret.reveal(), secret.hint())
    return text
