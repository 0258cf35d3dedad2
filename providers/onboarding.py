"""A provider together with its first credential: both are saved, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from conduit.core.actor import Actor
from conduit.core.clock import now
from providers.adapters.kinds import ProviderKind
from providers.credentials import add_credential
from providers.models import Provider, Route
from providers.patterns import is_pattern, is_valid
from providers.providers import add_provider, kind_of
from providers.routes import add_route
from providers.secret_fields import parse_fields
from providers.verification import check


@dataclass(frozen=True, slots=True)
class NewCredential:
    """`verify` False saves without a call."""

    name: str
    fields: Mapping[str, Any]
    verify: bool = True


def add_with_credential(
    *, actor: Actor, provider: Mapping[str, Any], credential: NewCredential, with_routes: bool = False
) -> Provider:
    """`provider` holds name, kind and providers.Settings. The credential is proved by one real call. `with_routes`:
    names of models that the kind usually serves lead there from now on (see `pattern_routes`).

    Raises InvalidInput, or VerificationFailed with the provider's own words; then nothing was saved.
    """
    with transaction.atomic():
        draft = add_provider(actor=actor, **provider)
        plain = parse_fields(kind_of(draft), fields=credential.fields)
        transaction.set_rollback(True)
    # The call is made outside of any transaction: one that hangs must not hold the configuration's locks.
    proven = None
    if credential.verify:
        check(draft, plain)
        proven = now()
    with transaction.atomic():
        saved = add_provider(actor=actor, **provider)
        add_credential(saved, actor=actor, name=credential.name, fields=plain, verify=False, proven=proven)
        for name in pattern_routes(kind_of(saved)) if with_routes else ():
            add_route(actor=actor, name=name, targets=[{"provider": str(saved.id)}])
    return saved


def pattern_routes(kind: ProviderKind) -> list[str]:
    """Patterns of model names that the kind usually serves, as far as no route has that name."""
    wanted = [name for name in kind.models if is_pattern(name) and is_valid(name)]
    taken = set(Route.objects.filter(name__in=wanted).values_list("name", flat=True))
    return [name for name in wanted if name not in taken]
