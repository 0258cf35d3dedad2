from __future__ import annotations

from django.apps import AppConfig

from conduit.core import budgeting


class KeysConfig(AppConfig):
    name = "keys"

    def ready(self) -> None:
        from keys import budget_specs, budgets, representation  # noqa: PLC0415 (the models are loaded by now)

        budgeting.register(
            budgeting.Keeper(
                parse=budget_specs.parse_specs,
                put=budgets.set_budgets,
                remove=budgets.remove_budgets,
                bodies=representation.of_owner,
            )
        )
