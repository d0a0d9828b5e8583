"""Check every invariant of the ledger on the live data, and publish what was found."""

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import NamedTuple

import psycopg
from django.utils import timezone

from costapp.models import LedgerCheck
from costapp.storage import checks
from costapp.storage.checks import CHECKS, Check, Result
from costapp.storage.connection import require_autocommit

#: Results older than this are deleted when new ones are published.
KEEP_RESULTS = timedelta(days=90)


class Verified(NamedTuple):
    result: Result
    took_ms: int


def verify(conn: psycopg.Connection, *, selected: Iterable[Check] = CHECKS) -> Iterator[Verified]:
    """Run the checks one after the other on a single snapshot of the database, so that they agree."""
    require_autocommit(conn)
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        for check in selected:
            began = time.perf_counter()
            result = checks.run(conn, check)
            yield Verified(result, round((time.perf_counter() - began) * 1000))


def publish(verified: Iterable[Verified]) -> list[LedgerCheck]:
    """Store the results of one run, for Data health."""
    run_at = timezone.now()
    LedgerCheck.objects.filter(run_at__lt=run_at - KEEP_RESULTS).delete()
    return LedgerCheck.objects.bulk_create(
        LedgerCheck(
            run_at=run_at, name=result.check.name, invariant=result.check.invariant, differences=result.differences,
            shown=[difference._asdict() for difference in result.shown], took_ms=took_ms,
        )
        for result, took_ms in verified
    )  # fmt: skip


def verify_and_publish(conn: psycopg.Connection) -> bool:
    """Returns whether every invariant holds."""
    return all(check.holds for check in publish(list(verify(conn))))
