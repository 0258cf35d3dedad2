"""What the families of models behind Bedrock's Converse can do, as data.

Converse takes one shape for all of them and refuses what a model lacks. A model that is not listed may do everything
that needs no fields of its own; what AWS then refuses it says itself.
https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

ANYWHERE = frozenset({"system", "messages", "tools"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`schema`: how an answer is held to a JSON schema: by `outputConfig`, by a tool that must be called, or not.

    `thinking`: the way reasoning is asked for (see converse_reasoning). `replays`: takes its reasoning back. `cache`:
    where cache points may stand, `cache_hour` whether one may ask for an hour. `choice`: a tool may be demanded.
    `error_status`: tool results may say that they are errors. `fields`: canonical parameters that Converse has no
    place for, and where they stand in additionalModelRequestFields.
    """

    system: bool = True
    tools: bool = True
    choice: bool = True
    images: bool = True
    documents: bool = True
    audio: bool = True
    schema: Literal["native", "tool", ""] = "native"
    thinking: Literal["budget", "adaptive", "nova", "effort", ""] = ""
    replays: bool = False
    cache: frozenset[str] = frozenset()
    cache_hour: bool = False
    error_status: bool = False
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_TOP_K = {"top_k": ("top_k",)}
_PENALTIES = {"frequency_penalty": ("frequency_penalty",), "presence_penalty": ("presence_penalty",)}
_CLAUDE_3 = Family(audio=False, schema="tool", error_status=True, fields=_TOP_K)
_CLAUDE_CACHING = replace(_CLAUDE_3, cache=ANYWHERE)
_CLAUDE_BUDGET = replace(_CLAUDE_CACHING, thinking="budget", replays=True)
_CLAUDE_4_5 = replace(_CLAUDE_BUDGET, schema="native", cache_hour=True)
_NOVA = Family(
    audio=False,
    schema="tool",
    error_status=True,
    cache=frozenset({"system", "messages"}),
    fields={"top_k": ("inferenceConfig", "topK")},
)
_TEXT = Family(images=False, audio=False)
_PLAIN = Family(tools=False, choice=False, images=False, audio=False, schema="")  # text and documents, no more
_LLAMA = Family(choice=False, images=False, audio=False, schema="")

FAMILIES: tuple[tuple[str, Family], ...] = (
    ("*anthropic.claude-v2*", replace(_PLAIN, fields=_TOP_K)),
    ("*anthropic.claude-instant*", replace(_PLAIN, fields=_TOP_K)),
    ("*anthropic.claude-3-haiku*", _CLAUDE_3),
    ("*anthropic.claude-3-sonnet*", _CLAUDE_3),
    ("*anthropic.claude-3-opus*", _CLAUDE_3),
    ("*anthropic.claude-3-5-*", _CLAUDE_CACHING),
    ("*anthropic.claude-3-7-*", _CLAUDE_BUDGET),
    ("*anthropic.claude-sonnet-4-20*", _CLAUDE_BUDGET),
    ("*anthropic.claude-opus-4-20*", _CLAUDE_BUDGET),
    ("*anthropic.claude-opus-4-1*", _CLAUDE_BUDGET),
    ("*anthropic.claude-*-4-5*", _CLAUDE_4_5),
    ("*anthropic.claude*", replace(_CLAUDE_4_5, thinking="adaptive")),
    ("*amazon.nova-micro*", replace(_NOVA, images=False, documents=False)),
    ("*amazon.nova-2*", replace(_NOVA, thinking="nova", replays=True)),
    ("*amazon.nova*", _NOVA),
    ("*amazon.titan*", replace(_PLAIN, system=False)),
    ("*cohere.command-r*", replace(_LLAMA, fields={"top_k": ("k",), "seed": ("seed",), **_PENALTIES})),
    ("*cohere.command*", replace(_PLAIN, system=False, fields={"top_k": ("k",)})),
    ("*ai21.jamba-instruct*", replace(_PLAIN, documents=False, fields=_PENALTIES)),
    ("*ai21.jamba*", replace(_LLAMA, fields=_PENALTIES)),
    ("*ai21.j2*", replace(_PLAIN, system=False, documents=False)),
    ("*meta.llama4*", replace(_LLAMA, images=True)),
    ("*meta.llama3-2-1b*", _PLAIN),
    ("*meta.llama3-2-3b*", _PLAIN),
    ("*meta.llama3-2*", replace(_LLAMA, images=True)),
    ("*meta.llama3-1*", _LLAMA),
    ("*meta.llama3-3*", _LLAMA),
    ("*meta.llama*", _PLAIN),
    ("*mistral.mistral-7b*", replace(_PLAIN, system=False, fields=_TOP_K)),
    ("*mistral.mixtral*", replace(_PLAIN, system=False, fields=_TOP_K)),
    ("*mistral.mistral-large-24*", replace(_TEXT, schema="tool")),
    ("*mistral.mistral-small-24*", replace(_TEXT, schema="tool")),
    ("*mistral.pixtral*", Family(audio=False, schema="tool")),
    ("*deepseek.r1*", _PLAIN),
    ("*deepseek.*", _TEXT),
    ("*openai.gpt-oss*", replace(_TEXT, thinking="effort")),
    ("*openai.*", Family(thinking="effort")),
    ("*writer.palmyra*", _TEXT),
)
_UNLISTED = Family()


def family_of(model: str) -> Family:
    """By the name of a model or inference profile, or an ARN that ends in one."""
    name = model.lower()
    return next((family for pattern, family in FAMILIES if fnmatchcase(name, pattern)), _UNLISTED)
