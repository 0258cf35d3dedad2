"""What vendors' secrets look like, for texts that may hold one. A match is a guess: most vendors have no checksum."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from conduit.core.secret import Secret

LONGEST = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """`title` is what a finding is said to look like. The pattern's groups are all non-capturing."""

    title: str
    pattern: str


# The first that fits names the finding, so the more special ones stand first.
SHAPES = (
    Shape("an Anthropic key", r"sk-ant-[a-z]+\d\d-[A-Za-z0-9_-]{80,200}"),
    Shape("an OpenRouter key", r"sk-or-v1-[0-9a-f]{64}"),
    Shape("an OpenAI key", r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,200}"),
    Shape("a key of OpenAI's shape", r"sk-(?=[A-Za-z]*[0-9])[A-Za-z0-9]{32,64}"),
    Shape("a Google API key", r"AIza[0-9A-Za-z_-]{35}"),
    Shape("an AWS access key id", r"A(?:KIA|SIA)[0-9A-Z]{16}"),
    Shape("a Groq key", r"gsk_[A-Za-z0-9]{40,64}"),
    Shape("an xAI key", r"xai-[A-Za-z0-9]{60,120}"),
    Shape("a Hugging Face token", r"hf_[A-Za-z0-9]{30,48}"),
    Shape("a Perplexity key", r"pplx-[A-Za-z0-9]{40,64}"),
)
_ALL = re.compile(
    "(?<![A-Za-z0-9_-])(?:" + "|".join(f"({shape.pattern})" for shape in SHAPES) + ")(?![A-Za-z0-9_-])", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Lookalike:
    title: str
    secret: Secret
    start: int


def lookalikes(text: str) -> Iterator[Lookalike]:
    """Texts of a vendor's shape, in order."""
    for match in _ALL.finditer(text):
        yield Lookalike(SHAPES[(match.lastindex or 1) - 1].title, Secret(match[0]), match.start())
