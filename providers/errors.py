"""Errors of the upstream side. The HTTP status a client sees is chosen in conduit/proxy/errors.py alone.

UpstreamError                    anything that went wrong with one attempt
├── NotSent                      surely nothing was billed: the request never left
│   ├── ConnectFailed            DNS, TCP or TLS
│   └── EgressRefused            the address is not allowed by the egress policy
├── UpstreamTimeout              no answer in time; may be billed
├── UpstreamCut                  the connection broke while answering; may be billed
├── InvalidResponse              the answer is not what the wire format says; may be billed
└── UpstreamRefusal              the provider answered with an error (status >= 400 or an error in a stream)
    ├── AuthRejected             401/403: our credential
    ├── RateLimited              429: their limit
    ├── AccountEmpty             402: our account has no credit
    ├── Overloaded               408, 425, 500, 502, 503, 529: their trouble
    └── RequestRejected          400, 404, 413, 422: the client's request
CannotCarry                      a request uses what this adapter cannot express (strict routes); names the field
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conduit.core.errors import ConduitError

if TYPE_CHECKING:
    from providers.adapters.types import Usage

TOO_LONG = "context_length_exceeded"


class UpstreamError(ConduitError):
    """`message` is safe to show (secrets masked by the caller). `billed` tells whether money may have been spent,
    `usage` on what, where an answer that failed late says so."""

    billed = "maybe"  # "no" | "maybe"
    usage: Usage | None = None
    code = "upstream_error"
    elsewhere = True  # whether another candidate may answer what this one did not
    ours = False  # a limit of ours ended it, which says nothing about the provider

    def __init__(self, message: str, *, status: int = 0, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code or type(self).code
        self.retry_after = retry_after


class NotSent(UpstreamError):
    billed = "no"
    code = "upstream_unavailable"


class ConnectFailed(NotSent):
    """DNS, TCP or TLS failed before a byte of the request left."""


class EgressRefused(NotSent):
    """The upstream's address is not one the egress policy allows."""

    code = "egress_refused"


class UpstreamTimeout(UpstreamError):
    code = "upstream_timeout"


class UpstreamCut(UpstreamError):
    code = "upstream_cut"


class InvalidResponse(UpstreamError):
    code = "upstream_invalid_response"


class UpstreamRefusal(UpstreamError):
    """The provider's own refusal: `status`, `message`, `code` and `param` are the provider's words."""

    billed = "no"

    def __init__(
        self, message: str, *, status: int, code: str = "", param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, code=code, retry_after=retry_after)
        self.param = param


class AuthRejected(UpstreamRefusal):
    code = "upstream_auth_failed"


class RateLimited(UpstreamRefusal):
    code = "upstream_rate_limited"


class AccountEmpty(UpstreamRefusal):
    """What the provider says of our account is for the operator."""

    code = "upstream_unavailable"


class Overloaded(UpstreamRefusal):
    code = "upstream_unavailable"


class RequestRejected(UpstreamRefusal):
    """Every provider would say the same, but for a prompt that a model with a larger context window takes."""

    code = "invalid_request"

    @property
    def elsewhere(self) -> bool:  # type: ignore[override]
        return self.code == TOO_LONG


class CannotCarry(ConduitError):
    """`field` of the request has no counterpart in the adapter's wire format."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def refusal(
    status: int, message: str, *, code: str = "", param: str | None = None, retry_after: float | None = None
) -> UpstreamRefusal:
    """The right class for an upstream's error status. Status decides; the message never does.

    It decides about one code only: a prompt that is too long is told as TOO_LONG, whatever the provider's own word.
    """
    kind: type[UpstreamRefusal]
    if status in (401, 403):
        kind = AuthRejected
    elif status == 429:
        kind = RateLimited
    elif status == 402:
        kind = AccountEmpty
    elif status >= 500 or status in _LATER:
        kind = Overloaded
    else:
        kind = RequestRejected
        code = TOO_LONG if status in _TOO_LONG_STATUSES and says_too_long(message) else code
    return kind(message, status=status, code=code, param=param, retry_after=retry_after)


_LATER = (408, 425)  # the request did not reach them in time, or is to come again


# How servers say that a prompt is too long. Their own code for it, where they have one, is invalid_request_error,
# ValidationException, 3051 or nothing; the words are all that tells it from any other 400, 413 or 422.
_TOO_LONG_STATUSES = (400, 413, 422)
_TOO_LONG = re.compile(
    "|".join(
        (
            r"maximum context length",  # OpenAI, vLLM, DeepSeek, Mistral, OpenRouter, TensorRT-LLM
            r"exceeds? the (?:model'?s? )?(?:available |maximum )?context (?:window|size|length|limit)",  # llama.cpp
            r"exceeds? the context window",  # OpenAI's responses
            r"exceeds? context limit",  # Anthropic: input and max_tokens together
            r"longer than the (?:model'?s? )?context length",  # Ollama, SGLang
            r"prompt is too long",  # Anthropic, Fireworks
            r"input is too long for (?:the )?requested model",  # Bedrock
            r"too many (?:input )?tokens: ",  # Cohere
            r"input token count .{0,60}exceeds the maximum number of tokens",  # Gemini
            r"input token count is \d+ but (?:the )?model only supports",  # Vertex
            r"`inputs` must have less than \d+ tokens",  # text-generation-inference
            r"`inputs` tokens \+ `max_new_tokens` must be <=",  # the same, Together
            r"maximum prompt length is \d+",  # xAI
            r"reduce the length of the (?:messages|prompt)",  # Groq, Cerebras, older OpenAI models
            r"context length of only \d+",  # LM Studio
            r"tokens to keep from the initial prompt is greater than the context",  # the same
        )
    ),
    re.IGNORECASE,
)


def says_too_long(message: str) -> bool:
    return _TOO_LONG.search(message) is not None
