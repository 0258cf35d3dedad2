"""One installation for a worker's tests of a module; each finds it running or starts it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.installation import Installation, installation


@pytest.fixture(scope="session")
def _installed() -> Iterator[Installation]:
    with installation() as one:
        yield one


@pytest.fixture
def conduit(_installed: Installation) -> Installation:
    _installed.up()
    return _installed
