"""How far the re-pricing of charges came. A step forward is written in the transaction of the charges it is about."""

from contextlib import AbstractContextManager
from datetime import date, timedelta
from typing import Any, NamedTuple

import psycopg

from costapp.storage import locks, outbox

Connection = psycopg.Connection[Any]

#: First key of the advisory lock that lets one worker at a time re-price a project; the second is the project.
_REPRICE_LOCK = 0x9E9C
COUNTS = ("requests", "changed", "old_nano", "new_nano", "newly_priced", "newly_unpriced")


class Run(NamedTuple):
    """A run that somebody asked for, and where it goes on."""

    id: int
    project_id: int
    last_day: date
    next_day: date
    next_shard: int
    rates_version: int


class RunGone(Exception):
    """The run was deleted, or ended elsewhere: what was about to be written must not be."""


def held(conn: Connection, project_id: int) -> AbstractContextManager[bool]:
    """Be the only worker that re-prices this project, over several transactions. False: another is at it."""
    return locks.held(conn, _REPRICE_LOCK, project_id)


def waiting(conn: Connection, *, limit: int) -> list[tuple[int, int]]:
    """Runs that were asked for and are not done, with their projects, longest waiting first."""
    rows = conn.execute(
        "select id, project_id from costapp_repricerun where state in ('requested', 'running') and requested_by <> ''"
        " order by id limit %s",
        [limit],
    )
    return [(run_id, project_id) for run_id, project_id in rows]


def start(conn: Connection, run_id: int) -> Run | None:
    """It runs from now on, from where it came to; None when it is done or gone."""
    row = conn.execute(
        "update costapp_repricerun set state = 'running' where id = %s and state in ('requested', 'running')"
        " returning id, project_id, last_day, next_day, next_shard, rates_version",
        [run_id],
    ).fetchone()
    return Run(*row) if row else None


def advance(conn: Connection, run_id: int, *, day: date, shard: int, counts: dict[str, int]) -> None:
    """This shard of this day is done, and did so much. In the transaction that did it; raises ``RunGone``."""
    is_last = shard == outbox.SHARDS - 1
    values = {
        "id": run_id,
        "next_day": day + timedelta(days=1) if is_last else day,
        "next_shard": 0 if is_last else shard + 1,
        **{name: counts[name] for name in COUNTS},
    }
    done = conn.execute(
        """
        update costapp_repricerun set next_day = %(next_day)s, next_shard = %(next_shard)s,
            requests = requests + %(requests)s, changed = changed + %(changed)s,
            old_nano = old_nano + %(old_nano)s, new_nano = new_nano + %(new_nano)s,
            newly_priced = newly_priced + %(newly_priced)s, newly_unpriced = newly_unpriced + %(newly_unpriced)s
        where id = %(id)s and state = 'running'
        """,
        values,
    )
    if not done.rowcount:
        raise RunGone(run_id)


def finish(conn: Connection, run_id: int, *, prices_moved: bool) -> None:
    conn.execute(
        "update costapp_repricerun set state = 'done', finished_at = clock_timestamp(), prices_moved = %s,"
        " next_day = last_day + 1, next_shard = 0 where id = %s and state = 'running'",
        [prices_moved, run_id],
    )
