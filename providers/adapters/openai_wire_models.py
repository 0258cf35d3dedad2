"""Model lists of OpenAI's wire format, and of vendors who keep theirs elsewhere (quirks.Quirks.listed)."""

from __future__ import annotations

from typing import Any

from providers.adapters.openai_wire import error_in
from providers.adapters.refusals import json_of


def model_names(body: bytes, where: tuple[str, ...] = ("data", "id")) -> list[str]:
    """Names in a model list; Together and a few others send the bare array."""
    answer = json_of(body)
    if isinstance(answer, dict) and not where and not answer.get("error"):
        return []
    listed = answer.get(where[0]) if isinstance(answer, dict) and where else answer
    if not isinstance(listed, list):
        raise error_in(body)
    names: list[Any] = [entry.get(where[1]) for entry in listed if isinstance(entry, dict)] if where else []
    if not all(isinstance(name, str) for name in names):
        raise error_in(body)
    return names
