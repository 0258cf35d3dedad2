"""Which account PostgreSQL runs as when `conduit up` is root: PostgreSQL refuses root itself.

It runs as the system's `postgres` account (or one we add), and keeps exactly one Linux capability: to pass through
directories that only root may enter. The data directory is 0700 and a checkout may lie below /root, so without it
we would have to open those directories to everybody.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass

from conduit.core.errors import ConfigurationError

NAMES = ("postgres", "conduit-postgres")
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Account:
    """A system account to run as; `capability` is kept across exec, None keeps nothing."""

    uid: int
    gid: int
    capability: int | None


def for_postgres() -> Account | None:
    """The account to run PostgreSQL as, None to run it as ourselves. Raises ConfigurationError."""
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux":
        raise ConfigurationError(
            "PostgreSQL does not run as root. Run conduit up as an ordinary user, or set DATABASE_URL."
        )
    found = _existing() or _added()
    return Account(found.pw_uid, found.pw_gid, _passage())


def _existing() -> pwd.struct_passwd | None:
    for name in NAMES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _added() -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    command = [useradd or "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAMES[-1]]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=20)
        return pwd.getpwnam(NAMES[-1])
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        raise ConfigurationError(
            "PostgreSQL does not run as root and no account could be added for it. "
            f"Add one (`useradd --system {NAMES[-1]}`), run conduit up as an ordinary user, or set DATABASE_URL."
        ) from error


def _passage() -> int | None:
    """The weaker of the capabilities this process may hand on; containers often drop the read-only one."""
    with open("/proc/self/status") as status:
        permitted = next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm:"))
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if permitted & (1 << capability):
            return capability
    return None


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def become(account: Account) -> None:
    """Turns the calling process (a child between fork and exec) into `account`, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    if account.capability is not None:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    if account.capability is None:
        return
    bit = 1 << account.capability
    sets = (_Sets * 2)(_Sets(bit, bit, bit), _Sets(0, 0, 0))
    libc.capset(ctypes.byref(_Header(LINUX_CAPABILITY_VERSION_3, 0)), sets)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, account.capability, 0, 0)
