from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from usage import api as resources
from usage import (
    catalogue_api,
    explorer_page,
    key_review_api,
    leaks_api,
    request_page,
    uncertain_api,
    version_use_api,
    views,
)

api: list[URLPattern | URLResolver] = [
    path("usage/events", resources.Events.as_view()),
    path("usage/summary", resources.Summary.as_view()),
    path("usage/export", resources.Export.as_view()),
    path("requests/<str:request_id>", resources.OneRequest.as_view()),
    path("credentials/<str:id>/use", version_use_api.CredentialUse.as_view()),
    path("prices", resources.Prices.as_view()),
    path("models", catalogue_api.Models.as_view()),
    path("models/<str:id>", catalogue_api.OneModel.as_view()),
    path("ledger/verify", resources.LedgerVerify.as_view()),
    path("keys/identify", leaks_api.Identify.as_view()),
    path("keys/review", key_review_api.ReviewKeys.as_view()),
    path("keys/<uuid:key_id>/blast-radius", leaks_api.BlastRadius.as_view()),
    path("keys/<uuid:key_id>/replace", leaks_api.ReplaceKey.as_view()),
    path("keys/<uuid:key_id>/shrink", key_review_api.ShrinkKey.as_view()),
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
