from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "conduit.access"
    label = "access"

    def ready(self) -> None:
        import_module("conduit.access.schema")  # drf-spectacular finds extensions that were imported
