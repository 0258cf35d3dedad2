"""What a worker writes into its journal, as msgpack arrays. Pure data; the file format is usage/journal.py.

    Dispatched   an attempt is about to send its first upstream byte; used only to recover from a crash
    Settled      the same attempt ended: the whole row of usage_event, so that nothing has to be looked up
    Refused      a request that we refused: attempt 0, no provider, no cost

`Settled` repeats its `Dispatched`'s `time_us`: the row's primary key is (time, id), so no attempt counts twice.
Ids are 16 bytes, times are microseconds since 1970 UTC, money is nano-dollars.
The layout is on disk: a new field goes to the end of one record, with a default, and never into `Attempt`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from providers.adapters.types import Usage

Line = tuple[str, int, int, int]  # unit, count, nano-dollars per million units, nano-dollars


class Attempt(msgspec.Struct, array_like=True, kw_only=True, gc=False):
    """Who asked whom for what: the columns known at dispatch."""

    attempt_id: bytes
    time_us: int
    request_id: str
    attempt: int
    key_id: bytes | None = None
    team_id: bytes | None = None
    customer: str = ""
    provider_id: bytes | None = None
    credential_id: bytes | None = None
    credential_version: int | None = None
    route: str = ""
    model: str = ""
    dialect: str
    endpoint: str
    stream: bool = False
    held_nanos: int = 0
    budgets: list[bytes] = []
    tags: list[str] = []
    price_id: bytes | None = None


class Dispatched(Attempt, tag=1, array_like=True, kw_only=True, gc=False):
    """Written before the first upstream byte. `periods` are the budget periods that `held_nanos` is held in, by leases
    of `worker`."""

    periods: list[int] = []
    worker: bytes = b""


class Ended(Attempt, array_like=True, kw_only=True, gc=False):
    """The other columns of usage_event. `units` and `arithmetic` are what `unit_counts` and `Cost.lines` return."""

    status: int
    outcome: str  # ok | error | cancelled
    exactness: str = "exact"  # exact | estimated | uncertain
    final: bool = True
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    units: dict[str, int] = {}
    cost_nanos: int = 0
    arithmetic: list[Line] = []
    latency_us: int = 0
    ttft_us: int | None = None
    overhead_us: int | None = None
    error_code: str = ""
    error_message: str = ""
    flags: list[str] = []
    trace: list[dict[str, Any]] = []
    periods: list[int] = []
    worker: bytes = b""


class Settled(Ended, tag=2, array_like=True, kw_only=True, gc=False):
    """An attempt ended, well or badly."""


class Refused(Ended, tag=3, array_like=True, kw_only=True, gc=False):
    """Refused by us; `attempt` is 0 and no provider is named."""


Record = Dispatched | Settled | Refused

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
encode = _encoder.encode
encode_into = _encoder.encode_into


def decode(payload: bytes | memoryview) -> Record:
    """Raises msgspec.DecodeError (ValidationError included) for anything that is not one of the records."""
    return _decoder.decode(payload)


def unit_counts(usage: Usage) -> dict[str, int]:
    """The units that have no column of their own, as `units` of a record: only those that are present."""
    counts = dict(usage.units)
    if usage.cache_write_1h_tokens:
        counts["cache_write_1h"] = usage.cache_write_1h_tokens
    if usage.audio_input_tokens:
        counts["audio_input"] = usage.audio_input_tokens
    if usage.audio_output_tokens:
        counts["audio_output"] = usage.audio_output_tokens
    if usage.image_output_tokens:
        counts["image_output"] = usage.image_output_tokens
    return counts
