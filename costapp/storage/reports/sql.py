"""Runs one report statement. The only door to the database in this package, so tests can count through it."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import tuple_row

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


def run(conn: Connection, sql: str, params: Mapping[str, Any]) -> list[Row]:
    """All rows of one select. ``sql`` is built from allow-listed names only; every value is a parameter."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(sql.encode(), params)
        return cursor.fetchall()
