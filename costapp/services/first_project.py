"""The first start: one administrator, one project that they own, one ingest key."""

import secrets
from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.db import transaction

from costapp.models import Guardrail, IngestKey, Membership, Project


@dataclass(frozen=True, slots=True)
class FirstSignIn:
    """Shown once; password and key exist nowhere else in plain text."""

    user: str
    password: str
    project: str
    key: str


def create_first_project(*, user_name: str = "admin", password: str = "") -> FirstSignIn | None:
    """None when somebody has been here before: any account or project means that this is not the first start."""
    users = get_user_model().objects
    if users.exists() or Project.objects.exists():
        return None
    password = password or secrets.token_urlsafe(12)
    with transaction.atomic():
        user = users.create_superuser(user_name, password=password)
        project = Project.objects.create(slug="default", name="My project")
        Membership.objects.create(project=project, user=user, role=Membership.Role.OWNER)
        Guardrail.give_first(project)
        _, key = IngestKey.issue(project, name="First key")
    return FirstSignIn(user=user_name, password=password, project=project.slug, key=key)
