"""A provider that tells its usage wrongly, through the whole gateway: every dialect to every wire format (U2)."""

from __future__ import annotations

import json

import pytest

from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES, Speaker

pytestmark = pytest.mark.usefixtures("module_books")
HELLO = 10 * 150 + 3 * 600  # nano-dollars: 10 tokens in, 3 out
NONE = ("missing", "zero", "negative", "text", "huge")


@pytest.mark.parametrize("wire", list(PREFIXES))
@pytest.mark.parametrize("stream", [False, True])
def test_false_usage_is_flagged_and_what_was_given_is_never_free(
    gateway: RunningGateway, speaker: Speaker, wire: str, stream: bool
) -> None:
    for fault in (*NONE, "twice"):
        headers = {"x-sandbox-usage": fault, "x-conduit-tags": "false-usage"}
        model = f"{PREFIXES[wire]}sandbox-echo"
        body = json.dumps(speaker.body(model, "hello big world", stream, None)).encode()
        answer = speaker.post(gateway.url, speaker.address(model, stream), gateway.raw_key, body, headers)
        assert (answer.status_code, b"world" in answer.content) == (200, True), fault
        event = gateway.event(answer)
        if fault == "twice":
            assert (event.cost_nanos, event.exactness, event.flags) == (HELLO, "exact", [])
        else:
            assert event.exactness == "estimated", fault
            assert event.flags, fault
            assert event.input_tokens > 0, fault
            assert event.output_tokens > 0, fault
            assert 0 < event.cost_nanos < 100 * HELLO, fault
