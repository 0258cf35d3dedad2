"""The models that providers list, asked of the providers themselves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import connection

from conduit.core.errors import Conflict, InvalidInput
from providers import vault
from providers.credentials import active
from providers.models import Provider
from providers.verification import VerificationFailed, check

ASKED_AT_ONCE = 8


def list_models(provider: Provider) -> tuple[str, ...]:
    """What the provider lists, asked with the first credential that opens. Raises VerificationFailed, Conflict."""
    red: vault.Unreadable | None = None
    for credential in provider.credentials.filter(enabled=True).order_by("name"):
        if (version := active(credential)) is None:
            continue
        try:
            return check(provider, vault.open_version(version)).models
        except vault.Unreadable as error:
            red = error
    raise Conflict(str(red) if red else f"The provider {provider.name} has no enabled credential to ask with.")


@dataclass(frozen=True, slots=True)
class Listed:
    """A provider's models, sorted, or why it did not tell them."""

    provider: Provider
    models: tuple[str, ...] = ()
    problem: str = ""


def listed_models(rows: Sequence[Provider]) -> list[Listed]:
    """`list_models` of each, several at once, without an exception: one that fails does not hide the others."""
    with ThreadPoolExecutor(max_workers=ASKED_AT_ONCE) as pool:
        return list(pool.map(_listed, rows))


def _listed(provider: Provider) -> Listed:
    try:
        return Listed(provider, tuple(sorted(list_models(provider))))
    except VerificationFailed as refused:
        return Listed(provider, problem=f"{refused.detail} {refused.guidance}".rstrip())
    except (Conflict, InvalidInput) as error:
        return Listed(provider, problem=str(error))
    finally:
        connection.close()  # the thread's own
