"""Vendors with wire formats of their own, whoever speaks one of these, and the sandbox."""

from __future__ import annotations

from providers.adapters.kinds import (
    ANTHROPIC,
    COMPATIBLE,
    GEMINI,
    OPENAI,
    RESPONSES,
    Capabilities,
    FieldSpec,
    ProviderKind,
    api_key,
    guidance,
)
from providers.adapters.rows.compatible import SEARCHES
from providers.adapters.types import Dialect, Endpoint

# The models that OpenAI serves at /v1/completions, tuned ones too; all others answer 404 there.
_COMPLETING = ("gpt-3.5-turbo-instruct*", "babbage-002", "davinci-002", "ft:babbage-002:*", "ft:davinci-002:*")

# Models that OpenAI serves by its Responses API and nowhere else.
_RESPONSES_ONLY = ("o1-pro*", "o3-pro*", "gpt-5-pro*", "gpt-5.*-pro*", "*codex*", "*deep-research*", "computer-use-*")
ROWS = (
    ProviderKind(
        kind="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        adapters={Dialect.OPENAI: OPENAI, Dialect.RESPONSES: RESPONSES},
        by_model=tuple((pattern, Dialect.RESPONSES) for pattern in _RESPONSES_ONLY),
        fields=(api_key("starts with sk-"),),
        options=(
            FieldSpec(
                "dialect",
                secret=False,
                required=False,
                help="openai (chat completions) or responses; by default whichever serves the model",
            ),
            FieldSpec("organization", secret=False, required=False, help="Organization id, org-…, sent with each call"),
            FieldSpec("project", secret=False, required=False, help="Project id, proj_…, sent with each call"),
        ),
        endpoints=(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        only_models={Endpoint.COMPLETIONS: _COMPLETING},
        capabilities=Capabilities(
            audio_in=True, audio_out=True, documents=True, citations=True, logprobs=True, embeddings=True
        ),
        price_provider="openai",
        account_header="openai-organization",
        key_hint="sk-…",
        guidance=guidance("https://platform.openai.com/api-keys", "https://platform.openai.com/settings/limits"),
        models=("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "text-embedding-*"),
        spending=(  # deep research searches by tools alone, which the request bounds
            ("*-search-preview*", f"a model for searches {SEARCHES}"),
            ("*-search-api*", f"a model for searches {SEARCHES}"),
        ),
    ),
    ProviderKind(
        kind="anthropic",
        title="Anthropic",
        base_url="https://api.anthropic.com",
        adapters={Dialect.ANTHROPIC: ANTHROPIC},
        fields=(api_key("starts with sk-ant-"),),
        endpoints=(Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.MODELS),
        capabilities=Capabilities(
            documents=True, citations=True, prompt_cache=True, seed=False, penalties=False, several=False
        ),
        client_headers={"anthropic-beta": "anthropic_beta"},
        price_provider="anthropic",
        account_header="anthropic-organization-id",
        key_hint="sk-ant-…",
        guidance=guidance(
            "https://console.anthropic.com/settings/keys", "https://console.anthropic.com/settings/limits"
        ),
        models=("claude-*",),
    ),
    ProviderKind(
        kind="gemini",
        title="Google Gemini",
        base_url="https://generativelanguage.googleapis.com",
        adapters={Dialect.GEMINI: GEMINI},
        sealed_by=(("*", "google"),),
        fields=(api_key("from Google AI Studio"),),
        endpoints=(Endpoint.CHAT, Endpoint.GENERATE, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(
            audio_in=True, audio_out=True, documents=True, citations=True, logprobs=True, embeddings=True
        ),
        price_provider="google",
        key_hint="AIza…",
        guidance=guidance("https://aistudio.google.com/apikey", "https://ai.google.dev/gemini-api/docs/rate-limits"),
        models=("gemini-*", "gemma-*", "text-embedding-004"),
    ),
    ProviderKind(
        kind="custom",
        title="Custom endpoint",
        base_url="",
        adapters={Dialect.OPENAI: COMPATIBLE, Dialect.ANTHROPIC: ANTHROPIC},
        dressing="providers.adapters.custom:CustomAdapter",
        fields=(
            FieldSpec("api_key", secret=True, required=False, help="API key; none when the endpoint needs none"),
            FieldSpec(
                "headers",
                secret=True,
                required=False,
                help="JSON object of secret headers sent with each call",
                shape="headers",
            ),
        ),
        options=(
            FieldSpec("dialect", secret=False, required=False, help="openai (default) or anthropic"),
            FieldSpec("auth", secret=False, required=False, help="bearer, none, or the name of a header"),
            FieldSpec("headers", secret=False, required=False, help="Object of headers sent with each call"),
            FieldSpec("path_map", secret=False, required=False, help="Object: a standard path to the endpoint's own"),
            FieldSpec("max_tokens_field", secret=False, required=False, help="Name of the output cap: max_tokens"),
        ),
        endpoints=(Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(
            audio_in=True,
            audio_out=True,
            documents=True,
            citations=True,
            prompt_cache=True,
            logprobs=True,
            embeddings=True,
        ),
        price_provider="",
        key_hint="",
        guidance={"upstream_auth_failed": "The endpoint rejected the key: check the key and the option `auth`."},
    ),
    ProviderKind(
        kind="sandbox",
        title="Sandbox",
        base_url="http://127.0.0.1:8081/v1",
        adapters={
            Dialect.OPENAI: COMPATIBLE,
            Dialect.RESPONSES: RESPONSES,
            Dialect.ANTHROPIC: ANTHROPIC,
            Dialect.GEMINI: GEMINI,
        },
        dressing="providers.adapters.sandbox:SandboxAdapter",
        fields=(api_key("any text that starts with sk-sandbox-"),),
        options=(
            FieldSpec("dialect", secret=False, required=False, help="openai (default), responses, anthropic or gemini"),
        ),
        endpoints=(
            Endpoint.CHAT,
            Endpoint.COMPLETIONS,
            Endpoint.RESPONSES,
            Endpoint.MESSAGES,
            Endpoint.GENERATE,
            Endpoint.EMBEDDINGS,
            Endpoint.MODELS,
        ),
        capabilities=Capabilities(
            audio_in=True, audio_out=True, documents=True, prompt_cache=True, logprobs=True, embeddings=True
        ),
        client_headers={"x-sandbox-": "sandbox_headers"},
        own_process=True,
        price_provider="sandbox",
        account_header="x-sandbox-account",
        key_hint="sk-sandbox-…",
        guidance={"upstream_auth_failed": "The sandbox takes any key that starts with sk-sandbox-."},
        models=("sandbox-*",),
    ),
)
