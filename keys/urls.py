from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from keys import api as api_views
from keys import budgets_api, issuing, leases_api, rotation, views

api: list[URLPattern | URLResolver] = [
    path("keys", api_views.Keys.as_view()),
    path("keys/<uuid:key_id>", api_views.OneKey.as_view()),
    path("keys/<uuid:key_id>/disable", api_views.KeyStep.as_view(step=issuing.disable_key)),
    path("keys/<uuid:key_id>/enable", api_views.KeyStep.as_view(step=issuing.enable_key)),
    path("keys/<uuid:key_id>/expire", api_views.KeyStep.as_view(step=issuing.expire_key)),
    path("keys/<uuid:key_id>/revoke", api_views.KeyStep.as_view(step=issuing.revoke_key)),
    path("keys/<uuid:key_id>/rotate", api_views.RotateKey.as_view()),
    path("keys/<uuid:key_id>/finish", api_views.KeyStep.as_view(step=rotation.finish_rotation)),
    path("keys/<uuid:key_id>/extend", api_views.ExtendKey.as_view()),
    path("keys/<uuid:key_id>/versions", api_views.KeyVersions.as_view()),
    path("keys/<uuid:key_id>/budgets", budgets_api.KeyBudgets.as_view()),
    path("teams", api_views.Teams.as_view()),
    path("teams/<uuid:team_id>", api_views.OneTeam.as_view()),
    path("customers", api_views.Customers.as_view()),
    path("customers/<path:name>", api_views.OneCustomer.as_view()),
    path("budgets", budgets_api.Budgets.as_view()),
    path("budgets/<uuid:budget_id>", budgets_api.OneBudget.as_view()),
    path("budgets/<uuid:budget_id>/raise", budgets_api.RaiseBudget.as_view()),
    path("budgets/<uuid:budget_id>/raises/<int:raise_id>", budgets_api.OneRaise.as_view()),
    path("leases", leases_api.Leases.as_view()),
    path("workers", leases_api.Workers.as_view()),
    path("workers/<uuid:worker_id>/release", leases_api.ReleaseWorker.as_view()),
]
pages: list[URLPattern | URLResolver] = [
    path("keys/<uuid:key_id>/disable", views.key_disable, name="key-disable"),
    path("keys/<uuid:key_id>/enable", views.key_enable, name="key-enable"),
    path("keys/<uuid:key_id>/revoke", views.key_revoke, name="key-revoke"),
    path("keys/<uuid:key_id>/delete", views.key_delete, name="key-delete"),
    path("keys/<uuid:key_id>/finish", views.key_finish, name="key-finish"),
    path("keys/<uuid:key_id>/extend", views.key_extend, name="key-extend"),
    path("keys/<uuid:key_id>/expire", views.key_expire, name="key-expire"),
    path("budgets/raises/<int:raise_id>/end", views.raise_end, name="raise-end"),
]
