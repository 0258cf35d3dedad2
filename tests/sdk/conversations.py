"""One conversation in three SDKs: what a test says and gets back is the same whichever client carries it.

`TALKERS` has them by name. Each answer becomes a `Said`, so that a test can be written once for all combinations of
client, route and way of delivery.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from google.genai import types as genai_types

from providers.sandbox.openai_media import PNG
from tests.sdk.conftest import anthropic_client, gemini_client, openai_client

IMAGE = base64.b64decode(PNG)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
}


@dataclass
class Said:
    """`calls` are (name, arguments); `tokens` (input, output), with reasoning within the output. `turn` is the answer
    as this SDK wants it back in the next request."""

    text: str
    tokens: tuple[int, int] | None
    finish: str | None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    thought: str = ""
    signature: str = ""
    turn: Any = None


class Talker(ABC):
    """`ask` takes the user's words, and turns of this SDK that come after them. `stream` must not change the answer."""

    client: Any

    @abstractmethod
    def __init__(self, url: str, key: str) -> None: ...

    @abstractmethod
    def ask(
        self,
        model: str,
        text: str,
        *,
        stream: bool,
        tools: tuple[str, ...] = (),
        image: bool = False,
        then: tuple[Any, ...] = (),
    ) -> Said: ...

    @abstractmethod
    def results(self, said: Said, *texts: str) -> tuple[Any, ...]:
        """The turns that answer the tool calls of `said`, in order: the assistant's and what the tools returned."""


class OpenAITalker(Talker):
    def __init__(self, url: str, key: str) -> None:
        self.client = openai_client(url, key)

    def ask(self, model, text, *, stream, tools=(), image=False, then=()):  # type: ignore[no-untyped-def]
        content: Any = text
        if image:
            url = f"data:image/png;base64,{PNG}"
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}, *then]}
        if tools:
            asked["tools"] = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in tools]
        if not stream:
            answer = self.client.chat.completions.create(**asked)
            return self._said(answer.choices[0], answer.usage, *self._thought(answer.choices[0].message))
        thought = signature = ""
        with self.client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
            for event in events:
                if event.type == "chunk" and event.chunk.choices:
                    more = self._thought(event.chunk.choices[0].delta)
                    thought, signature = thought + more[0], more[1] or signature
            answer = events.get_final_completion()
        return self._said(answer.choices[0], answer.usage, thought, signature)

    def _thought(self, message: Any) -> tuple[str, str]:
        extra = message.model_extra or {}
        signed = [detail.get("signature") for detail in extra.get("reasoning_details") or []]
        return extra.get("reasoning_content") or "", next((one for one in signed if one), "")

    def _said(self, choice: Any, usage: Any, thought: str, signature: str) -> Said:
        message = choice.message
        turn: dict[str, Any] = {"role": "assistant", "content": message.content}
        calls = []
        if message.tool_calls:
            calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
            turn["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in message.tool_calls
            ]
        if signature:
            turn["reasoning_details"] = [{"type": "reasoning.text", "text": thought, "signature": signature}]
        tokens = (usage.prompt_tokens, usage.completion_tokens)
        return Said(message.content or "", tokens, choice.finish_reason, calls, thought, signature, turn)

    def results(self, said: Said, *texts: str) -> tuple[Any, ...]:
        calls = said.turn["tool_calls"]
        told = [
            {"role": "tool", "tool_call_id": call["id"], "content": text}
            for call, text in zip(calls, texts, strict=True)
        ]
        return (said.turn, *told)


class ResponsesTalker(Talker):
    def __init__(self, url: str, key: str) -> None:
        self.client = openai_client(url, key)

    def ask(self, model, text, *, stream, tools=(), image=False, then=()):  # type: ignore[no-untyped-def]
        content: Any = text
        if image:
            url = f"data:image/png;base64,{PNG}"
            content = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": url}]
        asked: dict[str, Any] = {"model": model, "input": [{"role": "user", "content": content}, *then]}
        if tools:
            asked["tools"] = [{"type": "function", "name": n, "parameters": SCHEMA, "strict": False} for n in tools]
        if not stream:
            return self._said(self.client.responses.create(**asked))
        with self.client.responses.stream(**asked) as events:
            return self._said(events.get_final_response())

    def _said(self, response: Any) -> Said:
        thoughts = [item for item in response.output if item.type == "reasoning"]
        calls = [item for item in response.output if item.type == "function_call"]
        usage = response.usage
        return Said(
            text=response.output_text,
            tokens=(usage.input_tokens, usage.output_tokens),
            finish=response.status,
            calls=[(call.name, json.loads(call.arguments)) for call in calls],
            thought="".join(part.text for item in thoughts for part in item.summary),
            signature="".join(item.encrypted_content or "" for item in thoughts),
            turn=[item.model_dump(exclude_none=True) for item in response.output],
        )

    def results(self, said: Said, *texts: str) -> tuple[Any, ...]:
        calls = [item for item in said.turn if item["type"] == "function_call"]
        told = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": text}
            for call, text in zip(calls, texts, strict=True)
        ]
        return (*said.turn, *told)


class AnthropicTalker(Talker):
    def __init__(self, url: str, key: str) -> None:
        self.client = anthropic_client(url, key)

    def ask(self, model, text, *, stream, tools=(), image=False, then=()):  # type: ignore[no-untyped-def]
        content: Any = text
        if image:
            source = {"type": "base64", "media_type": "image/png", "data": PNG}
            content = [{"type": "text", "text": text}, {"type": "image", "source": source}]
        asked: dict[str, Any] = {
            "model": model,
            "max_tokens": 500,
            "messages": [{"role": "user", "content": content}, *then],
        }
        if tools:
            asked["tools"] = [{"name": name, "input_schema": SCHEMA} for name in tools]
        if not stream:
            return self._said(self.client.messages.create(**asked))
        with self.client.messages.stream(**asked) as events:
            return self._said(events.get_final_message())

    def _said(self, message: Any) -> Said:
        blocks = message.content
        thoughts = [block for block in blocks if block.type == "thinking"]
        usage = message.usage
        return Said(
            text="".join(block.text for block in blocks if block.type == "text"),
            tokens=(usage.input_tokens, usage.output_tokens),
            finish=message.stop_reason,
            calls=[(block.name, block.input) for block in blocks if block.type == "tool_use"],
            thought="".join(block.thinking for block in thoughts),
            signature="".join(block.signature for block in thoughts),
            turn={"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in blocks]},
        )

    def results(self, said: Said, *texts: str) -> tuple[Any, ...]:
        calls = [block for block in said.turn["content"] if block["type"] == "tool_use"]
        told = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": text}
            for call, text in zip(calls, texts, strict=True)
        ]
        return said.turn, {"role": "user", "content": told}


class GeminiTalker(Talker):
    def __init__(self, url: str, key: str) -> None:
        self.client = gemini_client(url, key)

    def ask(self, model, text, *, stream, tools=(), image=False, then=()):  # type: ignore[no-untyped-def]
        parts = [genai_types.Part.from_text(text=text)]
        if image:
            parts.append(genai_types.Part.from_bytes(data=IMAGE, mime_type="image/png"))
        contents = [genai_types.Content(role="user", parts=parts), *then]
        config = None
        if tools:
            schema = genai_types.Schema.model_validate(SCHEMA)
            declared = [genai_types.FunctionDeclaration(name=n, parameters=schema) for n in tools]
            config = genai_types.GenerateContentConfig(
                tools=[genai_types.Tool(function_declarations=declared)],
                automatic_function_calling=genai_types.AutomaticFunctionCallingConfig(disable=True),
            )
        models = self.client.models
        if not stream:
            return self._said([models.generate_content(model=model, contents=contents, config=config)])
        return self._said(list(models.generate_content_stream(model=model, contents=contents, config=config)))

    def _said(self, answers: list[Any]) -> Said:
        candidates = [answer.candidates[0] for answer in answers if answer.candidates]
        parts = [part for one in candidates if one.content for part in one.content.parts or []]
        usage = next(answer.usage_metadata for answer in reversed(answers) if answer.usage_metadata)
        spent = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        signatures = [part.thought_signature for part in parts if part.thought_signature]
        finishes = [one.finish_reason.value for one in candidates if one.finish_reason]
        return Said(
            text="".join(part.text for part in parts if part.text and not part.thought),
            tokens=(usage.prompt_token_count, spent),
            finish=finishes[-1] if finishes else None,
            calls=[(part.function_call.name, part.function_call.args) for part in parts if part.function_call],
            thought="".join(part.text for part in parts if part.text and part.thought),
            signature=base64.b64encode(signatures[-1]).decode() if signatures else "",
            turn=genai_types.Content(role="model", parts=parts),
        )

    def results(self, said: Said, *texts: str) -> tuple[Any, ...]:
        calls = [part.function_call for part in said.turn.parts if part.function_call]
        told = [
            genai_types.Part(
                function_response=genai_types.FunctionResponse(id=call.id, name=call.name, response={"result": text})
            )
            for call, text in zip(calls, texts, strict=True)
        ]
        return said.turn, genai_types.Content(role="user", parts=told)


TALKERS: dict[str, type[Talker]] = {
    "openai": OpenAITalker,
    "responses": ResponsesTalker,
    "anthropic": AnthropicTalker,
    "gemini": GeminiTalker,
}
# Why an answer ended, in each SDK's own word.
FINISH = {
    "stop": {"openai": "stop", "responses": "completed", "anthropic": "end_turn", "gemini": "STOP"},
    "calls": {"openai": "tool_calls", "responses": "completed", "anthropic": "tool_use", "gemini": "STOP"},
}
