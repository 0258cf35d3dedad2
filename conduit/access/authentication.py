"""Who calls the management API: a management token, or a signed-in person with a CSRF token."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from conduit.access import tokens
from conduit.access.actors import actor_of_token, actor_of_user
from conduit.access.models import ManagementToken, User
from conduit.core.actor import Actor


class ManagementTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer cdt_mk_…`. Unknown, revoked, expired and malformed tokens are answered alike."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        scheme, _, raw = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = tokens.find_token(raw.strip())
        if token is None:
            raise AuthenticationFailed("This is not a valid management token.")
        tokens.note_use(token)
        actor: Actor = actor_of_token(token)
        found: ManagementToken = token
        return actor, found

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="conduit"'


class _Csrf(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def _no_response(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class ConsoleSessionAuthentication(BaseAuthentication):
    """The console's session. DRF's views are exempt from Django's CSRF check, so it is made here for every method."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        user = getattr(request._request, "user", None)
        if not isinstance(user, User) or not user.is_active:
            return None
        check = _Csrf(_no_response)
        check.process_request(request._request)
        reason = check.process_view(request._request, _no_response, (), {})
        if reason:
            raise PermissionDenied(f"CSRF check failed: {reason}")
        return actor_of_user(user), None
