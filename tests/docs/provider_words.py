"""What a page of docs/providers/ says beside the registry's data: a model for the example, and remarks by hand."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """`model` is the provider's own name of it."""

    model: str
    remarks: str = ""
    region: str = ""
    options: tuple[str, ...] = ()
    way: tuple[str, ...] = ()  # fields of the credential in the example, where there are several ways
    base_url: str = ""


LOCAL = (
    "It runs on your own machines, mostly at a private address: name that in `CONDUIT_EGRESS_ALLOW`, or it is not "
    "called ([configuration](../configuration.md)). What it serves costs nothing per token; under a hard budget set "
    "a price of 0 for its models, because a model without a price is refused there."
)

WORDS: dict[str, Words] = {
    "openai": Words(
        "gpt-4o-mini",
        "Chat completions, completions, responses and embeddings are passed through as they come. Models that OpenAI "
        "serves only by its Responses API (`o3-pro`, the codex and deep-research ones) are reached from every dialect: "
        "Conduit translates. Responses are kept by Conduit, not by OpenAI: `store` is sent upstream as false.",
    ),
    "anthropic": Words(
        "claude-sonnet-4-5",
        "The Messages API is passed through, `anthropic-beta` included. Requests must name an output cap there; for "
        "clients of other dialects that name none, Conduit writes the model's maximum or what the budgets carry.",
    ),
    "gemini": Words(
        "gemini-2.5-flash",
        "The Gemini API with a key of AI Studio. Signatures of thoughts and tool calls travel through every dialect, "
        "so that a conversation with tools goes on. For Google Cloud projects see [Vertex AI](vertex.md).",
    ),
    "vertex": Words(
        "gemini-2.5-flash",
        "Google Cloud's own. The model's name chooses the wire format: `gemini-*` Google's, `claude-*` Anthropic's, "
        "everything else (`meta/llama-…`) the OpenAI-style endpoint. The region is part of the address; `global` works "
        "where Google offers the model there.",
        region="europe-west4",
    ),
    "bedrock": Words(
        "anthropic.claude-3-5-haiku-20241022-v1:0",
        "The Converse API, streamed as AWS's binary events, each request signed (SigV4) from an access key, a role "
        "that it assumes, or a Bedrock API key. Inference profiles (`eu.anthropic.…`, or an ARN that ends in "
        "such a name) are models' names like any other and are priced as the model behind them. The ARN of an "
        "application inference profile does not tell its model: name it in `profiles`, else the profile has neither "
        "price nor window. `openai.gpt-oss-*` goes to Bedrock's OpenAI-style endpoint. `guardrail` and `latency` "
        "`optimized` cost more than the price list tells: under a hard budget such a provider is refused until its "
        "models have a price for this provider (or the budget's `unbounded` lets them pass).",
        region="eu-central-1",
        way=("access_key_id", "secret_access_key"),
    ),
    "azure_openai": Words(
        "gpt-4o-mini",
        "The model's name is the deployment's. Without `api_version` the v1 API below `…/openai/v1` is called, with it "
        "the classic one below `…/openai/deployments`.",
        way=("api_key",),
        base_url="https://my-resource.openai.azure.com/openai/v1",
    ),
    "mistral": Words("mistral-small-latest", "Thoughts, documents and sounds are carried in Mistral's own parts."),
    "cohere": Words(
        "command-a-03-2025",
        "Cohere's API v2. It bills `billed_units`, which leave out what Cohere adds to a prompt; those are the tokens "
        "on record. Citations reach clients of every dialect that has a place for them.",
    ),
    "huggingface": Words(
        "meta-llama/Llama-3.3-70B-Instruct:fastest",
        "The router picks who serves the model: name it behind a colon (`:groq`, `:fastest`, `:cheapest`).",
    ),
    "openrouter": Words(
        "anthropic/claude-sonnet-4.5",
        "`provider`, `models`, `plugins` and `reasoning` are passed on. OpenRouter tells what it charged: that amount "
        "is on record, with the vendor's bill where a key of your own was used. Under a hard budget only vendors that "
        "ask no more than the known price may answer (`provider.max_price`), and models that search by themselves "
        "(`:online`, deep research, Perplexity's) are refused unless the budget's `unbounded` lets them pass.",
    ),
    "llama": Words("Llama-3.3-70B-Instruct", "Meta's own API for its Llama models, by the endpoint for OpenAI's SDK."),
    "ollama": Words(
        "llama3.2",
        f"Ollama's own API by default, with thoughts, images and schemas; its OpenAI-style one with the option "
        f"`dialect`. {LOCAL}",
    ),
    "vllm": Words(
        "Qwen/Qwen3-8B", f"A vLLM server. Its further parameters (`top_k`, `min_p`, …) are passed on. {LOCAL}"
    ),
    "llamacpp": Words("default", f"A llama.cpp server (`llama-server`). {LOCAL}", base_url="http://127.0.0.1:8088/v1"),
    "lmstudio": Words("qwen3-8b", f"LM Studio's server. {LOCAL}"),
    "custom": Words(
        "my-model",
        "Any endpoint that speaks OpenAI's or Anthropic's wire format: choose with the option `dialect`. Further "
        "headers, another way to authenticate and other paths are options too.",
        way=("api_key",),
        base_url="https://models.example.com/v1",
    ),
    "sandbox": Words(
        "sandbox-echo",
        "Conduit's own provider for trying things out: deterministic answers, faults on request, an invoice of its "
        "own. `make up` adds it. Its address is Conduit's affair.",
    ),
    "groq": Words("llama-3.3-70b-versatile"),
    "together": Words("meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    "fireworks": Words("accounts/fireworks/models/llama-v3p3-70b-instruct"),
    "deepseek": Words("deepseek-chat", "It knows JSON answers, but no schemas: a request for one is refused."),
    "xai": Words("grok-3-mini"),
    "perplexity": Words(
        "sonar",
        "Searches the web for each answer. Tools of the caller's own are not taken. `sonar-deep-research` spends "
        "beyond any cap: under a hard budget it is refused unless the budget's `unbounded` lets it pass.",
    ),
    "cerebras": Words("llama3.1-8b"),
    "nvidia": Words("meta/llama-3.3-70b-instruct"),
    "sambanova": Words("Meta-Llama-3.3-70B-Instruct"),
    "moonshot": Words("kimi-k2-0905-preview"),
    "zai": Words("glm-4.6"),
    "nebius": Words("meta-llama/Llama-3.3-70B-Instruct"),
    "deepinfra": Words("meta-llama/Llama-3.3-70B-Instruct"),
    "novita": Words("meta-llama/llama-3.3-70b-instruct"),
    "databricks": Words(
        "databricks-meta-llama-3-3-70b-instruct",
        "The address is your workspace's, with `/serving-endpoints`.",
        base_url="https://my-workspace.cloud.databricks.com/serving-endpoints",
    ),
    "cloudflare": Words("@cf/meta/llama-3.3-70b-instruct-fp8-fast", options=("account=0123456789abcdef",)),
    "github": Words("openai/gpt-4o-mini"),
    "scaleway": Words("llama-3.3-70b-instruct"),
    "ovhcloud": Words("Meta-Llama-3_3-70B-Instruct"),
}
