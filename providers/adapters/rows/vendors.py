"""Vendors that serve others' models and speak OpenAI's wire format: one row each, quirks included.

Sources: each vendor's API reference and its page on compatibility with OpenAI's clients.
"""

from __future__ import annotations

from providers.adapters.kinds import Capabilities, FieldSpec, ProviderKind
from providers.adapters.quirks import Quirks
from providers.adapters.rows.compatible import BOOKKEEPING, EMBEDDING, LEGACY, PENALTIES, compatible
from providers.adapters.types import Endpoint

ROWS: tuple[ProviderKind, ...] = (
    compatible(
        "groq",
        "Groq",
        "https://api.groq.com/openai/v1",
        key="gsk_",
        pages=("https://console.groq.com/keys", "https://console.groq.com/settings/limits"),
        endpoints=(Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MODELS),
        capabilities=Capabilities(several=False, penalties=False),
        prices="groq",
        models=("llama-3.*", "openai/gpt-oss-*", "meta-llama/llama-4-*"),
        spending=(("*compound*", "a compound system asks models and tools any number of times for one answer"),),
        quirks=Quirks(
            cap_field="max_completion_tokens",
            drops=PENALTIES | {"logit_bias", "top_k", "store", "metadata", "messages.name"},
            thoughts=("reasoning",),
        ),
    ),
    compatible(
        "together",
        "Together AI",
        "https://api.together.xyz/v1",
        key="",
        pages=("https://api.together.ai/settings/api-keys", "https://docs.together.ai/docs/rate-limits"),
        endpoints=LEGACY,
        capabilities=Capabilities(embeddings=True),
        prices="together",
        quirks=Quirks(drops=BOOKKEEPING, thoughts=("reasoning_content",)),  # its logprobs is a number
    ),
    compatible(
        "fireworks",
        "Fireworks AI",
        "https://api.fireworks.ai/inference/v1",
        key="fw_",
        pages=("https://app.fireworks.ai/settings/users/api-keys", "https://docs.fireworks.ai/guides/quotas_usage"),
        endpoints=(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(logprobs=True, embeddings=True),
        prices="fireworks",
        models=("accounts/fireworks/*",),
        quirks=Quirks(drops=frozenset({"store", "verbosity"}), thoughts=("reasoning_content",)),
    ),
    compatible(
        "cerebras",
        "Cerebras",
        "https://api.cerebras.ai/v1",
        key="csk-",
        pages=("https://cloud.cerebras.ai/platform", "https://inference-docs.cerebras.ai/support/rate-limits"),
        endpoints=(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.MODELS),
        capabilities=Capabilities(vision=False, penalties=False, several=False, logprobs=True),
        prices="cerebras",
        models=("llama3.1-*", "zai-glm-*", "qwen-3-*"),
        quirks=Quirks(
            cap_field="max_completion_tokens",
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "top_k", "messages.name"},
            thoughts=("reasoning",),
        ),
    ),
    compatible(
        "nvidia",
        "NVIDIA NIM",
        "https://integrate.api.nvidia.com/v1",
        key="nvapi-",
        pages=("https://build.nvidia.com/settings/api-keys", "https://build.nvidia.com/explore/discover"),
        capabilities=Capabilities(several=False),
        models=("nvidia/*", "meta/*"),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "user"},
            thoughts=("reasoning_content",),
        ),
    ),
    compatible(
        "sambanova",
        "SambaNova",
        "https://api.sambanova.ai/v1",
        key="",
        pages=("https://cloud.sambanova.ai/apis", "https://docs.sambanova.ai/docs/en/models/rate-limits"),
        endpoints=(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(penalties=False, embeddings=True),
        quirks=Quirks(drops=BOOKKEEPING | {"logit_bias"}, thoughts=("reasoning_content",)),
    ),
    compatible(
        "nebius",
        "Nebius Token Factory",
        "https://api.tokenfactory.nebius.com/v1",
        key="",
        pages=(
            "https://tokenfactory.nebius.com/project/api-keys",
            "https://docs.tokenfactory.nebius.com/api-reference",
        ),
        endpoints=LEGACY,
        capabilities=Capabilities(logprobs=True, embeddings=True),
        quirks=Quirks(drops=frozenset({"verbosity", "metadata"}), thoughts=("reasoning_content",)),
    ),
    compatible(
        "deepinfra",
        "DeepInfra",
        "https://api.deepinfra.com/v1/openai",
        key="",
        pages=("https://deepinfra.com/dash/api_keys", "https://deepinfra.com/docs/advanced/rate-limits"),
        endpoints=LEGACY,
        capabilities=Capabilities(embeddings=True),
        quirks=Quirks(drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls"}, thoughts=("reasoning_content",)),
    ),
    compatible(
        "novita",
        "Novita AI",
        "https://api.novita.ai/openai/v1",
        key="sk_",
        pages=("https://novita.ai/settings/key-management", "https://novita.ai/docs/guides/llm-rate-limits"),
        endpoints=LEGACY,
        capabilities=Capabilities(logprobs=True, embeddings=True),
        prices="novita",
        quirks=Quirks(drops=BOOKKEEPING | {"parallel_tool_calls", "user"}, thoughts=("reasoning_content",)),
    ),
    compatible(
        "databricks",
        "Databricks",
        "",  # https://WORKSPACE/serving-endpoints: a host of the customer's own
        key="dapi",
        pages=(
            "Settings, Developer, Access tokens of the workspace, with Can Query on the serving endpoint",
            "https://docs.databricks.com/machine-learning/foundation-model-apis/limits",
        ),
        endpoints=EMBEDDING,
        capabilities=Capabilities(seed=False, penalties=False, logprobs=True, embeddings=True),
        prices="databricks",
        models=("databricks-*",),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "user"},
            thoughts=(),
            models="../api/2.0/serving-endpoints",
            listed=("endpoints", "name"),
        ),
    ),
    compatible(
        "cloudflare",
        "Cloudflare Workers AI",
        "https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
        key="",
        pages=(
            "https://dash.cloudflare.com/profile/api-tokens, it needs the permission Workers AI Read",
            "https://developers.cloudflare.com/workers-ai/platform/limits",
        ),
        endpoints=EMBEDDING,
        capabilities=Capabilities(several=False, embeddings=True),
        prices="cloudflare",
        models=("@cf/*",),
        options=(FieldSpec("account", secret=False, required=True, help="Account id, 32 hexadecimal digits"),),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "user"},
            thoughts=("reasoning_content",),
            models="../models/search",
            listed=("result", "name"),
        ),
    ),
    compatible(
        "github",
        "GitHub Models",
        "https://models.github.ai/inference",
        key="",
        pages=(
            "https://github.com/settings/personal-access-tokens, it needs the permission models:read",
            "https://docs.github.com/github-models/use-github-models/prototyping-with-ai-models#rate-limits",
        ),
        endpoints=EMBEDDING,
        capabilities=Capabilities(several=False, embeddings=True),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "top_k", "user"},
            thoughts=(),
            models="../catalog/models",
        ),
    ),
    compatible(
        "scaleway",
        "Scaleway",
        "https://api.scaleway.ai/v1",
        key="",
        pages=(
            "https://console.scaleway.com/iam/api-keys, it needs the permission GenerativeApisModelAccess",
            "https://www.scaleway.com/en/docs/generative-apis/reference-content/rate-limits",
        ),
        endpoints=EMBEDDING,
        capabilities=Capabilities(several=False, penalties=False, embeddings=True),
        quirks=Quirks(
            drops=BOOKKEEPING | {"logit_bias", "parallel_tool_calls", "user"},
            thoughts=("reasoning_content",),
        ),
    ),
    compatible(
        "ovhcloud",
        "OVHcloud AI Endpoints",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        key="",
        pages=(
            "https://www.ovh.com/manager, Public Cloud, AI Endpoints, API keys",
            "https://help.ovhcloud.com/csm/en-public-cloud-ai-endpoints-capabilities",
        ),
        endpoints=EMBEDDING,
        capabilities=Capabilities(embeddings=True),
        prices="ovhcloud",
        quirks=Quirks(drops=BOOKKEEPING | {"parallel_tool_calls", "user"}, thoughts=("reasoning_content",)),
    ),
)
