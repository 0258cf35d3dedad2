from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conduit.console import (
    budget_pages,
    first_run,
    key_pages,
    overview,
    palette,
    provider_limits,
    provider_pages,
    system_page,
    views,
)

api: list[URLPattern | URLResolver] = []
pages: list[URLPattern | URLResolver] = [
    path("", overview.overview, name="overview"),
    path("login", views.sign_in, name="login"),
    path("logout", views.sign_out, name="logout"),
    path("palette", palette.palette, name="palette"),
    path("first-run", first_run.first_run, name="first-run"),
    path("first-run/watch", first_run.watch, name="first-run-watch"),
    path("keys", key_pages.key_list, name="keys"),
    path("keys/new", key_pages.key_create, name="key-create"),
    path("keys/new/preview", key_pages.key_preview, name="key-preview"),
    path("keys/new/budget", key_pages.key_budget_row, name="key-budget-row"),
    path("keys/<uuid:key_id>", key_pages.key_detail, name="key-detail"),
    path("keys/<uuid:key_id>/first-request", key_pages.key_first_request, name="key-first-request"),
    path("budgets", budget_pages.budget_list, name="budgets"),
    path("budgets/raise", budget_pages.budget_raise, name="budget-raise"),
    path("providers", provider_pages.provider_list, name="providers"),
    path("system", system_page.system, name="system"),
    path("system/support-bundle", system_page.bundle, name="support-bundle"),
    path("system/workers/<uuid:worker_id>/release", system_page.release, name="worker-release"),
    path("system/uncertain/<uuid:attempt_id>", system_page.resolve, name="uncertain"),
    path("providers/<uuid:provider_id>", provider_pages.provider_detail, name="provider-detail"),
    path("providers/<uuid:provider_id>/limits", provider_limits.provider_limits, name="provider-limits"),
]
