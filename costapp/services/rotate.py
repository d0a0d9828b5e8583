"""Seal stored secrets with the newest key, one row at a time, so that it can be interrupted and repeated."""

from typing import NamedTuple

from django.db import transaction

from costapp.models import Channel, ScrapeTarget
from costapp.services import sealed

_SEALED = (Channel, ScrapeTarget)


class Rotated(NamedTuple):
    resealed: int
    current: int
    lost: list[str]  # channels and scrape targets whose secret cannot be opened


def rotate() -> Rotated:
    resealed, current, lost = 0, 0, []
    rows = [(model, pk) for model in _SEALED for pk in model.objects.exclude(key_id="").values_list("pk", flat=True)]
    for model, pk in rows:
        with transaction.atomic():
            row = model.objects.select_for_update(of=("self",)).select_related("project").get(pk=pk)
            if sealed.is_current(row.key_id):
                current += 1
                continue
            try:
                values = sealed.unseal(row.key_id, bytes(row.secret), str(row.seal_id))
            except sealed.CannotOpen:
                lost.append(f"{row.project}: {row}")
                continue
            key_id, secret = sealed.seal(values, str(row.seal_id))
            model.objects.filter(pk=pk).update(key_id=key_id, secret=secret)
            resealed += 1
    return Rotated(resealed, current, lost)
