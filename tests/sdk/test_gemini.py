"""The google-genai SDK against the gateway: what it can ask for, and the exceptions it raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES
from tests.sdk.conftest import gemini_client
from tests.sdk.conversations import IMAGE, SCHEMA

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]
MODELS = [f"{prefix}sandbox-" for prefix in PREFIXES.values()]


def _ask(client: genai.Client, model: str = "sandbox-echo", *, stream: bool = False, **config: Any) -> Any:
    """Fields of the request's configuration by name; `headers` go along."""
    if headers := config.pop("headers", None):
        config["http_options"] = genai_types.HttpOptions(headers=headers)
    call = client.models.generate_content_stream if stream else client.models.generate_content
    answer = call(model=model, contents="hello big world", config=genai_types.GenerateContentConfig(**config))
    return list(answer) if stream else answer


@pytest.mark.parametrize("model", MODELS)
def test_a_cap_and_a_stop_word_end_the_answer(gem: genai.Client, model: str) -> None:
    cut = _ask(gem, f"{model}echo", max_output_tokens=2)
    assert (cut.text, cut.candidates[0].finish_reason.value) == ("hello big", "MAX_TOKENS")
    assert cut.usage_metadata.candidates_token_count == 2
    assert _ask(gem, f"{model}echo", stop_sequences=[" world"]).text == "hello big"


@pytest.mark.parametrize("model", MODELS)
def test_a_schema_gives_an_object(gem: genai.Client, model: str) -> None:
    answer = _ask(gem, f"{model}json", response_mime_type="application/json", response_schema=SCHEMA)
    assert json.loads(answer.text) == {"city": "text", "days": 2}
    assert answer.parsed == {"city": "text", "days": 2}


@pytest.mark.parametrize("model", MODELS)
def test_the_sdk_runs_a_function_of_ones_own_and_sends_its_result(gem: genai.Client, model: str) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        """Tells the weather."""
        asked.append(city)
        return "sunny"

    weather.__annotations__ = {"city": str, "return": str}  # the SDK reads classes, not their names
    assert _ask(gem, f"{model}tools", tools=[weather]).text == "sunny"
    assert asked == ["text"]


def test_tokens_are_counted_and_models_listed(gem: genai.Client) -> None:
    assert gem.models.count_tokens(model="sandbox-echo", contents="hello big world").total_tokens >= 10
    names = {model.name for model in gem.models.list()}
    assert {"models/sandbox-echo", "models/gemini/sandbox-echo"} <= names
    assert gem.models.get(model="sandbox-echo").name == "models/sandbox-echo"


def test_embeddings_are_vectors(gem: genai.Client) -> None:
    vectors = gem.models.embed_content(model="gemini/sandbox-embed", contents=["a", "b"]).embeddings
    assert vectors is not None
    assert [len(vector.values or []) for vector in vectors] == [8, 8]


async def test_the_asynchronous_client_streams_an_answer_about_an_image(gateway: RunningGateway) -> None:
    client = gemini_client(gateway.url, gateway.raw_key)
    image = genai_types.Part.from_bytes(data=IMAGE, mime_type="image/png")
    for model in MODELS:
        text = ""
        async for chunk in await client.aio.models.generate_content_stream(
            model=f"{model}echo", contents=["see", image]
        ):
            text += chunk.text or ""
        assert text == f"see\n[image {len(IMAGE)} bytes image/png]"


# --- errors


def test_a_bad_key_is_a_client_error(gateway: RunningGateway) -> None:
    with pytest.raises(genai_errors.ClientError) as refused:
        _ask(gemini_client(gateway.url, "sk-other"))
    assert (refused.value.code, refused.value.status) == (401, "UNAUTHENTICATED")


def test_a_model_that_is_none_is_not_found(gem: genai.Client) -> None:
    with pytest.raises(genai_errors.ClientError) as missing:
        _ask(gem, "none")
    assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")


def test_a_model_that_a_key_may_not_use_is_denied(gateway: RunningGateway) -> None:
    with pytest.raises(genai_errors.ClientError) as denied:
        _ask(gemini_client(gateway.url, gateway.key(models=["gemini/*"])))
    assert (denied.value.code, denied.value.status) == (403, "PERMISSION_DENIED")


def test_a_wrong_value_is_a_client_error_that_names_its_field(gem: genai.Client) -> None:
    with pytest.raises(genai_errors.ClientError) as bad:
        _ask(gem, max_output_tokens=-5)
    assert (bad.value.code, bad.value.status) == (400, "INVALID_ARGUMENT")
    assert "maxOutputTokens" in str(bad.value.message)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("upstream", "raised", "code", "status"),
    [
        (400, genai_errors.ClientError, 400, "INVALID_ARGUMENT"),
        (401, genai_errors.ServerError, 502, "INTERNAL"),
        (429, genai_errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        (500, genai_errors.ServerError, 503, "UNAVAILABLE"),
    ],
)
def test_a_providers_error_raises_the_class_that_fits(
    gem: genai.Client, model: str, upstream: int, raised: type[genai_errors.APIError], code: int, status: str
) -> None:
    for stream in (False, True):
        with pytest.raises(raised) as failed:
            _ask(gem, f"{model}echo", stream=stream, headers={"x-sandbox-status": str(upstream)})
        assert (failed.value.code, failed.value.status) == (code, status)


def test_a_key_over_its_limit_is_a_client_error(gateway: RunningGateway) -> None:
    client = gemini_client(gateway.url, gateway.key(budgets=[{"limit_usd": "0"}]))
    with pytest.raises(genai_errors.ClientError) as over:
        _ask(client)
    assert (over.value.code, over.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert "lifetime" in str(over.value.message)
