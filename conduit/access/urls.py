from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conduit.access import api as api_views

api: list[URLPattern | URLResolver] = [
    path("tokens", api_views.Tokens.as_view()),
    path("tokens/<uuid:token_id>", api_views.OneToken.as_view()),
    path("users", api_views.Users.as_view()),
    path("users/<uuid:user_id>", api_views.OneUser.as_view()),
    path("audit", api_views.Audit.as_view()),
]
pages: list[URLPattern | URLResolver] = []
