"""Thoughts as reasoning items: what must come back to the model unchanged travels in `encrypted_content`.

That member holds a signature as it is. Data that stands in for a whole thought is marked, because providers tell the
two apart and want back what they gave.
"""

from __future__ import annotations

from providers.adapters.types import Reasoning

REDACTED = "redacted:"


def sealed(signature: str, redacted: str) -> str:
    """`encrypted_content` of a thought; empty where there is nothing to keep."""
    return f"{REDACTED}{redacted}" if redacted else signature


def thought_of(text: str, encrypted: str, identity: str = "") -> Reasoning:
    """The thought that an item tells of."""
    if encrypted.startswith(REDACTED):
        return Reasoning(text=text, redacted=encrypted.removeprefix(REDACTED), id=identity)
    return Reasoning(text=text, signature=encrypted, id=identity)
