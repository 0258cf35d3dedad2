"""Errors that several apps raise. Each app draws its own tree in its `errors` module.

ConduitError
├── ConfigurationError   the installation is set up wrongly; names the variable or file and the fix
├── InvalidInput         a field of a caller's input is wrong; names the field
├── Conflict             the step is out of order or collides with another; names the state
├── NotFound             no such object, or not for this caller
└── Forbidden            the caller's role does not allow it
"""

from __future__ import annotations


class ConduitError(Exception):
    """Base of every error of ours."""


class ConfigurationError(ConduitError):
    """Start-up or settings error; the message names the variable or file and how to fix it."""


class InvalidInput(ConduitError):
    """`field` is wrong for the reason in `detail`; `code` is a stable machine name."""

    def __init__(self, field: str, detail: str, code: str = "invalid") -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.field, self.detail, self.code = field, detail, code


class Conflict(ConduitError):
    """The object's present state forbids the step; the message names the state."""


class NameTaken(Conflict):
    """Another object has this name already; a form shows it at its field `name`."""


class NotFound(ConduitError):
    """No such object for this caller."""


class Forbidden(ConduitError):
    """The caller may not do this; the message names the role that may."""
