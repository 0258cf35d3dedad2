"""The shapes of Gemini's answers: what we read of them. Unknown fields are skipped, so new ones break nothing."""

from __future__ import annotations

from typing import Any

import msgspec


class BlobWire(msgspec.Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class FileWire(msgspec.Struct, rename="camel"):
    mime_type: str = ""
    file_uri: str = ""


class CallWire(msgspec.Struct):
    name: str = ""
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class PartWire(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    function_call: CallWire | None = None
    inline_data: BlobWire | None = None
    file_data: FileWire | None = None


class ContentWire(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class LogprobWire(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class TopWire(msgspec.Struct):
    candidates: list[LogprobWire] | None = None


class LogprobsWire(msgspec.Struct, rename="camel"):
    chosen_candidates: list[LogprobWire] | None = None
    top_candidates: list[TopWire] | None = None


class WebWire(msgspec.Struct):
    uri: str = ""
    title: str = ""


class ChunkWire(msgspec.Struct):
    web: WebWire | None = None


class GroundingWire(msgspec.Struct, rename="camel"):
    grounding_chunks: list[ChunkWire] | None = None
    web_search_queries: list[str] | None = None


class CandidateWire(msgspec.Struct, rename="camel"):
    content: ContentWire | None = None
    index: int = 0
    finish_reason: str | None = None
    logprobs_result: LogprobsWire | None = None
    grounding_metadata: GroundingWire | None = None


class FeedbackWire(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class AnswerWire(msgspec.Struct, rename="camel"):
    candidates: list[CandidateWire] | None = None
    prompt_feedback: FeedbackWire | None = None
    usage_metadata: Any = None
    model_version: str = ""
    response_id: str = ""
    error: Any = None
