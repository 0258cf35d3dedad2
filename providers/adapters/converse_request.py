"""A canonical request as the body of POST /model/{id}/converse. What that format lacks is named in `dropped`.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. What a model wants beyond it stands
in additionalModelRequestFields, in the model's own words: which, says the model's Family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from providers.adapters.converse_content import Blocks, cache_point
from providers.adapters.converse_families import Family
from providers.adapters.converse_reasoning import reasoning_fields
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    JSONObject,
    Message,
    Tool,
    ToolCall,
    ToolChoice,
)
from providers.errors import CannotCarry

ANSWER_TOOL = "give_answer"  # what a model must call where only tools follow a schema; read back as plain text
_TIERS = {"default": "default", "standard_only": "default", "flex": "flex", "priority": "priority"}
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}")
_METADATA_ENTRIES = 16
_OPEN: JSONObject = {"type": "object", "properties": {}}
_NOT_CARRIED = ("logit_bias", "top_logprobs", "audio", "store")
_OF_FAMILIES = ("top_k", "seed", "presence_penalty", "frequency_penalty")
_GUARDRAIL = {"guardrail": "guardrailIdentifier", "guardrail_version": "guardrailVersion", "guardrail_trace": "trace"}


class ConverseBody:
    """Builds one body; `dropped` fills up while it does. `options` are the provider's (see ConverseAdapter)."""

    def __init__(self, request: ChatRequest, family: Family, cap: int | None, options: Mapping[str, Any]) -> None:
        self._request = request
        self._family = family
        self._options = options
        self._cap = request.max_output_tokens if cap is None else cap
        self._fields: JSONObject = {}  # additionalModelRequestFields
        self._output: JSONObject = {}  # outputConfig
        self.dropped: list[str] = []

    def build(self) -> JSONObject:
        """Raises CannotCarry where the answer would be wrong without what the model lacks."""
        body: JSONObject = {}
        self._add_messages(body)
        self._add_tools(body)
        self._add_format(body)
        self._add_reasoning()
        self._add_inference(body)
        self._add_account(body)
        self._name_the_rest()
        if self._fields:
            body["additionalModelRequestFields"] = self._fields
        if self._output:
            body["outputConfig"] = self._output
        return body

    def _add_messages(self, body: JSONObject) -> None:
        """Alternating turns: neighbours of one role become one; tool results are the user's."""
        blocks = Blocks(self._family, self.dropped)
        turns: list[JSONObject] = []
        system = blocks.system(self._request.messages)
        if system and self._family.system:
            body["system"] = system
        elif system:  # said by the user instead: the model knows no other place
            self._drop("messages.system")
            turns.append({"role": "user", "content": system})
        for message in self._request.messages:
            if message.role == "system":
                continue
            if message.name:
                self._drop("messages.name")
            role = "assistant" if message.role == "assistant" else "user"
            content = blocks.of(message.parts)
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += content
            elif content:  # empty turns are refused
                turns.append({"role": role, "content": content})
        body["messages"] = turns

    # --- tools and structured answers

    def _add_tools(self, body: JSONObject) -> None:
        request, choice = self._request, self._request.tool_choice
        tools = self._offered(choice)
        called = _called(request.messages)
        if (tools or called) and not self._family.tools:
            raise CannotCarry("tools", "this model of Amazon Bedrock calls no tools")
        if choice and choice.mode == "none" and not called:
            return  # there is no such choice; not offering them is the same
        if not tools:  # what was called must be declared
            tools = [{"toolSpec": {"name": name, "inputSchema": {"json": _OPEN}}} for name in called]
        if not tools:
            return
        config: JSONObject = {"tools": tools}
        if choice and choice.mode != "auto":
            if self._family.choice and choice.mode != "none":
                config["toolChoice"] = {"tool": {"name": choice.name}} if choice.mode == "tool" else {"any": {}}
            else:
                self._drop("tool_choice")
        if request.parallel_tools is False:
            self._drop("parallel_tool_calls")
        body["toolConfig"] = config

    def _offered(self, choice: ToolChoice | None) -> list[JSONObject]:
        """The format cannot restrict a choice to some tools, so the others are not offered at all."""
        offered: list[JSONObject] = []
        for tool in self._request.tools:
            if not isinstance(tool, Tool):
                self._drop("tools")
            elif not (choice and choice.allowed) or tool.name in choice.allowed:
                offered.append({"toolSpec": _spec(tool)})
                point = cache_point(tool.cache, self._family, "tools") if tool.cache else None
                if point:
                    offered.append(point)
                elif tool.cache:
                    self._drop("cache_control")
        return offered

    def _add_format(self, body: JSONObject) -> None:
        wanted = self._request.response_format
        if wanted is None or wanted.kind == "text":
            return
        if wanted.kind == "json":
            self._drop("response_format")
        elif self._family.schema == "native":
            schema = {"schema": msgspec.json.encode(wanted.schema).decode(), "name": wanted.name}
            if wanted.description:
                schema["description"] = wanted.description
            self._output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        elif self._family.schema == "tool":
            self._answer_by_tool(body)
        else:
            raise CannotCarry("response_format", "this model of Amazon Bedrock cannot be held to a JSON schema")

    def _answer_by_tool(self, body: JSONObject) -> None:
        """The schema becomes a tool's, and some tool must be called: this one is the answer."""
        wanted = self._request.response_format
        assert wanted is not None
        config = body.setdefault("toolConfig", {"tools": []})
        if "tool" in config.get("toolChoice", {}):
            return  # the caller demands a call, so there is no answer to hold to a schema
        spec: JSONObject = {
            "name": ANSWER_TOOL,
            "description": wanted.description or "Gives the answer to the user. Call it once, with the whole answer.",
            "inputSchema": {"json": wanted.schema},
        }
        config["toolChoice"] = {"any": {}} if config["tools"] else {"tool": {"name": ANSWER_TOOL}}
        config["tools"] = [*config["tools"], {"toolSpec": spec}]

    # --- reasoning and sampling

    def _add_reasoning(self) -> None:
        if self._request.reasoning is None:
            return
        asked = reasoning_fields(self._request.reasoning, self._family.thinking, self._cap)
        self._fields.update(asked.fields)
        if asked.effort:
            self._output["effort"] = asked.effort
        for name in asked.dropped:
            self._drop(name)

    def _add_inference(self, body: JSONObject) -> None:
        request, config = self._request, JSONObject()
        thinks = self._fields.get("thinking", {}).get("type") in ("enabled", "adaptive")
        hard = self._fields.get("reasoningConfig", {}).get("maxReasoningEffort") == "high"
        if self._cap is not None:
            config["maxTokens"] = self._cap
        # While Claude thinks it takes its own temperature and top_p from 0.95 up; Nova at its hardest takes neither.
        lowest = 0.95 if thinks else 0.0
        temperature_fits = request.temperature == 1 if thinks else 0 <= (request.temperature or 0) <= 1
        if request.temperature is not None:
            self._put(config, ("temperature",), request.temperature, fits=temperature_fits and not hard)
        if request.top_p is not None:
            self._put(config, ("topP", "top_p"), request.top_p, fits=lowest <= request.top_p <= 1 and not hard)
        if request.stop:
            config["stopSequences"] = list(request.stop)
        if config:
            body["inferenceConfig"] = config
        for name in _OF_FAMILIES:
            value, path = getattr(request, name), self._family.fields.get(name)
            if value is not None and path and not (name == "top_k" and (thinks or hard)):
                _lay(self._fields, path, value)
            elif value is not None:
                self._drop(name)

    def _put(self, config: JSONObject, names: tuple[str, ...], value: float, *, fits: bool) -> None:
        """`names`: the format's, and the client's where that is another."""
        if fits:
            config[names[0]] = value
        else:
            self._drop(names[-1])

    # --- what concerns the account, and the rest

    def _add_account(self, body: JSONObject) -> None:
        request, options = self._request, self._options
        tier = request.service_tier
        if tier in _TIERS:
            body["serviceTier"] = {"type": _TIERS[tier]}
        elif tier not in ("", "auto"):
            self._drop("service_tier")
        if metadata := request.metadata:
            texts = [*metadata, *metadata.values()]
            if len(metadata) <= _METADATA_ENTRIES and all(_METADATA.fullmatch(text) for text in texts):
                body["requestMetadata"] = dict(metadata)
            else:
                self._drop("metadata")
        if guardrail := {wire: str(options[name]) for name, wire in _GUARDRAIL.items() if options.get(name)}:
            body["guardrailConfig"] = guardrail
        if latency := options.get("latency"):
            body["performanceConfig"] = {"latency": str(latency)}

    def _name_the_rest(self) -> None:
        request = self._request
        for name in _NOT_CARRIED:
            if getattr(request, name) is not None:
                self._drop(name)
        told = {
            "n": request.n > 1,
            "logprobs": request.logprobs,
            "verbosity": request.verbosity,
            "user": request.user,
            "modalities": any(kind != "text" for kind in request.modalities),
        }
        for name, said in told.items():
            if said:
                self._drop(name)
        if request.extra_dialect is not Dialect.CONVERSE:
            for name in request.extra:
                self._drop(name)

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)


def _spec(tool: Tool) -> JSONObject:
    spec: JSONObject = {"name": tool.name, "inputSchema": {"json": tool.parameters or _OPEN}}
    if tool.description:
        spec["description"] = tool.description
    if tool.strict:
        spec["strict"] = True
    return spec


def _called(messages: tuple[Message, ...]) -> list[str]:
    """Names of the tools that the conversation has called so far, each once."""
    calls = [part.name for message in messages for part in message.parts if isinstance(part, ToolCall)]
    return list(dict.fromkeys(calls))


def _lay(fields: JSONObject, path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        fields = fields.setdefault(name, {})
    fields[path[-1]] = value
