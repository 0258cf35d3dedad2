"""Any route from any dialect: each SDK against each provider's wire format, as a whole answer and as a stream."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from conduit.core.ids import uuid7
from providers.sandbox.answers import THOUGHT
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.speakers import PREFIXES
from tests.sdk.conversations import FINISH, IMAGE, Talker

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]
ARGUMENTS = {"city": "text", "days": 2}


@pytest.fixture(params=list(PREFIXES))
def wire(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _events(gateway: RunningGateway, since: UUID, count: int) -> list[Any]:
    """The usage events of this test, in order."""
    from usage.models import UsageEvent

    found: list[Any] = []

    def there() -> bool:
        gateway.ship()
        found[:] = UsageEvent.objects.filter(id__gte=since).order_by("time")
        return len(found) >= count

    wait_for(there)
    return found


def test_a_chat_is_answered_and_counted(
    gateway: RunningGateway, talker: Talker, dialect: str, wire: str, stream: bool
) -> None:
    since = uuid7()
    said = talker.ask(f"{PREFIXES[wire]}sandbox-echo", "hello big wörld 🙂", stream=stream)
    assert (said.text, said.finish) == ("hello big wörld 🙂", FINISH["stop"][dialect])
    assert said.tokens == (11, 4)
    (event,) = _events(gateway, since, 1)
    assert (event.dialect, event.stream, event.exactness, event.outcome) == (dialect, stream, "exact", "ok")
    assert (event.input_tokens, event.output_tokens, event.cost_nanos) == (11, 4, 11 * 150 + 4 * 600)
    assert event.provider_id == gateway.provider("sandbox" if wire == "openai" else f"sandbox-{wire}").id


def test_tools_are_called_in_parallel_and_their_results_read(
    talker: Talker, dialect: str, wire: str, stream: bool
) -> None:
    model, tools = f"{PREFIXES[wire]}sandbox-tools", ("weather", "tides")
    called = talker.ask(model, "both in parallel", stream=stream, tools=tools)
    assert called.calls == [("weather", ARGUMENTS), ("tides", ARGUMENTS)]
    assert called.finish == FINISH["calls"][dialect]
    told = talker.results(called, "sunny", "high at nine")
    answered = talker.ask(model, "both in parallel", stream=stream, tools=tools, then=told)
    # The sandbox says the results of the last turn; where each has a turn of its own, in their order.
    assert answered.text.split("\n") == ["sunny", "high at nine"]
    assert answered.calls == []


def test_an_image_arrives_byte_for_byte_in_size(talker: Talker, wire: str, stream: bool) -> None:
    said = talker.ask(f"{PREFIXES[wire]}sandbox-echo", "see", stream=stream, image=True)
    assert said.text == f"see\n[image {len(IMAGE)} bytes image/png]"


def test_reasoning_is_shown(talker: Talker, wire: str, stream: bool) -> None:
    said = talker.ask(f"{PREFIXES[wire]}sandbox-think", "hello", stream=stream)
    assert (said.thought, said.text) == (THOUGHT, "hello")
    assert said.signature
