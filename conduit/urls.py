"""All paths but the proxy's (conduit/proxy/paths.py): management API, console, schema, sign-in."""

from __future__ import annotations

from django.urls import include, path

from conduit.access import urls as access
from conduit.console import urls as console
from conduit.core import urls as core
from conduit.proxy import urls as proxy
from keys import urls as keys
from providers import urls as providers
from usage import urls as usage

urlpatterns = [
    path("api/v1/", include([*access.api, *keys.api, *providers.api, *usage.api, *proxy.api])),
    path("", include([*core.pages, *access.pages, *console.pages, *keys.pages, *providers.pages, *usage.pages])),
]
