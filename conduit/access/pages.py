"""What the console views of every app share: the guard in front of a page, and pages that only say something.

@page("keys", write=True, methods=("GET", "POST"))
def key_create(request: HttpRequest, actor: Actor) -> HttpResponse: ...
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

from conduit.access.actors import actor_of_user
from conduit.access.models import User
from conduit.access.permissions import demand
from conduit.core.errors import Conflict, Forbidden, NotFound

View = Callable[..., HttpResponse]
READ = ("GET", "HEAD")


def page(resource: str, *, write: bool = False, methods: tuple[str, ...] = READ) -> Callable[[View], View]:
    """The view is called with the signed-in person as its `actor`, when the role may read (or write) the resource.

    Anybody else is sent to sign in, or gets a page that names the roles that may. Nothing is kept by the browser's
    cache: a page may be looked at by the next person at the same machine.
    """

    def wrap(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not isinstance(request.user, User):
                return sign_in_first(request)
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            actor = actor_of_user(request.user)
            try:
                demand(actor, resource, write=write)
                response = view(request, actor, *args, **kwargs)
            except Forbidden as error:
                response = say(request, 403, "This is not yours to do", str(error))
            except NotFound:
                response = say(request, 404, "There is no such page", "It may have been deleted, or belong to a team.")
            except Conflict as error:
                response = say(request, 409, "That does not go now", str(error))
            response.headers.setdefault("Cache-Control", "no-store")
            patch_vary_headers(response, ["HX-Request"])
            return response

        return guarded

    return wrap


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """To the sign-in page and back again; a live part of a page (htmx) takes the whole page there."""
    if request.headers.get("HX-Request"):
        current = request.headers.get("HX-Current-URL", "")
        inside = current.partition("://")[2].partition("/")[2]
        target = redirect_to_login(f"/{inside}")
        return HttpResponse(headers={"HX-Redirect": target["Location"]})
    return redirect_to_login(request.get_full_path() if request.method in READ else "/")


def say(request: HttpRequest, status: int, title: str, detail: str) -> HttpResponse:
    """A page of one sentence, in the shell."""
    return render(request, "problem.html", {"title": title, "detail": detail}, status=status)


def go(request: HttpRequest, url: str) -> HttpResponse:
    """See other; for an htmx request the whole page goes there."""
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url, status=303)
