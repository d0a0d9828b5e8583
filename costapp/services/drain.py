"""Work until nothing is marked: for tests, demo data and replays that want the final state now."""

import psycopg

from costapp.services.attribute import attribute_shards
from costapp.services.rollup import recompute_dirty
from costapp.storage import outbox

BATCH = 2_000


def drain(conn: psycopg.Connection, *, limit: int = BATCH) -> int:
    """Resolve every marked trace and recompute every marked cell, however recent. Returns the charges written."""
    written = resolve(conn, limit=limit)
    while recompute_dirty(conn, force=True):
        pass
    return written


def resolve(conn: psycopg.Connection, *, limit: int = BATCH) -> int:
    """Resolve every marked trace, and leave sums to be recomputed by `drain`."""
    written = 0
    while shards := outbox.marked_shards(conn):
        for shard in shards:
            outcome = attribute_shards(conn, [shard], limit=limit, wait=True, force=True)
            if outcome.busy_shards:
                outcome = attribute_shards(conn, outcome.busy_shards, limit=limit, wait=True, force=True)
            written += outcome.charges
    return written
