"""The audit log is append-only; only retention takes rows away, and only old ones."""

from datetime import datetime
from typing import Any

import psycopg


def drop_before(conn: psycopg.Connection[Any], *, at: datetime) -> int:
    return conn.execute("delete from costapp_auditentry where at < %s", (at,)).rowcount
