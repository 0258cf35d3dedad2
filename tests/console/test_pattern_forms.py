"""Routes with patterns in the console: their form, those that a new provider brings, and what snippets show instead."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from providers.models import Provider, Route, Target
from tests.console.conftest import World
from tests.harness.stub_upstream import Said, stub_upstream


def target(provider: Provider, model: str) -> dict[str, Any]:
    aim = {"target_provider": str(provider.id), "target_model": model, "target_weight": "100", "target_priority": "0"}
    return aim | {"strategy": "priority", "enabled": "on"}


def test_a_pattern_is_saved_and_shown_as_such(world: World, owner: Client) -> None:
    assert owner.post("/routes/new", target(world.provider, "*") | {"name": "gpt-*"}).status_code == 303
    route = Route.objects.get(name="gpt-*")
    assert [one.model for one in route.targets.all()] == ["*"]
    assert 'value="*"' in owner.get(f"/routes/{route.id}").content.decode()
    assert "gpt-*" in owner.get("/routes").content.decode()
    for fields, place in (({"name": "a*b"}, "name"), ({"name": "plain"}, "model-0")):
        answer = owner.post("/routes/new", target(world.provider, "*") | fields)
        assert (answer.status_code, list(answer.context["errors"])) == (422, [place])


def test_a_new_providers_models_are_routed_when_that_is_ticked(world: World, owner: Client, settings: Any) -> None:
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    with stub_upstream(lambda asked: Said(body=json.loads('{"data": [], "models": []}'))) as stub:
        form = {"name": "claude", "base_url": stub.url, "credential": "main", "field-api_key": "sk-ant-0123456789"}
        assert "claude-*" in owner.get("/providers/new?kind=anthropic").content.decode()
        assert owner.post("/providers/new?kind=anthropic", form | {"routes": "on"}).status_code == 303
        (aim,) = Route.objects.get(name="claude-*").targets.all()
        assert (aim.provider.name, aim.model) == ("claude", "*")
        assert "claude-*" not in owner.get("/providers/new?kind=anthropic").content.decode(), "it is taken"
        assert owner.post("/providers/new?kind=gemini", form | {"name": "g"}).status_code == 303
        assert not Route.objects.filter(name="gemini-*").exists(), "not ticked, not made"


def test_no_snippet_asks_for_a_pattern(world: World, owner: Client) -> None:
    Route.objects.filter(id=world.route.id).update(name="gpt-*")
    page = owner.post("/keys/new", {"name": "app"}).content.decode()
    assert "gpt-*" not in page.partition("curl")[2]


def test_a_target_of_a_pattern_route_is_priced_by_the_model_asked_for(world: World, owner: Client) -> None:
    """It has no price of its own, and none is missing."""
    Target.objects.create(route=Route.objects.create(name="gpt-*"), position=0, provider=world.provider, model="*")
    page = owner.get(f"/providers/{world.provider.id}").content.decode()
    row = page[page.index('<th scope="row">*</th>') :].partition("</tr>")[0]
    assert "of the model asked for" in row
    assert "unpriced" not in row


def test_the_form_shows_what_a_kind_needs_and_says_which_fields_go_together(owner: Client) -> None:
    page = owner.get("/providers/new?kind=cloudflare").content.decode()
    assert page.index('name="option-account"') < page.index('<h2 id="p2">Credential</h2>')
    field = page[page.index('for="option-account"') :].partition("</div>")[0]
    assert "required" in field
    assert "optional" not in field
    assert '<details class="mt-3" id="options">' not in page
    bedrock = owner.get("/providers/new?kind=bedrock").content.decode()
    assert "exactly one of: API key, or Access key id with Secret access key" in bedrock
