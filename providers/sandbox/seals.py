"""Signatures of thoughts: each vendor's are its own, and another one's are refused, as real vendors do."""

from __future__ import annotations

import base64

from providers.sandbox.reading import RequestError, text

_STANDARD = str.maketrans("-_", "+/")


def seal(vendor: str) -> str:
    """What the sandbox signs thoughts with: base64, with both letters that the URL-safe alphabet has not."""
    return "++//" + base64.b64encode(f"thought of at {vendor}".encode()).decode()


def check(given: object, vendor: str, where: str) -> None:
    """Google's clients send the URL-safe alphabet. Raises RequestError."""
    if text(given, where).translate(_STANDARD) != seal(vendor):
        raise RequestError(f"{where}: Invalid signature. It must come back as it was given.", param=where)
