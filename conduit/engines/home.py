"""The data directory CONDUIT_HOME: who may use it, what is generated into it, and where its sockets lie."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from conduit.core.errors import ConfigurationError

# A UNIX socket's whole path must fit into sockaddr_un: 108 bytes on Linux, 104 on macOS, final NUL included.
LONGEST_SOCKET_PATH = 103
LONGEST_SOCKET_NAME = "pg/.s.PGSQL.5432"
SHORT_DIR_PREFIX = "conduit-"


class Home:
    """Paths below one CONDUIT_HOME."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "run"
        self.secrets = root / "secrets"
        self.logs = root / "logs"
        self.postgres = root / "postgres"
        self.engines_json = self.run / "engines.json"
        self.kek = self.secrets / "kek"

    def create(self) -> None:
        """Makes the directories, 0700 each. Raises ConfigurationError where that is not possible."""
        try:
            for path in (self.root, self.run, self.secrets, self.logs):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                if stat.S_IMODE(path.stat().st_mode) != 0o700:
                    path.chmod(0o700)
        except OSError as error:
            raise ConfigurationError(
                f"CONDUIT_HOME {self.root} cannot be used ({error.strerror}). "
                "Make it writable for this user or set CONDUIT_HOME."
            ) from error

    def lock(self) -> int:
        """Takes the lock that one `conduit up` holds while it lives; returns the descriptor to keep open.

        The kernel drops the lock with the process, so `kill -9` leaves nothing stale. Children do not inherit it.
        """
        descriptor = os.open(self.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise ConfigurationError(
                f"conduit up already runs on {self.root} (process {owner}). "
                "Stop it first or set CONDUIT_HOME to another directory."
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    def socket_dir(self) -> Path:
        """Where the engines put their sockets: run/, or a private short directory when run/ is too deep for one."""
        if len(os.fsencode(self.run / LONGEST_SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
            return self.run
        return Path(tempfile.mkdtemp(prefix=SHORT_DIR_PREFIX))

    def write_engines(self, urls: Mapping[str, str], sockets: Path) -> None:
        """Records the embedded engines' URLs for conduit.settings, atomically."""
        fresh = self.engines_json.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({**urls, "sockets": str(sockets)}))
        fresh.replace(self.engines_json)

    def forget_engines(self) -> None:
        """Removes engines.json and a short socket directory of this or a killed run."""
        try:
            sockets = Path(json.loads(self.engines_json.read_text())["sockets"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            sockets = self.run
        self.engines_json.unlink(missing_ok=True)
        if (
            sockets != self.run
            and sockets.name.startswith(SHORT_DIR_PREFIX)
            and sockets.parent == Path(tempfile.gettempdir())
        ):
            shutil.rmtree(sockets, ignore_errors=True)

    def generate_secrets(self, environment: Mapping[str, str]) -> None:
        """Writes the secrets that are absent; never replaces one.

        A key-encryption key is only made for an empty installation: with a database already there, a new key
        would open nothing and hide that the right one is missing.
        """
        if "DJANGO_SECRET_KEY" not in environment and "DJANGO_SECRET_KEY_FILE" not in environment:
            _write_once(self.secrets / "django_secret_key", secrets.token_urlsafe(50))
        if self.kek.exists() or any(name.startswith("CONDUIT_KEK_") for name in environment):
            return
        if (self.postgres / "PG_VERSION").exists():
            raise ConfigurationError(
                f"The key-encryption key is missing: {self.postgres} holds a database but {self.kek} is gone. "
                "Put that file back or set CONDUIT_KEK_<ID> to its key."
            )
        _write_once(self.kek, f"K1={base64.b64encode(secrets.token_bytes(32)).decode()}")


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    # Written aside and linked into place: a crash never leaves half a secret, and an existing one always wins.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        return
    finally:
        aside.unlink()
