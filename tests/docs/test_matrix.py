"""docs/providers/matrix.md says what the conformance suite finds."""

from __future__ import annotations

from providers.adapters.registry import KINDS
from providers.adapters.types import Endpoint
from tests.docs import matrix, pages


def test_the_page_is_what_the_suite_finds() -> None:
    assert pages.read(matrix.PAGE) == matrix.page(), "run .venv/bin/python -P -m tests.docs.matrix"


def test_every_kind_that_chats_has_a_row_in_each_table() -> None:
    text = pages.read(matrix.PAGE)
    for kind, row in KINDS.items():
        if Endpoint.CHAT in row.endpoints:
            rows = len(row.adapters) * len(matrix.TITLES) + (Endpoint.COMPLETIONS in row.only_models)
            assert text.count(f"\n| {kind}, ") == rows, kind
