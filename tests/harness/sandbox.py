"""The sandbox provider as a real process on a free port, with an invoice of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-sandbox-test"


class RunningSandbox(NamedTuple):
    """`url` without a path; `invoice` the file; `pid` of the process."""

    url: str
    invoice: Path
    pid: int


@contextmanager
def running_sandbox(folder: Path | None = None, faults: dict[str, object] | None = None) -> Iterator[RunningSandbox]:
    """Starts it, and ends it afterwards. `faults` hold for every request (SANDBOX_FAULTS)."""
    with tempfile.TemporaryDirectory() as spare:
        invoice = (folder or Path(spare)) / "invoice.jsonl"
        command = [sys.executable, "-m", "providers.sandbox", "--port", "0", "--invoice", str(invoice)]
        environment = {**os.environ, "SANDBOX_FAULTS": json.dumps(faults or {})}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        with process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("sandbox: "), f"the sandbox did not start: {line!r}"
                yield RunningSandbox(line.split()[1], invoice, process.pid)
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
