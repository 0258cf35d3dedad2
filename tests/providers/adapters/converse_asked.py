"""Requests to Bedrock's Converse, made and then read as botocore has them, which checks them on the way."""

from __future__ import annotations

from typing import Any

from providers.adapters.base import Upstream
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, Message, Part, Role, Text, Tool
from tests.conformance.wires.converse import parameters

ADAPTER = adapter_for("bedrock", {})
CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
LATER_CLAUDE = "global.anthropic.claude-opus-4-7-v1:0"
OLDER_CLAUDE = "us.anthropic.claude-3-7-sonnet-20250219-v1:0"
NOVA, NOVA_2 = "eu.amazon.nova-pro-v1:0", "us.amazon.nova-2-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
COHERE, TITAN, R1 = "cohere.command-r-plus-v1:0", "amazon.titan-text-express-v1", "us.deepseek.r1-v1:0"
PNG, PDF = "iVBORw0KGgo=", "JVBERi0xLjQK"
WEATHER = Tool(name="weather", description="Tells the weather", parameters={"type": "object", "properties": {}})


def said(*parts: Part, role: Role = "user") -> Message:
    return Message(role=role, parts=parts)


def ask(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(model="r", messages=messages or (said(Text("Hello")),), **fields)


def upstream(model: str = CLAUDE, cap: int | None = None, **options: Any) -> Upstream:
    return Upstream(
        base_url="https://bedrock-runtime.eu-west-1.amazonaws.com",
        model=model,
        secrets={"api_key": "k-1"},
        options=options,
        region="eu-west-1",
        max_output_tokens=cap,
    )


def built(
    request: ChatRequest, model: str = CLAUDE, cap: int | None = None, **options: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parameters as botocore has them, and what was dropped."""
    made = ADAPTER.build_request(request, upstream(model, cap, **options))
    return parameters(made)[1], made.dropped
