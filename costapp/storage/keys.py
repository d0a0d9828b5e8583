"""Ingest keys as the collectors see them: which project a key opens, and how that project wants its data read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

Connection = psycopg.Connection[Any]


class KeyRecord(NamedTuple):
    key_id: int
    project_id: int
    expires_at: datetime | None
    revoked_at: datetime | None
    store_content: bool
    hash_secret: bytes
    attribute_names: Mapping[str, Any]


_FIND = """
select key.id, key.project_id, key.expires_at, key.revoked_at,
       project.store_content, project.hash_secret, project.attribute_names
from costapp_ingestkey key join costapp_project project on project.id = key.project_id
where key.key_hash = %s"""
# At most once a minute per key, so that a busy key does not fill its page with dead rows.
_TOUCH = """
update costapp_ingestkey set last_used_at = %s
where id = %s and (last_used_at is null or last_used_at < %s - interval '1 minute')"""


def find_key(conn: Connection, key_hash: str) -> KeyRecord | None:
    """The key with this SHA-256 (hex), also if it is revoked or expired; the caller decides."""
    row = conn.execute(_FIND, (key_hash,)).fetchone()
    return KeyRecord(*row) if row else None


def touch_keys(conn: Connection, used_at: Mapping[int, datetime]) -> None:
    """Note when keys were last used. Sorted, so that two collectors cannot deadlock."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(_TOUCH, [(at, key_id, at) for key_id, at in sorted(used_at.items())])
