"""What a rollup adds up, as one value."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one group. `requests` includes refused ones; amounts are nano-dollars, durations microseconds."""

    requests: int = 0
    attempts: int = 0
    errors: int = 0
    refused: int = 0
    cancelled: int = 0
    estimated: int = 0
    uncertain: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0
    latency_us: int = 0
    ttft_us: int = 0
    ttft_count: int = 0

    @property
    def cost(self) -> int:
        return self.cost_nanos

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def served(self) -> int:
        return self.requests - self.refused

    @property
    def mean_latency_us(self) -> int | None:
        return self.latency_us // self.served if self.served else None

    @property
    def mean_ttft_us(self) -> int | None:
        return self.ttft_us // self.ttft_count if self.ttft_count else None

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in MEASURES})

    def __sub__(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) - getattr(other, name) for name in MEASURES})


MEASURES = tuple(field.name for field in fields(Sums))
