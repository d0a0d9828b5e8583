"""Connect an app: a key (shown once), snippets with the real endpoint, and a line that turns green."""

from datetime import timedelta

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_POST

from costapp.models import IngestKey
from costapp.services.audit import Action
from costapp.storage.reports import health as reports
from costapp.web.access import Role, Visit, project_page
from costapp.web.page import frame, show
from costapp.web.snippets import KEY_PLACEHOLDER, RECIPES, quick_start

ATTRIBUTES = (
    ("Feature", "app.feature", "feature, feature.name; else the name of the workflow or agent"),
    ("User", "user.id", "enduser.id, langfuse.user.id, user_id"),
    ("Session", "session.id", "langfuse.session.id, session_id; else gen_ai.conversation.id"),
    ("Team", "team.id", "team.name, app.team, team"),
    ("Environment", "deployment.environment.name", "deployment.environment, langfuse.environment"),
    ("Variant", "app.variant", "variant, experiment.variant"),
    ("Prompt version", "app.prompt_version", "prompt.version, gen_ai.prompt.version"),
)
MOST_LIVE_KEYS = 20
LOOK_BACK = timedelta(minutes=15)


def endpoint(visit: Visit) -> str:
    """Where apps send to: the setting, else this host on the collectors' port."""
    if settings.OTLP_PUBLIC_URL:
        return str(settings.OTLP_PUBLIC_URL).rstrip("/")
    host = visit.request.get_host()
    name = host[: host.index("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return f"{visit.request.scheme}://{name}:{settings.OTLP_HTTP_PORT}"


@project_page()
def connect(visit: Visit) -> HttpResponse:
    return guide(visit, first_time=False)


def guide(visit: Visit, *, first_time: bool, key: str = "") -> HttpResponse:
    """The page; also what Overview shows while there is no data. ``key`` is shown this once."""
    address, shown = endpoint(visit), key or KEY_PLACEHOLDER
    keys = list(visit.project.ingest_keys.all()[:MOST_LIVE_KEYS])
    context = frame(
        visit,
        None,
        nav="overview" if first_time else "connect",
        title="Connect an app",
        first_time=first_time,
        endpoint=address,
        new_key=key,
        keys=keys,
        quick=quick_start(address, shown),
        recipes=[(recipe, recipe.text(address, shown)) for recipe in RECIPES[1:]],
        names=visit.project.attribute_names,
        attributes=ATTRIBUTES,
        **arrival_context(visit),
    )
    return show(visit, "connect.html", context)


def arrival_context(visit: Visit) -> dict[str, object]:
    found = reports.arrival(visit.conn, visit.project.pk, since=visit.now - LOOK_BACK)
    return {"arrival": found, "look_back_min": int(LOOK_BACK.total_seconds() // 60)}


@project_page()
def waiting(visit: Visit) -> HttpResponse:
    """The live line alone; asked every few seconds until something arrives."""
    return show(visit, "parts/waiting.html", {"visit": visit, **arrival_context(visit)})


@project_page(Role.OWNER)
def new_key(visit: Visit) -> HttpResponse:
    if visit.request.method != "POST":
        return redirect("connect", slug=visit.project.slug)
    name = visit.request.POST.get("name", "").replace("\x00", "").strip()[:100] or "App"
    if visit.project.ingest_keys.filter(revoked_at=None).count() >= MOST_LIVE_KEYS:
        messages.error(
            visit.request, f"A project can have {MOST_LIVE_KEYS} live keys. Revoke one that is no longer used."
        )
        return redirect("connect", slug=visit.project.slug)
    with transaction.atomic():
        key, plain = IngestKey.issue(visit.project, name)
        visit.audit(Action.CREATED, key, after={"name": name})
    return guide(visit, first_time=False, key=plain)


@require_POST
@project_page(Role.OWNER)
def revoke_key(visit: Visit, key_id: int) -> HttpResponse:
    with transaction.atomic():
        key = visit.project.ingest_keys.select_for_update().filter(pk=key_id).first()
        if key is None:
            raise Http404
        if key.revoked_at is None:
            key.revoked_at = timezone.now()
            key.save(update_fields=["revoked_at"])
            visit.audit(Action.REVOKED, key)
    messages.success(visit.request, "The key is revoked. Collectors refuse it within half a minute.")
    return redirect("connect", slug=visit.project.slug)
