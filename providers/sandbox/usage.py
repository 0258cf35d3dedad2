"""Token counts as the wire formats report them, under the usage fault. What is billed never passes through here."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from providers.sandbox.faults import reported


@dataclass(frozen=True, slots=True)
class Usage:
    """Input includes the cached tokens. `output` includes thought, over all choices."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thought_tokens: int
    fault: str = ""

    @property
    def told(self) -> bool:
        return self.fault != "missing"

    @property
    def twice(self) -> bool:
        return self.fault == "twice"

    def say(self, count: int) -> object:
        return reported(count, self.fault)


def with_usage(body: dict[str, object], name: str, told: object, usage: Usage) -> bytes:
    """The body as JSON with `told` under `name`: absent or doubled where the fault wants it so."""
    if usage.told:
        body[name] = told
    raw = orjson.dumps(body)
    if usage.twice:
        raw = raw[:-1] + b"," + orjson.dumps({name: told})[1:]
    return raw


def sse(payload: object) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"
