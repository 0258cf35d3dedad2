"""Sign-in and sign-out."""

from __future__ import annotations

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from conduit.access.errors import LockedOut, SignInRefused, SignInUnavailable
from conduit.access.models import User
from conduit.access.signing_in import authenticate, note_sign_out
from conduit.core.secret import Secret


def _next(request: HttpRequest) -> str:
    """Where to go after signing in: only a path of this host, else the overview."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None, require_https=request.is_secure()):
        return wanted
    return reverse("overview")


def _problem(refused: SignInRefused) -> tuple[str, str]:
    if isinstance(refused, LockedOut):
        minutes = max(1, -(-refused.retry_after // 60))
        return "Too many tries", f"Signing in is paused for this address; try again in {minutes} minutes."
    if isinstance(refused, SignInUnavailable):
        return "Nobody can sign in now", "Tries cannot be counted because Valkey is away. Requests of keys go on."
    return "Email or password is wrong", "After ten wrong tries signing in pauses for 15 minutes."


@never_cache
@csrf_protect
def sign_in(request: HttpRequest) -> HttpResponse:
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "POST"])
    if isinstance(request.user, User):
        return redirect(_next(request))
    context = {"next": _next(request), "host": request.get_host(), "email": request.POST.get("email", "")[:254]}
    if request.method != "POST":
        return render(request, "login.html", context)
    try:
        user = authenticate(request, request.POST.get("email", ""), Secret(request.POST.get("password", "")))
    except SignInRefused as refused:
        context["problem"], context["way_out"] = _problem(refused)
        return render(request, "login.html", context, status=429 if isinstance(refused, LockedOut) else 422)
    # A new session id and a new CSRF token: what an attacker planted before is worth nothing after.
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponseRedirect(_next(request), status=303)


def sign_out(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if isinstance(request.user, User):
        note_sign_out(request.user)
    logout(request)
    return HttpResponseRedirect(reverse("login"), status=303)
