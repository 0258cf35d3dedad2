"""`make bench [GATEWAYS="nginx portkey"]`: measures this checkout on the rig of README.md and prints the tables.

Installs the rig's tools (wrk, nginx, Node) with the system's package manager where this runs as root on Debian or
Ubuntu, and says what is missing otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TOOLS = {"wrk": "wrk", "nginx": "nginx", "node": "nodejs", "curl": "curl", "taskset": "util-linux"}


def missing() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def install() -> None:
    lacking = missing()
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = sorted({TOOLS[tool] for tool in lacking})
        print(f"installing {' '.join(packages)} ...", file=sys.stderr)
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=False, stdout=subprocess.DEVNULL)
    if missing():
        sys.exit(f"make bench needs {', '.join(missing())}: install them and try again")
    if (os.cpu_count() or 1) < 2:
        sys.exit("make bench needs two cores: one for the gateway, one for load and upstream")


def main() -> int:
    install()
    gateways = sys.argv[1:] or os.environ.get("GATEWAYS", "").split() or ["bare-asgi", "conduit"]
    environment = {**os.environ, "CONDUIT_DIR": str(FOLDER.parent)}
    return subprocess.run(["bash", str(FOLDER / "run.sh"), *gateways], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
