"""Keeps the log readable while the database is away: one line now and then, not a stack trace per attempt."""

import logging
import time
from collections.abc import Callable

import psycopg
from django.db import InterfaceError, OperationalError

OUTAGE = (psycopg.OperationalError, psycopg.InterfaceError, OperationalError, InterfaceError)
QUIET_S = 10.0


class OneLinePerOutage(logging.Filter):
    """Turns a record about an unreachable database into one line, at most one in ten seconds and process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self.quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OUTAGE):
            return True
        if self.clock() < self.quiet_until:
            return False
        self.quiet_until = self.clock() + QUIET_S
        reason = str(error).strip().splitlines() or [type(error).__name__]
        record.msg = "The database cannot be used (%s). This is tried again by itself."
        record.args = (reason[0],)
        record.exc_info = record.exc_text = None
        return True
