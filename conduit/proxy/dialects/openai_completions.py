"""`POST /v1/completions`: text in, text out, with one prompt or several, as texts or as tokens.

A provider that serves this endpoint gets the body as it is. Over any other one the prompt becomes the one message of a
chat: then it must be a single text, and what only this endpoint knows (`suffix`, `echo`, `best_of`) is dropped by name.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.json_body import decode
from conduit.proxy.dialects.openai_chat import Name, StreamOptionsBody
from conduit.proxy.dialects.prompt_tokens import prompts_tokens
from conduit.proxy.errors import invalid_value
from providers.adapters.base import Head
from providers.adapters.openai_wire_request import CAP_FIELDS
from providers.adapters.types import ChatRequest, Dialect, Endpoint, JSONObject, Message, Text
from providers.errors import CannotCarry

DEFAULT_CAP = 16  # tokens, by the API reference, where the caller names no cap
_Cap = Annotated[int, Meta(ge=0, le=2**31 - 1)]  # 0 scores a prompt: with echo and logprobs nothing is generated
_Few = Annotated[int, Meta(ge=1, le=128)]
_Tokens = list[Annotated[int, Meta(ge=0, le=2**31 - 1)]]


class CompletionBody(msgspec.Struct):
    """`prompt` is told apart after decoding: a text, texts, tokens, or lists of tokens."""

    model: Name
    prompt: str | list[str | int | _Tokens] | None = None
    best_of: _Few | None = None
    echo: bool | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=1000)] | None = None
    max_completion_tokens: _Cap | None = None
    max_new_tokens: _Cap | None = None
    max_output_tokens: _Cap | None = None
    max_tokens: _Cap | None = None
    n: _Few | None = None
    n_predict: _Cap | None = None
    num_predict: _Cap | None = None
    presence_penalty: float | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptionsBody | None = None
    suffix: str | None = None
    temperature: float | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: float | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(CompletionBody)
_object = msgspec.json.Decoder(dict[str, Any])
_ONLY_HERE = ("suffix", "echo", "best_of")
_KNOWN = frozenset(CompletionBody.__struct_fields__)
_caps = attrgetter(*CAP_FIELDS)


def parse_completion(body: bytes) -> Inbound:
    asked = decode(_decoder, body)
    prompts, echoed = _prompts(asked.prompt), 0
    several = asked.n or 1
    if asked.best_of is not None and asked.best_of < several:
        raise invalid_value("best_of", f"best_of: must be at least n, which is {several}.")
    if asked.stream and (asked.best_of or 1) > several:
        raise invalid_value("best_of", "best_of: more than n cannot be streamed, because the best is known at the end.")
    if asked.echo:
        echoed = sum([len(prompt.encode()) if isinstance(prompt, str) else len(prompt) for prompt in prompts]) * several
    head = Head(
        endpoint=Endpoint.COMPLETIONS,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        max_output_tokens=min([cap for cap in _caps(asked) if cap is not None], default=DEFAULT_CAP),
        n=several * len(prompts),
        user=asked.user or "",
        inputs=len(prompts),
        echoed=echoed,
    )
    return Inbound(
        dialect=Dialect.OPENAI,
        head=head,
        body=body,
        canonical=lambda: _canonical(asked, head, prompts, body),
        estimate=lambda: prompts_tokens(prompts),
    )


def _prompts(given: str | list[str | int | list[int]] | None) -> tuple[str | tuple[int, ...], ...]:
    """The prompts one by one. No prompt at all is the empty one: the model starts a document of its own."""
    if given is None or isinstance(given, str):
        return (given or "",)
    if not given:
        raise invalid_value("prompt", "prompt: must not be empty.")
    if all(type(item) is int for item in given):
        return (tuple([_token(item, index) for index, item in enumerate(given)]),)
    prompts: list[str | tuple[int, ...]] = []
    for index, item in enumerate(given):
        if isinstance(item, int):
            raise invalid_value(f"prompt[{index}]", f"prompt[{index}]: texts and tokens cannot be mixed.")
        prompts.append(item if isinstance(item, str) else tuple(item))
    return tuple(prompts)


def _token(item: str | int | list[int], index: int) -> int:
    if not isinstance(item, int) or not 0 <= item < 2**31:
        raise invalid_value(f"prompt[{index}]", f"prompt[{index}]: is not a token.")
    return item


def _canonical(
    asked: CompletionBody, head: Head, prompts: tuple[str | tuple[int, ...], ...], body: bytes
) -> ChatRequest:
    """Raises CannotCarry for what a chat cannot be asked."""
    if len(prompts) > 1:
        raise CannotCarry("prompt", f"a chat takes one prompt, and there are {len(prompts)}: send them one by one")
    prompt = prompts[0]
    if not isinstance(prompt, str):
        raise CannotCarry("prompt", "tokens mean something to one model only: send the text")
    if not prompt:
        raise CannotCarry("prompt", "a chat needs a text")
    if not head.max_output_tokens:
        raise CannotCarry("max_tokens", "a chat generates at least one token")
    return ChatRequest(
        model=asked.model,
        messages=(Message("user", (Text(prompt),)),),
        max_output_tokens=head.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        n=head.n,
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logit_bias=asked.logit_bias,
        logprobs=None if asked.logprobs is None else True,
        top_logprobs=asked.logprobs,
        user=head.user,
        stream=head.stream,
        extra=_beyond(asked, body),
    )


def _beyond(asked: CompletionBody, body: bytes) -> JSONObject:
    """Fields that no chat has, which every adapter drops by name; one that changes nothing is left out."""
    beyond = {name: value for name, value in decode(_object, body).items() if name not in _KNOWN}
    asked_for = {name: getattr(asked, name) for name in _ONLY_HERE}
    if asked.best_of == (asked.n or 1):
        del asked_for["best_of"]
    return {**{name: value for name, value in asked_for.items() if value}, **beyond}
