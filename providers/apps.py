from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "providers"

    def ready(self) -> None:
        import_module("providers.vault")  # registers what a change of key-encryption keys rewraps
