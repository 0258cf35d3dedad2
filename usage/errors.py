"""Errors of metering.

ConduitError
├── JournalFull      no room to record a request: nothing may be dispatched
└── PriceUnknown     no price for this model at this time
"""

from __future__ import annotations

from conduit.core.errors import ConduitError


class JournalFull(ConduitError):
    """The journal cannot take a record; the caller must not dispatch."""


class PriceUnknown(ConduitError):
    """`model` has no price in force."""
