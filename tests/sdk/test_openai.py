"""The openai SDK against the gateway: what it can ask for, and the exceptions it raises."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from providers.sandbox.openai_media import PNG
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES
from tests.sdk.conftest import openai_client
from tests.sdk.conversations import IMAGE

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]
HELLO: list[Any] = [{"role": "user", "content": "hello big world"}]
MODELS = [f"{prefix}sandbox-" for prefix in PREFIXES.values()]


class Trip(BaseModel):
    city: str
    days: int


@pytest.mark.parametrize("model", MODELS)
def test_a_schema_gives_an_object_of_ones_own_class(gpt: openai.OpenAI, model: str) -> None:
    answer = gpt.chat.completions.parse(model=f"{model}json", messages=HELLO, response_format=Trip)
    assert answer.choices[0].message.parsed == Trip(city="text", days=1)


@pytest.mark.parametrize("model", MODELS)
def test_a_cap_and_a_stop_word_end_the_answer(gpt: openai.OpenAI, model: str) -> None:
    cut = gpt.chat.completions.create(model=f"{model}lorem", messages=HELLO, max_completion_tokens=7)
    assert cut.usage is not None
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (7, "length")
    stopped = gpt.chat.completions.create(model=f"{model}echo", messages=HELLO, stop=[" world"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("hello big", "stop")


def test_a_stream_has_usage_only_when_asked(gpt: openai.OpenAI) -> None:
    for options, reported in ({"include_usage": True}, 1), (openai.NOT_GIVEN, 0):
        chunks = list(
            gpt.chat.completions.create(  # type: ignore[call-overload]
                model="sandbox-echo", messages=HELLO, stream=True, stream_options=options
            )
        )
        assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "hello big world"
        assert sum(one.usage is not None for one in chunks) == reported


def test_embeddings_come_in_both_encodings(gpt: openai.OpenAI) -> None:
    plain = gpt.embeddings.create(model="sandbox-embed", input=["a", "b"], encoding_format="float")
    packed = gpt.embeddings.create(model="sandbox-embed", input=["a", "b"])
    assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-6)
    assert plain.data[0].embedding != plain.data[1].embedding
    assert plain.usage.prompt_tokens == 2
    assert len(gpt.embeddings.create(model="sandbox-embed", input="a", dimensions=5).data[0].embedding) == 5


def test_models_are_listed_and_found(gpt: openai.OpenAI) -> None:
    assert {"sandbox-echo", "anthropic/sandbox-echo"} <= {model.id for model in gpt.models.list()}
    assert gpt.models.retrieve("sandbox-echo").id == "sandbox-echo"


async def test_the_asynchronous_client_streams_an_answer_about_an_image(gateway: RunningGateway) -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    asked: list[Any] = [{"role": "user", "content": parts}]
    async with openai.AsyncOpenAI(api_key=gateway.raw_key, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        for model in MODELS:
            text = ""
            async for chunk in await client.chat.completions.create(model=f"{model}echo", messages=asked, stream=True):
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            assert text == f"see\n[image {len(IMAGE)} bytes image/png]"


# --- errors


def test_a_bad_key_is_an_authentication_error(gateway: RunningGateway) -> None:
    with openai_client(gateway.url, "sk-other") as stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.chat.completions.create(model="sandbox-echo", messages=HELLO)
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "authentication_error")


def test_a_model_that_is_none_is_not_found(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        gpt.chat.completions.create(model="none", messages=HELLO)
    assert missing.value.code == "model_not_found"


def test_a_model_that_a_key_may_not_use_is_denied(gateway: RunningGateway) -> None:
    with (
        openai_client(gateway.url, gateway.key(models=["gemini/*"])) as client,
        pytest.raises(openai.PermissionDeniedError) as denied,
    ):
        client.chat.completions.create(model="sandbox-echo", messages=HELLO)
    assert denied.value.code == "model_not_allowed"


def test_a_wrong_value_is_a_bad_request_that_names_its_field(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        gpt.chat.completions.create(model="sandbox-echo", messages=HELLO, temperature="hot")  # type: ignore[call-overload]
    assert (bad.value.code, bad.value.param) == ("invalid_value", "temperature")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("upstream", "raised", "code"),
    [
        (400, openai.BadRequestError, None),
        (401, openai.InternalServerError, "upstream_auth_failed"),
        (422, openai.UnprocessableEntityError, None),
        (429, openai.RateLimitError, "upstream_rate_limited"),
        (500, openai.InternalServerError, "upstream_unavailable"),
    ],
)
def test_a_providers_error_raises_the_class_that_fits(
    gpt: openai.OpenAI, model: str, upstream: int, raised: type[openai.APIStatusError], code: str | None
) -> None:
    faults = {"x-sandbox-status": str(upstream), "x-sandbox-retry-after": "3"}
    for stream in (False, True):
        with pytest.raises(raised) as failed:
            gpt.chat.completions.create(model=f"{model}echo", messages=HELLO, stream=stream, extra_headers=faults)
        if code:
            assert failed.value.code == code
        if upstream == 429:
            assert failed.value.response.headers["retry-after"] == "3"


def test_a_key_over_its_limits_tells_the_sdk_whether_to_try_again(gateway: RunningGateway) -> None:
    for limits, again in ({"rpm": 1}, None), ({"budgets": [{"limit_usd": "0"}]}, "false"):
        with (  # noqa: PT012 (the first may pass, and the second where a minute ends between them)
            openai_client(gateway.url, gateway.key(**limits)) as client,
            pytest.raises(openai.RateLimitError) as over,
        ):
            for _ in range(3):
                client.chat.completions.create(model="sandbox-echo", messages=HELLO)
        assert over.value.code == ("budget_exceeded" if again else "rate_limit_exceeded")
        assert over.value.response.headers.get("x-should-retry") == again
        assert again or int(over.value.response.headers["retry-after"]) > 0


def test_the_sdk_itself_tries_again_and_gets_its_answer(gateway: RunningGateway) -> None:
    """A first answer of 503 with `retry-after`, which the SDK heeds; both requests are in the ledger."""
    answers: list[int] = []

    def once(request: Any) -> None:
        if not answers:
            request.headers["x-sandbox-status"] = "503"
            request.headers["x-sandbox-retry-after"] = "1"

    import httpx

    hooks: Any = {"request": [once], "response": [lambda response: answers.append(response.status_code)]}
    with (
        httpx.Client(event_hooks=hooks, trust_env=False, verify=False) as http,
        openai.OpenAI(api_key=gateway.raw_key, base_url=f"{gateway.url}/v1", max_retries=1, http_client=http) as client,
    ):
        answer = client.chat.completions.create(model="sandbox-echo", messages=HELLO)
    assert answers == [503, 200]
    assert answer.choices[0].message.content == "hello big world"


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_that_breaks_raises(gpt: openai.OpenAI, model: str) -> None:
    faults = {"x-sandbox-error-200": "1", "x-sandbox-tokens": "40"}
    seen = ""
    with pytest.raises(openai.APIError):  # noqa: PT012 (it must come after the first pieces)
        for chunk in gpt.chat.completions.create(
            model=f"{model}echo", messages=HELLO, stream=True, extra_headers=faults
        ):
            seen += chunk.choices[0].delta.content or "" if chunk.choices else ""
    assert seen.startswith("lorem ipsum")


def test_function_arguments_are_json_that_streams_in_pieces(gpt: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "plan", "parameters": Trip.model_json_schema()}}
    for model in MODELS:
        pieces: list[str] = []
        for chunk in gpt.chat.completions.create(model=f"{model}tools", messages=HELLO, tools=[tool], stream=True):
            for call in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
                pieces.append(call.function.arguments or "" if call.function else "")
        assert json.loads("".join(pieces)) == {"city": "text", "days": 1}
