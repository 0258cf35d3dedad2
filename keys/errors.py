"""Errors of keys, teams and budgets. Wrong input is conduit.core.errors.InvalidInput, naming the field.

Conflict (conduit.core.errors)
├── NameTaken      another team has this name
├── KeyRevoked     a revoked key stays as it is
├── KeyInUse       other keys are delegated from the key
├── OutOfStep      a step of a rotation that does not go in the state the key is in
└── TeamInUse      keys, teams below or members hang on the team
"""

from __future__ import annotations

from conduit.core.errors import Conflict


class NameTaken(Conflict):
    pass


class KeyRevoked(Conflict):
    pass


class KeyInUse(Conflict):
    pass


class OutOfStep(Conflict):
    pass


class TeamInUse(Conflict):
    pass
