"""Writes the audit log: who did what to which object, with the values before and after.

Call ``record`` in the transaction of the change, so that neither exists without the other. Secrets never get
in: they are masked here, whoever calls.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import models

from costapp.core.money import format_nano
from costapp.models import AuditEntry, Project

Action = AuditEntry.Action
Values = Mapping[str, str]

HIDDEN = "(hidden)"
HIDDEN_CHANGED = "(hidden, changed)"
LONGEST_VALUE = 500
MOST_FIELDS = 100
#: A field whose name says one of these is masked; so are binary fields, and those in a model's ``audit_secrets``.
SECRET_NAMES = re.compile(r"secret|password|token$|credential|key.hash|config|webhook", re.IGNORECASE)


class Secret(str):
    """A value that may be compared, never shown."""

    def __repr__(self) -> str:
        return HIDDEN


def record(
    project: Project | None,
    actor: Any,
    action: str,
    obj: models.Model | None,
    before: Values | None,
    after: Values | None,
    *,
    address: str = "",
) -> AuditEntry | None:
    """Add one entry. ``actor`` is a user, or the name of what acted (a command, a job).

    ``before`` None = created, ``after`` None = deleted. A change that changed nothing is no entry.
    """
    changes = difference(before or {}, after or {})
    if before is not None and after is not None and not changes and action == Action.CHANGED:
        return None
    is_user = isinstance(actor, models.Model)
    return AuditEntry.objects.create(
        project=project,
        project_name=project.name if project else "",
        user=actor if is_user else None,
        actor=str(actor)[:254],
        action=action,
        object_type=str(obj._meta.verbose_name) if obj else "",
        object_id=str(obj.pk or "") if obj else "",
        object_name=str(obj)[:300] if obj else "",
        changes=changes,
        address=address[:64],
    )


def difference(before: Values, after: Values) -> dict[str, list[str | None]]:
    """The fields that differ: [before, after], cut and masked. "" counts as absent."""
    changes: dict[str, list[str | None]] = {}
    for name in [*before, *(name for name in after if name not in before)][:MOST_FIELDS]:
        old, new = before.get(name, ""), after.get(name, "")
        if old == new:
            continue
        if isinstance(old, Secret) or isinstance(new, Secret) or SECRET_NAMES.search(name):
            changes[name] = [HIDDEN if old else None, (HIDDEN_CHANGED if old else HIDDEN) if new else None]
        else:
            changes[name] = [_cut(old), _cut(new)]
    return changes


def snapshot(obj: models.Model, related: Sequence[str] = ()) -> dict[str, str]:
    """Every field that people can set, as text; and the objects behind ``related`` (relations to it) by name."""
    secrets = getattr(obj, "audit_secrets", ())
    values: dict[str, str] = {}
    for field in obj._meta.concrete_fields:
        if field.primary_key or not field.editable:
            continue
        text = _text(obj, field)
        masked = isinstance(field, models.BinaryField) or field.name in secrets or SECRET_NAMES.search(field.name)
        values[str(field.verbose_name)] = Secret(text) if masked else text
    for many in obj._meta.many_to_many:
        values[str(many.verbose_name)] = _names(getattr(obj, many.name))
    for name in related:
        values[name] = _names(getattr(obj, name))
    return values


def _text(obj: models.Model, field: "models.Field[Any, Any]") -> str:
    value = getattr(obj, field.name) if field.is_relation else field.value_from_object(obj)
    if value is None or value == "":
        return ""
    if field.name.endswith("_nano") and isinstance(value, int):
        return format_nano(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = getattr(obj, f"get_{field.name}_display", None)
    return str(shown() if shown else value)


def _names(manager: Any) -> str:
    return ", ".join(sorted(str(each) for each in manager.all()))


def _cut(text: str) -> str | None:
    return f"{text[:LONGEST_VALUE]}…" if len(text) > LONGEST_VALUE else text or None
