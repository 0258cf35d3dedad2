"""Providers: adding, changing and removing vendor accounts, and what each kind's settings may say.

    add_provider(actor=…, name=…, kind=…, …)   update_provider(provider, …)   delete_provider(provider, …)
    find(text)                                  by name or id
    allow_list(kind)                            the egress entries that hold for this kind

A base URL cannot be pointed at another host while credentials are stored: they would be sent there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from conduit.access.permissions import demand
from conduit.core import audit, budgeting
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NameTaken, NotFound
from conduit.core.fields import nearest, parse_choice, parse_text, parse_whole
from providers import egress, tokens
from providers.adapters.registry import KINDS, REGION, ProviderKind
from providers.models import Credential, Provider

OWNER = "provider"  # the kind of owner that a provider is for its budgets
SANDBOX = "sandbox"  # the one kind whose address Conduit itself gives out
LIMITS = ("rpm", "tpm", "max_parallel")
MAX_LIMIT = 10**12
PARALLEL_MAX = 2**31 - 1
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_PLACE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9._~/{}:@-]{0,200}", re.ASCII)
# Framing and addressing are ours; what carries a secret belongs into a credential, where it is encrypted.
_RESERVED_HEADERS = frozenset(
    ["host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade"]
    + ["expect", "accept-encoding"]
)
_SECRET_HEADERS = frozenset(
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token"]
)


class Settings(TypedDict, total=False):
    """What a provider may be given beside name and kind. Limits: None means none. Budgets: see core.budgeting."""

    base_url: str
    region: str
    options: Mapping[str, Any]
    enabled: bool
    rpm: int | None
    tpm: int | None
    max_parallel: int | None
    budgets: Sequence[Any]


def kind_of(provider: Provider) -> ProviderKind:
    """The registry's row. Raises Conflict for a kind that this version does not know."""
    row = KINDS.get(provider.kind)
    if row is None:
        raise Conflict(f"The provider's kind {provider.kind} is not known to this version of Conduit.")
    return row


def allow_list(kind: str) -> tuple[str, ...]:
    """Egress entries: the sandbox may be called at its own address and port, everything else as configured."""
    if kind == SANDBOX:
        return (urlsplit(settings.SANDBOX_URL).netloc,)
    return tuple(settings.CONDUIT_EGRESS_ALLOW)


def describe(provider: Provider) -> dict[str, Any]:
    """What the audit log keeps of a provider; it holds no secret."""
    names = ("name", "kind", "base_url", "region", "options", "enabled", *LIMITS)
    return {name: getattr(provider, name) for name in names}


def find(text: str) -> Provider:
    """By id or name. Raises NotFound."""
    try:
        row = Provider.objects.filter(id=UUID(text)).first()
    except ValueError:
        row = Provider.objects.filter(name=text).first()
    if row is None:
        raise NotFound(f"There is no provider {text[:120]!r}.")
    return row


def locked(provider: Provider) -> Provider:
    """The row as it is now, locked for this transaction. Raises NotFound when it is gone."""
    audit.lock()
    row = Provider.objects.select_for_update().filter(pk=provider.pk).first()
    if row is None:
        raise NotFound("The provider is gone.")
    return row


def add_provider(*, actor: Actor, name: str, kind: str, **given: Unpack[Settings]) -> Provider:
    """Saves a provider; nobody is called. Raises InvalidInput naming the field."""
    demand(actor, "providers")
    row = KINDS[field("kind", parse_choice, kind, list(KINDS))]
    provider = Provider(name=_name(name), kind=kind)
    specs = budgeting.keeper().parse(given.pop("budgets", ()), "budgets")
    _apply(provider, row, given)
    _check_address(provider, row)
    with transaction.atomic():
        audit.lock()
        _save(provider)
        audit.record(
            actor=actor,
            action="provider.create",
            kind="provider",
            id=provider.id,
            name=provider.name,
            after=describe(provider),
        )
        if specs:
            budgeting.keeper().put(OWNER, provider.id, specs, actor=actor)
    return provider


def update_provider(provider: Provider, *, actor: Actor, changes: Mapping[str, Any]) -> Provider:
    """Changes name and Settings. Raises InvalidInput, NotFound, or Conflict for a new host while credentials exist."""
    demand(actor, "providers")
    specs = budgeting.keeper().parse(changes["budgets"], "budgets") if "budgets" in changes else None
    with transaction.atomic():
        current = locked(provider)
        row, before, origin = kind_of(current), describe(current), _origin(current)
        if unknown := set(changes) - {"name", *Settings.__annotations__}:
            raise InvalidInput(min(unknown), "This field cannot be changed.", "read_only")
        if "name" in changes:
            current.name = _name(changes["name"])
        _apply(current, row, changes)
        _check_address(current, row)
        if _origin(current) != origin and (held := list(current.credentials.values_list("name", flat=True)[:10])):
            raise Conflict(
                "The base URL names another host, and stored credentials would be sent there. "
                f"Delete the credentials first ({', '.join(held)}), or add a new provider."
            )
        _save(current)
        changed = audit.changes(before, describe(current))
        if changed[1]:
            audit.record(
                actor=actor,
                action="provider.update",
                kind="provider",
                id=current.id,
                name=current.name,
                before=changed[0],
                after=changed[1],
            )
        if specs is not None:
            budgeting.keeper().put(OWNER, current.id, specs, actor=actor)
    return current


def delete_provider(provider: Provider, *, actor: Actor) -> None:
    """Raises Conflict naming the credentials and routes that still use it."""
    demand(actor, "providers")
    with transaction.atomic():
        current = locked(provider)
        if used := used_by(current):
            raise Conflict(f"The provider {current.name} is in use by {', '.join(used)}. Remove these first.")
        audit.record(
            actor=actor,
            action="provider.delete",
            kind="provider",
            id=current.id,
            name=current.name,
            before=describe(current),
        )
        budgeting.keeper().remove(OWNER, [current.id])
        try:
            current.delete()
        except ProtectedError as error:
            kinds = sorted({str(item._meta.verbose_name) for item in error.protected_objects})
            raise Conflict(f"The provider {provider.name} is in use by: {', '.join(kinds)}.") from None


def used_by(provider: Provider) -> list[str]:
    """What hangs on a provider, as `credential NAME` and `route NAME`; at most ten of each."""
    credentials = provider.credentials.order_by("name").values_list("name", flat=True)[:10]
    routes = provider.targets.order_by("route__name").values_list("route__name", flat=True).distinct()[:10]
    return [f"credential {name}" for name in credentials] + [f"route {name}" for name in routes]


def field(name: str, parse: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """A parser of conduit.core.fields whose refusal names the field."""
    try:
        return parse(*given, **options)
    except InvalidInput as error:
        raise InvalidInput(name, error.detail, error.code) from None


def _name(value: object) -> str:
    name: str = field("name", parse_text, value, 120, shortest=1)
    try:
        UUID(name)
    except ValueError:
        return name
    raise InvalidInput("name", "Must not look like an id.", "invalid_text")


def _check_address(provider: Provider, row: ProviderKind) -> None:
    """Raises InvalidInput when the kind's own address lacks what it is made of. Neither a region nor an option in its
    path can name another host."""
    if not (provider.base_url or row.base_url):
        raise InvalidInput("base_url", "This kind needs a base URL.", "required")
    for name in () if provider.base_url else row.places:
        if not _PLACE.fullmatch(str(provider.options.get(name) or "")):
            raise InvalidInput(f"options.{name}", "This kind needs it: letters, digits, - and _ only.", "required")
    if REGION not in row.base_url:
        return
    if not provider.region:
        raise InvalidInput("region", "This kind needs the region that it is called in.", "required")
    if not _REGION.fullmatch(provider.region):
        raise InvalidInput("region", "Must be a region's name, such as us-east-1.", "invalid_text")


def _origin(provider: Provider) -> tuple[str, str, int | None]:
    parts = urlsplit(provider.base_url or KINDS[provider.kind].base_url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port


def _save(provider: Provider) -> None:
    try:
        with transaction.atomic():
            provider.save()
    except IntegrityError:
        raise NameTaken(f"There already is a provider named {provider.name}.") from None


def _apply(provider: Provider, row: ProviderKind, given: Mapping[str, Any]) -> None:
    """Sets what is given, checked. Fields not given stay as they are."""
    if "base_url" in given:
        provider.base_url = _base_url(row, given["base_url"] or "")
    if "region" in given:
        provider.region = field("region", parse_text, given["region"] or "", 64)
    if "options" in given:
        provider.options = parse_options(row, given["options"])
    if "enabled" in given:
        provider.enabled = bool(given["enabled"])
    apply_limits(provider, given)


def apply_limits(row: Provider | Credential, given: Mapping[str, Any]) -> None:
    """Sets the rate limits that are given. Raises InvalidInput naming the field."""
    for name in LIMITS:
        if name in given:
            high = PARALLEL_MAX if name == "max_parallel" else MAX_LIMIT
            value = given[name]
            setattr(row, name, None if value is None else field(name, parse_whole, value, 1, high))


def _base_url(row: ProviderKind, value: object) -> str:
    url: str = field("base_url", parse_text, value, 500).rstrip("/")
    if not url:
        return ""
    allow = allow_list(row.kind)
    if row.kind == SANDBOX and url.removesuffix("/v1") != settings.SANDBOX_URL:
        raise InvalidInput("base_url", f"The sandbox lives at {settings.SANDBOX_URL} only.", "address_not_allowed")
    egress.check_url(url, allow=allow)
    egress.check_resolved(url, allow=allow)
    return url


# --- options -------------------------------------------------------------------------------------------------------


def parse_options(row: ProviderKind, given: object) -> dict[str, Any]:
    """A kind's options, each known by name and plain. Raises InvalidInput("options.NAME", …)."""
    if not isinstance(given, Mapping):
        raise InvalidInput("options", "Must be an object.", "invalid_type")
    names = [spec.name for spec in row.options]
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name not in names:
            raise InvalidInput(
                f"options.{str(name)[:64]}",
                f"The kind {row.kind} has no such option.{nearest(str(name), names)}",
                "unknown_field",
            )
        parsed = _option(row, name, value)
        if parsed not in ("", {}):
            options[name] = parsed
    return options


def _option(row: ProviderKind, name: str, value: object) -> Any:
    where = f"options.{name}"
    if name == "dialect":
        return field(where, parse_choice, value, list(row.adapters)) if value else ""
    if name == "headers":
        return _pairs(where, value, _header)
    if name == "path_map":
        return _pairs(where, value, _path)
    if name in ("profiles", "deployments"):
        return _pairs(where, value, _model)
    text = field(where, parse_text, value, 200)
    if not text.isascii() or " " in text:
        raise InvalidInput(where, "Must be ASCII without blanks.", "invalid_text")
    if text and any(spec.name == name and spec.shape == "number" for spec in row.options) and not text.isdigit():
        raise InvalidInput(where, "Must be a whole number.", "invalid_number")
    if name == "authority" and text:
        tokens.check_authority(text)
    if name in ("auth", "max_tokens_field") and text and not _HEADER.fullmatch(text):
        raise InvalidInput(where, "Must be a plain name.", "invalid_text")
    if name == "auth" and text.lower() in _RESERVED_HEADERS:
        raise InvalidInput(where, "This header cannot carry a key.", "reserved_header")
    return text


def _pairs(where: str, value: object, check: Callable[[str, str, str], None]) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > 32:
        raise InvalidInput(where, "Must be an object of at most 32 texts.", "invalid_type")
    pairs: dict[str, str] = {}
    for key, text in value.items():
        here = f"{where}.{str(key)[:64]}"
        pairs[str(key)] = field(here, parse_text, text, 500)
        check(here, str(key), pairs[str(key)])
    return pairs


def header_problem(name: str, value: object) -> str:
    """Why this header cannot be sent with each call, or nothing. Does not quote the value."""
    if not _HEADER.fullmatch(name) or not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return "Must be a header name with an ASCII value."
    return "This header is set by Conduit itself." if name.lower() in _RESERVED_HEADERS else ""


def _header(where: str, name: str, value: str) -> None:
    if problem := header_problem(name, value):
        code = "reserved_header" if name.lower() in _RESERVED_HEADERS else "invalid_header"
        raise InvalidInput(where, problem, code)
    if name.lower() in _SECRET_HEADERS:
        raise InvalidInput(
            where,
            "A secret belongs into a credential: give this header in the credential's field `headers`, or name it in "
            "the option `auth`.",
            "secret_header",
        )


def _model(where: str, name: str, other: str) -> None:
    if not (name and other and f"{name}{other}".isascii() and f"{name}{other}".isprintable()):
        raise InvalidInput(where, "Must map a model's name to another one.", "invalid_text")


def _path(where: str, path: str, target: str) -> None:
    for text in (path, target):
        if not _PATH.fullmatch(text) or ".." in text or "//" in text:
            raise InvalidInput(where, "Must map a path such as /chat/completions to another one.", "invalid_path")
