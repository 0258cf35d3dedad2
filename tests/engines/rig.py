"""`python -m tests.engines.rig`: the real supervisor, engines and web process around an application of a few lines.

So that the supervisor's own behaviour is tested in a second and without the rest of Conduit. Every path answers with
the length of the body, /slow after two seconds, /begun with its body three seconds after its head.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from conduit.engines import supervisor
from conduit.engines.processes import Program

ROOT = Path(__file__).resolve().parents[2]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(2)
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    body = str(length).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    if scope["path"] == "/begun":
        await asyncio.sleep(3)
    await send({"type": "http.response.body", "body": body})


def programs(listener: int) -> list[list[Program]]:
    web = [sys.executable, "-P", "-m", "conduit.engines.web", str(listener), "tests.engines.rig:application"]
    idle = [sys.executable, "-c", "import time; time.sleep(600)"]
    return [
        [Program(f"web-{number}", web, ROOT, sockets=(listener,)) for number in range(1, 3)],
        [Program("idle", idle, ROOT)],
    ]


if __name__ == "__main__":
    os.chdir("/")  # nothing may depend on the directory it is started from
    sys.exit(supervisor.main(supervisor.Plan("tests.engines.rig_preparation", programs)))
