"""Why a person was not signed in. A wrong password, an unknown address and a disabled account are alike on purpose.

SignInRefused
├── LockedOut              too many tries; says for how long
└── SignInUnavailable      the tries cannot be counted (Valkey is away), so nobody is let in

CountingUnavailable          tries of anything else cannot be counted now
"""

from __future__ import annotations

from conduit.core.errors import ConduitError


class SignInRefused(ConduitError):
    """The address or the password is wrong."""


class LockedOut(SignInRefused):
    """`retry_after` in seconds; `first` of the tries that are refused for it."""

    def __init__(self, retry_after: int, *, first: bool = False) -> None:
        super().__init__(f"Too many tries. Try again in {max(1, -(-retry_after // 60))} minutes.")
        self.retry_after, self.first = retry_after, first


class SignInUnavailable(SignInRefused):
    """Failed tries cannot be counted now."""


class CountingUnavailable(ConduitError):
    """Tries cannot be counted now."""
