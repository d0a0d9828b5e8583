"""Sign-in, sign-out, and where a signed-in person lands."""

from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from costapp.storage import sign_in_failures as failures
from costapp.web.access import memberships_of

LAST_PROJECT = "project"


@never_cache
@sensitive_post_parameters("password")
def sign_in(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect(_next(request))
    if request.method != "POST":
        return render(
            request, "sign_in.html", {"form": AuthenticationForm(request), "next": request.GET.get("next", "")}
        )
    account, address = request.POST.get("username", "").strip().lower()[:254], request.META.get("REMOTE_ADDR", "")
    connection.ensure_connection()
    wait_s = failures.wait_s(connection.connection, account=account, address=address)
    if wait_s:
        return _refused(request, wait_s)
    form = AuthenticationForm(request, data=request.POST)
    if form.is_valid():
        failures.forget(connection.connection, account=account, address=address)
        login(request, form.get_user())
        return redirect(_next(request))
    failures.add(connection.connection, account=account, address=address)
    return render(request, "sign_in.html", {"form": form, "next": request.POST.get("next", "")}, status=401)


def _refused(request: HttpRequest, wait_s: int) -> HttpResponse:
    context = {"form": AuthenticationForm(request), "next": request.POST.get("next", ""), "wait_s": wait_s}
    response = render(request, "sign_in.html", context, status=429)
    response.headers["Retry-After"] = str(wait_s)
    return response


def _next(request: HttpRequest) -> str:
    """Where they wanted to go, if that is a page of ours."""
    target = request.POST.get("next") or request.GET.get("next") or ""
    ours = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return target if ours else resolve_url("home")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("sign-in")


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The project seen last, else the first one."""
    mine = memberships_of(request)
    if not mine:
        return render(request, "no_project.html", {"title": "No project yet"})
    slugs = [membership.project.slug for membership in mine]
    last = request.COOKIES.get(LAST_PROJECT, "")
    return redirect("overview", slug=last if last in slugs else slugs[0])
