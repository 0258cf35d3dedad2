"""Why a person was not signed in. A wrong password, an unknown address and a disabled account are alike on purpose.

SignInRefused
├── LockedOut              too many tries; says for how long
└── SignInUnavailable      the tries cannot be counted (Valkey is away), so nobody is let in
"""

from __future__ import annotations

from conduit.core.errors import ConduitError


class SignInRefused(ConduitError):
    """The address or the password is wrong."""


class LockedOut(SignInRefused):
    """`retry_after` in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many tries. Try again in {max(1, -(-retry_after // 60))} minutes.")
        self.retry_after = retry_after


class SignInUnavailable(SignInRefused):
    """Failed tries cannot be counted now."""
