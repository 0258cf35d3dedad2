"""Makers of models: Cohere and Mistral with APIs of their own, and those who speak OpenAI's their way (quirks).

Sources: each vendor's API reference and its page on compatibility with OpenAI's clients.
"""

from __future__ import annotations

from providers.adapters.kinds import COHERE, MISTRAL, Capabilities, ProviderKind, api_key, guidance
from providers.adapters.quirks import Quirks
from providers.adapters.rows.compatible import AGENTS, BOOKKEEPING, EMBEDDING, PENALTIES, SEARCHES, compatible
from providers.adapters.types import Dialect, Endpoint

# xAI's models that always think: they refuse what follows, and most of them take no effort either.
_THINKING = ("grok-4", "grok-4-0709", "grok-4-latest", "grok-4*-fast-reasoning*", "grok-4.*", "grok-code*")
_NO_EFFORT = ("grok-3", "grok-3-fast", "grok-4", "grok-4-*", "grok-4.20", "grok-4.20-0309*", "grok-code*")

ROWS: tuple[ProviderKind, ...] = (
    ProviderKind(
        kind="cohere",
        title="Cohere",
        base_url="https://api.cohere.com",
        adapters={Dialect.COHERE: COHERE},
        fields=(api_key("from https://dashboard.cohere.com/api-keys"),),
        endpoints=EMBEDDING,
        capabilities=Capabilities(several=False, citations=True, embeddings=True),
        price_provider="cohere",
        key_hint="",
        guidance=guidance("https://dashboard.cohere.com/api-keys", "https://docs.cohere.com/docs/rate-limits"),
        models=("command-*", "c4ai-*", "embed-*"),
    ),
    ProviderKind(
        kind="mistral",
        title="Mistral AI",
        base_url="https://api.mistral.ai/v1",
        adapters={Dialect.OPENAI: MISTRAL},
        fields=(api_key("from https://console.mistral.ai/api-keys"),),
        endpoints=EMBEDDING,
        capabilities=Capabilities(audio_in=True, documents=True, logprobs=True, embeddings=True),
        price_provider="mistral",
        key_hint="",
        guidance=guidance("https://console.mistral.ai/api-keys", "https://admin.mistral.ai/plateforme/limits"),
        models=("mistral-*", "ministral-*", "magistral-*", "codestral-*", "devstral-*", "pixtral-*", "voxtral-*"),
    ),
    compatible(
        "deepseek",
        "DeepSeek",
        "https://api.deepseek.com/v1",
        key="sk-",
        pages=("https://platform.deepseek.com/api_keys", "https://api-docs.deepseek.com/quick_start/rate_limit"),
        capabilities=Capabilities(vision=False, structured=False, seed=False, several=False, logprobs=True),
        prices="deepseek",
        models=("deepseek-*",),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "top_k"},
            thoughts=("reasoning_content",),  # a turn with tool calls is refused without it
            reasoning="thinking",
        ),
    ),
    compatible(
        "xai",
        "xAI",
        "https://api.x.ai/v1",
        key="xai-",
        pages=("https://console.x.ai/team/default/api-keys", "https://console.x.ai/team/default/models"),
        endpoints=(Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MODELS),
        capabilities=Capabilities(logprobs=True),
        prices="x-ai",
        models=("grok-*",),
        spending=(("*multi-agent*", AGENTS),),
        quirks=Quirks(
            cap_field="max_completion_tokens",
            drops=frozenset({"logit_bias", "top_k", "store", "metadata", "verbosity"}),
            by_model=(
                *[(pattern, PENALTIES | {"stop"}) for pattern in (*_THINKING, "grok-3-mini*")],
                *[(pattern, frozenset({"reasoning_effort"})) for pattern in _NO_EFFORT],
            ),
            thoughts=("reasoning_content",),
        ),
    ),
    compatible(
        "perplexity",
        "Perplexity",
        "https://api.perplexity.ai",
        key="pplx-",
        pages=(
            "https://www.perplexity.ai/account/api/keys",
            "https://docs.perplexity.ai/guides/rate-limits-usage-tiers",
        ),
        capabilities=Capabilities(
            tools=False,
            parallel_tools=False,
            tool_choice=False,
            stop=False,
            seed=False,
            penalties=False,
            several=False,
        ),
        prices="perplexity",
        models=("sonar*",),
        spending=(  # the others search once an answer, and their price has a fee for it
            (
                "*deep-research*",
                "a model for deep research searches, reads and thinks any number of times, each charged beside the cap",
            ),
            ("*pro-search*", f"a model for searches {SEARCHES}"),
            ("*/*", f"a model of the Agent API {SEARCHES}"),
        ),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "user", "messages.name"},
            thoughts=(),
            models="async/chat/completions",  # it lists no models: this lists the account's own jobs, for nothing
            listed=(),
        ),
    ),
    compatible(
        "moonshot",
        "Moonshot AI",
        "https://api.moonshot.ai/v1",
        key="sk-",
        pages=("https://platform.moonshot.ai/console/api-keys", "https://platform.moonshot.ai/docs/pricing/limits"),
        capabilities=Capabilities(structured=False, seed=False),
        prices="moonshotai",
        models=("kimi-*", "moonshot-*"),
        quirks=Quirks(
            cap_field="max_completion_tokens",
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "top_k", "user"},
            by_model=(("kimi-*", PENALTIES | {"temperature", "top_p", "n"}),),  # the vendor has set them for good
            thoughts=("reasoning_content",),
            reasoning="thinking",
        ),
    ),
    compatible(
        "zai",
        "Z.AI",
        "https://api.z.ai/api/paas/v4",
        key="",
        pages=("https://z.ai/manage-apikey/apikey-list", "https://z.ai/manage-apikey/rate-limits"),
        capabilities=Capabilities(structured=False, seed=False, penalties=False, several=False, tool_choice=False),
        prices="zai",
        models=("glm-*",),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "top_k", "user"},
            thoughts=("reasoning_content",),
            reasoning="thinking",
        ),
    ),
)
