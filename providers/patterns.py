"""Names of routes, and routes whose name is a pattern: one star at the end that stands for the rest of a model's name.

    claude-*     claude-opus-4-5 and whatever else begins so
    openai/*     openai/gpt-5.2; the provider is asked for what stands behind the slash
    *            everything that no other route takes

An exact name goes first, then the longest pattern, so two never compete. A target of such a route may end in a star
too: `*` asks for the caller's own name (behind the slash, where the pattern ends in one), `anthropic/*` for the same
behind a prefix.
"""

from __future__ import annotations

import re

STAR = "*"
_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+-]{0,199}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a model or route may be called so. What it lets pass is safe in a provider's address."""
    return _NAME.fullmatch(text) is not None and ".." not in text and "//" not in text and not text.endswith("/")


def is_pattern(text: str) -> bool:
    return STAR in text


def is_valid(pattern: str) -> bool:
    """One star, at the end, behind what could begin a name, or alone."""
    prefix = pattern[:-1]
    return pattern == STAR or (pattern.endswith(STAR) and is_name(f"{prefix}x") and not is_pattern(prefix))


def matches(pattern: str, name: str) -> bool:
    """Whether `name` is the pattern's: a valid one, as is what the provider would be asked for."""
    return len(name) >= len(pattern) and name.startswith(pattern[:-1]) and is_name(_own(pattern, name))


def upstream_name(pattern: str, model: str, name: str) -> str:
    """What a target's `model` means for a caller's `name` that matches its route's pattern."""
    return model.replace(STAR, _own(pattern, name))


def _own(pattern: str, name: str) -> str:
    return name[len(pattern) - 1 :] if pattern.endswith("/*") else name


def callers_name(pattern: str, model: str, upstream: str) -> str | None:
    """The name by which callers get the provider's model `upstream`; None: this target does not lead there."""
    prefix = model[:-1]
    if not is_pattern(model) or not upstream.startswith(prefix):
        return None
    own = upstream[len(prefix) :]
    name = f"{pattern[:-1]}{own}" if pattern.endswith("/*") else own
    return name if is_name(name) and matches(pattern, name) else None
