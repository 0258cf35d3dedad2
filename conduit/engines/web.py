"""One web process: uvicorn on the listening socket that the supervisor opened.

`python -m conduit.engines.web FD` serves conduit.asgi:application until SIGTERM: then it takes no more connections,
lets answers in flight end (30 s) and runs the application's lifespan shutdown.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys

import uvicorn

from conduit.core.errors import ConfigurationError
from conduit.core.logs import configure
from conduit.engines.deadlines import DeadlineProtocol, sweep

DRAIN_SECONDS = 30
KEEP_ALIVE_SECONDS = 75  # longer than the usual load balancer's 60, so that it is never us who closes first


class WebServer(uvicorn.Server):
    """uvicorn with client deadlines, and a garbage collector that ignores what was there at start."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # Everything imported so far lives for ever: collect once, then never look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end_soon = getattr(self.config.loaded_app, "end_soon", None)
        if end_soon is not None:
            end_soon()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            sweep(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)


def config(application: str, protocol: type[DeadlineProtocol] = DeadlineProtocol) -> uvicorn.Config:
    """How Conduit runs uvicorn."""
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def main(argv: list[str]) -> int:
    application = argv[2] if len(argv) > 2 else "conduit.asgi:application"
    try:
        configure()
        settings = config(application)
        settings.load()
    except ConfigurationError as error:
        sys.stderr.write(f"conduit: {error}\n")
        return 1
    WebServer(settings).run(sockets=[socket.socket(fileno=int(argv[1]))])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
