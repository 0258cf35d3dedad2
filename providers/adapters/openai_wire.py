"""What OpenAI's wire format says in answers: choices, usage, errors. Lenient, since many vendors speak it their way.

Reference: the `openai` package's types ChatCompletion, CreateEmbeddingResponse and CompletionUsage. Beyond them are
read `reasoning_content`, `reasoning` and `reasoning_details` (DeepSeek, vLLM, OpenRouter), `usage.cost` (OpenRouter),
searches (_searches).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

import msgspec

from providers.adapters.counts import Counts
from providers.adapters.refusals import json_of, plain_message, retry_after, shortened
from providers.adapters.types import Finish, Reasoning, TokenLogprob, Usage
from providers.errors import InvalidResponse, UpstreamRefusal, refusal

FINISH: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",  # Mistral's word for a full context window
    "error": "error",
}
_STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
}


# --- usage --------------------------------------------------------------------------------------------------------


def usage_of(raw: Mapping[str, Any], *, writes: bool = True) -> Usage:
    """Never raises: a figure that is no count becomes 0 and is flagged (adapters.counts), so the caller estimates.

    `writes` is False for endpoints without output tokens (embeddings).
    """
    counts = Counts()
    output_detail, input_detail = _object(raw, "completion_tokens_details"), _object(raw, "prompt_tokens_details")
    given = counts.read(raw.get("prompt_tokens"), required=True)
    written = counts.read(raw.get("completion_tokens"), required=writes)
    reasoned = counts.read(output_detail.get("reasoning_tokens"))
    if reasoned and raw.get("total_tokens") == given + written + reasoned:
        written += reasoned  # xAI counts reasoning beside the completion
    told = (input_detail.get("cached_tokens"), raw.get("prompt_cache_hit_tokens"), raw.get("cached_tokens"))
    cached = counts.part(next((figure for figure in told if figure is not None), None), given)
    searches = _searches(raw, counts)
    return Usage(
        input_tokens=given,
        output_tokens=written,
        cache_read_tokens=cached,
        cache_write_tokens=counts.part(input_detail.get("cache_write_tokens"), given - cached),
        reasoning_tokens=counts.part(reasoned, written),
        audio_input_tokens=counts.part(input_detail.get("audio_tokens"), given),
        audio_output_tokens=counts.part(output_detail.get("audio_tokens"), written),
        image_output_tokens=counts.part(output_detail.get("image_tokens"), written),
        units={"search": searches} if searches else {},
        reported_cost=_reported(raw),
        flags=counts.flags,
    )


def _searches(raw: Mapping[str, Any], counts: Counts) -> int:
    """Searches that are sold by the piece: as Perplexity, xAI and OpenRouter name them. OpenAI itself tells of none."""
    tools = _object(raw, "server_tool_use")
    named = (raw.get("num_search_queries"), raw.get("num_sources_used"), tools.get("web_search_requests"))
    return max(counts.read(value) for value in named)


def later_usage(before: Usage | None, now: Usage) -> Usage:
    """Streams repeat usage, each time for the whole answer. Less output than before is flagged and not believed."""
    if before is None or now.output_tokens >= before.output_tokens and now.input_tokens >= before.input_tokens:
        return now
    return msgspec.structs.replace(
        now,
        input_tokens=max(before.input_tokens, now.input_tokens),
        output_tokens=max(before.output_tokens, now.output_tokens),
        flags=(*now.flags, "decreasing"),
    )


def _object(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _reported(raw: Mapping[str, Any]) -> int | None:
    """What was charged in all. OpenRouter's `cost` is its fee alone where it used a key of the customer's own
    (`is_byok`): the vendor's bill comes on top, and without it nothing is known.
    """
    cost = _cost(raw.get("cost"))
    if raw.get("is_byok") is not True or cost is None:
        return cost
    billed = _cost(_object(raw, "cost_details").get("upstream_inference_cost"))
    return cost + billed if billed else None


def _cost(value: object) -> int | None:
    """Dollars as a JSON number to nano-dollars, rounded up; Perplexity gives them as an object with a total.

    A double's shortest text is the number as it was written wherever that has at most 15 digits: no cost has more.
    """
    if isinstance(value, dict):
        value = value.get("total_cost")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10**6:
        return None
    return int(Decimal(repr(value)).scaleb(9).to_integral_value(ROUND_CEILING))


# --- parts of messages and deltas ---------------------------------------------------------------------------------


def reasoning_parts(details: object, text: str | None) -> list[Reasoning]:
    """`reasoning_details` say more than the plain text beside them, so they win.

    Items of one block are joined, since streams send its text in pieces and its signature last.
    """
    parts: list[Reasoning] = []
    last: object = None  # the block that `parts` ends with
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        part = Reasoning(
            text=_text(detail, "text") or _text(detail, "summary"),
            signature=_text(detail, "signature"),
            redacted=_text(detail, "data"),
            id=_text(detail, "id"),
        )
        block = detail.get("index")
        if parts and _continues(parts[-1], part, same_block=block is not None and block == last):
            parts[-1] = Reasoning(text=parts[-1].text + part.text, signature=part.signature, id=parts[-1].id or part.id)
        elif part.text or part.signature or part.redacted:
            parts.append(part)
        last = block
    return parts or ([Reasoning(text=text)] if text else [])


def _continues(before: Reasoning, part: Reasoning, *, same_block: bool) -> bool:
    if before.signature or before.redacted or part.redacted or not before.text:
        return False
    return same_block or bool(part.signature and not part.text)


def thoughts_within(content: object) -> list[Reasoning]:
    """Thoughts among the parts of a content: each a list of texts, as Mistral has them."""
    thoughts: list[Reasoning] = []
    for part in content if isinstance(content, list) else ():
        inner = part.get("thinking") if isinstance(part, dict) else None
        pieces = [_text(piece, "text") for piece in inner if isinstance(piece, dict)] if isinstance(inner, list) else []
        if pieces or (isinstance(part, dict) and part.get("type") == "thinking"):
            thoughts.append(Reasoning(text="".join(pieces), signature=_text(part, "signature")))
    return thoughts


def logprobs_of(raw: object) -> tuple[TokenLogprob, ...] | None:
    content = raw.get("content") if isinstance(raw, dict) else None
    if not isinstance(content, list):
        return None
    return tuple([_logprob(item) for item in content if isinstance(item, dict)])


def _logprob(item: dict[str, Any]) -> TokenLogprob:
    top, coded = item.get("top_logprobs"), item.get("bytes")
    value = item.get("logprob")
    return TokenLogprob(
        token=_text(item, "token"),
        logprob=float(value) if isinstance(value, (int, float)) else 0.0,
        bytes=tuple(coded) if isinstance(coded, list) else None,
        top=tuple([_logprob(other) for other in top if isinstance(other, dict)]) if isinstance(top, list) else (),
    )


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


# --- errors -------------------------------------------------------------------------------------------------------


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamRefusal:
    """The provider's error object, or a short sentence when the body is something else."""
    wait = retry_after(headers)
    decoded = json_of(body)
    if isinstance(decoded, list) and decoded:
        decoded = decoded[0]
    error = decoded.get("error", decoded) if isinstance(decoded, dict) else None
    if isinstance(error, str) and error:
        return refusal(status, shortened(error), retry_after=wait)
    if isinstance(error, dict):
        message = _text(error, "message") or _text(error, "detail")
        if message:
            param = _text(error, "param") or None
            return refusal(status, shortened(message), code=_code(error), param=param, retry_after=wait)
    return refusal(status, plain_message(status, body), retry_after=wait)


def refusal_in_answer(error: object) -> UpstreamRefusal:
    """An error object inside an answer with status 200; its words tell the status that was meant."""
    if not isinstance(error, dict):
        return refusal(500, shortened(str(error)) or "The provider answered with an error.")
    message = shortened(_text(error, "message")) or "The provider answered with an error."
    return refusal(_meant_status(error), message, code=_code(error), param=_text(error, "param") or None)


def error_in(body: bytes) -> UpstreamRefusal | InvalidResponse:
    """What is wrong with a body that came with status 200 but is not an answer."""
    decoded = json_of(body)
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if error:
        return refusal_in_answer(error)
    if isinstance(decoded, dict):
        return InvalidResponse("The provider's answer lacks what the wire format requires.", status=200)
    return InvalidResponse(plain_message(200, body), status=200)


def _code(error: Mapping[str, Any]) -> str:
    return _text(error, "code") or (_text(error, "type") if _text(error, "type") in _STATUS_OF_WORD else "")


def _meant_status(error: Mapping[str, Any]) -> int:
    for name in ("code", "status"):
        value = error.get(name)
        if type(value) is int and 400 <= value <= 599:
            return value
    for name in ("code", "type"):
        if (status := _STATUS_OF_WORD.get(_text(error, name))) is not None:
            return status
    return 500
