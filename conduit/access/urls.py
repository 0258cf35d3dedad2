from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conduit.access import api as api_views
from conduit.access import audit_api, keks_api

api: list[URLPattern | URLResolver] = [
    path("tokens", api_views.Tokens.as_view()),
    path("tokens/<uuid:token_id>", api_views.OneToken.as_view()),
    path("users", api_views.Users.as_view()),
    path("users/<uuid:user_id>", api_views.OneUser.as_view()),
    path("audit", audit_api.Audit.as_view()),
    path("audit/verify", audit_api.Verify.as_view()),
    path("audit/export", audit_api.Export.as_view()),
    path("keks", keks_api.Keks.as_view()),
    path("keks/progress", keks_api.KeksProgress.as_view()),
    path("keks/<str:kek_id>/rotate", keks_api.RotateKek.as_view()),
    path("keks/<str:kek_id>/retire", keks_api.RetireKek.as_view()),
    path("keks/purposes/<str:purpose>/rotate", keks_api.RotatePurpose.as_view()),
]
pages: list[URLPattern | URLResolver] = []
