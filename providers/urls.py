from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from providers import api as views
from providers import rotation_api, route_views, source_api
from providers import views as page_views

api: list[URLPattern | URLResolver] = [
    path("providers", views.Providers.as_view()),
    path("providers/<str:id>", views.OneProvider.as_view()),
    path("providers/<str:id>/test", views.ProviderTest.as_view()),
    path("providers/<str:id>/models", views.ProviderModels.as_view()),
    path("providers/<str:id>/credentials", views.Credentials.as_view()),
    path("provider-kinds", views.ProviderKinds.as_view()),
    path("credentials/<str:id>", views.OneCredential.as_view()),
    path("credentials/<str:id>/refresh", source_api.Refresh.as_view()),
    path("credentials/<str:id>/versions", views.Versions.as_view()),
    path("credentials/<str:id>/rotate", rotation_api.Rotate.as_view()),
    path("credentials/<str:id>/verify", rotation_api.Verify.as_view()),
    path("credentials/<str:id>/promote", rotation_api.Promote.as_view()),
    path("credentials/<str:id>/rollback", rotation_api.Rollback.as_view()),
    path("credentials/<str:id>/finish", rotation_api.Finish.as_view()),
    path("credentials/<str:id>/extend", rotation_api.Extend.as_view()),
    path("credentials/<str:id>/revoke", rotation_api.Revoke.as_view()),
    path("credentials/<str:id>/rotation", rotation_api.OneRotation.as_view()),
    path("routes", views.Routes.as_view()),
    path("routes/<path:name>", views.OneRoute.as_view()),
]
pages: list[URLPattern | URLResolver] = [
    path("providers/new", page_views.provider_create, name="provider-create"),
    path("providers/<uuid:provider_id>/test", page_views.provider_test, name="provider-test"),
    path("providers/<uuid:provider_id>/switch", page_views.provider_switch, name="provider-switch"),
    path("credentials/new", page_views.credential_create, name="credential-create"),
    path("routes", route_views.route_list, name="routes"),
    path("routes/new", route_views.route_create, name="route-create"),
    path("routes/new/target", route_views.target_row, name="route-target-row"),
    path("routes/<uuid:route_id>", route_views.route_edit, name="route-edit"),
    path("routes/<uuid:route_id>/delete", route_views.route_delete, name="route-delete"),
]
