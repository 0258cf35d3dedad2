"""What an installation says of a model itself; a sync of the catalogue leaves such a row alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from conduit.access.permissions import demand
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput, NotFound
from providers.catalogue import CATALOGUE, OVERRIDE
from providers.models import CatalogueModel

CHANGEABLE = ("title", "context_window", "max_output_tokens", "capabilities", "deprecated")
MAX_TOKENS = 2**31 - 1
MAX_CAPABILITIES = 64
MAX_NAME = 64


def find(id: str) -> CatalogueModel:  # noqa: A002  # the contract's name
    """Raises NotFound."""
    try:
        row = CatalogueModel.objects.filter(id=UUID(id)).first()
    except ValueError:
        row = None
    if row is None:
        raise NotFound("There is no such model in the catalogue.")
    return row


def locked(row: CatalogueModel) -> CatalogueModel:
    """The row as it is now, locked for this transaction. Raises NotFound when it is gone."""
    audit.lock()
    found = CatalogueModel.objects.select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise NotFound("There is no such model in the catalogue.")
    return found


def parse_capabilities(value: object) -> dict[str, bool]:
    """{"vision": true, …}. Raises InvalidInput."""
    if not isinstance(value, Mapping):
        raise InvalidInput("", "Must be an object of names with true or false.", "invalid_type")
    if len(value) > MAX_CAPABILITIES:
        raise InvalidInput("", f"At most {MAX_CAPABILITIES} capabilities.", "too_many")
    for name, has in value.items():
        if not name.isidentifier() or len(name) > MAX_NAME:
            raise InvalidInput("", f"A capability's name is a word of at most {MAX_NAME} letters.", "invalid_name")
        if not isinstance(has, bool):
            raise InvalidInput("", f"{name} must be true or false.", "invalid_flag")
    return dict(value)


def update_model(row: CatalogueModel, *, actor: Actor, changes: Mapping[str, Any]) -> CatalogueModel:
    """Changes a locked row and keeps it from the sync; `source: "catalogue"` hands it back to the next one."""
    demand(actor, "models", write=True)
    names = (*CHANGEABLE, "source")
    with transaction.atomic():
        before = {name: getattr(row, name) for name in names}
        for name in CHANGEABLE:
            if name in changes:
                setattr(row, name, changes[name])
        wanted = changes.get("source")
        if wanted == CATALOGUE and set(changes) != {"source"}:
            raise InvalidInput("source", "A row handed back to the catalogue takes no other change.", "invalid_change")
        row.source = wanted or (OVERRIDE if changes else row.source)
        after = {name: getattr(row, name) for name in names}
        if after != before:
            row.save(update_fields=list(names))
            audit.record(
                actor=actor, action="model.update", kind="model", id=row.id, name=row.name, before=before, after=after
            )
    return row
