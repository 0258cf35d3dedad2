"""What is known of a kind of provider, as data: its shape, and the words its rows share (the rows: rows/)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from providers.adapters.model_names import as_named
from providers.adapters.quirks import Quirks
from providers.adapters.types import Dialect, Endpoint

REGION = "{region}"  # in a base URL
OPENAI = "providers.adapters.openai:OpenAIAdapter"
RESPONSES = "providers.adapters.openai_responses:OpenAIResponsesAdapter"
COMPATIBLE = "providers.adapters.openai:CompatibleAdapter"
ANTHROPIC = "providers.adapters.anthropic:AnthropicAdapter"
COHERE = "providers.adapters.cohere:CohereAdapter"
MISTRAL = "providers.adapters.mistral:MistralAdapter"
OPENROUTER = "providers.adapters.openrouter:OpenRouterAdapter"
GEMINI = "providers.adapters.gemini:GeminiAdapter"
CONVERSE = "providers.adapters.converse:ConverseAdapter"
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One input of a form: `secret` ones are encrypted and never shown again."""

    name: str
    secret: bool
    required: bool
    help: str
    shape: str = ""  # of a field: a JSON object that providers/secret_fields.py checks; of an option: "number"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind's wire format can carry at all; a single model may do less."""

    streaming: bool = True
    tools: bool = True
    parallel_tools: bool = True  # several calls in one answer
    tool_choice: bool = True
    vision: bool = True
    audio_in: bool = False
    audio_out: bool = False
    documents: bool = False
    structured: bool = True  # an answer that follows a JSON schema
    reasoning: bool = True
    citations: bool = False
    prompt_cache: bool = False  # marks of the caller; what a provider caches by itself needs none
    stop: bool = True
    seed: bool = True
    penalties: bool = True
    several: bool = True  # n choices
    logprobs: bool = False
    embeddings: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKind:
    """`adapters` maps the dialect an option may choose to "module:Class"; the first one is the default.

    `dressing` names a class of adapters.custom or adapters.sandbox that wraps the adapter, `price_provider` the
    provider's id in the price data, `guidance` what an operator should do about an error code, `models` patterns of
    names (fnmatch) that this kind usually serves. `client_headers` maps a client's header (or a prefix ending in
    "-") to the option that carries it to the adapter; no other client header goes upstream. `own_process`: we run it.
    `account_header`: the header of an answer that names the account a credential belongs to; empty where none does.
    `ways`: sets of fields of which exactly one is given. `sign_in`: a row of providers/tokens.py that makes of them
    what requests carry, and knows whose they are. `{region}` in `base_url` is the provider's region, any other name in
    braces the option of that name. `quirks`: where an OpenAI-compatible vendor departs from the wire format.
    `only_models`: an endpoint that some models have only, and patterns of their names. `known_as`: a function of
    model_names.py that tells the name catalogue and prices know a model by. `spending`: patterns of names of models
    that spend beyond what a request bounds, and in words what on. `sealed_by`: patterns of names of models, and the
    vendor whose seal their thoughts carry where that is not this kind: what it signs, its models take back anywhere.
    `surcharges`: an option, a pattern of its value, and in words what is charged for it beyond the price list. (Each:
    the first match. `spending` and `surcharges` match any capitals.)
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
    account_header: str = ""
    ways: tuple[tuple[str, ...], ...] = ()
    only_models: Mapping[Endpoint, tuple[str, ...]] = field(default_factory=dict)
    by_model: tuple[tuple[str, Dialect], ...] = ()
    sealed_by: tuple[tuple[str, str], ...] = ()
    spending: tuple[tuple[str, str], ...] = ()
    surcharges: tuple[tuple[str, str, str], ...] = ()
    sign_in: str = ""
    quirks: Quirks | None = None
    known_as: Callable[[str, Mapping[str, Any]], str] = as_named

    @property
    def places(self) -> list[str]:
        """Options that `base_url` cannot do without."""
        return [name for name in _PLACE.findall(self.base_url) if f"{{{name}}}" != REGION]

    def address(self, region: str, options: Mapping[str, Any]) -> str:
        """`base_url` with its places filled."""
        url = self.base_url.replace(REGION, region)
        for name in self.places:
            url = url.replace(f"{{{name}}}", str(options.get(name) or ""))
        return url

    def serves(self, endpoint: Endpoint, model: str) -> bool:
        """Whether the vendor takes requests for `model` at this endpoint."""
        patterns = self.only_models.get(endpoint, ("*",))
        return endpoint in self.endpoints and any(fnmatchcase(model, pattern) for pattern in patterns)

    def spends(self, model: str) -> str:
        """What `model` spends on by itself, in words for the client; empty where it does not."""
        name = model.lower()
        return next((words for pattern, words in self.spending if fnmatchcase(name, pattern)), "")

    def sealer(self, model: str, wire: Dialect) -> str:
        """Whose seals on thoughts and calls `model` gives and takes back, where `wire` is spoken with it."""
        own = self.kind if len(self.adapters) == 1 else f"{self.kind}-{wire}"
        return next((maker for pattern, maker in self.sealed_by if fnmatchcase(model, pattern)), own)

    def surcharge(self, options: Mapping[str, Any]) -> str:
        """What these options of a provider cost beyond the price list, in words; empty where nothing."""
        given = {name: str(value).lower() for name, value in options.items() if value}
        found = (words for name, value, words in self.surcharges if name in given and fnmatchcase(given[name], value))
        return next(found, "")


def guidance(key_page: str, limits_page: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            "upstream_auth_failed": f"Invalid key: create one at {key_page} and rotate the credential.",
            "upstream_rate_limited": f"The account's limit is reached: see {limits_page}, or add another credential.",
        }
    )


def api_key(hint: str) -> FieldSpec:
    return FieldSpec("api_key", secret=True, required=True, help=f"API key, {hint}")


def optional(name: str, help: str, *, secret: bool = True) -> FieldSpec:  # noqa: A002 (the field's name)
    return FieldSpec(name, secret=secret, required=False, help=help)
