"""CONDUIT_HOME/secrets/kek: lines `ID=KEY` and, where there are several, `PRIMARY=ID`; comments begin with #.

A change writes the whole file aside, with mode 0600 and the owner it had, brings it to the disk and puts it in place:
a crash leaves the old file or the new one. Lines that a change does not concern stay as they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conduit.core.errors import ConfigurationError, Conflict

PRIMARY = "PRIMARY"


@dataclass(frozen=True, slots=True)
class KekFile:
    """`keks`: id → (line number, text of the key). `primary`: empty where the file does not say."""

    keks: dict[str, tuple[int, str]]
    primary: str


def read(path: Path) -> KekFile:
    """Empty where there is no file. Raises ConfigurationError for one that others can read or that is malformed."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8") if not mode & 0o077 else ""
    except FileNotFoundError:
        return KekFile({}, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}). Correct the file.") from None
    if mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")
    return _parsed(path, text.splitlines())


def _parsed(path: Path, lines: list[str]) -> KekFile:
    keks: dict[str, tuple[int, str]] = {}
    primary = ""
    for number, line in enumerate(lines, 1):
        kek_id, equals, value = line.strip().partition("=")
        if not kek_id or kek_id.startswith("#"):
            continue
        if not equals or kek_id in keks or (kek_id == PRIMARY and primary):
            raise ConfigurationError(f"{path} line {number} must be ID=base64, each id once. Correct the line.")
        if kek_id == PRIMARY:
            primary = value.strip()
        else:
            keks[kek_id] = (number, value)
    return KekFile(keks, primary)


def add(path: Path, kek_id: str, text: str, primary: str) -> None:
    """Appends a key. The file's own PRIMARY stays; where it names none, `primary` goes on encrypting.

    Raises Conflict where the id is taken, ConfigurationError, OSError.
    """

    def change(found: KekFile, lines: list[str]) -> list[str]:
        if kek_id in found.keks:
            raise Conflict(f"{path} has a key named {kek_id} already. Choose another id.")
        return [*_without(lines, PRIMARY), f"{PRIMARY}={found.primary or primary}", f"{kek_id}={text}"]

    _rewrite(path, change)


def set_primary(path: Path, kek_id: str) -> None:
    """Raises Conflict where the file has no such key, ConfigurationError, OSError."""

    def change(found: KekFile, lines: list[str]) -> list[str]:
        if kek_id not in found.keks:
            raise Conflict(f"{path} has no key named {kek_id}, so it cannot become primary.")
        return [*_without(lines, PRIMARY), f"{PRIMARY}={kek_id}"]

    _rewrite(path, change)


def remove(path: Path, kek_id: str) -> None:
    """Raises Conflict for the file's PRIMARY, ConfigurationError, OSError."""

    def change(found: KekFile, lines: list[str]) -> list[str]:
        if kek_id == found.primary:
            raise Conflict(f"{path} names {kek_id} as {PRIMARY}. Name another key there before this one goes.")
        return _without(lines, kek_id)

    _rewrite(path, change)


def _without(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if line.strip().partition("=")[0] != name]


def _rewrite(path: Path, change: Callable[[KekFile, list[str]], list[str]]) -> None:
    owner = path.stat()
    present = path.read_text(encoding="utf-8").splitlines()
    lines = change(_parsed(path, present), present)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)  # the processes that read it run as its owner
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
