"""Self-hosted calls as GPU hours need them: where they went and when they ran, one row per hour that they touch.

Written together with the charge, under the lock of the trace's shard; only what differs is written, and the hours of
what differs are marked. Shares (what an hour attributed to a call) are read here when a charge is made again.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import psycopg

from costapp.core.engines import Rule, Target, Work
from costapp.storage.arrays import uuids
from costapp.storage.charges import Key
from costapp.storage.kinds import stored_text

Connection = psycopg.Connection[Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Share(NamedTuple):
    """What a call was attributed so far, over all hours and pools."""

    gpu_nano: int
    is_estimate: bool


#: hour, start, border, end, target, uncached input, cached input and output tokens
_Row = tuple[datetime, int, int, int, int, int, int, int]

_ADD_TARGETS = """
insert into gpu_target (project_id, digest, month, instance, host, model, service)
select %s, * from unnest(%s::uuid[], %s::date[], %s::text[], %s::text[], %s::text[], %s::text[]) as added (digest)
order by digest on conflict (project_id, digest) do nothing"""
_KNOWN_TARGETS = "select uuid_send(digest), id from gpu_target where project_id = %s and digest = any(%s)"
_STORED = """
select day, uuid_send(trace_id), span_id, hour_at, start_us, border_us, end_us, target_id, input_tokens,
       cached_tokens, output_tokens
from gpu_call where project_id = %s and day between %s and %s and trace_id = any(%s)"""
_DELETE = """
delete from gpu_call using unnest(%s::date[], %s::uuid[], %s::bigint[], %s::timestamptz[])
    as gone (day, trace_id, span_id, hour_at)
where gpu_call.project_id = %s and gpu_call.day between %s and %s and gpu_call.day = gone.day
    and gpu_call.trace_id = gone.trace_id and gpu_call.span_id = gone.span_id and gpu_call.hour_at = gone.hour_at"""
_INSERT = """
insert into gpu_call (project_id, day, trace_id, span_id, hour_at, start_us, border_us, end_us, target_id,
                      input_tokens, cached_tokens, output_tokens)
select %s, * from unnest(%s::date[], %s::uuid[], %s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[],
                         %s::bigint[], %s::bigint[], %s::int[], %s::int[], %s::int[])
order by 2, 3, 4, 5"""
_MARK = """
insert into dirty_gpu_hour (project_id, hour_at, node)
select %s, hour_at, '' from unnest(%s::timestamptz[]) as given (hour_at) order by 2"""
_SHARES = """
select share.day, uuid_send(share.trace_id), share.span_id, sum(gpu_nano)::bigint, bool_or(is_estimate)
from gpu_share share join unnest(%s::date[], %s::uuid[], %s::bigint[]) as own (day, trace_id, span_id)
    using (day, trace_id, span_id)
where share.project_id = %s and share.day between %s and %s group by 1, 2, 3"""


def load_shares(conn: Connection, project_id: int, *, keys: Collection[Key]) -> dict[Key, Share]:
    """What these calls were attributed of GPU hours so far."""
    if not keys:
        return {}
    days = [day for day, _, _ in keys]
    columns = (days, [trace.hex() for _, trace, _ in keys], [span for _, _, span in keys])
    rows = conn.cursor(binary=True).execute(_SHARES, (*columns, project_id, min(days), max(days)))
    return {(day, trace_id, span_id): Share(*share) for day, trace_id, span_id, *share in rows}


def replace(
    conn: Connection, project_id: int, *, works: Mapping[Key, Work], known: Collection[Key], again: bool = True
) -> None:
    """Make ``works`` the truth for their calls and for the ``known`` ones (booked before), and mark what changed.

    ``again``: mark the hours of known calls even if only their charge changed (a feature, a user).
    """
    stored = _stored(conn, project_id, known)
    targets = _target_ids(conn, project_id, works)
    wanted = {
        (key, row[0]): row
        for key, work in works.items()
        for row in _rows(work, targets[_digest(_month(key[0]), work.target)])
    }
    gone = [place for place, row in stored.items() if wanted.get(place) != row]
    new = {place: row for place, row in wanted.items() if stored.get(place) != row}
    _delete(conn, project_id, gone)
    _insert(conn, project_id, new)
    hours = {hour for _, hour in gone} | {hour for _, hour in new}
    if again:
        hours |= {hour for key, hour in wanted if key in known}
    if hours:
        conn.execute(_MARK, (project_id, sorted(hours)))


def _stored(conn: Connection, project_id: int, keys: Collection[Key]) -> dict[tuple[Key, datetime], _Row]:
    if not keys:
        return {}
    wanted = set(keys)
    days = [day for day, _, _ in wanted]
    traces = uuids(sorted({trace_id for _, trace_id, _ in wanted}))
    rows = conn.cursor(binary=True).execute(_STORED, (project_id, min(days), max(days), traces))
    found = (((day, trace_id, span_id), row) for day, trace_id, span_id, *row in rows)
    return {(key, row[0]): tuple(row) for key, row in found if key in wanted}


def _rows(work: Work, target_id: int) -> Iterable[_Row]:
    rest = (work.start_us, work.border_us, work.end_us, target_id, work.input_tokens, work.cached_tokens,
            work.output_tokens)  # fmt: skip
    return ((_instant(hour_us), *rest) for hour_us in work.hours)


@lru_cache(maxsize=4096)
def _instant(since_1970_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=since_1970_us)


def _delete(conn: Connection, project_id: int, places: list[tuple[Key, datetime]]) -> None:
    if places:
        days = [key[0] for key, _ in places]
        columns = (days, [key[1].hex() for key, _ in places], [key[2] for key, _ in places], [at for _, at in places])
        conn.execute(_DELETE, (*columns, project_id, min(days), max(days)))


def _insert(conn: Connection, project_id: int, rows: Mapping[tuple[Key, datetime], _Row]) -> None:
    if rows:
        flat = [(key[0], key[1].hex(), key[2], *row) for (key, _), row in rows.items()]
        conn.execute(_INSERT, (project_id, *map(list, zip(*flat, strict=True))))


# -- targets -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _month(day: date) -> date:
    return day.replace(day=1)


@lru_cache(maxsize=16_384)
def _digest(month: date, target: Target) -> bytes:
    texts = (month.isoformat(), *map(stored_text, target))
    return blake2b("\0".join(texts).encode(), digest_size=16).digest()


def _target_ids(conn: Connection, project_id: int, works: Mapping[Key, Work]) -> dict[bytes, int]:
    wanted = {}
    for (day, _, _), work in works.items():
        wanted[_digest(_month(day), work.target)] = (_month(day), work.target)
    if not wanted:
        return {}
    known = _known_targets(conn, project_id, wanted)
    missing = [digest for digest in wanted if digest not in known]
    if missing:
        texts = zip(*(map(stored_text, wanted[digest][1]) for digest in missing), strict=True)
        months = [wanted[digest][0] for digest in missing]
        conn.execute(_ADD_TARGETS, (project_id, uuids(missing), months, *map(list, texts)))
        known |= _known_targets(conn, project_id, missing)
    return known


def _known_targets(conn: Connection, project_id: int, digests: Iterable[bytes]) -> dict[bytes, int]:
    rows = conn.cursor(binary=True).execute(_KNOWN_TARGETS, (project_id, uuids(list(digests))))
    return dict(rows.fetchall())


def drop_targets_before(conn: Connection, *, day: date) -> None:
    """Forget the targets of months whose calls were dropped; a month longer, as a writer may still use them."""
    conn.execute("delete from gpu_target where month < %s", ((day - timedelta(days=31)).replace(day=1),))


# -- mappings ------------------------------------------------------------------------------------------------------

_RULES = """
select host, model, service, served_model, node, pod, role from costapp_enginemapping
where project_id = %s and enabled order by priority, id"""


def load_rules(conn: Connection, project_id: int) -> list[Rule]:
    """Where calls go, as people said it: the first that fits decides."""
    return [Rule._make(row) for row in conn.execute(_RULES, (project_id,))]
