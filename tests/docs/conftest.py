"""A gateway whose operator lets providers lie on loopback, so that a documented provider can be the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.gateway import RunningGateway, running_gateway
from tests.proxy.conftest import committed

__all__ = ["committed"]


@pytest.fixture(scope="module")
def gateway(committed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), allow=("127.0.0.1",)) as running:
        yield running
