"""How many input tokens a picture or a recording can come to at most. Its bytes do not bound that: pictures compress.

`None` from either function means: only the model's context window bounds it.

Figures and formulas, by the wire format of the provider:
- OpenAI: a picture is fitted into 2048 x 2048, its short side brought to 768, and cut into tiles of 512: at most 8.
  The dearest model counts 2,833 + 5,667 for each tile; `detail: low` is the 2,833 alone. Models that count patches of
  32 pixels stay far below.
- Anthropic: width x height / 750 of a picture that is scaled down to fit the model; at most 4,784 for the models that
  see the largest ones.
- Gemini: 258 for each tile; a tile is the short side / 1.5, not under 256 and not over 768 pixels. Nothing is scaled
  down, so the picture's own size must be known. A model that is told a resolution takes at most 2,240.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from providers.adapters.types import Dialect

_TILE_BASE, _TILE = 2_833, 5_667
_OPENAI_LOW, _OPENAI_MOST = _TILE_BASE, _TILE_BASE + 8 * _TILE
_MOST: Mapping[Dialect, int] = {Dialect.OPENAI: _OPENAI_MOST, Dialect.ANTHROPIC: 4_784}
_GEMINI_TILE, _GEMINI_LEAST = 258, 2_240
# No codec that these two formats stand for goes below: 8 kbit/s is the lowest rate of MP3, and a second of sound counts
# 32 tokens at the dearest. A WAVE file says its own rate.
_BYTES_PER_SECOND = 1_000
_HEAD = 64 * 1024  # bytes of a picture in which its size is looked for
_URL_SAFE = str.maketrans("-_", "+/")


def image_tokens(wire: Dialect, data: str, *, low: bool = False) -> int | None:
    """`data` is the picture in base64, empty where only an address is known; `low` that the caller asked for less."""
    if wire is Dialect.GEMINI:
        size = image_size(_decoded(data, _HEAD)) if data else None
        return _tiles(*size) if size else None
    if low and wire is Dialect.OPENAI:
        return _OPENAI_LOW
    return _MOST.get(wire, _OPENAI_MOST)


def _tiles(width: int, height: int) -> int:
    side = min(max(min(width, height) * 2 // 3, 256), 768)
    tiles = -(-width // side) * -(-height // side) + 1  # and one of the whole picture
    return max(tiles * _GEMINI_TILE, _GEMINI_LEAST)


def audio_tokens(data: str, kind: str) -> int | None:
    """Bytes bound the tokens where a second of sound takes more bytes than tokens, by the file's own word or format."""
    if kind in ("mp3", "mpeg"):
        return len(data)
    head = _decoded(data, 48)
    if kind in ("wav", "x-wav", "wave") and head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt " and len(head) >= 36:
        rate, frame = int.from_bytes(head[24:28], "little"), int.from_bytes(head[32:34], "little")
        pcm = int.from_bytes(head[20:22], "little") in (1, 3, 0xFFFE)
        if pcm and rate * frame >= _BYTES_PER_SECOND:
            return len(data)
    return None


def image_size(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the first bytes of a PNG, GIF, WebP or JPEG; None when they do not tell."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR" and len(head) >= 24:
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp_size(head)
    return _jpeg_size(head) if head.startswith(b"\xff\xd8") else None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Segments are skipped until the frame header, which holds the size."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9]), int.from_bytes(head[at + 5 : at + 7])
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return None


def _decoded(data: str, size: int) -> bytes:
    """The first `size` bytes; empty for what is no base64."""
    piece = data[: -(-size // 3) * 4].translate(_URL_SAFE)
    try:
        return base64.b64decode(piece + "=" * (-len(piece) % 4))
    except (binascii.Error, ValueError):
        return b""
