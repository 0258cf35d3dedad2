"""A provider's page tells which of its models the workers leave alone, and why."""

from __future__ import annotations

import time

from django.test import Client

from conduit.core import live
from conduit.core.ids import uuid7
from providers.errors import Overloaded
from providers.health import FAILURES, Health
from tests.console.conftest import World

LEFT_ALONE = "is left alone"


def page(owner: Client, world: World) -> str:
    return owner.get(f"/providers/{world.provider.id}").content.decode()


def test_what_a_worker_leaves_alone_is_on_its_providers_page(world: World, owner: Client) -> None:
    assert LEFT_ALONE not in page(owner, world)
    health, quiet = Health(), Health()
    for failure in range(FAILURES):
        health.failed((world.provider.id, "gpt-5.2"), world.credential.id, Overloaded(f"no <{failure}>", status=503))
    for one in (health, quiet):
        live.report(uuid7(), kind="web", node="n", pid=1, targets=one.report())
    shown = page(owner, world)
    assert "Model gpt-5.2 is left alone" in shown
    assert "It failed 5 times in a row, last with: no &lt;4&gt; 1 of 2 workers pass it over" in shown


def test_a_report_has_the_instant_of_the_next_try(world: World) -> None:
    health = Health()
    assert health.report() == []
    for _ in range(FAILURES):
        health.failed((world.provider.id, "m"), world.credential.id, Overloaded("no", status=503))
    (told,) = health.report()
    assert 0 < told["until"] - time.time() <= 11
    assert (told["provider"], told["model"], told["failures"]) == (str(world.provider.id), "m", FAILURES)
