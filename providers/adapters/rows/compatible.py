"""The shape of a row whose vendor speaks OpenAI's wire format, and what several such rows say."""

from __future__ import annotations

from dataclasses import replace

from providers.adapters.kinds import COMPATIBLE, Capabilities, FieldSpec, ProviderKind, api_key, guidance
from providers.adapters.quirks import PLAIN, Quirks
from providers.adapters.types import Dialect, Endpoint

CHAT = (Endpoint.CHAT, Endpoint.MODELS)
EMBEDDING = (Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.MODELS)
LEGACY = (Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.MODELS)
PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
BOOKKEEPING = frozenset({"store", "metadata", "verbosity", "service_tier"})  # what is OpenAI's own affair
# What models of several vendors spend on by themselves, however few tokens they are given.
SEARCHES = "searches any number of times for one answer"
AGENTS = "a model of several agents has each of them write beside the answer"
# Members of a request by the claim that stands for them: left out and named, or refused, where a row lacks the claim.
_MEMBERS = {
    "tools": {"tool_choice", "parallel_tool_calls"},
    "tool_choice": {"tool_choice"},
    "audio_out": {"modalities", "audio"},
    "reasoning": {"reasoning_effort", "reasoning"},
    "stop": {"stop"},
    "seed": {"seed"},
    "penalties": PENALTIES,
    "several": {"n"},
    "logprobs": {"logprobs", "top_logprobs"},
}
_DENIED = {"tools": {"tools"}, "structured": {"response_format.json_schema"}}
_PARTS = {"vision": "image", "audio_in": "audio", "documents": "document"}


def compatible(  # noqa: PLR0913 (what a vendor is)
    kind: str,
    title: str,
    base_url: str,
    *,
    key: str,
    pages: tuple[str, str],
    capabilities: Capabilities,
    endpoints: tuple[Endpoint, ...] = CHAT,
    prices: str = "",
    models: tuple[str, ...] = (),
    options: tuple[FieldSpec, ...] = (),
    quirks: Quirks = PLAIN,
    spending: tuple[tuple[str, str], ...] = (),
) -> ProviderKind:
    """`key`: how its keys begin. `pages`: where keys are made, and where limits are told. `prices`: price_provider."""
    return ProviderKind(
        kind=kind,
        title=title,
        base_url=base_url,
        adapters={Dialect.OPENAI: COMPATIBLE},
        fields=(api_key(f"starts with {key}" if key else f"from {pages[0]}"),),
        options=options,
        endpoints=endpoints,
        capabilities=capabilities,
        price_provider=prices,
        key_hint=f"{key}…" if key else "",
        guidance=guidance(*pages),
        models=models,
        quirks=claimed(quirks, capabilities),
        spending=spending,
    )


def claimed(quirks: Quirks, claims: Capabilities) -> Quirks:
    """What a vendor does not claim is not sent to it."""
    lacking = [names for name, names in _MEMBERS.items() if not getattr(claims, name)]
    denied = [names for name, names in _DENIED.items() if not getattr(claims, name)]
    parts = [part for name, part in _PARTS.items() if getattr(claims, name)]
    return replace(
        quirks,
        drops=quirks.drops.union(*lacking),
        denies=quirks.denies.union(*denied),
        parts=frozenset(parts),
    )
