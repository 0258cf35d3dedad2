"""Which model stands behind the name that a provider is called with, where its own catalogue and prices do not tell.

A row of rows/ names one of these as `known_as`; the adapter that sends the name reads the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PUBLISHERS = ("google", "anthropic")


def as_named(model: str, options: Mapping[str, Any]) -> str:
    """The name itself."""
    return model


def behind_publisher(model: str, options: Mapping[str, Any]) -> str:
    """`google/NAME`, `publishers/google/NAME` and `publishers/google/models/NAME` are NAME."""
    publisher, slash, name = model.removeprefix("publishers/").partition("/")
    return name.removeprefix("models/") if slash and publisher in PUBLISHERS else model


def behind_profile(model: str, options: Mapping[str, Any]) -> str:
    """An ARN whose last part is a number of the account's says nothing: the option `profiles` names its model."""
    profiles = options.get("profiles")
    return str(profiles.get(model, model)) if isinstance(profiles, Mapping) else model
