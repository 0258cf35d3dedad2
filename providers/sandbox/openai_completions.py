"""OpenAI's `/v1/completions`: several prompts in one request, each answered `n` times; errors as in the chat API.

Tokens given as numbers are read as the words "t1 t2 …". There is no thought and no tool here, whatever the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from providers.sandbox.answers import Answer, Message, Prompt
from providers.sandbox.delivery import Frame
from providers.sandbox.openai import told_usage
from providers.sandbox.reading import (
    RequestError,
    count,
    flag,
    optional_count,
    optional_mapping,
    text,
    texts,
    wrong,
)
from providers.sandbox.usage import Usage, with_usage

_DEFAULT_CAP = 16


@dataclass(slots=True)
class Wanted:
    """`tries`: completions made of each prompt, of which `n` are shown. `echo`: the prompt stands before the answer."""

    model: str
    prompts: list[Prompt]
    n: int
    tries: int
    stream: bool
    include_usage: bool
    echo: bool


def parse(body: dict[str, Any]) -> Wanted:
    """Raises RequestError."""
    n = optional_count(body.get("n"), "n", 1, 128) or 1
    tries = optional_count(body.get("best_of"), "best_of", 1, 128) or n
    stream = flag(body.get("stream"), "stream")
    if tries < n:
        raise RequestError("'best_of' must be at least 'n'", param="best_of")
    options = optional_mapping(body.get("stream_options"), "stream_options")
    if options and not stream:
        raise RequestError("'stream_options' is only allowed when 'stream' is on", param="stream_options")
    model = text(body.get("model"), "model")
    given = body.get("max_tokens")
    cap = _DEFAULT_CAP if given is None else count(given, "max_tokens", 0)
    stop = texts(body.get("stop"), "stop")
    prompts = [
        Prompt(model=model, messages=[Message("user", said)], cap=cap, stop=stop)
        for said in _prompts(body.get("prompt"))
    ]
    return Wanted(
        model=model,
        prompts=prompts,
        n=n,
        tries=tries,
        stream=stream,
        include_usage=flag(options.get("include_usage"), "stream_options.include_usage"),
        echo=flag(body.get("echo"), "echo"),
    )


def _prompts(given: object) -> list[str]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise wrong("prompt", "a string or an array")
    if all(type(item) is int for item in given):
        return [_words(given)]
    return [_words(item) if isinstance(item, list) else text(item, f"prompt[{at}]") for at, item in enumerate(given)]


def _words(tokens: Sequence[object]) -> str:
    return " ".join(f"t{count(token, 'prompt', 0)}" for token in tokens)


def _places(wanted: Wanted, answers: Sequence[Answer]) -> Iterator[tuple[int, Prompt, Answer]]:
    """The choices in order: all of the first prompt, then all of the next."""
    for at, (prompt, answer) in enumerate(zip(wanted.prompts, answers, strict=True)):
        for again in range(wanted.n):
            yield at * wanted.n + again, prompt, answer


def _choice(index: int, said: str, finish: str | None) -> dict[str, Any]:
    return {"text": said, "index": index, "logprobs": None, "finish_reason": finish}


def _object(wanted: Wanted, identity: str) -> dict[str, Any]:
    named = {"id": f"cmpl-{identity}", "object": "text_completion", "created": int(time.time())}
    return {**named, "model": wanted.model, "system_fingerprint": "fp_sandbox"}


def body(wanted: Wanted, answers: Sequence[Answer], usage: Usage, identity: str) -> bytes:
    choices = []
    for index, prompt, answer in _places(wanted, answers):
        before = prompt.messages[0].text if wanted.echo else ""
        choices.append(_choice(index, before + "".join(answer.text), answer.finish))
    return with_usage({**_object(wanted, identity), "choices": choices}, "usage", told_usage(usage), usage)


def frames(wanted: Wanted, answers: Sequence[Answer], usage: Usage, identity: str) -> Iterator[Frame]:
    prefix = b"data: " + orjson.dumps(_object(wanted, identity))[:-1] + b',"choices":'
    suffix = b',"usage":null}\n\n' if wanted.include_usage else b"}\n\n"
    left = 0

    def frame(choice: dict[str, Any]) -> Frame:
        return left, prefix + orjson.dumps([choice]) + suffix

    for index, prompt, answer in _places(wanted, answers):
        if wanted.echo:
            yield frame(_choice(index, prompt.messages[0].text, None))
        for token in answer.text:
            left += 1
            yield frame(_choice(index, token, None))
        yield frame(_choice(index, "", answer.finish))
    if wanted.include_usage and usage.told:
        last = prefix + b"[]," + orjson.dumps({"usage": told_usage(usage)})[1:] + b"\n\n"
        for _ in range(2 if usage.twice else 1):
            yield left, last
    yield left, b"data: [DONE]\n\n"
