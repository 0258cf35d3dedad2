"""The ASGI entry: proxy paths to the lean handler, everything else to Django (design 2)."""

from __future__ import annotations

import os
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
django.setup(set_prefix=False)

from django.core.handlers.asgi import ASGIHandler  # noqa: E402 (after setup)

from conduit.core.source_address import behind_proxies  # noqa: E402
from conduit.proxy import paths  # noqa: E402
from conduit.proxy.asgi import PROBES, Probes, ProxyHandler, Receive, Scope, Send  # noqa: E402
from conduit.proxy.gateway import Gateway  # noqa: E402


class Application:
    """Owns the worker's gateway through the lifespan protocol."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self._proxy = ProxyHandler(self.gateway)
        self._probes = Probes(self.gateway)
        self._django: Any = ASGIHandler()

    def end_soon(self) -> None:
        self.gateway.end_soon()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = behind_proxies(scope)
            path: str = scope["path"]
            if paths.is_proxy(path):
                await self._proxy(scope, receive, send)
            elif path in PROBES:
                await self._probes(scope, receive, send)
            else:
                await self._django(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.gateway.start()
        except Exception as error:  # noqa: BLE001 (told to the server, which ends the worker with it)
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})


def __getattr__(name: str) -> Any:
    """`application`, made when a server asks for it: importing this module opens nothing."""
    if name == "application":
        return Application()
    raise AttributeError(name)
