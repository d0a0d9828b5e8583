"""Prompt and completion text of projects that opted in. Has its own retention; never read by pricing."""

from collections.abc import Iterable
from typing import Any

import psycopg

from costapp.storage.spans import key_of

Connection = psycopg.Connection[Any]

_INSERT = """
insert into span_content (project_id, day, trace_id, span_id, content)
values (%s, date '2000-01-01' + %s, encode(%s, 'hex')::uuid, %s, %s::jsonb) on conflict do nothing"""


def insert_content(conn: Connection, items: Iterable[tuple[bytes, str]]) -> None:
    """Insert (span row, JSON text) pairs that are not stored yet. Part of the caller's transaction."""
    rows = sorted({(*key_of(row), content) for row, content in items})
    if rows:
        with conn.cursor() as cursor:
            cursor.executemany(_INSERT, rows)
