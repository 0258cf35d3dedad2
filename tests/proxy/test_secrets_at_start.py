"""A gateway that starts, or hears of a new credential, reads what it needs at once, not at its next tick."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from providers import supply
from providers.credentials import add_credential
from providers.models import Provider
from providers.providers import add_provider
from providers.references import parse_reference
from tests.harness.clouds import CLIENT, CLIENT_SECRET, TENANT, Clouds, running_clouds
from tests.harness.gateway import serving, wait_for


@pytest.fixture
def clouds(committed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    """Its token service takes its time."""
    from django.conf import settings

    monkeypatch.setattr(settings, "CONDUIT_SECRET_FILES", [str(tmp_path)], raising=False)
    monkeypatch.setattr(settings, "CONDUIT_EGRESS_ALLOW", ["127.0.0.1"], raising=False)
    monkeypatch.setattr("conduit.proxy.gateway.TICK_SECONDS", 3600.0)
    shutil.rmtree(settings.JOURNAL_DIR, ignore_errors=True)
    settings.STATIC_ROOT.mkdir(exist_ok=True)
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    with running_clouds() as running:
        token = running.token

        def slowly(path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
            time.sleep(0.7)
            return token(path, form)

        monkeypatch.setattr(running, "token", slowly)
        yield running


def signing_in(clouds: Clouds, folder: Path, name: str, client: str = CLIENT) -> Provider:
    """An application of Entra ID whose client secret lies in a file: the file is read, then a token is minted."""
    options = {"authority": clouds.url}
    provider = add_provider(
        actor=SYSTEM, name=name, kind="azure_openai", base_url=f"{clouds.url}/openai/v1", options=options
    )
    fields = {
        "tenant_id": Secret(TENANT),
        "client_id": Secret(client),
        "client_secret": parse_reference("client_secret", f"file:{folder}/secret"),
    }
    add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
    return provider


def test_a_token_from_a_secret_elsewhere_is_there_when_the_gateway_is_ready_and_at_once_later(
    clouds: Clouds, tmp_path: Path
) -> None:
    from conduit.asgi import Application

    before = signing_in(clouds, tmp_path, "before")
    supply.forget()
    app = Application()
    with serving(app):
        (serves,) = app.gateway.snapshot.routing.providers[before.id].credentials
        assert serves.secrets["access_token"] == clouds.tokens[0]
        options = {"auth": "bearer"}
        later = add_provider(actor=SYSTEM, name="later", kind="custom", base_url=f"{clouds.url}/v1", options=options)
        (tmp_path / "later").write_text("sk-later-0123456789abcdef")
        reference = {"api_key": {"from": f"file:{tmp_path}/later"}}
        add_credential(later, actor=SYSTEM, name="main", fields=reference, verify=False)
        wait_for(lambda: later.id in app.gateway.snapshot.routing.providers, 30)
        wait_for(lambda: bool(app.gateway.snapshot.routing.providers[later.id].credentials), 30)
