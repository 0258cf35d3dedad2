from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conduit.core import reference

api: list[URLPattern | URLResolver] = []
pages: list[URLPattern | URLResolver] = [
    path("api/schema/", reference.schema),
    path("api/docs/", reference.docs),
    path("api/<path:rest>", reference.Nowhere.as_view()),
]
