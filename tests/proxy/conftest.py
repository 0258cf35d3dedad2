"""One gateway for the tests of a module; the worker's database is made anew afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conduit.core.ids import uuid7
from tests.harness import oracle, plugin
from tests.harness.gateway import RunningGateway, early_in_the_minute, running_gateway
from tests.harness.speakers import SPEAKERS, Speaker


@pytest.fixture(scope="module")
def committed(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Database access with real commits for a whole module."""
    with django_db_blocker.unblock():
        yield
        plugin.renew()


@pytest.fixture(scope="module")
def gateway(committed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), allow=["127.0.0.1"]) as running:
        yield running


@pytest.fixture
def books(gateway: RunningGateway) -> Iterator[None]:
    """After the test the books must be right: with each other, and with the sandbox's invoice."""
    since = uuid7()
    yield
    oracle.check(gateway, since)


@pytest.fixture(scope="module")
def module_books(gateway: RunningGateway) -> Iterator[None]:
    """The same once, for a module of many tests that each move a little."""
    yield
    oracle.check(gateway)


@pytest.fixture
def minute() -> None:
    """The test meets no edge of the minute that rates count."""
    early_in_the_minute()


@pytest.fixture(params=list(SPEAKERS))
def speaker(request: pytest.FixtureRequest) -> Speaker:
    """A client of each dialect in turn."""
    return SPEAKERS[request.param]
