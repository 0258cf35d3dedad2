"""The rules of every field of a key, team or customer. Each parser returns the value as stored or raises InvalidInput.

`clean` applies them by field name; API, console and command line all end here, so nothing else can be stored.
null means "no limit of its own"; a limit of 0 is refused for rates, because it is read both as "none" and as "nothing".
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from conduit.core.clock import now
from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest, parse_choice, parse_text, parse_time, parse_whole

ENDPOINTS = (
    "chat", "completions", "responses", "messages", "generate", "embeddings", "images", "audio", "moderations",
    "rerank", "files", "batches", "fine_tuning", "realtime", "models",
)  # fmt: skip
LONGEST_LIST = 256
LARGEST_METADATA = 8192
RPM_MAX, TPM_MAX = 10**9, 10**12
PARALLEL_MAX, OUTPUT_MAX = 100_000, 100_000_000
_MODEL = re.compile(r"[A-Za-z0-9*?\[\]!._:/@+-]{1,200}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/=@-]{0,63}", re.ASCII)
Item = TypeVar("Item")


def parse_list(value: object, item: Callable[[object], Item], longest: int = LONGEST_LIST) -> list[Item]:
    """Each member by `item`, doubles removed. The field of an error is `.N`, the member's place."""
    if not isinstance(value, (list, tuple)):
        raise InvalidInput("", "Must be a list.", "invalid_list")
    if len(value) > longest:
        raise InvalidInput("", f"Must have at most {longest} members.", "too_many")
    found: list[Item] = []
    for index, member in enumerate(value):
        try:
            parsed = item(member)
        except InvalidInput as error:
            raise InvalidInput(f".{index}", error.detail, error.code) from None
        if parsed not in found:
            found.append(parsed)
    return found


def parse_model(value: object) -> str:
    """A model or route name, or a pattern of it with * ? [abc]."""
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise InvalidInput("", 'Must be a model name or a pattern such as "gpt-4o*".', "invalid_pattern")
    return value


def parse_endpoint(value: object) -> str:
    return parse_choice(value, ENDPOINTS)


def parse_network(value: object) -> str:
    """An address or network, IPv4 or IPv6, in its shortest form; an IPv4 address written as IPv6 becomes IPv4."""
    if not isinstance(value, str) or "%" in value:
        raise InvalidInput("", 'Must be an address or network such as "10.0.0.0/8".', "invalid_network")
    text = value.strip()
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise InvalidInput("", _network_fault(text), "invalid_network") from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        network = ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if alone else str(network)


def _network_fault(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return 'Must be an address or network such as "10.0.0.0/8".'
    return f"Has address bits beyond its prefix. Did you mean {meant}?"


def parse_tag(value: object) -> str:
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise InvalidInput("", "A tag has 1 to 64 letters, digits, blanks and . _ : / = @ -", "invalid_tag")
    return value


def parse_metadata(value: object) -> dict[str, Any]:
    """A flat object of texts, numbers and flags, at most 8 KiB as JSON."""
    if not isinstance(value, Mapping):
        raise InvalidInput("", "Must be an object.", "invalid_object")
    for name, member in value.items():
        if not isinstance(name, str) or not 1 <= len(name) <= 64 or not name.isprintable():
            raise InvalidInput("", "A name has 1 to 64 characters.", "invalid_name")
        if isinstance(member, float) and not math.isfinite(member):
            raise InvalidInput(f".{name}", "Must be a finite number.", "invalid_number")
        if member is not None and not isinstance(member, (str, bool, int, float)):
            raise InvalidInput(f".{name}", "Must be a text, number or flag.", "invalid_value")
    if len(json.dumps(dict(value))) > LARGEST_METADATA:
        raise InvalidInput("", f"Must have at most {LARGEST_METADATA} bytes.", "too_large")
    return dict(value)


def parse_limit(value: object, high: int) -> int | None:
    if value is None:
        return None
    if type(value) is int and value == 0:
        raise InvalidInput("", "Must be at least 1. Leave it out for no limit; disable the key to block it.", "zero")
    return parse_whole(value, 1, high)


def parse_expiry(value: object) -> datetime | None:
    """A time to come, or null."""
    if value is None:
        return None
    at = value if isinstance(value, datetime) and value.tzinfo else parse_time(value)
    if at <= now():
        raise InvalidInput("", "Must be in the future.", "in_the_past")
    return at


def parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput("", "Must be true or false.", "invalid_flag")
    return value


def parse_kind(value: object) -> str:
    """service | personal."""
    return parse_choice(value, ("service", "personal"))


def _name(value: object) -> str:
    return parse_text(value, 120, shortest=1)


def _owner(value: object) -> str:
    return parse_text(value, 254)


# The names callers use, with the rule and the model's field.
RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "name": (_name, "name"),
    "owner": (_owner, "owner"),
    "kind": (parse_kind, "kind"),
    "models": (partial(parse_list, item=parse_model), "allowed_models"),
    "endpoints": (partial(parse_list, item=parse_endpoint), "allowed_endpoints"),
    "rpm": (partial(parse_limit, high=RPM_MAX), "rpm"),
    "tpm": (partial(parse_limit, high=TPM_MAX), "tpm"),
    "max_parallel": (partial(parse_limit, high=PARALLEL_MAX), "max_parallel"),
    "max_output_tokens": (partial(parse_limit, high=OUTPUT_MAX), "max_output_tokens"),
    "expires_at": (parse_expiry, "expires_at"),
    "ip_allowlist": (partial(parse_list, item=parse_network), "ip_allowlist"),
    "tags": (partial(parse_list, item=parse_tag, longest=32), "tags"),
    "metadata": (parse_metadata, "metadata"),
    "blocked": (parse_flag, "blocked"),
}
TEAM_FIELDS = ("name", "models", "endpoints", "rpm", "tpm", "max_parallel", "tags", "metadata")
KEY_FIELDS = (*TEAM_FIELDS, "owner", "kind", "max_output_tokens", "expires_at", "ip_allowlist")
CUSTOMER_FIELDS = ("rpm", "tpm", "blocked")


def parse_field(name: str, value: object) -> Any:
    """The value of one field. The field of an error is the name, or `name.N` for a member."""
    try:
        return RULES[name][0](value)
    except InvalidInput as error:
        raise InvalidInput(name + error.field, error.detail, error.code) from None


def clean(values: Mapping[str, object], allowed: tuple[str, ...]) -> dict[str, Any]:
    """Model field → value to store. Raises InvalidInput for the first wrong or unknown field."""
    stored: dict[str, Any] = {}
    for name, value in values.items():
        if name not in allowed:
            raise InvalidInput(name, f"There is no such field.{nearest(name, allowed)}", "unknown_field")
        stored[RULES[name][1]] = parse_field(name, value)
    return stored


def outward(row: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """The row's fields under the names that callers use."""
    return {name: getattr(row, RULES[name][1]) for name in fields}
