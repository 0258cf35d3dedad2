"""Every kind of provider, as data. A vendor that speaks a known wire format is one row here; nothing else changes.

KINDS              kind -> ProviderKind
adapter_for(...)   the adapter that speaks a kind's wire format; adapters are stateless and shared
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

from providers.adapters.base import Adapter
from providers.adapters.types import Dialect, Endpoint


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One input of a form: `secret` ones are encrypted and never shown again."""

    name: str
    secret: bool
    required: bool
    help: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind's wire format can carry at all; a single model may do less."""

    streaming: bool = True
    tools: bool = True
    parallel_tools: bool = True
    vision: bool = True
    audio_in: bool = False
    audio_out: bool = False
    documents: bool = False
    structured: bool = True
    reasoning: bool = True
    logprobs: bool = False
    embeddings: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKind:
    """`adapters` maps the dialect an option may choose to "module:Class"; the first one is the default.

    `dressing` names a class of adapters.custom or adapters.sandbox that wraps the adapter, `price_provider` the
    provider's id in the price data, `guidance` what an operator should do about an error code, `models` patterns of
    names (fnmatch) that this kind usually serves. `client_headers` maps a client's header (or a prefix ending in
    "-") to the option that carries it to the adapter; no other client header goes upstream. `own_process`: we run it.
    """

    kind: str
    title: str
    base_url: str
    adapters: Mapping[str, str]
    dressing: str = ""
    fields: tuple[FieldSpec, ...]
    options: tuple[FieldSpec, ...] = ()
    endpoints: tuple[Endpoint, ...]
    capabilities: Capabilities
    price_provider: str
    key_hint: str
    guidance: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    client_headers: Mapping[str, str] = field(default_factory=dict)
    own_process: bool = False


_OPENAI = "providers.adapters.openai:OpenAIAdapter"
_COMPATIBLE = "providers.adapters.openai:CompatibleAdapter"
_ANTHROPIC = "providers.adapters.anthropic:AnthropicAdapter"
_GEMINI = "providers.adapters.gemini:GeminiAdapter"


def _guidance(key_page: str, limits_page: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            "upstream_auth_failed": f"Invalid key: create one at {key_page} and rotate the credential.",
            "upstream_rate_limited": f"The account's limit is reached: see {limits_page}, or add another credential.",
        }
    )


def _api_key(hint: str) -> FieldSpec:
    return FieldSpec("api_key", secret=True, required=True, help=f"API key, {hint}")


_ROWS = (
    ProviderKind(
        kind="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        adapters={Dialect.OPENAI: _OPENAI},
        fields=(_api_key("starts with sk-"),),
        options=(
            FieldSpec("organization", secret=False, required=False, help="Organization id, org-…, sent with each call"),
            FieldSpec("project", secret=False, required=False, help="Project id, proj_…, sent with each call"),
        ),
        endpoints=(Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(audio_in=True, audio_out=True, documents=True, logprobs=True, embeddings=True),
        price_provider="openai",
        key_hint="sk-…",
        guidance=_guidance("https://platform.openai.com/api-keys", "https://platform.openai.com/settings/limits"),
        models=("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "text-embedding-*"),
    ),
    ProviderKind(
        kind="anthropic",
        title="Anthropic",
        base_url="https://api.anthropic.com",
        adapters={Dialect.ANTHROPIC: _ANTHROPIC},
        fields=(_api_key("starts with sk-ant-"),),
        endpoints=(Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.MODELS),
        capabilities=Capabilities(documents=True),
        client_headers={"anthropic-beta": "anthropic_beta"},
        price_provider="anthropic",
        key_hint="sk-ant-…",
        guidance=_guidance(
            "https://console.anthropic.com/settings/keys", "https://console.anthropic.com/settings/limits"
        ),
        models=("claude-*",),
    ),
    ProviderKind(
        kind="gemini",
        title="Google Gemini",
        base_url="https://generativelanguage.googleapis.com",
        adapters={Dialect.GEMINI: _GEMINI},
        fields=(_api_key("from Google AI Studio"),),
        endpoints=(Endpoint.CHAT, Endpoint.GENERATE, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(audio_in=True, audio_out=True, documents=True, logprobs=True, embeddings=True),
        price_provider="google",
        key_hint="AIza…",
        guidance=_guidance("https://aistudio.google.com/apikey", "https://ai.google.dev/gemini-api/docs/rate-limits"),
        models=("gemini-*", "gemma-*", "text-embedding-004"),
    ),
    ProviderKind(
        kind="custom",
        title="Custom endpoint",
        base_url="",
        adapters={Dialect.OPENAI: _COMPATIBLE, Dialect.ANTHROPIC: _ANTHROPIC},
        dressing="providers.adapters.custom:CustomAdapter",
        fields=(FieldSpec("api_key", secret=True, required=False, help="API key; none when the endpoint needs none"),),
        options=(
            FieldSpec("dialect", secret=False, required=False, help="openai (default) or anthropic"),
            FieldSpec("auth", secret=False, required=False, help="bearer, none, or the name of a header"),
            FieldSpec("headers", secret=False, required=False, help="Object of headers sent with each call"),
            FieldSpec("path_map", secret=False, required=False, help="Object: a standard path to the endpoint's own"),
            FieldSpec("max_tokens_field", secret=False, required=False, help="Name of the output cap: max_tokens"),
        ),
        endpoints=(Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(audio_in=True, audio_out=True, documents=True, logprobs=True, embeddings=True),
        price_provider="",
        key_hint="",
        guidance={"upstream_auth_failed": "The endpoint rejected the key: check the key and the option `auth`."},
    ),
    ProviderKind(
        kind="sandbox",
        title="Sandbox",
        base_url="http://127.0.0.1:8081/v1",
        adapters={Dialect.OPENAI: _COMPATIBLE, Dialect.ANTHROPIC: _ANTHROPIC, Dialect.GEMINI: _GEMINI},
        dressing="providers.adapters.sandbox:SandboxAdapter",
        fields=(_api_key("any text that starts with sk-sandbox-"),),
        options=(FieldSpec("dialect", secret=False, required=False, help="openai (default), anthropic or gemini"),),
        endpoints=(Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.GENERATE, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(embeddings=True),
        client_headers={"x-sandbox-": "sandbox_headers"},
        own_process=True,
        price_provider="sandbox",
        key_hint="sk-sandbox-…",
        guidance={"upstream_auth_failed": "The sandbox takes any key that starts with sk-sandbox-."},
        models=("sandbox-*",),
    ),
)

KINDS: Mapping[str, ProviderKind] = MappingProxyType({row.kind: row for row in _ROWS})


def adapter_for(kind: str, options: Mapping[str, Any]) -> Adapter:
    """The shared adapter for a provider of this kind.

    Raises KeyError for an unknown kind, ValueError when `options["dialect"]` is not one the kind offers.
    """
    row = KINDS[kind]
    dialect = options.get("dialect") or next(iter(row.adapters))
    if dialect not in row.adapters:
        raise ValueError(f"dialect must be one of {', '.join(row.adapters)}")
    return _adapter(row.adapters[dialect], row.dressing)


@cache
def _adapter(path: str, dressing: str) -> Adapter:
    adapter: Adapter = _class(path)()
    return _class(dressing)(adapter) if dressing else adapter


def _class(path: str) -> Callable[..., Adapter]:
    """Loaded on first use: a process imports only the wire formats it speaks."""
    module, _, name = path.partition(":")
    loaded: Callable[..., Adapter] = getattr(import_module(module), name)
    return loaded
