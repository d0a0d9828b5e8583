"""What a page says while the database is away: 503 with Retry-After and words, never a bare 500."""

from collections.abc import Callable

import psycopg
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

RETRY_AFTER_S = 5
QUERY_CANCELED = "57014"


class DatabaseOutageMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        # reports ask psycopg directly, so its own errors come here as well as Django's
        if isinstance(exception, OperationalError | InterfaceError | psycopg.OperationalError | psycopg.InterfaceError):
            cause = exception if isinstance(exception, psycopg.Error) else exception.__cause__
            return outage_page(too_slow=getattr(cause, "sqlstate", None) == QUERY_CANCELED)
        return None


def outage_page(*, too_slow: bool) -> HttpResponse:
    """Rendered without the request: no user, no session, no query."""
    page = render_to_string("errors/database.html", {"too_slow": too_slow, "retry_after_s": RETRY_AFTER_S})
    return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_S), "Cache-Control": "no-store"})
