"""The providers' own SDKs are the reference of the wire formats."""

from __future__ import annotations

import base64
import json
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from providers.sandbox.openai_media import PNG
from tests.harness.sandbox import KEY, RunningSandbox

pytestmark = pytest.mark.sdk
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
}
ARGUMENTS = {"city": "text", "days": 2}
HELLO: list[Any] = [{"role": "user", "content": "hello big world"}]


@pytest.fixture
def gpt(sandbox: RunningSandbox) -> Any:
    with openai.OpenAI(api_key=KEY, base_url=f"{sandbox.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(sandbox: RunningSandbox) -> Any:
    with anthropic.Anthropic(api_key=KEY, base_url=sandbox.url, max_retries=0) as client:
        yield client


@pytest.fixture
def gem(sandbox: RunningSandbox) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=genai_types.HttpOptions(base_url=sandbox.url))


def test_openai_chat_echoes_and_counts(gpt: Any) -> None:
    answer = gpt.chat.completions.create(model="sandbox-echo", messages=HELLO, n=2)
    assert [choice.message.content for choice in answer.choices] == ["hello big world"] * 2
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 6)


def test_openai_stream_has_usage_only_when_asked(gpt: Any) -> None:
    for options, reported in ({"include_usage": True}, 1), (None, 0):
        extra = {"stream_options": options} if options else {}
        chunks = list(gpt.chat.completions.create(model="sandbox-echo", messages=HELLO, stream=True, **extra))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "hello big world"
        assert sum(chunk.usage is not None for chunk in chunks) == reported


@pytest.mark.parametrize("stream", [False, True])
def test_openai_tools_are_called_in_parallel_and_answered(gpt: Any, stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("weather", "tides")]
    asked = [{"role": "user", "content": "both in parallel"}]
    with gpt.chat.completions.stream(model="sandbox-tools", messages=asked, tools=tools) as events:
        final = events.get_final_completion()
    plain = final if stream else gpt.chat.completions.create(model="sandbox-tools", messages=asked, tools=tools)
    calls = plain.choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", ARGUMENTS),
        ("tides", ARGUMENTS),
    ]
    assert plain.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}
    turn = [*asked, plain.choices[0].message.model_dump(exclude_none=True), result]
    again = gpt.chat.completions.create(model="sandbox-tools", messages=turn, tools=tools)
    assert again.choices[0].message.content == "sunny"


def test_openai_image_stop_cap_and_schema(gpt: Any) -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    seen = gpt.chat.completions.create(model="sandbox-echo", messages=[{"role": "user", "content": parts}])
    size = len(base64.b64decode(PNG))
    assert seen.choices[0].message.content == f"see\n[image {size} bytes image/png]"
    stopped = gpt.chat.completions.create(model="sandbox-echo", messages=HELLO, stop=" big")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("hello", "stop")
    cut = gpt.chat.completions.create(model="sandbox-lorem", messages=HELLO, max_completion_tokens=7)
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (7, "length")
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
    made = gpt.chat.completions.create(model="sandbox-json", messages=HELLO, response_format=form)
    assert json.loads(made.choices[0].message.content) == ARGUMENTS


def test_openai_media_and_models(gpt: Any) -> None:
    as_float = gpt.embeddings.create(model="sandbox-embed", input=["a", "b"], encoding_format="float")
    as_base64 = gpt.embeddings.create(model="sandbox-embed", input=["a", "b"])
    assert as_float.data[0].embedding == pytest.approx(as_base64.data[0].embedding, abs=1e-6)
    assert as_float.data[0].embedding != as_float.data[1].embedding
    assert len(gpt.embeddings.create(model="sandbox-embed", input="a", dimensions=5).data[0].embedding) == 5
    assert base64.b64decode(gpt.images.generate(model="sandbox-image", prompt="x").data[0].b64_json)[:4] == b"\x89PNG"
    sound = gpt.audio.speech.create(model="sandbox-speech", voice="alloy", input="hello").content
    heard = gpt.audio.transcriptions.create(model="sandbox-transcribe", file=("a.wav", sound))
    assert heard.text == f"{len(sound)} bytes of sound, 1 seconds"
    assert "sandbox-echo" in [model.id for model in gpt.models.list()]


def test_openai_errors_are_its_own(gpt: Any, sandbox: RunningSandbox) -> None:
    with (
        openai.OpenAI(api_key="sk-other", base_url=f"{sandbox.url}/v1", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        gpt.chat.completions.create(model="none", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as limited:
        gpt.chat.completions.create(
            model="sandbox-echo",
            messages=HELLO,
            extra_headers={"x-sandbox-status": "429", "x-sandbox-retry-after": "3"},
        )
    assert limited.value.response.headers["retry-after"] == "3"


def test_anthropic_message_stream_and_count(claude: Any) -> None:
    asked = {"model": "sandbox-echo", "messages": HELLO, "max_tokens": 2}
    plain = claude.messages.create(**asked, extra_headers={"x-sandbox-cached-tokens": "4"})
    assert (plain.content[0].text, plain.stop_reason, plain.usage.output_tokens) == ("hello big", "max_tokens", 2)
    assert (plain.usage.input_tokens, plain.usage.cache_read_input_tokens) == (6, 4)
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == "hello big"
        assert stream.get_final_message().usage.output_tokens == 2
    assert claude.messages.count_tokens(model="sandbox-echo", messages=HELLO).input_tokens == 10
    assert "sandbox-echo" in [model.id for model in claude.models.list()]


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_tools_and_thinking(claude: Any, stream: bool) -> None:
    def ask(**asked: Any) -> Any:
        if not stream:
            return claude.messages.create(max_tokens=500, **asked)
        with claude.messages.stream(max_tokens=500, **asked) as events:
            return events.get_final_message()

    tools = [{"name": "weather", "input_schema": SCHEMA}]
    called = ask(model="sandbox-tools", messages=HELLO, tools=tools)
    assert (called.content[0].name, called.content[0].input, called.stop_reason) == ("weather", ARGUMENTS, "tool_use")
    result = {
        "type": "tool_result",
        "tool_use_id": called.content[0].id,
        "content": [{"type": "text", "text": "sunny"}],
    }
    turn = [*HELLO, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    assert ask(model="sandbox-tools", messages=turn, tools=tools).content[0].text == "sunny"
    thought = ask(model="sandbox-think", messages=HELLO)
    assert [block.type for block in thought.content] == ["thinking", "text"]
    assert thought.content[0].signature
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    seen = ask(model="sandbox-echo", messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    assert seen.content[0].text == f"[image {len(base64.b64decode(PNG))} bytes image/png]"


def test_anthropic_errors_are_its_own(claude: Any) -> None:
    asked = {"model": "sandbox-echo", "messages": HELLO, "max_tokens": 5}
    with pytest.raises(anthropic.InternalServerError) as failed:
        claude.messages.create(**asked, extra_headers={"x-sandbox-status": "529"})
    assert failed.value.body["error"]["type"] == "overloaded_error"
    with (
        pytest.raises(anthropic.APIStatusError),
        claude.messages.stream(**asked, extra_headers={"x-sandbox-error-200": "1"}) as stream,
    ):
        stream.get_final_message()


def test_gemini_generates_streams_and_counts(gem: genai.Client) -> None:
    config = genai_types.GenerateContentConfig(max_output_tokens=2)
    plain = gem.models.generate_content(model="sandbox-echo", contents="hello big world", config=config)
    assert plain.text == "hello big"
    assert plain.usage_metadata is not None
    assert plain.usage_metadata.candidates_token_count == 2
    chunks = list(gem.models.generate_content_stream(model="sandbox-echo", contents="hello big world"))
    assert "".join(chunk.text or "" for chunk in chunks) == "hello big world"
    assert gem.models.count_tokens(model="sandbox-echo", contents="hello big world").total_tokens == 10
    assert "models/sandbox-echo" in [model.name for model in gem.models.list()]


def test_gemini_tools_images_thinking_and_embeddings(gem: genai.Client) -> None:
    declared = genai_types.FunctionDeclaration(name="weather", parameters=genai_types.Schema.model_validate(SCHEMA))
    config = genai_types.GenerateContentConfig(tools=[genai_types.Tool(function_declarations=[declared])])
    called = gem.models.generate_content(model="sandbox-tools", contents="x", config=config)
    assert called.function_calls is not None
    assert (called.function_calls[0].name, called.function_calls[0].args) == ("weather", ARGUMENTS)
    image = genai_types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    seen = gem.models.generate_content(model="sandbox-echo", contents=[image])
    assert seen.text == f"[image {len(base64.b64decode(PNG))} bytes image/png]"
    thought = gem.models.generate_content(model="sandbox-think", contents="hi")
    assert thought.candidates is not None
    assert [bool(part.thought) for part in thought.candidates[0].content.parts] == [True, False]  # type: ignore[union-attr]
    vectors = gem.models.embed_content(model="sandbox-embed", contents=["a", "b"]).embeddings
    assert vectors is not None
    assert [len(vector.values or []) for vector in vectors] == [8, 8]


def test_gemini_errors_are_its_own(gem: genai.Client) -> None:
    options = genai_types.HttpOptions(headers={"x-sandbox-status": "429"})
    with pytest.raises(genai_errors.ClientError) as limited:
        gem.models.generate_content(model="sandbox-echo", contents="x", config={"http_options": options})
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
