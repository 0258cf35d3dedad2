"""What calls give back: an Answer, a Stream that becomes one, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from conduit.core.errors import ConduitError
from providers.adapters.events import (
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.types import ChatResponse, Choice, Reasoning, Text, ToolCall, Usage


class CallFailed(ConduitError):
    """`message` in the provider's words and `guidance` on what to do; `status` is the provider's, 0 where none came;
    `code` a stable word; `retry_after` in seconds where it was told. `again`: the same call may work later.
    """

    def __init__(  # noqa: PLR0913 (what is known of a failure)
        self,
        message: str,
        *,
        guidance: str = "",
        status: int = 0,
        code: str = "",
        retry_after: float | None = None,
        again: bool = False,
    ) -> None:
        super().__init__(f"{message} {guidance}".rstrip())
        self.message, self.guidance, self.status, self.code = message, guidance, status, code
        self.retry_after, self.again = retry_after, again


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`texts` holds one text per choice. Times in seconds; `first_seconds`: until the first piece of a stream.

    `dropped`: parameters that the provider cannot take. `headers` of the answer, by lower-case name.
    """

    texts: tuple[str, ...]
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    usage: Usage | None = None
    model: str = ""
    dropped: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    first_seconds: float | None = None

    @property
    def text(self) -> str:
        return self.texts[0] if self.texts else ""


@dataclass(frozen=True, slots=True)
class Failed:
    """One prompt of a batch that has no answer."""

    error: CallFailed


def of_response(
    response: ChatResponse, *, dropped: tuple[str, ...], headers: Mapping[str, str], seconds: float
) -> Answer:
    first = response.choices[0] if response.choices else Choice()
    return Answer(
        texts=tuple(_text(choice) for choice in response.choices),
        reasoning="".join(part.text for part in first.parts if isinstance(part, Reasoning)),
        tool_calls=tuple(part for part in first.parts if isinstance(part, ToolCall)),
        finish=first.finish,
        usage=response.usage,
        model=response.model,
        dropped=dropped,
        headers=headers,
        seconds=seconds,
    )


def _text(choice: Choice) -> str:
    return "".join(part.text for part in choice.parts if isinstance(part, Text))


class Gathered:
    """A stream's events put together."""

    def __init__(self) -> None:
        self.model = ""
        self.usage: Usage | None = None
        self._texts: dict[int, list[str]] = {}
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[ToolStarted, list[str]]] = {}
        self._finish = ""

    def add(self, event: StreamEvent) -> str:
        """The piece of the first choice's text in it."""
        if isinstance(event, TextDelta):
            self._texts.setdefault(event.choice, []).append(event.text)
            return event.text if event.choice == 0 else ""
        if isinstance(event, Started):
            self.model = event.model
        elif isinstance(event, UsageSeen):
            self.usage = event.usage
        elif getattr(event, "choice", 0) == 0:
            self._of_first_choice(event)
        return ""

    def _of_first_choice(self, event: StreamEvent) -> None:
        if isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolStarted):
            self._calls[event.index] = (event, [])
        elif isinstance(event, ToolDelta) and event.index in self._calls:
            self._calls[event.index][1].append(event.arguments)
        elif isinstance(event, Finished):
            self._finish = event.finish

    def answer(
        self, *, dropped: tuple[str, ...], headers: Mapping[str, str], seconds: float, first_seconds: float | None
    ) -> Answer:
        return Answer(
            texts=tuple("".join(self._texts[index]) for index in sorted(self._texts)),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(
                ToolCall(id=begun.id, name=begun.name, arguments="".join(parts) or "{}", signature=begun.signature)
                for begun, parts in self._calls.values()
            ),
            finish=self._finish,
            usage=self.usage,
            model=self.model,
            dropped=dropped,
            headers=headers,
            seconds=seconds,
            first_seconds=first_seconds,
        )


class Stream:
    """Iterate over it for the pieces of text; `answer` has the whole once it has ended. Leaving early hangs up."""

    def __init__(self, pieces: Callable[[Stream], Iterator[str]]) -> None:
        self.answer: Answer | None = None
        self._pieces = pieces(self)

    def __iter__(self) -> Iterator[str]:
        return self._pieces
