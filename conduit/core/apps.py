from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "conduit.core"
    label = "core"

    def ready(self) -> None:
        import_module("conduit.checks")  # registers the system checks; they need the models to be loaded
