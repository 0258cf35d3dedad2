"""A child process of the supervisor: started in its own group, stopped by signal, gone when the supervisor is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from conduit.engines.accounts import Account, become

PR_SET_PDEATHSIG = 1
BACKOFF_FIRST, BACKOFF_MOST, BACKOFF_FORGET = 0.5, 30.0, 60.0  # seconds


@dataclass(frozen=True)
class Program:
    """What to run. `death` is sent to it when the supervisor dies; `sockets` are descriptors it inherits."""

    name: str
    argv: Sequence[str]
    cwd: Path
    death: signal.Signals = signal.SIGKILL
    stop: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=dict)
    output: IO[bytes] | None = None
    sockets: tuple[int, ...] = ()
    account: Account | None = None
    background: bool = False  # started once the installation is ready


def _before_exec(program: Program, parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def run() -> None:
        if program.account is not None:
            become(program.account)
        if libc is not None:
            # After the change of account, which clears it. macOS knows no such thing: children survive a kill there.
            libc.prctl(PR_SET_PDEATHSIG, int(program.death), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)  # the parent died before the line above took effect

    return run


def spawn(program: Program, *, capture: bool = False) -> subprocess.Popen[bytes]:
    """Starts the program in a process group of its own, so that the terminal's Ctrl-C reaches the supervisor alone.

    What it prints goes to our standard error: standard output is the supervisor's own. `capture` pipes its standard
    output to the caller.
    """
    return subprocess.Popen(
        list(program.argv),
        cwd=program.cwd,
        env={**os.environ, **program.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else program.output or sys.stderr.fileno(),
        stderr=program.output,
        pass_fds=program.sockets,
        process_group=0,
        preexec_fn=_before_exec(program, os.getpid()),  # noqa: PLW1509 (the supervisor has one thread)
    )


def end(process: subprocess.Popen[bytes], how: signal.Signals, seconds: float) -> bool:
    """Signals the process and waits; after `seconds` kills its whole group. False when it had to be killed."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return False
    return True


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the process and everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Child:
    """One supervised program with its restarts."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.failures = 0
        self.due = 0.0

    def start(self) -> None:
        self.process = spawn(self.program)
        self.started_at = time.monotonic()

    def exited(self) -> int | None:
        """The exit status when the program has ended by itself since `start`, else None."""
        return None if self.process is None else self.process.poll()

    def plan_restart(self) -> float:
        """Forgets the ended process; returns the seconds until the next start, doubled with each quick failure."""
        now = time.monotonic()
        self.failures = 0 if now - self.started_at > BACKOFF_FORGET else self.failures + 1
        delay: float = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** max(0, self.failures - 1))
        self.process, self.due = None, now + delay
        return delay
