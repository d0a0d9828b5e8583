"""Advisory locks: who works on what. A lock is a space (a number that one module owns) and a number within it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


def try_lock(conn: Connection, space: int, number: int) -> bool:
    """Take the lock until the transaction ends. False: somebody else has it."""
    row = conn.execute("select pg_try_advisory_xact_lock(%s, %s)", (space, number)).fetchone()
    return bool(row and row[0])


def lock(conn: Connection, space: int, number: int) -> None:
    """Take the lock until the transaction ends; waits for it."""
    conn.execute("select pg_advisory_xact_lock(%s, %s)", (space, number))


@contextmanager
def held(conn: Connection, space: int, number: int) -> Iterator[bool]:
    """Have the lock over several transactions. False: somebody else has it."""
    row = conn.execute("select pg_try_advisory_lock(%s, %s)", (space, number)).fetchone()
    is_held = bool(row and row[0])
    try:
        yield is_held
    finally:
        if is_held and not conn.closed:  # a session that ends gives its locks back
            conn.execute("select pg_advisory_unlock(%s, %s)", (space, number))
