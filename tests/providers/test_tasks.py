"""The daily tasks note what they find, and one bad credential never hides another."""

from __future__ import annotations

from datetime import timedelta

import pytest

from conduit.celery import SCHEDULE, app
from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.secret import Secret
from providers import credentials, providers, tasks
from providers.models import CatalogueModel, Credential, CredentialVersion
from tests.providers.conftest import Scripted

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
pytestmark = pytest.mark.django_db


def test_each_enabled_credential_is_checked_and_its_health_noted(upstream: Scripted) -> None:
    provider = providers.add_provider(actor=ALICE, name="House", kind="custom", base_url=upstream.url)
    for name in ("broken", "fine", "off", "old"):
        fields = {"api_key": Secret(f"sk-{name}-0123456789abcdef")}
        credentials.add_credential(provider, actor=ALICE, name=name, fields=fields, verify=False)
    CredentialVersion.objects.filter(credential__name="broken").update(kek_id="GONE")
    Credential.objects.filter(name="off").update(enabled=False)
    Credential.objects.filter(name="old").update(expires_at=now() - timedelta(days=1))
    tasks.verify_credentials()
    assert [headers["authorization"] for _, headers in upstream.seen] == ["Bearer sk-fine-0123456789abcdef"]
    assert Credential.objects.get(name="fine").last_verified_at is not None
    assert "GONE" in Credential.objects.get(name="broken").last_error
    upstream.says(401, '{"error":{"message":"revoked"}}')
    tasks.verify_credentials()
    assert "revoked" in Credential.objects.get(name="fine").last_error


def test_the_catalogue_task_fills_the_table() -> None:
    CatalogueModel.objects.all().delete()
    tasks.sync_catalogue()
    tasks.sync_catalogue()
    assert CatalogueModel.objects.filter(vendor="openai", name="gpt-4o").count() == 1


def test_both_tasks_are_known_to_celery_and_scheduled() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in SCHEDULE.values()}
    for name in ("providers.tasks.verify_credentials", "providers.tasks.sync_catalogue"):
        assert name in app.tasks
        assert name in scheduled
