"""Routes of the sandbox: who may call, which faults hold, which wire format answers.

The order for each request: path, key, faults, body, answer. A request is accepted, and billed, only when all of it
could be read; an error is never billed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count as counter
from types import ModuleType
from typing import Any

import orjson

from providers.sandbox import anthropic, gemini, openai, openai_completions, openai_media, openai_responses
from providers.sandbox.answers import CHAT_MODELS, Answer, Prompt, compose, count_input
from providers.sandbox.connection import Exchange, Request
from providers.sandbox.delivery import Frame, Reply, deliver
from providers.sandbox.faults import FaultError, Faults, parse_faults
from providers.sandbox.invoice import Bill, Invoice
from providers.sandbox.openai_media import Sold
from providers.sandbox.prices import PRICES
from providers.sandbox.reading import RequestError, mapping, sequence, text
from providers.sandbox.refusals import errors_of, send_error, send_scripted
from providers.sandbox.usage import Usage

KEY_PREFIX = "sk-sandbox-"
# `sk-sandbox-of-NAME-…` belongs to the account NAME, every other key to `main`. `sk-sandbox-listing-…` may list models
# and nothing else: a key that passes its check and then fails at work.
ACCOUNT_HEADER = "x-sandbox-account"
LISTING = f"{KEY_PREFIX}listing-"
_ACCOUNT = re.compile(rf"{KEY_PREFIX}of-([a-z0-9]+)-")
ATTEMPT_HEADER = "x-conduit-attempt"
MODELS = sorted(PRICES)
_GEMINI = re.compile(r"/v1(?:beta)?/models/([^/:]+):([A-Za-z]+)")
_MODEL = re.compile(r"/v1(?:beta)?/models(?:/([^/:]+))?")
_EVENTS = "text/event-stream; charset=utf-8"


@dataclass(slots=True)
class Asked:
    """One authenticated request on its way to an answer. `name` is the model in the path, if it stands there."""

    request: Request
    dialect: ModuleType
    faults: Faults
    identity: str
    name: str = ""

    def body(self) -> dict[str, Any]:
        try:
            return mapping(orjson.loads(self.request.body), "body")
        except orjson.JSONDecodeError as error:
            raise RequestError(f"The body is no JSON: {error}") from error

    def bill(self, invoice: Invoice, model: str, endpoint: str, *, stream: bool = False) -> Bill:
        attempt = self.request.headers.get(ATTEMPT_HEADER)
        return Bill(invoice, attempt, self.identity, model, self.dialect.NAME, endpoint, stream)


Endpoint = Callable[["Sandbox", Asked], Reply]
_Parse = Callable[[dict[str, Any]], Prompt]
_Body = Callable[[Prompt, Answer, Usage, str], bytes]
_Frames = Callable[[Prompt, Answer, Usage, str], Iterator[Frame]]


class Sandbox:
    """The application: `answer` is what connections call."""

    def __init__(self, invoice: Invoice, faults: Faults, *, run: str) -> None:
        """`run` makes request ids of two runs differ."""
        self.invoice = invoice
        self._faults = faults
        self._run = run
        self._numbers = counter(1)

    def answer(self, request: Request, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        identity = f"{self._run}{next(self._numbers):08x}"
        dialect, endpoint, name = _route(request)
        headers = {dialect.REQUEST_ID: identity}
        asked = Asked(request, dialect, self._faults, identity, name)
        try:
            if endpoint is None:
                raise RequestError(f"No such address: {request.method} {request.path}", status=404)
            if endpoint is _alive:
                exchange.whole(200, {"content-type": "application/json"}, b'{"status":"ok"}')
                return None
            key = _authenticate(asked)
            headers[ACCOUNT_HEADER] = _account(key)
            if key.startswith(LISTING) and endpoint is not _models:
                raise RequestError("This API key may list models only.", status=401)
            asked.faults = parse_faults(request.headers, self._faults)
            if asked.faults.status:
                return send_scripted(exchange, dialect, asked.faults, headers)
            reply = endpoint(self, asked)
        except (RequestError, FaultError) as error:
            send_error(exchange, dialect, error, headers)
            return None
        reply.headers.update(headers)
        return deliver(exchange, reply, asked.faults, errors_of(dialect))


def _route(request: Request) -> tuple[ModuleType, Endpoint | None, str]:
    """The dialect (errors need one too), the endpoint or None, and the model where the path names it."""
    path, headers = request.path, request.headers
    if request.method == "POST":
        found = _GEMINI.fullmatch(path)
        if found:
            return gemini, _GEMINI_ENDPOINTS.get(found[2]), found[1]
        dialect = anthropic if path.startswith("/v1/messages") else openai
        return dialect, _POSTS.get(path), ""
    if request.method == "GET":
        listed = _MODEL.fullmatch(path)
        if listed:
            by_header = (
                anthropic if "anthropic-version" in headers else gemini if "x-goog-api-key" in headers else openai
            )
            return gemini if path.startswith("/v1beta") else by_header, _models, listed[1] or ""
        if path == "/livez":
            return openai, _alive, ""
    return gemini if path.startswith("/v1beta") else openai, None, ""


def _account(key: str) -> str:
    found = _ACCOUNT.match(key)
    return found[1] if found else "main"


def _authenticate(asked: Asked) -> str:
    """The key that was accepted. Raises RequestError."""
    headers = asked.request.headers
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    bearer = bearer if scheme.lower() == "bearer" else ""
    if asked.dialect is openai:
        key = bearer
    elif asked.dialect is anthropic:
        # Its API reference names x-api-key; its Python SDK 2.x sends the same key as a bearer token.
        key = headers.get("x-api-key") or bearer
    else:
        key = headers.get("x-goog-api-key", "")
    if not key.startswith(KEY_PREFIX):
        raise RequestError("Incorrect API key provided.", status=401)
    if asked.dialect is anthropic and "anthropic-version" not in headers:
        raise RequestError("anthropic-version: header is required")
    return key


def _known(model: object, allowed: tuple[str, ...]) -> str:
    name = text(model, "model")
    if name not in allowed:
        raise RequestError(
            f"The model '{name}' does not exist here.", status=404, param="model", code="model_not_found"
        )
    return name


def _alive(sandbox: Sandbox, asked: Asked) -> Reply:
    return Reply(None)


def _models(sandbox: Sandbox, asked: Asked) -> Reply:
    if not asked.name:
        return Reply(None, body=orjson.dumps(asked.dialect.models_body(MODELS)))
    return Reply(None, body=orjson.dumps(asked.dialect.model_entry(_known(asked.name, tuple(MODELS)))))


def _sell_answer(sandbox: Sandbox, asked: Asked, prompt: Prompt, endpoint: str) -> tuple[Reply, Answer, Usage]:
    """The reply with its bill, still without body or frames."""
    _known(prompt.model, CHAT_MODELS)
    answer = compose(prompt, asked.faults, asked.identity)
    bill = asked.bill(sandbox.invoice, prompt.model, endpoint, stream=prompt.stream)
    bill.input_tokens = count_input(prompt)
    bill.cached_tokens = min(asked.faults.cached_tokens, bill.input_tokens)
    output, thought = answer.tokens * prompt.n, len(answer.thought) * prompt.n
    usage = Usage(bill.input_tokens, bill.cached_tokens, output, thought, asked.faults.usage)
    reply = Reply(bill, output, content_type=_EVENTS if prompt.stream else "application/json")
    return reply, answer, usage


def _selling(endpoint: str, parse: _Parse, body: _Body, frames: _Frames) -> Endpoint:
    """A chat endpoint of one wire format: how it is asked, and how its answer looks whole and streamed."""

    def sell(sandbox: Sandbox, asked: Asked) -> Reply:
        prompt = parse(asked.body())
        reply, answer, usage = _sell_answer(sandbox, asked, prompt, endpoint)
        if prompt.stream:
            reply.frames = frames(prompt, answer, usage, asked.identity)
        else:
            reply.body = body(prompt, answer, usage, asked.identity)
        return reply

    return sell


def _completions(sandbox: Sandbox, asked: Asked) -> Reply:
    wanted = openai_completions.parse(asked.body())
    _known(wanted.model, CHAT_MODELS)
    answers = [compose(prompt, asked.faults, asked.identity) for prompt in wanted.prompts]
    bill = asked.bill(sandbox.invoice, wanted.model, "completions", stream=wanted.stream)
    bill.input_tokens = sum(count_input(prompt) for prompt in wanted.prompts)
    bill.cached_tokens = min(asked.faults.cached_tokens, bill.input_tokens)
    output = sum(answer.tokens for answer in answers) * wanted.tries
    usage = Usage(bill.input_tokens, bill.cached_tokens, output, 0, asked.faults.usage)
    reply = Reply(bill, output, content_type=_EVENTS if wanted.stream else "application/json")
    if wanted.stream:
        reply.frames = openai_completions.frames(wanted, answers, usage, asked.identity)
    else:
        reply.body = openai_completions.body(wanted, answers, usage, asked.identity)
    return reply


def _count_messages(sandbox: Sandbox, asked: Asked) -> Reply:
    prompt = anthropic.parse_messages(asked.body(), counting=True)
    _known(prompt.model, CHAT_MODELS)
    return Reply(None, body=orjson.dumps({"input_tokens": count_input(prompt)}))


def _generate(sandbox: Sandbox, asked: Asked) -> Reply:
    prompt = gemini.parse_generate(asked.name, asked.body(), stream=False)
    reply, answer, usage = _sell_answer(sandbox, asked, prompt, "generate")
    reply.body = gemini.generate_body(prompt, answer, usage, asked.identity)
    return reply


def _generate_stream(sandbox: Sandbox, asked: Asked) -> Reply:
    prompt = gemini.parse_generate(asked.name, asked.body(), stream=True)
    reply, answer, usage = _sell_answer(sandbox, asked, prompt, "generate")
    if asked.request.query.get("alt") == "sse":
        reply.frames = gemini.generate_frames(prompt, answer, usage, asked.identity)
    else:
        reply.content_type = "application/json; charset=UTF-8"
        reply.frames = gemini.generate_array(prompt, answer, usage, asked.identity)
    return reply


def _count_generate(sandbox: Sandbox, asked: Asked) -> Reply:
    body = asked.body()
    inner = body.get("generateContentRequest", body)
    prompt = gemini.parse_generate(
        _known(asked.name, CHAT_MODELS), mapping(inner, "generateContentRequest"), stream=False
    )
    return Reply(None, body=orjson.dumps({"totalTokens": count_input(prompt)}))


def _sold(sandbox: Sandbox, asked: Asked, model: str, endpoint: str, sold: Sold) -> Reply:
    bill = asked.bill(sandbox.invoice, model, endpoint)
    bill.input_tokens, bill.units = sold.input_tokens, sold.units
    return Reply(bill, body=sold.body, content_type=sold.content_type)


def _embed_one(sandbox: Sandbox, asked: Asked) -> Reply:
    total, vectors = gemini.parse_embed(_known(asked.name, ("sandbox-embed",)), [asked.body()], "request")
    sold = Sold(orjson.dumps({"embedding": vectors[0]}), total)
    return _sold(sandbox, asked, asked.name, "embeddings", sold)


def _embed_many(sandbox: Sandbox, asked: Asked) -> Reply:
    requests = sequence(asked.body().get("requests"), "requests")
    total, vectors = gemini.parse_embed(_known(asked.name, ("sandbox-embed",)), requests, "requests")
    return _sold(sandbox, asked, asked.name, "embeddings", Sold(orjson.dumps({"embeddings": vectors}), total))


def _embeddings(sandbox: Sandbox, asked: Asked) -> Reply:
    body = asked.body()
    model = _known(body.get("model"), ("sandbox-embed",))
    return _sold(sandbox, asked, model, "embeddings", openai_media.embeddings(body, asked.faults.usage))


def _images(sandbox: Sandbox, asked: Asked) -> Reply:
    body = asked.body()
    return _sold(sandbox, asked, _known(body.get("model"), ("sandbox-image",)), "images", openai_media.images(body))


def _speech(sandbox: Sandbox, asked: Asked) -> Reply:
    body = asked.body()
    return _sold(sandbox, asked, _known(body.get("model"), ("sandbox-speech",)), "audio", openai_media.speech(body))


def _transcription(sandbox: Sandbox, asked: Asked) -> Reply:
    fields = openai_media.form_fields(asked.request.body, asked.request.headers.get("content-type", ""))
    model = _known(fields.get("model", b"").decode("utf-8", "replace"), ("sandbox-transcribe",))
    return _sold(sandbox, asked, model, "audio", openai_media.transcription(fields))


_POSTS: dict[str, Endpoint] = {
    "/v1/chat/completions": _selling("chat", openai.parse_chat, openai.chat_body, openai.chat_frames),
    "/v1/completions": _completions,
    "/v1/responses": _selling(
        "responses", openai_responses.parse_respond, openai_responses.respond_body, openai_responses.respond_frames
    ),
    "/v1/embeddings": _embeddings,
    "/v1/images/generations": _images,
    "/v1/audio/speech": _speech,
    "/v1/audio/transcriptions": _transcription,
    "/v1/messages": _selling("messages", anthropic.parse_messages, anthropic.messages_body, anthropic.messages_frames),
    "/v1/messages/count_tokens": _count_messages,
}
_GEMINI_ENDPOINTS: dict[str, Endpoint] = {
    "generateContent": _generate,
    "streamGenerateContent": _generate_stream,
    "countTokens": _count_generate,
    "embedContent": _embed_one,
    "batchEmbedContents": _embed_many,
}
