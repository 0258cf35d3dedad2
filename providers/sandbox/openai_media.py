"""OpenAI's endpoints beside chat: embeddings, images, speech, transcription. Each returns the body and what to bill."""

from __future__ import annotations

import base64
import re
import struct
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from providers.sandbox.answers import embedding, tokens_of
from providers.sandbox.reading import RequestError, count, optional_count, sequence, text
from providers.sandbox.usage import Usage, with_usage

SPEECH_RATE = 8000
_CHARACTER_SAMPLES = 80  # ten milliseconds of sound for each character
_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?')
_FIELD_NAME = re.compile(r'\bname="([^"]*)"')


@dataclass(slots=True)
class Sold:
    """`input_tokens` and `units` are billed."""

    body: bytes
    input_tokens: int = 0
    units: dict[str, int] = field(default_factory=dict)
    content_type: str = "application/json"


def embeddings(body: dict[str, Any], fault: str) -> Sold:
    """Input: a string, strings, an array of token numbers or arrays of them. Raises RequestError."""
    inputs = _inputs(body.get("input"))
    dimensions = optional_count(body.get("dimensions"), "dimensions", 1, 4096) or 8
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise RequestError("'encoding_format' must be float or base64", param="encoding_format")
    data, total = [], 0
    for index, (said, tokens) in enumerate(inputs):
        total += tokens
        vector: object = embedding(said, dimensions)
        if encoding == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *embedding(said, dimensions))).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = Usage(total, 0, 0, 0, fault)
    told = {"prompt_tokens": usage.say(total), "total_tokens": usage.say(total)}
    return Sold(with_usage({"object": "list", "data": data, "model": body["model"]}, "usage", told, usage), total)


def _inputs(given: object) -> list[tuple[str, int]]:
    """Each input as text and its count of tokens."""
    if isinstance(given, str):
        return [(given, len(tokens_of(given)))]
    items = sequence(given, "input")
    if not items:
        raise RequestError("'input' must not be empty", param="input")
    if all(isinstance(item, int) for item in items):
        return [_numbers(items, "input")]
    return [
        _numbers(item, "input") if isinstance(item, list) else (text(item, "input"), len(tokens_of(item)))
        for item in items
    ]


def _numbers(items: list[Any], where: str) -> tuple[str, int]:
    return " ".join(str(count(item, where, 0)) for item in items), len(items)


def _png() -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(b"\x00\x20\x6b\xc4")) + part(b"IEND", b"")


PNG = base64.b64encode(_png()).decode()


def images(body: dict[str, Any]) -> Sold:
    """One blue pixel, `n` times, always as b64_json. Raises RequestError."""
    text(body.get("prompt"), "prompt")
    number = count(body["n"], "n", 1, 10) if body.get("n") is not None else 1
    made = {"created": int(time.time()), "data": [{"b64_json": PNG} for _ in range(number)], "output_format": "png"}
    return Sold(orjson.dumps(made), units={"image": number})


def wav(samples: int) -> bytes:
    """A square wave: mono, 8 bits, 8 kHz."""
    sound = (b"\x60" * 10 + b"\xa0" * 10) * (samples // 20)
    form = struct.pack("<HHIIHH", 1, 1, SPEECH_RATE, SPEECH_RATE, 1, 8)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def speech(body: dict[str, Any]) -> Sold:
    """WAV whatever `response_format` asks for: the content type says so. Billed by character of the input."""
    said = text(body.get("input"), "input")
    text(body.get("voice"), "voice")
    if not 1 <= len(said) <= 4096:
        raise RequestError("'input' must have 1 to 4096 characters", param="input")
    return Sold(wav(len(said) * _CHARACTER_SAMPLES), units={"character": len(said)}, content_type="audio/wav")


def form_fields(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a multipart form by name; files as their bytes. Raises RequestError."""
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.lower().startswith("multipart/form-data"):
        raise RequestError("The body must be multipart/form-data")
    fields = {}
    for part in body.split(b"--" + found[1].encode())[1:]:
        head, separator, content = part.partition(b"\r\n\r\n")
        name = _FIELD_NAME.search(head.decode("latin-1"))
        if separator and name:
            fields[name[1]] = content.removesuffix(b"\r\n")
    return fields


def seconds_of(sound: bytes) -> int:
    """Whole seconds begun: of a WAV by its byte rate, of anything else at 16 kB a second."""
    rate, size = 16_000, len(sound)
    if sound[:4] == b"RIFF" and len(sound) > 44:
        rate, size = struct.unpack_from("<I", sound, 28)[0] or rate, size - 44
    return max(1, -(-size // rate))


def transcription(fields: dict[str, bytes]) -> Sold:
    """Says how much sound it heard. Raises RequestError."""
    sound = fields.get("file")
    if not sound:
        raise RequestError("'file' is required", param="file")
    if fields.get("stream", b"false").lower() == b"true":
        raise RequestError("This model does not stream", param="stream")
    seconds = seconds_of(sound)
    said = f"{len(sound)} bytes of sound, {seconds} seconds"
    units = {"second": seconds}
    match fields.get("response_format", b"json"):
        case b"text":
            return Sold(said.encode() + b"\n", units=units, content_type="text/plain; charset=utf-8")
        case b"json":
            told: dict[str, Any] = {"text": said, "usage": {"type": "duration", "seconds": seconds}}
        case b"verbose_json":
            told = {
                "task": "transcribe",
                "language": "english",
                "duration": float(seconds),
                "text": said,
                "segments": [],
            }
            told["usage"] = {"type": "duration", "seconds": seconds}
        case _:
            raise RequestError("'response_format' must be json, text or verbose_json", param="response_format")
    return Sold(orjson.dumps(told), units=units)
