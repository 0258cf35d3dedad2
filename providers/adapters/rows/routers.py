"""Who passes requests on to other vendors, and charges for it: OpenRouter and Hugging Face."""

from __future__ import annotations

from dataclasses import replace

from providers.adapters.kinds import (
    OPENROUTER,
    Capabilities,
    ProviderKind,
    api_key,
    guidance,
    optional,
)
from providers.adapters.quirks import Quirks
from providers.adapters.rows.compatible import AGENTS, BOOKKEEPING, SEARCHES, compatible
from providers.adapters.types import Dialect, Endpoint

ROWS: tuple[ProviderKind, ...] = (
    ProviderKind(
        kind="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        adapters={Dialect.OPENAI: OPENROUTER},
        fields=(api_key("starts with sk-or-"),),
        options=(
            optional("referer", "Address of your application, sent as HTTP-Referer", secret=False),
            optional("title", "Name of your application without blanks, sent as X-Title", secret=False),
        ),
        endpoints=(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(
            audio_in=True, audio_out=True, documents=True, citations=True, logprobs=True, embeddings=True
        ),
        price_provider="openrouter",
        key_hint="sk-or-…",
        guidance=guidance("https://openrouter.ai/settings/keys", "https://openrouter.ai/docs/api-reference/limits"),
        spending=(
            ("*:online*", f"a model with :online {SEARCHES}"),
            ("*deep-research*", f"a model for deep research {SEARCHES}"),
            ("*-search-preview*", f"a model for searches {SEARCHES}"),
            ("*-search-api*", f"a model for searches {SEARCHES}"),
            ("*sonar*", f"a model of Perplexity {SEARCHES}"),
            ("*multi-agent*", AGENTS),
            ("openrouter/*", "a router of models picks one at any price"),
        ),
        quirks=Quirks(
            drops=frozenset({"store", "service_tier"}),
            thoughts=("reasoning", "reasoning_details"),
            reasoning="object",
            models="models/user",
        ),
    ),
    replace(
        compatible(
            "huggingface",
            "Hugging Face",
            "https://router.huggingface.co/v1",
            key="hf_",
            pages=(
                "https://huggingface.co/settings/tokens, it needs the permission to call Inference Providers",
                "https://huggingface.co/settings/billing",
            ),
            capabilities=Capabilities(logprobs=True),
            options=(optional("bill_to", "Organization that pays, sent as X-HF-Bill-To", secret=False),),
            quirks=Quirks(drops=BOOKKEEPING, thoughts=("reasoning_content",)),
        ),
        dressing="providers.adapters.huggingface:HuggingFaceAdapter",
    ),
)
