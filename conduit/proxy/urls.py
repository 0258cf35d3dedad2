from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conduit.proxy.simulation_api import Simulate

api: list[URLPattern | URLResolver] = [path("simulate", Simulate.as_view())]
