"""What every resource of the management API builds on.

    class Teams(ResourceView):
        resource = "teams"

        @described("Create a team", request=TeamInput, response=TeamOutput, status=201)
        def post(self, request: Request) -> Response: ...

`request.user` is an Actor. Errors are raised as conduit.core.errors and answered by `problem_handler`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

from django.core.serializers.json import DjangoJSONEncoder
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from conduit.core import audit, idempotency
from conduit.core.actor import Actor, actor_of
from conduit.core.errors import InvalidInput, NotFound
from conduit.core.fields import (
    Choice,
    Flag,
    MoneyField,
    Parsed,
    RFC3339Field,
    Strict,
    Text,
    WholeNumber,
    nearest,
)
from conduit.core.ids import request_id
from conduit.core.operations import Operations
from conduit.core.paging import page
from conduit.core.problems import PreconditionFailed, problem, problem_handler
from conduit.core.strict_json import StrictJSONParser

__all__ = [
    "Actor", "Choice", "Flag", "MoneyField", "Parsed", "RFC3339Field", "ResourceView", "Strict", "StrictJSONParser",
    "Text", "WholeNumber", "actor_of", "described", "etag", "page", "parsed", "problem", "problem_handler",
]  # fmt: skip
View = TypeVar("View", bound=Callable[..., Response])
MAX_IF_MATCH = 2048
_pages: dict[str, Any] = {}


class OneRenderer(BaseContentNegotiation):
    """JSON whatever Accept says, and `?format=` stays free for a resource's own use."""

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:
        # A body without a declared type is read as JSON too: curl sends --data as a form unless told otherwise,
        # and that form is refused (415), but a script may send no type at all.
        declared = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if declared in ("", parser.media_type)), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[Any], format_suffix: str | None = None
    ) -> tuple[Any, str]:
        first = next(iter(renderers))
        return first, first.media_type


class ResourceView(APIView):
    """One resource. Sets request ids, honours Idempotency-Key on POST, and gives ETag and If-Match.

    `resource` names a row of conduit/access/permissions.py. `reads` names methods that change nothing although they are
    not GET. `query` lists the query parameters that GET knows beside `limit` and `cursor`; others are refused.
    """

    resource: ClassVar[str] = ""
    reads: ClassVar[frozenset[str]] = frozenset()
    query: ClassVar[frozenset[str]] = frozenset()
    content_negotiation_class = OneRenderer
    schema = Operations()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        audit.request_id.set(request_id(request.headers.get("x-request-id")))
        super().initial(request, *args, **kwargs)
        if any("\x00" in value for value in kwargs.values() if isinstance(value, str)):
            raise NotFound("")
        for name, value in request.query_params.items():
            known = self.query | {"limit", "cursor"}
            if name not in known:
                raise InvalidInput(name[:64], f"There is no such parameter.{nearest(name, known)}", "unknown_parameter")
            if "\x00" in value:
                raise InvalidInput(name, "Holds a character that cannot be stored.", "invalid_text")
        if request.method == "POST" and idempotency.HEADER in request.headers:
            # DRF looks the method up after this: the instance's own attribute wraps the class's.
            act = getattr(self, "post", self.http_method_not_allowed)
            setattr(self, "post", partial(self._once, act))  # noqa: B010  # a method of the class, for the type checker

    def _once(self, act: Callable[..., Response], request: Request, *args: Any, **kwargs: Any) -> Response:
        return idempotency.once(request, partial(act, request, *args, **kwargs))

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer["x-request-id"] = audit.request_id.get() or request_id()
        answer["Cache-Control"] = "no-store"
        return answer

    def one(self, body: Mapping[str, Any], *, status: int = 200, version: object = None) -> Response:
        """An object with its ETag, made of `version` where `body` has parts that change by themselves."""
        return Response(body, status=status, headers={"ETag": etag(body if version is None else version)})

    def check_match(self, version: object) -> None:
        """Raises PreconditionFailed when If-Match is given and names another state. Call it with the row locked."""
        wanted = self.request.headers.get("If-Match", "")
        if not wanted or wanted.strip() == "*":
            return
        if etag(version) not in [tag.strip() for tag in wanted[:MAX_IF_MATCH].split(",")]:
            raise PreconditionFailed("The object has changed since it was read. Read it again and repeat the change.")


def etag(version: object) -> str:
    text = json.dumps(version, sort_keys=True, cls=DjangoJSONEncoder)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def parsed(serializer: type[Strict], request: Request, *, partial: bool = False) -> dict[str, Any]:
    """The validated body; with `partial` only what was sent. Raises DRF's ValidationError with every fault.

    Fields that look something up find who asks as `context["actor"]`.
    """
    reader = serializer(data=request.data, partial=partial, context={"actor": request.user})
    reader.is_valid(raise_exception=True)
    return dict(reader.validated_data)


class ProblemItem(serializers.Serializer[Any]):
    field = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = ProblemItem(many=True)  # type: ignore[assignment]  # RFC 9457's extension member


def described(
    summary: str,
    *,
    request: Any = None,
    response: Any = None,
    status: int = 200,
    many: bool = False,
    query: Mapping[str, str] | None = None,
) -> Callable[[View], View]:
    """OpenAPI for one method: its body, its answer (`many`: a page of them), its query parameters."""
    answer = response
    if many:
        child = response if isinstance(response, serializers.BaseSerializer) else response(many=True)
        name = f"{type(getattr(child, 'child', child)).__name__}Page"
        # One class per name: two lists of the same rows are one component of the document.
        if name not in _pages:
            fields = {"data": child, "next": serializers.CharField(allow_null=True)}
            _pages[name] = inline_serializer(name, fields)
        answer = _pages[name]
    parameters = [OpenApiParameter(name, str, description=text) for name, text in (query or {}).items()]
    if many:
        parameters.append(OpenApiParameter("limit", int, description="rows per page, 1 to 200"))
        parameters.append(OpenApiParameter("cursor", str, description="`next` of the page before"))
    problems = {(code, "application/problem+json"): Problem for code in (400, 401, 403, 404, 409)}
    return extend_schema(
        summary=summary, request=request, responses={status: answer, **problems}, parameters=parameters
    )
