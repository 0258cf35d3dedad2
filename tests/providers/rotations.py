"""Credentials of the sandbox and short words for their states, for the tests of rotation."""

from __future__ import annotations

from typing import Any

from django.db import connection

from conduit.core.actor import Actor
from conduit.core.secret import Secret
from providers import credentials, vault
from providers.models import Credential, CredentialField, CredentialVersion
from providers.providers import add_provider

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
OLD, NEW, THIRD = (f"sk-sandbox-{name}-51d0c7e8a2f4" for name in ("old", "new", "third"))
FOREIGN = "sk-sandbox-of-bob-51d0c7e8a2f4"
BAD = "sk-wrong-51d0c7e8a2f4"


def fields(text: str) -> dict[str, Secret]:
    return {"api_key": Secret(text)}


def a_credential(text: str = OLD, name: str = "main", **more: Any) -> Credential:
    provider = add_provider(actor=ALICE, name=f"Sandbox {name}", kind="sandbox")
    return credentials.add_credential(provider, actor=ALICE, name=name, fields=fields(text), **more)


def states(credential: Credential) -> dict[int, str]:
    return dict(credential.versions.order_by("number").values_list("number", "state"))


def secret_of(credential: Credential) -> str:
    """The secret that serves."""
    version = credential.versions.get(state="active")
    return vault.open_version(version)["api_key"].reveal()


def dump() -> str:
    """Every row of every table as text."""
    whole = ""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT coalesce(string_agg(t::text, chr(10)), $$$$) FROM "{table}" t')
            whole += cursor.fetchone()[0]
    return whole


def destroyed(credential: Credential, number: int) -> bool:
    version = CredentialVersion.objects.get(credential=credential, number=number)
    return not CredentialField.objects.filter(version=version).exists() and bytes(version.wrapped_key) == b""
