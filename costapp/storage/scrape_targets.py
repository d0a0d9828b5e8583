"""Scrape targets as the collectors see them. People edit them in the admin (models.scrape)."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

Connection = psycopg.Connection[Any]

#: One scraper per installation: whoever holds this lock.
_SCRAPER_LOCK = 0x5C2A9E


class TargetRow(NamedTuple):
    target_id: int
    project_id: int
    discovery: str  # url | file | dns
    address: str
    interval_s: int
    timeout_s: int
    auth: str  # none | basic | bearer
    username: str
    seal_id: str
    key_id: str
    secret: bytes  # sealed
    labels: Mapping[str, str]


class Status(NamedTuple):
    """How the last scrapes of a target went."""

    target_id: int
    at: datetime
    up: int  # endpoints that answered
    down: int
    samples: int  # series read by the last scrape of each endpoint
    detail: str  # the last problem as a sentence, "" = none


_ENABLED = """
select id, project_id, discovery, address, interval_s, timeout_s, auth, username, seal_id::text, key_id, secret, labels
from costapp_scrapetarget where enabled order by project_id, id"""
_NOTE = """
update costapp_scrapetarget set last_at = %s, up = %s, down = %s, samples = %s, detail = %s where id = %s"""
# Session locks stack; the one that is held already is not taken again.
_LOCK = """
select case when exists (
    select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and classid = 0 and objid = %s
) then true else pg_try_advisory_lock(%s) end"""


def is_scraper(conn: Connection) -> bool:
    """Whether this session is the one that scrapes, from now on if nobody else is."""
    row = conn.execute(_LOCK, (_SCRAPER_LOCK, _SCRAPER_LOCK)).fetchone()
    return bool(row and row[0])


def enabled_targets(conn: Connection) -> list[TargetRow]:
    return [TargetRow(*row) for row in conn.execute(_ENABLED)]


def note_status(conn: Connection, found: Iterable[Status]) -> None:
    rows = [(item.at, item.up, item.down, item.samples, item.detail[:300], item.target_id) for item in sorted(found)]
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(_NOTE, rows)
