"""Google Cloud: Vertex AI, where Google's, Anthropic's and many open models live under one project."""

from __future__ import annotations

from types import MappingProxyType

from providers.adapters.kinds import Capabilities, FieldSpec, ProviderKind
from providers.adapters.model_names import behind_publisher
from providers.adapters.types import Dialect, Endpoint

ROWS = (
    ProviderKind(
        kind="vertex",
        title="Google Vertex AI",
        base_url="https://{region}-aiplatform.googleapis.com",
        adapters={
            Dialect.OPENAI: "providers.adapters.vertex:VertexOpenAIAdapter",
            Dialect.GEMINI: "providers.adapters.vertex:VertexGeminiAdapter",
            Dialect.ANTHROPIC: "providers.adapters.vertex:VertexClaudeAdapter",
        },
        by_model=(
            ("gemini-*", Dialect.GEMINI),
            ("google/gemini-*", Dialect.GEMINI),
            ("publishers/google/*", Dialect.GEMINI),
            ("text-embedding-*", Dialect.GEMINI),
            ("google/text-embedding-*", Dialect.GEMINI),
            ("text-multilingual-embedding-*", Dialect.GEMINI),
            ("google/text-multilingual-embedding-*", Dialect.GEMINI),
            ("claude-*", Dialect.ANTHROPIC),
            ("anthropic/claude-*", Dialect.ANTHROPIC),
            ("publishers/anthropic/*", Dialect.ANTHROPIC),
        ),
        sealed_by=(("*gemini-*", "google"), ("*claude-*", "anthropic")),
        fields=(
            FieldSpec(
                "service_account",
                secret=True,
                required=False,
                help="JSON key file of a service account with the role Vertex AI User; or one of the ways below",
                shape="service_account",
            ),
            FieldSpec(
                "credential_config",
                secret=True,
                required=False,
                help="JSON configuration of workload identity federation (external_account), which holds no key",
                shape="credential_config",
            ),
            FieldSpec(
                "identity",
                secret=False,
                required=False,
                help="attached: the service account of the machine that Conduit runs on, where its operator allows it",
                shape="attached",
            ),
        ),
        ways=(("service_account",), ("credential_config",), ("identity",)),
        options=(
            FieldSpec("project", secret=False, required=False, help="Project id; a service account's own by default"),
        ),
        client_headers={"anthropic-beta": "anthropic_beta"},
        sign_in="google",
        endpoints=(Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.GENERATE, Endpoint.EMBEDDINGS, Endpoint.MODELS),
        capabilities=Capabilities(
            audio_in=True,
            audio_out=True,
            documents=True,
            citations=True,
            prompt_cache=True,
            logprobs=True,
            embeddings=True,
        ),
        price_provider="google",
        known_as=behind_publisher,
        key_hint="JSON",
        guidance=MappingProxyType(
            {
                "upstream_auth_failed": "Google rejected the credential: enable the Vertex AI API in the project, "
                "grant the role Vertex AI User (permission aiplatform.endpoints.predict) to whom the credential "
                "belongs, or make a new one and rotate.",
                "upstream_rate_limited": "The project's quota is reached: see IAM & Admin, Quotas in the console.",
            }
        ),
        models=("gemini-*", "google/gemini-*", "claude-*", "text-embedding-*"),
    ),
)
