"""References to secrets that live elsewhere: what is stored in their place, and which forms there are.

    env:CONDUIT_SECRET_NAME        a variable of Conduit's own processes
    file:/run/secrets/name         a file below a directory of CONDUIT_SECRET_FILES
    vault:MOUNT/PATH#FIELD         a field of a secret in HashiCorp Vault or OpenBao (KV v2)
    aws-sm:NAME-OR-ARN[#JSON-KEY]  AWS Secrets Manager

Who may add credentials chooses what is read and, by the provider's address, where it is sent. So the forms are narrow:
variables by a prefix of their own (never the gateway's keys), files below named directories, and of Vault and AWS
whatever the gateway's own token or role may read there.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import PurePosixPath

from conduit.core.errors import InvalidInput
from conduit.core.secret import Secret

MAX_REFERENCE = 300
_ENV = re.compile(r"CONDUIT_SECRET_[A-Za-z0-9_]{1,100}", re.ASCII)
_VAULT = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._ -]+)+#[A-Za-z0-9._-]+", re.ASCII)
_AWS = re.compile(r"[A-Za-z0-9/_+=.@:!-]{1,256}(#[A-Za-z0-9._-]{1,64})?", re.ASCII)
FORMS = "env:CONDUIT_SECRET_NAME, file:/PATH, vault:MOUNT/PATH#FIELD or aws-sm:NAME[#JSON-KEY]"


class Reference(Secret):
    """Stands where a secret would: `reveal()` is the reference, never the secret.

    `asked_at`: when a person last wanted it read again; whoever read it before then reads it anew.
    """

    __slots__ = ("asked_at",)

    def __init__(self, text: str, asked_at: datetime | None = None) -> None:
        super().__init__(text)
        self.asked_at = asked_at

    @property
    def scheme(self) -> str:
        return self.reveal().partition(":")[0]

    @property
    def place(self) -> str:
        """What follows the scheme."""
        return self.reveal().partition(":")[2]

    def hint(self) -> str:
        """A reference is no secret."""
        return self.reveal()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.reveal() == self.reveal()

    def __hash__(self) -> int:
        return hash(("reference", self.reveal()))


def parse_reference(where: str, value: object) -> Reference:
    """Checks the form; nothing is read. Raises InvalidInput(where, …)."""
    if not isinstance(value, str):
        raise InvalidInput(where, f"A reference must be a text: {FORMS}.", "invalid_reference")
    text = value.strip()
    scheme, colon, place = text.partition(":")
    if not colon or scheme not in _CHECKS or len(text) > MAX_REFERENCE or not text.isprintable():
        # What is no reference may be a secret in the wrong place: it is not quoted.
        raise InvalidInput(where, f"Must be a reference: {FORMS}.", "invalid_reference")
    if problem := _CHECKS[scheme](place):
        raise InvalidInput(where, problem, "invalid_reference")
    return Reference(text)


def _env(place: str) -> str:
    if _ENV.fullmatch(place):
        return ""
    return "Only variables whose names begin with CONDUIT_SECRET_ can be read: name it env:CONDUIT_SECRET_NAME."


def _file(place: str) -> str:
    path = PurePosixPath(place)
    if path.is_absolute() and ".." not in path.parts:
        return ""
    return "Must be the whole path of a file below a directory of CONDUIT_SECRET_FILES: file:/run/secrets/NAME."


def _vault(place: str) -> str:
    inner = place.partition("#")[0].split("/")
    if _VAULT.fullmatch(place) and not any(part in (".", "..") for part in inner):
        return ""
    return "Must name mount, path and field of a secret: vault:MOUNT/PATH#FIELD."


def _aws(place: str) -> str:
    return "" if _AWS.fullmatch(place) else "Must be a name or ARN, with #KEY for one key of a JSON text."


_CHECKS = {"env": _env, "file": _file, "vault": _vault, "aws-sm": _aws}
