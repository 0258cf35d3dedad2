"""Identifiers. Rows and attempts carry UUIDv7 (RFC 9562): unique without coordination and ordered by time."""

from __future__ import annotations

import re
import uuid

from uuid_utils import compat
from uuid_utils import uuid7 as _fast_uuid7

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{7,127}", re.ASCII)


def uuid7() -> uuid.UUID:
    return compat.uuid7()


def request_id(inbound: str | None = None) -> str:
    """The caller's own id where it is a plausible one (8 to 128 of A-Za-z0-9._:-), else a new `req_…`."""
    if inbound and _REQUEST_ID.fullmatch(inbound):
        return inbound
    return f"req_{_fast_uuid7().hex}"
