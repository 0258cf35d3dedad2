"""A whole gateway for tests: the real ASGI application under uvicorn on a loopback socket, in a thread of its own,
with the real sandbox provider as upstream, and the ledger applied on demand.

Rows are committed to the worker's database (which the plugin's teardown restores), so that the application's own
connections see them.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from conduit.engines import web
from conduit.engines.deadlines import DeadlineProtocol
from tests.harness import sandbox as sandbox_process
from tests.harness.invoice import read_lines
from tests.harness.sandbox import RunningSandbox

SANDBOX_MODELS = (
    "sandbox-echo",
    "sandbox-lorem",
    "sandbox-dear",
    "sandbox-tools",
    "sandbox-think",
    "sandbox-json",
    "sandbox-embed",
)


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    """Polls until it is true; an AssertionError when it does not become so in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def early_in_the_minute(seconds: float = 12) -> None:
    """Rates count calendar minutes: whoever needs so many seconds of one waits for the next where fewer are left."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.5)


@dataclass
class RunningGateway:
    """`url` has no path. `app` is the application object, for a look inside."""

    url: str
    sandbox: RunningSandbox
    app: Any
    raw_key: str = ""
    _shipper: Any = field(default=None, repr=False)

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {key or self.raw_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=False, **options)

    def chat(
        self, text: str = "hello", *, key: str | None = None, headers: Any = None, **fields: Any
    ) -> httpx.Response:
        body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": text}], **fields}
        with self.client(key) as client:
            return client.post("/v1/chat/completions", json=body, headers=headers)

    def key(self, **fields: Any) -> str:
        """A new virtual key with these limits; visible to the gateway when this returns."""
        from conduit.core.actor import SYSTEM
        from keys.issuing import create_key

        _, raw = create_key(actor=SYSTEM, name=f"key-{time.monotonic_ns()}", **fields)
        return raw.reveal()

    def sold(self) -> int:
        """Lines of the provider's invoice: it has one more as soon as a request that it answers slowly is there."""
        return len(read_lines(self.sandbox.invoice))

    def ship(self) -> None:
        """Applies everything the gateway has journalled so far to the ledger."""
        if self._shipper is None:
            from django.conf import settings

            from usage.node import node_id
            from usage.shipping import Shipper

            self._shipper = Shipper(settings.JOURNAL_DIR, node_id())
        self._shipper.once()

    def refresh(self) -> None:
        """Returns once the gateway works from the configuration that is committed now."""
        from conduit.core.models import Epoch

        wanted = Epoch.objects.values("snapshot", "keys").get(id=1)
        known = self.app.gateway._watcher._epochs
        wait_for(lambda: all(known[name] >= epoch for name, epoch in wanted.items()))

    def route(self, name: str, *targets: tuple[Any, str], **fields: Any) -> Any:
        """A route over (provider, model) targets, the first with the first priority."""
        from providers.models import Route, Target

        route = Route.objects.create(name=name, **fields)
        for place, (provider, model) in enumerate(targets):
            Target.objects.create(route=route, position=place, priority=place, provider=provider, model=model)
        self.refresh()
        return route

    def provider(self, name: str) -> Any:
        from providers.models import Provider

        return Provider.objects.get(name=name)

    def events(self, request_id: str, count: int = 1) -> list[Any]:
        """The request's usage events in order, once there are `count` of them: an answer's last byte reaches the client
        a moment before its attempt is journalled."""
        from usage.models import UsageEvent

        found: list[Any] = []

        def there() -> bool:
            self.ship()
            found[:] = UsageEvent.objects.filter(request_id=request_id).order_by("attempt")
            return len(found) >= count

        wait_for(there)
        return found

    def event(self, answer: httpx.Response) -> Any:
        """The one usage event of an answered request."""
        (event,) = self.events(answer.headers["x-request-id"])
        return event


class _Server(web.WebServer):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Without the settings of the garbage collector, which the tests share."""
        await uvicorn.Server.startup(self, sockets=sockets)

    def install_signal_handlers(self) -> None:
        """The test's main thread keeps its own."""


@contextmanager
def serving(app: Any, protocol: type[DeadlineProtocol] = DeadlineProtocol) -> Iterator[str]:
    """The application on a free loopback port, under the server class that `conduit up` runs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    config = web.config("conduit.asgi:application", protocol)
    config.app = app
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            assert time.monotonic() < deadline, "the gateway did not start in time"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(40)
        listener.close()


def sandbox_provider(name: str, sandbox: RunningSandbox, dialect: str = "openai", prefix: str = "") -> Any:
    """A provider of kind `sandbox` in one wire format, with a credential, and a route for each of its models."""
    from conduit.core.actor import SYSTEM
    from conduit.core.secret import Secret
    from providers.credentials import add_credential
    from providers.models import Provider, Route, Target

    provider = Provider.objects.create(name=name, kind="sandbox", options={"dialect": dialect})
    fields = {"api_key": Secret(sandbox_process.KEY)}
    add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
    for model in SANDBOX_MODELS:
        route = Route.objects.create(name=prefix + model)
        Target.objects.create(route=route, position=0, provider=provider, model=model)
    return provider


@contextmanager
def running_gateway(
    folder: Path, faults: dict[str, object] | None = None, *, allow: Sequence[str] = (), breakers: bool = False
) -> Iterator[RunningGateway]:
    """Everything, with routes `sandbox-*` (OpenAI wire), `anthropic/sandbox-*` and `gemini/sandbox-*`.

    Without `breakers` a target is asked however often it failed: most tests script failures at one and the same.
    """
    from django.conf import settings
    from django.test import override_settings

    from conduit.asgi import Application
    from providers.catalogue_sync import sync_models
    from usage.price_sync import sync_prices

    with (
        sandbox_process.running_sandbox(folder, faults) as sandbox,
        override_settings(
            CONDUIT_SANDBOX=True,
            SANDBOX_URL=sandbox.url,
            SANDBOX_PORT=int(sandbox.url.rsplit(":", 1)[1]),
            CONDUIT_EGRESS_ALLOW=list(allow),
        ),
    ):
        # A journal of a former gateway would be applied to this one's database, which is another.
        shutil.rmtree(settings.JOURNAL_DIR, ignore_errors=True)
        settings.STATIC_ROOT.mkdir(exist_ok=True)
        sync_models()
        sync_prices()
        sandbox_provider("sandbox", sandbox)
        sandbox_provider("sandbox-anthropic", sandbox, "anthropic", "anthropic/")
        sandbox_provider("sandbox-gemini", sandbox, "gemini", "gemini/")
        app = Application()
        if not breakers:
            app.gateway.health.failures = 0
        with serving(app) as url:
            gateway = RunningGateway(url, sandbox, app)
            gateway.raw_key = gateway.key()
            yield gateway
