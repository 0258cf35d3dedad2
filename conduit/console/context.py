"""The context processor behind every page: theme, navigation, version (settings name it)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from django.http import HttpRequest

from conduit.access.actors import actor_of_user
from conduit.access.models import User
from conduit.access.permissions import may
from conduit.console import navigation

THEMES = ("light", "dark")


def _version() -> str:
    try:
        return installed_version("conduit-gateway")
    except PackageNotFoundError:
        return "0.1.0"


VERSION = _version()


def shell(request: HttpRequest) -> dict[str, Any]:
    """What base.html needs. Theme and single-key choice come from cookies, so that nothing flashes."""
    theme = request.COOKIES.get("theme", "")
    context: dict[str, Any] = {
        "theme": theme if theme in THEMES else "",
        "single_keys": "off" if request.COOKIES.get("keys") == "off" else "on",
        "version": VERSION,
    }
    user = getattr(request, "user", None)
    if isinstance(user, User):
        actor = actor_of_user(user)
        context["may_write"] = may(actor, "keys", write=True)
        context["may_audit"] = may(actor, "audit", write=False)
        context["may_configure"] = may(actor, "providers", write=True)
        # A part of a page needs no sidebar; going back to a page that htmx left asks for the whole of it.
        if not request.headers.get("HX-Request") or request.headers.get("HX-History-Restore-Request"):
            current = (request.resolver_match.url_name if request.resolver_match else "") or ""
            context["navigation"] = navigation.shown(actor, current)
    return context
