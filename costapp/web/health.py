"""Two addresses for machines: /healthz (this process answers) and /readyz (it can serve pages).

Answered before everything else, so that a probe needs no allowed host name, no HTTPS and no session.
"""

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse


class HealthMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/healthz":
            return JsonResponse({"status": "ok"})
        if request.path == "/readyz":
            return readiness()
        return self.get_response(request)


def readiness() -> HttpResponse:
    """200 when the database answers with the schema that this code needs, else 503 and the reason in words."""
    try:
        reason = "" if schema_is_current() else "Migrations are missing: run manage.py migrate."
    except DatabaseError:
        reason = "The database does not answer."
    if reason:
        return JsonResponse({"status": "unavailable", "reason": reason}, status=503, headers={"Retry-After": "5"})
    return JsonResponse({"status": "ok"})


def schema_is_current() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())
