"""System checks of the installation, run by `manage.py check` and before the web process starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import ProgrammingError

from conduit.core import keyring, sealed_columns
from conduit.core.errors import ConfigurationError


@register(Tags.security)
def key_ring(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The key-encryption keys, where there are any yet, can be read and are well formed."""
    if not keyring.configured():
        return []
    try:
        keyring.ring()
    except ConfigurationError as error:
        return [Error(str(error), id="conduit.E001")]
    return []


@register(Tags.security)
def secret_columns(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Every column that may hold a secret is known to what rotates and opens them."""
    return [
        Error(said, hint="See conduit/core/sealed_columns.py.", id="conduit.E003")
        for said in sealed_columns.undeclared()
    ]


@register(Tags.database)
def keys_of_the_database(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Every key-encryption key that the database needs is there and right (runs only with --database)."""
    if not kwargs.get("databases"):
        return []
    try:
        if any(keyring.ids_in_use().values()):
            keyring.check_database()
    except ConfigurationError as error:
        return [Error(str(error), id="conduit.E002")]
    except ProgrammingError:
        return []  # not migrated yet: nothing is encrypted
    return []
