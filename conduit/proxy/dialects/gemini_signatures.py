"""Signatures of thoughts in a dialect whose field for them holds bytes.

Google's clients decode `thoughtSignature` from base64 and encode it anew in another alphabet, so a foreign provider's
text would come back changed. It is wrapped: base64url of a mark and the text. Google's own signatures pass as they are.
"""

from __future__ import annotations

import base64
import binascii

from providers.adapters.types import Reasoning

_SIGNED, _REDACTED = b"cdt:s:", b"cdt:r:"


def wrapped(part: Reasoning) -> str:
    """`thoughtSignature` for a signed or a redacted thought; empty for neither."""
    if part.redacted:
        return _encode(_REDACTED, part.redacted)
    return wrapped_signature(part.signature)


def wrapped_signature(signature: str) -> str:
    return _encode(_SIGNED, signature) if signature else ""


def unwrapped(wire: str) -> tuple[str, str]:
    """(signature, redacted): what was wrapped, or the provider's own signature unchanged."""
    try:
        found = base64.b64decode(wire.translate(_STANDARD) + "=" * (-len(wire) % 4), validate=True)
        if found.startswith(_SIGNED):
            return found.removeprefix(_SIGNED).decode(), ""
        if found.startswith(_REDACTED):
            return "", found.removeprefix(_REDACTED).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return wire, ""
    return wire, ""


_STANDARD = str.maketrans("-_", "+/")


def _encode(mark: bytes, text: str) -> str:
    return base64.urlsafe_b64encode(mark + text.encode()).decode()
