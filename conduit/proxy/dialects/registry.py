"""The dialects by name."""

from __future__ import annotations

from collections.abc import Mapping

from conduit.proxy.dialects.anthropic import ANTHROPIC
from conduit.proxy.dialects.base import DialectModule
from conduit.proxy.dialects.gemini import GEMINI
from conduit.proxy.dialects.openai import OPENAI
from conduit.proxy.dialects.responses import RESPONSES
from providers.adapters.types import Dialect

DIALECTS: Mapping[Dialect, DialectModule] = {
    Dialect.OPENAI: OPENAI,
    Dialect.RESPONSES: RESPONSES,
    Dialect.ANTHROPIC: ANTHROPIC,
    Dialect.GEMINI: GEMINI,
}
