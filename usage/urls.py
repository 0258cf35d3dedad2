from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from usage import api as resources
from usage import catalogue_api, explorer_page, request_page, uncertain_api, views

api: list[URLPattern | URLResolver] = [
    path("usage/events", resources.Events.as_view()),
    path("usage/summary", resources.Summary.as_view()),
    path("usage/export", resources.Export.as_view()),
    path("requests/<str:request_id>", resources.OneRequest.as_view()),
    path("prices", resources.Prices.as_view()),
    path("models", catalogue_api.Models.as_view()),
    path("models/<str:id>", catalogue_api.OneModel.as_view()),
    path("ledger/verify", resources.LedgerVerify.as_view()),
    path("uncertain", uncertain_api.Uncertain.as_view()),
    path("uncertain/<uuid:attempt_id>/resolve", uncertain_api.ResolveAttempt.as_view()),
]
pages: list[URLPattern | URLResolver] = [
    path("usage", explorer_page.usage, name="usage"),
    path("usage/table.csv", explorer_page.usage_table, name="usage-table"),
    path("requests", views.request_list, name="requests"),
    path("requests/fresh", views.request_fresh, name="requests-fresh"),
    path("requests/<str:request_id>", request_page.request_detail, name="request-detail"),
]
