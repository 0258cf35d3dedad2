"""Reads secrets where they live: variables, files, Vault or OpenBao, AWS Secrets Manager.

    resolve(fields)                 the fields with each Reference replaced by what it stands for; raises Unreadable
    resolve(fields, wait=False)     from what was read before only; raises kept.Pending for what was not
    secrets                         the process's Kept readings

A read ends after SECONDS, is repeated every REFRESH_SECONDS by each web worker's thread, and a source that fails keeps
its last good value for GRACE_SECONDS. No message quotes a value or a token.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from django.conf import settings

from conduit.core.errors import ConfigurationError
from conduit.core.secret import Secret
from conduit.core.vault_http import VaultClient, VaultDenied, VaultError, VaultMissing
from providers.kept import Kept, Pending, Reading, Unavailable
from providers.references import Reference
from providers.vault import Unreadable

SECONDS = 2.0
REFRESH_SECONDS = 30.0
GRACE_SECONDS = 60.0
MAX_BYTES = 64 * 1024


def resolve(fields: Mapping[str, Secret], *, wait: bool = True, fresh: bool = False) -> dict[str, Secret]:
    """Raises Unreadable naming field and reference, Pending only when it must not wait."""
    found: dict[str, Secret] = {}
    for name, secret in fields.items():
        if not isinstance(secret, Reference):
            found[name] = secret
            continue
        asked = secret.asked_at.timestamp() if secret.asked_at else 0.0
        try:
            found[name] = Secret(secrets.get(secret.reveal(), wait=wait, fresh=fresh, asked=asked))
        except Pending:
            raise
        except Unavailable as problem:
            raise Unreadable(f"{name} from {secret.reveal()}: {problem.reason}", problem.fix) from None
    return found


def _read(reference: str) -> Reading[str]:
    scheme, _, place = reference.partition(":")
    text = _READERS[scheme](place)
    if not text or len(text) > MAX_BYTES:
        raise Unavailable("What lies there is empty or too large.", "Store the secret there.")
    return Reading(text, renew=REFRESH_SECONDS)


def _scheme(reference: str) -> str:
    """Places of one kind fail together, and keep no others back."""
    return reference.partition(":")[0]


def _env(name: str) -> str:
    text = os.environ.get(name, "").strip()
    if not text:
        raise Unavailable(f"The variable {name} is not set.", "Set it for every process of Conduit and restart.")
    return text


def read_file(place: str) -> str:
    """A file below a directory of CONDUIT_SECRET_FILES. Raises Unavailable.

    Symbolic links are followed before the directory is judged: mounted secrets are links.
    """
    path = Path(os.path.realpath(place))
    allowed = [Path(os.path.realpath(directory)) for directory in settings.CONDUIT_SECRET_FILES]
    if not any(path.is_relative_to(directory) for directory in allowed):
        listed = ", ".join(settings.CONDUIT_SECRET_FILES) or "none"
        raise Unavailable(
            f"The file is not below a directory of CONDUIT_SECRET_FILES ({listed}).",
            "Add its directory there, or mount it below one of these.",
        )
    if any(path == own or path.is_relative_to(own) for own in _own_places()):
        raise Unavailable("It holds a secret of Conduit itself.", "Name a file of the provider's secret alone.")
    try:
        # A named pipe in its place must not hang the thread.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable_file(error) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Unavailable("It is not a regular file.", "Name a file.")
        return os.read(handle, MAX_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable_file(error) from None
    finally:
        os.close(handle)


def _own_places() -> list[Path]:
    """The data directory and whatever a variable NAME_FILE names: where containers get all their secrets from one
    directory, the key-encryption key lies beside the providers' keys, and nobody may have it sent anywhere."""
    named = [text for name, text in os.environ.items() if name.endswith("_FILE") and os.path.exists(text)]
    return [Path(os.path.realpath(place)) for place in (str(settings.CONDUIT_HOME), *named)]


def _unreadable_file(error: Exception) -> Unavailable:
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "It is not text in UTF-8."
    return Unavailable(reason, "Put the file there, readable for Conduit's user.")


def _vault(place: str) -> str:
    path, _, field = place.partition("#")
    mount, _, name = path.partition("/")
    address = settings.CONDUIT_VAULT_ADDR
    if not address:
        raise Unavailable("No Vault is set up.", "Set CONDUIT_VAULT_ADDR, and a token or an AppRole.")
    try:
        found = _client(address, settings.CONDUIT_VAULT_NAMESPACE).read(f"{mount}/data/{name}").get("data")
    except VaultMissing:
        raise Unavailable(
            f"Vault has nothing at {path}.", "Check mount and path; the mount must be KV version 2."
        ) from None
    except VaultDenied as error:
        raise Unavailable(str(error), f"Its policy must allow to read {mount}/data/{name}.") from None
    except (VaultError, ConfigurationError) as error:
        raise Unavailable(str(error), "") from None
    value = found.get(field) if isinstance(found, dict) else None
    if not isinstance(value, str):
        raise Unavailable(f"The secret at {path} has no text named {field}.", "Check the field's name after #.")
    return value.strip()


@lru_cache(maxsize=4)
def _client(address: str, namespace: str) -> VaultClient:
    """One for the process: it keeps its token alive. Raises ConfigurationError."""
    return VaultClient(address, namespace)


def _aws(place: str) -> str:
    """botocore is loaded only where it is used."""
    read: Callable[[str], str] = import_module("providers.aws").read_secret
    return read(place).strip()


_READERS: Mapping[str, Callable[[str], str]] = {"env": _env, "file": read_file, "vault": _vault, "aws-sm": _aws}
secrets: Kept[str, str] = Kept(_read, seconds=SECONDS + 0.5, grace=GRACE_SECONDS, group=_scheme)
