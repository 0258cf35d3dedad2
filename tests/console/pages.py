"""Every page of the console with the resource it shows, and a look at its markup."""

from __future__ import annotations

from html.parser import HTMLParser

from keys.models import Budget
from tests.console.conftest import World

Page = tuple[str, str, bool]  # path, resource, whether it is for those who write


def pages(world: World) -> list[Page]:
    alice, provider, route = world.alice_key.id, world.provider.id, world.route.id
    credential = world.credential.id
    ids = {event.request_id: None for event in world.events}
    return [
        ("/", "usage", False),
        ("/?range=7d", "usage", False),
        ("/?range=month", "usage", False),
        ("/keys", "keys", False),
        ("/keys?state=active&q=support", "keys", False),
        ("/keys/new", "keys", True),
        ("/keys/new/budget", "keys", True),
        ("/keys/leak", "keys", False),
        ("/keys/review", "keys", False),
        ("/keys/review?days=7", "keys", False),
        (f"/keys/{alice}", "keys", False),
        (f"/keys/{alice}/edit", "keys", True),
        (f"/keys/{alice}/first-request", "usage", False),
        ("/budgets", "budgets", False),
        ("/budgets?of=customers", "budgets", False),
        ("/budgets?of=providers", "budgets", False),
        ("/budgets/raise", "budgets", True),
        (f"/budgets/raise?budget={Budget.objects.get(owner_id=alice).id}", "budgets", True),
        ("/providers", "providers", False),
        (f"/providers/{provider}", "providers", False),
        (f"/providers/{provider}/limits", "providers", True),
        ("/providers/new", "providers", True),
        ("/providers/new?kind=custom", "providers", True),
        ("/credentials", "credentials", False),
        ("/credentials/new", "credentials", True),
        (f"/credentials/new?provider={provider}", "credentials", True),
        ("/credentials?show=attention", "credentials", False),
        ("/credentials?show=disabled&q=main", "credentials", False),
        (f"/credentials/{credential}", "credentials", False),
        (f"/credentials/{credential}/live", "credentials", False),
        (f"/credentials/{credential}/chart", "credentials", False),
        (f"/credentials/{credential}/rotate", "credentials", True),
        (f"/credentials/{credential}/settings", "credentials", True),
        (f"/credentials/{credential}/revoke/1", "credentials", True),
        (f"/credentials/{credential}/delete", "credentials", True),
        ("/routes", "routes", False),
        ("/routes/new", "routes", True),
        ("/routes/new/target", "routes", True),
        (f"/routes/{route}", "routes", False),
        ("/requests", "requests", False),
        ("/requests?range=24h", "requests", False),
        ("/requests?range=30d&outcome=refused", "requests", False),
        ("/requests/fresh?after=1", "requests", False),
        ("/usage", "usage", False),
        ("/usage?metric=latency&group=provider&sub=model&bucket=hour&range=24h&top=10", "usage", False),
        ("/usage?metric=requests&group=key&sub=customer&bucket=month&range=custom&shape=lines", "usage", False),
        ("/usage?metric=errors&group=tag&sub=key&bucket=week&range=month&compare=4w", "usage", False),
        (f"/usage?group=credential&sub=team&shape=sum&compare=&key={alice}", "usage", False),
        ("/usage?range=last-month&group=endpoint", "usage", False),
        *((f"/requests/{request_id}", "requests", False) for request_id in ids),
        ("/audit", "audit", False),
        (f"/audit?kind=key&object={alice}", "audit", False),
        ("/audit?of=sign-ins&range=all&q=nobody", "audit", False),
        ("/system", "system", False),
        ("/system/support-bundle", "system", False),
        ("/keks", "keks", False),
        ("/keks/K1/rotate", "keks", True),
        ("/keks/K1/retire", "keks", True),
        ("/first-run", "keys", True),
        ("/first-run/watch?since=1", "requests", False),
    ]


class Markup(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def offences(self) -> list[str]:
        """What the content security policy would have to forbid, or what was never written by a template."""
        found = []
        for tag, attributes in self.tags:
            found += [f"{tag} {name}" for name in attributes if name.startswith("on") or name in ("style", "hx-on")]
            if tag in ("img", "iframe", "object", "style", "base"):
                found.append(tag)
            if tag == "script" and "src" not in attributes and attributes.get("type") != "application/json":
                found.append("inline script")
            for name in ("src", "href", "action"):
                value = attributes.get(name) or ""
                if value and not value.startswith(("/", "#", "?")):
                    found.append(f"{tag} {name}={value}")
        return found
