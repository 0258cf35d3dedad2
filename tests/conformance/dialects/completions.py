"""/v1/completions as the `openai` package writes and reads it: each answer and piece is judged by its Completion."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import httpx2
import openai
from openai.types import Completion
from openai.types.completion_choice import CompletionChoice

from providers.adapters.types import ChatResponse, Dialect, Endpoint, Finish, Text, TokenLogprob, Usage
from tests.conformance import facts as yard
from tests.conformance.dialects.transport import Kept, Line, Sent

DIALECT = Dialect.OPENAI
ENDPOINT = Endpoint.COMPLETIONS
_FINISH: dict[Finish, str] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_ASKS: dict[str, dict[str, Any]] = {
    "text": {"max_tokens": 500},
    "sampling": {"temperature": 0.5, "top_p": 0.9},
    "stop": {"stop": ["END"]},
    "seed": {"seed": 7},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.25},
    "several": {"n": 2},
    "logprobs": {"logprobs": 1},
    "user": {"user": "bob"},
    "echo": {"echo": True},
    "suffix": {"suffix": "The end."},
    "best_of": {"best_of": 3},
    "several_prompts": {"prompt": [yard.QUESTION, yard.SECOND_QUESTION]},
    "token_prompt": {"prompt": yard.TOKEN_IDS},
}
_SAYABLE = {"streaming", "usage", "ends_at_cap", "ends_filtered"}


def asked(feature: str, *, stream: bool, before: bytes | None = None) -> Sent | None:
    """There are no turns, and so nothing of `before` can go back."""
    if feature not in _ASKS and feature not in _SAYABLE:
        return None
    body: dict[str, Any] = {"model": "some-model", "prompt": yard.QUESTION, **_ASKS.get(feature, {})}
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    line, client = _line()
    line.reply = None
    with suppress(openai.APIConnectionError, Kept):
        client.completions.create(**body)
    return line.take()


@cache
def _line() -> tuple[Line, openai.OpenAI]:
    line = Line(httpx2)
    http = httpx2.Client(transport=line.transport)
    return line, openai.OpenAI(api_key="k", base_url="http://conduit/v1", max_retries=0, http_client=http)


def _read(body: bytes, *, stream: bool) -> list[Completion]:
    """The answer, or the chunks."""
    line, client = _line()
    line.reply = body
    if not stream:
        return [client.completions.create(model="some-model", prompt="x")]
    return list(client.completions.create(model="some-model", prompt="x", stream=True))


def seen(body: bytes, *, stream: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"logprobs": [], "finish": None}
    texts: dict[int, str] = {}
    ended: set[int] = set()
    for answer in _read(body, stream=stream):
        _judge(answer, piece=stream)
        for choice in answer.choices:
            found["logprobs"] += _logprobs(choice)
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                assert choice.index not in ended, "finished twice"
                ended.add(choice.index)
                if choice.index == 0:
                    found["finish"] = choice.finish_reason
        if answer.usage is not None:
            found.update(_spent(answer.usage))
    return {**found, "texts": [text for _, text in sorted(texts.items())]}


def _judge(answer: Completion, *, piece: bool) -> None:
    """The package reads without validating. A piece has no end yet, which its type does not know."""
    said = answer.model_dump(exclude_unset=True)
    if piece:
        for choice in said["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
    Completion.model_validate(said, strict=True)


def _logprobs(choice: CompletionChoice) -> list[Any]:
    """(token, logprob, others, where it begins in the choice's text) each."""
    told = choice.logprobs
    if told is None:
        return []
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert told.text_offset is not None
    others = [list(top.items()) for top in told.top_logprobs]
    return list(zip(told.tokens, told.token_logprobs, others, told.text_offset, strict=True))


def _spent(usage: Any) -> dict[str, int]:
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    given, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return {
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "cached": given.cached_tokens or 0 if given else 0,
        "written": given.cache_write_tokens or 0 if given else 0,
        "reasoning_tokens": written.reasoning_tokens or 0 if written else 0,
    }


def expected(answer: ChatResponse) -> dict[str, Any]:
    usage = answer.usage or Usage()
    return {
        "texts": ["".join(p.text for p in choice.parts if isinstance(p, Text)) for choice in answer.choices],
        "finish": _FINISH.get(answer.choices[0].finish),
        "logprobs": [one for choice in answer.choices for one in _placed(choice.logprobs or ())],
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cache_read_tokens,
        "written": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _placed(tokens: tuple[TokenLogprob, ...]) -> list[Any]:
    placed, begin = [], 0
    for one in tokens:
        placed.append((one.token, one.logprob, [(top.token, top.logprob) for top in one.top], begin))
        begin += len(one.token)
    return placed
