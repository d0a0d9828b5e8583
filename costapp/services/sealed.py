"""Secrets that must be replayed (webhook addresses, tokens), kept encrypted with this instance's keys.

The keys are in the environment (COSTAPP_FIELD_KEYS), never in the database: a dump alone gives nothing away. The
first key encrypts, all decrypt, and a row says which key sealed it. How it is done: ``costapp.sealing``.
"""

from collections.abc import Mapping

from django.conf import settings

from costapp import sealing
from costapp.sealing import CannotOpen, CannotSeal, key_id

__all__ = ["CannotOpen", "CannotSeal", "is_current", "key_id", "seal", "unseal"]


def seal(values: Mapping[str, str], bound_to: str) -> tuple[str, bytes]:
    """The id of the key, and what to store. ``bound_to`` names the row: moved to another row it cannot be opened."""
    return sealing.seal(settings.FIELD_KEYS, values, bound_to)


def unseal(sealed_by: str, sealed: bytes, bound_to: str) -> dict[str, str]:
    return sealing.unseal(settings.FIELD_KEYS, sealed_by, sealed, bound_to)


def is_current(sealed_by: str) -> bool:
    return bool(settings.FIELD_KEYS) and sealed_by == key_id(settings.FIELD_KEYS[0])
