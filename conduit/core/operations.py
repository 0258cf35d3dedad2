"""How the management API's calls are named in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema


class Operations(AutoSchema):
    """`keys_list` and `keys_retrieve`: the library takes a list for one object, because a page is an object."""

    def get_operation_id(self) -> str:
        if self.method != "GET":
            named: str = super().get_operation_id()
            return named
        words = [part for part in self.path.removeprefix("/api/v1/").strip("/").split("/") if not part.startswith("{")]
        verb = "list" if self._answers_page() else "retrieve"
        return "_".join([*words, verb]).replace("-", "_")

    def _answers_page(self) -> bool:
        answers: Any = self.get_response_serializers()
        answer = answers.get(200) if isinstance(answers, dict) else answers
        return type(answer).__name__.endswith("Page") or getattr(answer, "__name__", "").endswith("Page")
