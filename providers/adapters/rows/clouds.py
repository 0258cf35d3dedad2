"""Clouds: their own ways to sign in, and several wire formats."""

from __future__ import annotations

from types import MappingProxyType

from providers.adapters.kinds import (
    COMPATIBLE,
    CONVERSE,
    OPENAI,
    Capabilities,
    FieldSpec,
    ProviderKind,
    optional,
)
from providers.adapters.model_names import behind_profile
from providers.adapters.types import Dialect, Endpoint

ROWS = (
    ProviderKind(
        kind="bedrock",
        title="Amazon Bedrock",
        base_url="https://bedrock-runtime.{region}.amazonaws.com",
        adapters={Dialect.CONVERSE: CONVERSE, Dialect.OPENAI: COMPATIBLE},
        by_model=(("openai.gpt-oss-*", Dialect.OPENAI),),  # the endpoint in OpenAI's wire format serves no others
        sealed_by=(("*anthropic.claude-*", "anthropic"),),
        dressing="providers.adapters.bedrock:BedrockAdapter",
        fields=(
            optional("api_key", "Bedrock API key; or AWS keys below"),
            optional("access_key_id", "AWS access key id, starts with AKIA or ASIA", secret=False),
            optional("secret_access_key", "AWS secret access key"),
            optional("session_token", "AWS session token, for temporary keys"),
            optional("role_arn", "Role to assume with these keys, arn:aws:iam::…:role/…", secret=False),
            optional("external_id", "External id that the role demands"),
        ),
        options=(
            FieldSpec("guardrail", secret=False, required=False, help="Id or ARN of a guardrail for each request"),
            FieldSpec("guardrail_version", secret=False, required=False, help="Its version: a number, or DRAFT"),
            FieldSpec("guardrail_trace", secret=False, required=False, help="enabled, disabled or enabled_full"),
            FieldSpec("latency", secret=False, required=False, help="standard or optimized"),
            FieldSpec(
                "profiles",
                secret=False,
                required=False,
                help="Object: ARN of an application inference profile, to the id of the model behind it",
            ),
        ),
        ways=(("api_key",), ("access_key_id", "secret_access_key")),
        sign_in="aws",
        endpoints=(Endpoint.CHAT, Endpoint.MODELS),
        capabilities=Capabilities(
            audio_in=True, audio_out=True, documents=True, citations=True, prompt_cache=True, logprobs=True
        ),
        price_provider="aws",
        known_as=behind_profile,
        key_hint="AKIA…",
        guidance=MappingProxyType(
            {
                "upstream_auth_failed": "AWS rejected the keys, or they may not do this: allow bedrock:InvokeModel, "
                "bedrock:InvokeModelWithResponseStream and bedrock:ListFoundationModels in this region, ask for access "
                "to the model on the console's page Model access, or rotate the credential.",
                "upstream_rate_limited": "The account's quota is reached: see Service Quotas in the AWS console.",
            }
        ),
        models=(
            "*anthropic.claude-*",
            "*amazon.nova-*",
            "*amazon.titan-text-*",
            "*meta.llama*",
            "*mistral.*",
            "cohere.command-*",
            "ai21.jamba-*",
            "*deepseek.*",
            "openai.gpt-oss-*",
            "qwen.*",
        ),
        surcharges=(
            ("latency", "optimized", "the option latency makes answers dearer"),
            ("guardrail", "*", "the option guardrail has each text checked for a charge"),
        ),
    ),
    ProviderKind(
        kind="azure_openai",
        title="Azure OpenAI",
        base_url="",
        adapters={Dialect.OPENAI: OPENAI},
        dressing="providers.adapters.azure:AzureAdapter",
        fields=(
            optional("api_key", "Key of the Azure OpenAI resource; or an application of Entra ID below"),
            optional("tenant_id", "Directory (tenant) id of Entra ID", secret=False),
            optional("client_id", "Application (client) id", secret=False),
            optional("client_secret", "Value of the application's client secret"),
        ),
        options=(
            FieldSpec(
                "authority",
                secret=False,
                required=False,
                help="Where Entra ID signs in; https://login.microsoftonline.com by default",
            ),
            FieldSpec(
                "api_version",
                secret=False,
                required=False,
                help="Classic deployments of this API version, e.g. 2024-10-21; the v1 endpoint without it",
            ),
            FieldSpec(
                "deployments",
                secret=False,
                required=False,
                help="Object: a model's name to its deployment's; the same name by default",
            ),
        ),
        ways=(("api_key",), ("tenant_id", "client_id", "client_secret")),
        sign_in="entra",
        endpoints=(
            Endpoint.CHAT,
            Endpoint.COMPLETIONS,
            Endpoint.RESPONSES,
            Endpoint.EMBEDDINGS,
            Endpoint.MODELS,
        ),
        capabilities=Capabilities(audio_in=True, audio_out=True, documents=True, logprobs=True, embeddings=True),
        price_provider="azure",
        key_hint="",
        guidance=MappingProxyType(
            {
                "upstream_auth_failed": "Azure rejected the credential: take a key from the resource's page Keys and "
                "Endpoint, or grant the application the role Cognitive Services OpenAI User.",
                "upstream_rate_limited": "The deployment's quota is reached: raise it, or add another deployment.",
            }
        ),
    ),
)
