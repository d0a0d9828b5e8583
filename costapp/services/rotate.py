"""Seal stored secrets with the newest key, one row at a time, so that it can be interrupted and repeated."""

from typing import NamedTuple

from django.db import transaction

from costapp.models import Channel
from costapp.services import sealed


class Rotated(NamedTuple):
    resealed: int
    current: int
    lost: list[str]  # channels whose secret cannot be opened


def rotate() -> Rotated:
    resealed, current, lost = 0, 0, []
    for pk in Channel.objects.exclude(key_id="").values_list("pk", flat=True):
        with transaction.atomic():
            channel = Channel.objects.select_for_update(of=("self",)).select_related("project").get(pk=pk)
            if sealed.is_current(channel.key_id):
                current += 1
                continue
            try:
                values = sealed.unseal(channel.key_id, bytes(channel.secret), str(channel.seal_id))
            except sealed.CannotOpen:
                lost.append(f"{channel.project}: {channel}")
                continue
            key_id, secret = sealed.seal(values, str(channel.seal_id))
            Channel.objects.filter(pk=pk).update(key_id=key_id, secret=secret)
            resealed += 1
    return Rotated(resealed, current, lost)
