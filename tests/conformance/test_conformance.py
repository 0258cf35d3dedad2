"""Every kind of provider × its wire formats × every client's dialect × every feature × whole and streamed.

What a row claims must arrive at the provider, judged by the provider's own types, and its answer at the client, read by
the client's own SDK; what it does not claim must be named as dropped or refused. Claims are exact in both directions.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest

from conduit.proxy.dialects.registry import DIALECTS
from providers.adapters.kinds import Capabilities, ProviderKind
from providers.adapters.registry import KINDS
from providers.adapters.types import Dialect, Endpoint
from providers.errors import CannotCarry
from tests.conformance import cells
from tests.conformance.cells import Line
from tests.conformance.facts import EVERY, FEATURES

LINES = [line for line in cells.lines() if Endpoint.CHAT in line.row.endpoints]
EVERY_LINE = [
    pytest.param(line, dialect, id=f"{line.id}-{dialect}")
    for dialect in cells.CLIENTS
    for line in cells.lines_for(dialect)
    if Endpoint.CHAT in line.row.endpoints
]


@pytest.mark.parametrize("mode", cells.MODES)
@pytest.mark.parametrize(("line", "dialect"), EVERY_LINE)
def test_every_feature(line: Line, dialect: str, mode: str) -> None:
    wrong: list[str] = []
    for feature in EVERY.values():
        if mode in feature.modes:
            try:
                cells.outcome(line, dialect, feature, mode)
            except Exception as error:  # noqa: BLE001 (one cell's fault must not hide the others')
                said = str(error).splitlines()
                wrong.append(f"{feature.name}: {type(error).__name__}: {said[0] if said else ''}")
    assert not wrong, "\n".join([f"{line.id} from {dialect}, {mode}:", *wrong])


EMBEDDING = [line for line in cells.lines() if line.row.capabilities.embeddings]
VECTOR_DIALECTS = [dialect for dialect in DIALECTS if hasattr(cells.client(dialect), "asked_vectors")]


@pytest.mark.parametrize("dialect", VECTOR_DIALECTS, ids=lambda dialect: dialect.value)
@pytest.mark.parametrize("line", EMBEDDING, ids=lambda line: line.id)
def test_embeddings(line: Line, dialect: Dialect) -> None:
    if "embeddings" not in cells.lacks(line.wire):
        cells.vectors(line, dialect)
        return
    with pytest.raises(CannotCarry):
        cells.vectors(line, dialect)


@pytest.mark.parametrize("row", KINDS.values(), ids=lambda row: row.kind)
def test_a_row_that_claims_embeddings_serves_them_and_no_other_does(row: ProviderKind) -> None:
    assert row.capabilities.embeddings == (Endpoint.EMBEDDINGS in row.endpoints)


@pytest.mark.parametrize("row", [row for row in KINDS.values() if Endpoint.CHAT in row.endpoints], ids=lambda r: r.kind)
def test_a_claim_needs_a_wire_format_that_can_carry_it(row: ProviderKind) -> None:
    """Of a kind with several wire formats each may lack something, but not all of them what the row claims."""
    wires = [cells.lacks(line.wire) for line in LINES if line.kind == row.kind]
    claimed = {name for name, yes in asdict(row.capabilities).items() if yes}
    assert not claimed & frozenset.intersection(*wires)


def test_every_capability_is_looked_at() -> None:
    covered = {feature.capability for feature in FEATURES.values()} - {"", None}
    assert covered | {"embeddings"} == set(Capabilities.__dataclass_fields__)
