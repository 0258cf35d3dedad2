"""Logging: one JSON line per event on standard error, readable lines on a terminal; the standard library included.

Whatever a message or field holds, texts of the shape of a secret are masked before they are written.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from conduit import settings

# The published forms of our own keys, the common prefixes of providers' keys, and any bearer token.
SECRET = re.compile(
    r"(?P<ours>cdt_(?:vk|mk)_)[0-9A-Za-z]{48}"
    r"|(?P<vendor>\b(?:sk-(?:ant-|proj-|or-)?|AIza|gsk_|xai-|hf_))[0-9A-Za-z_\-]{12,}"
    r"|(?P<scheme>\b[Bb]earer\s+)[0-9A-Za-z._~+/=\-]{8,}"
)
DEEPEST = 6


def mask(text: str) -> str:
    """`text` with every secret's body replaced by an ellipsis; the telling prefix stays."""
    return SECRET.sub(lambda match: f"{match['ours'] or match['vendor'] or match['scheme'] or ''}…", text)


def _masked(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mask(value)
    if depth < DEEPEST and isinstance(value, Mapping):
        return {mask(str(key)): _masked(item, depth + 1) for key, item in value.items()}
    if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_masked(item, depth + 1) for item in value]
    return mask(str(value))


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: masks every field of the event, tracebacks included."""
    for name, value in event.items():
        if not name.startswith("_"):
            event[name] = _masked(value)
    return event


def configure(stream: Any = None, *, least: int = logging.NOTSET) -> None:
    """Sets up structlog and the root logger: CONDUIT_LOG_LEVEL, or `least` where that is higher.

    May be called again; the last call wins.
    """
    stream = stream or sys.stderr
    level = max(least, logging.getLevelNamesMapping().get(settings.LOG_LEVEL.upper(), logging.INFO))
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *(step for step in shared if not isinstance(step, structlog.stdlib.ExtraAdder)),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    terminal = bool(getattr(stream, "isatty", bool)())
    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    output = logging.StreamHandler(stream)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level)
    # Told by clients' malformed requests, not by anything an operator can act on.
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.ERROR))
    for noisy in ("asyncio", "httpx", "httpcore", "celery", "kombu"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
