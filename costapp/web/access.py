"""Who may see what. Every project page goes through ``project_page``; nothing else decides.

A project comes from the address, and only with a membership of the signed-in user. What is not theirs
answers 404, exactly like what does not exist.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from zoneinfo import ZoneInfo

from django.contrib.auth.decorators import login_required
from django.db import connection
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse

from costapp.models import Membership, Project
from costapp.services.audit import Values, record
from costapp.storage.reports.sql import Connection

RANKS = {Membership.Role.VIEWER: 0, Membership.Role.EDITOR: 1, Membership.Role.OWNER: 2}
Role = Membership.Role


class Visit:
    """One request to a page of one project by one of its members."""

    def __init__(self, request: HttpRequest, membership: Membership, others: list[Membership]) -> None:
        self.request = request
        self.project: Project = membership.project
        self.role = Role(membership.role)
        self.memberships = others
        self.zone = ZoneInfo(self.project.time_zone)
        self.now = datetime.now(UTC)

    @property
    def conn(self) -> Connection:
        """Django's own psycopg connection: one connection per request for models and reports."""
        connection.ensure_connection()
        return connection.connection

    def audit(
        self, action: str, obj: Model | None, *, before: Values | None = None, after: Values | None = None
    ) -> None:
        """One entry in the audit log, by whoever looks at this page."""
        address = self.request.META.get("REMOTE_ADDR", "")
        record(self.project, self.request.user, action, obj, before, after, address=address)

    @property
    def may_edit(self) -> bool:
        return RANKS[self.role] >= RANKS[Role.EDITOR]

    @property
    def may_manage(self) -> bool:
        return self.role is Role.OWNER


def memberships_of(request: HttpRequest) -> list[Membership]:
    found = Membership.objects.filter(user_id=request.user.pk).select_related("project").order_by("project__name")
    return list(found)


def project_page(role: Role = Role.VIEWER) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """A view of one project: signed in, a member, and of at least ``role``. Passes a Visit."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @wraps(view)
        @login_required
        def guarded(request: HttpRequest, slug: str, **kwargs: object) -> HttpResponse:
            mine = memberships_of(request)
            membership = next((m for m in mine if m.project.slug == slug), None)
            if membership is None or RANKS[Role(membership.role)] < RANKS[role]:
                raise Http404
            request.visit = Visit(request, membership, mine)
            return view(request.visit, **kwargs)

        return guarded

    return decorate
