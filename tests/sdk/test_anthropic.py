"""The anthropic SDK against the gateway: what it can ask for, and the exceptions it raises."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from providers.sandbox.openai_media import PNG
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES
from tests.sdk.conftest import anthropic_client
from tests.sdk.conversations import IMAGE, SCHEMA

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]
HELLO: list[Any] = [{"role": "user", "content": "hello big world"}]
MODELS = [f"{prefix}sandbox-" for prefix in PREFIXES.values()]


def _ask(client: anthropic.Anthropic, model: str = "sandbox-echo", **fields: Any) -> Any:
    return client.messages.create(**{"model": model, "messages": HELLO, "max_tokens": 50, **fields})


@pytest.mark.parametrize("model", MODELS)
def test_a_cap_and_a_stop_word_end_the_answer(claude: anthropic.Anthropic, model: str) -> None:
    cut = _ask(claude, f"{model}echo", max_tokens=2)
    assert (cut.content[0].text, cut.stop_reason, cut.usage.output_tokens) == ("hello big", "max_tokens", 2)
    stopped = _ask(claude, f"{model}echo", stop_sequences=[" world"])
    assert stopped.content[0].text == "hello big"


@pytest.mark.parametrize("model", MODELS)
def test_cached_tokens_are_told_apart(claude: anthropic.Anthropic, model: str) -> None:
    usage = _ask(claude, f"{model}echo", extra_headers={"x-sandbox-cached-tokens": "4"}).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (6, 4, 3)


@pytest.mark.parametrize("model", MODELS)
def test_a_schema_gives_an_object(claude: anthropic.Anthropic, model: str) -> None:
    wanted = {"format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}}}
    answer = _ask(claude, f"{model}json", extra_body={"output_config": wanted})
    assert json.loads(answer.content[0].text) == {"city": "text", "days": 2}


def test_a_forced_tool_is_called(claude: anthropic.Anthropic) -> None:
    tools = [{"name": name, "input_schema": SCHEMA} for name in ("weather", "tides")]
    for model in MODELS:
        called = _ask(claude, f"{model}tools", tools=tools, tool_choice={"type": "tool", "name": "tides"})
        assert [block.name for block in called.content if block.type == "tool_use"] == ["tides"]


def test_tokens_are_counted_and_models_listed(claude: anthropic.Anthropic) -> None:
    assert claude.messages.count_tokens(model="sandbox-echo", messages=HELLO).input_tokens >= 10
    assert {"sandbox-echo", "gemini/sandbox-echo"} <= {model.id for model in claude.models.list()}
    assert claude.models.retrieve("sandbox-echo").id == "sandbox-echo"


async def test_the_asynchronous_client_streams_an_answer_about_an_image(gateway: RunningGateway) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    asked: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image", "source": source}]}
    ]
    async with anthropic.AsyncAnthropic(api_key=gateway.raw_key, base_url=gateway.url, max_retries=0) as client:
        for model in MODELS:
            async with client.messages.stream(model=f"{model}echo", max_tokens=50, messages=asked) as events:
                text = "".join([piece async for piece in events.text_stream])
            assert text == f"see\n[image {len(IMAGE)} bytes image/png]"


# --- errors


def _word(error: anthropic.APIStatusError) -> str:
    body: Any = error.body
    assert body["request_id"] == error.response.headers["request-id"] == error.request_id
    word: str = body["error"]["type"]
    return word


def test_a_bad_key_is_an_authentication_error(gateway: RunningGateway) -> None:
    with (
        anthropic_client(gateway.url, "sk-other") as stranger,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        _ask(stranger)
    assert _word(refused.value) == "authentication_error"


def test_a_model_that_is_none_is_not_found(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        _ask(claude, "none")
    assert _word(missing.value) == "not_found_error"


def test_a_model_that_a_key_may_not_use_is_denied(gateway: RunningGateway) -> None:
    with (
        anthropic_client(gateway.url, gateway.key(models=["gemini/*"])) as client,
        pytest.raises(anthropic.PermissionDeniedError) as denied,
    ):
        _ask(client)
    assert _word(denied.value) == "permission_error"


def test_a_wrong_value_is_a_bad_request_that_names_its_field(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as bad:
        _ask(claude, extra_body={"temperature": "hot"})
    assert _word(bad.value) == "invalid_request_error"
    assert "temperature" in bad.value.message


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("upstream", "raised", "word"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.InternalServerError, "api_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_a_providers_error_raises_the_class_that_fits(
    claude: anthropic.Anthropic, model: str, upstream: int, raised: type[anthropic.APIStatusError], word: str
) -> None:
    faults = {"x-sandbox-status": str(upstream), "x-sandbox-retry-after": "3"}
    for stream in (False, True):
        with pytest.raises(raised) as failed:
            _ask(claude, f"{model}echo", stream=stream, extra_headers=faults)
        assert _word(failed.value) == word
        if upstream == 429:
            assert failed.value.response.headers["retry-after"] == "3"


def test_a_key_over_its_limits_tells_the_sdk_whether_to_try_again(gateway: RunningGateway) -> None:
    for limits, again in ({"rpm": 1}, None), ({"budgets": [{"limit_usd": "0"}]}, "false"):
        with (  # noqa: PT012 (the first may pass, and the second where a minute ends between them)
            anthropic_client(gateway.url, gateway.key(**limits)) as client,
            pytest.raises(anthropic.RateLimitError) as over,
        ):
            for _ in range(3):
                _ask(client)
        assert over.value.response.headers.get("x-should-retry") == again


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_that_breaks_raises(claude: anthropic.Anthropic, model: str) -> None:
    faults = {"x-sandbox-error-200": "1", "x-sandbox-tokens": "40"}
    seen = ""
    with (  # noqa: PT012 (it must come after the first pieces)
        pytest.raises(anthropic.APIStatusError),
        claude.messages.stream(model=f"{model}echo", messages=HELLO, max_tokens=50, extra_headers=faults) as events,
    ):
        for piece in events.text_stream:
            seen += piece
    assert seen.startswith("lorem ipsum")
