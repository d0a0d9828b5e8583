"""Booked charges read back as calls, so that the one price function can price them again.

A charge keeps every quantity and name that a price depends on; what it does not keep (the spans, the
host) went into them when the trace was resolved. So this also works after the spans have expired.
"""

from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from costapp.core.values import Call, Priced, Usage
from costapp.storage.charges import Booked, Key

#: Charges fetched at a time: bounds memory, whatever the day.
PAGE_CHARGES = 5_000

_PRICED = (
    "cost_status", "rate_id", "input_nano", "cache_read_nano", "cache_write_nano", "output_nano", "other_nano",
    "cost_nano", "possible_nano", "avoided_nano", "gpu_nano",
)  # fmt: skip
_USAGE = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens", "audio_in_tokens", "audio_out_tokens", "image_in_tokens", "image_out_tokens", "units",
)  # fmt: skip
#: field of `Call` -> column; usage, start and trace id are read apart
_CALL: dict[str, str] = {
    "span_id": "span_id", "duration_us": "duration_us", "ttft_us": "ttft_us", "service": "service",
    "span_name": "span_name", "operation": "operation", "provider": "provider", "model": "model",
    "model_requested": "model_requested", "region": "region", "service_tier": "service_tier", "feature": "feature",
    "user": "user_id", "session": "session_id", "team": "team", "environment": "environment", "variant": "variant",
    "prompt_version": "prompt_version", "attribution_source": "attribution_source", "usage_state": "usage_state",
    "usage_rule": "usage_rule", "unit": "unit", "error": "error", "finish_reason": "finish_reason", "flags": "flags",
    "attempts": "attempts", "members": "members", "reported_nano": "reported_nano",
    "reported_source": "reported_source", "prompt_hash": "prompt_hash", "prompt_chars": "prompt_chars",
    "output_chars": "output_chars", "signal": "signal",
}  # fmt: skip
_NULL_MEANS = {"members": 1, "signal": 0, "error": ""}

_SELECT = sql.SQL("""
select day, uuid_send(trace_id), (extract(epoch from start_at) * 1000000)::bigint, {columns} from charge_full
where project_id = {project} and day = {day}
""").format(
    columns=sql.SQL(", ").join(map(sql.Identifier, (*_PRICED, *_USAGE, *_CALL.values()))),
    project=sql.Placeholder("project_id"),
    day=sql.Placeholder("day"),
)
_OF_SHARD = sql.SQL("and get_byte(uuid_send(trace_id), 15) %% %(shards)s = %(shard)s")
_OF_TRACE = sql.SQL("and trace_id = %(trace_id)s and span_id = %(span_id)s")
_POSTGRES_EPOCH_US = 946_684_800_000_000


class BookedCharge(NamedTuple):
    """One charge as a call and the price it was booked with."""

    key: Key
    call: Call  #: its flags are all of the charge's, those that pricing added included
    priced: Priced
    booked: Booked


def load_day(
    conn: psycopg.Connection[Any], project_id: int, *, day: date, shard: int | None = None, shards: int = 1
) -> Iterator[BookedCharge]:
    """All charges of a (UTC) day, or those of one shard. Needs a transaction for as long as it is read."""
    query = _SELECT if shard is None else _SELECT + _OF_SHARD
    values = {"project_id": project_id, "day": day, "shard": shard, "shards": shards}
    with conn.cursor(name="booked_charges", binary=True) as cursor:
        cursor.itersize = PAGE_CHARGES
        cursor.execute(query, values)
        yield from map(_read, cursor)


def load_charge(conn: psycopg.Connection[Any], project_id: int, *, key: Key) -> BookedCharge | None:
    """One charge, for the page that explains its cost."""
    day, trace_id, span_id = key
    values = {"project_id": project_id, "day": day, "trace_id": trace_id.hex(), "span_id": span_id}
    row = conn.execute(_SELECT + _OF_TRACE, values).fetchone()
    return _read(row) if row else None


def days_with_charges(conn: psycopg.Connection[Any], project_id: int, *, first: date, last: date) -> list[date]:
    """The days between two that have any charge, earliest first; one index probe per day."""
    rows = conn.execute(
        """
        select day::date from generate_series(%s::date, %s::date, interval '1 day') as day
        where exists (select from charge where project_id = %s and charge.day = day::date) order by 1
        """,
        [first, last, project_id],
    )
    return [day for (day,) in rows]


def charge_span(conn: psycopg.Connection[Any], project_id: int) -> tuple[date, date] | None:
    """The first and the last day with charges; None without any."""
    row = conn.execute("select min(day), max(day) from charge where project_id = %s", [project_id]).fetchone()
    return (row[0], row[1]) if row and row[0] else None


def _read(row: tuple[Any, ...]) -> BookedCharge:
    day, trace_id, start_us, *rest = row
    prices, quantities, facts = rest[: len(_PRICED)], rest[len(_PRICED) :][: len(_USAGE)], rest[-len(_CALL) :]
    stated = dict(zip(_CALL, facts, strict=True))
    for name, default in _NULL_MEANS.items():
        if stated[name] is None:
            stated[name] = default
    stated["model_requested"] = stated["model_requested"] or stated["model"]
    call = Call(
        trace_id=bytes(trace_id),
        start_ns=start_us * 1000,
        provider_raw="",
        host="",
        usage=Usage(*(quantity or 0 for quantity in quantities)),
        **stated,
    )
    status, rate_id, *amounts = prices
    components = [amount or 0 for amount in amounts[:5]]
    cost_nano, possible_nano, avoided_nano, gpu_nano = amounts[5:]
    priced = Priced._make((status, rate_id, *components, cost_nano, possible_nano, avoided_nano, 0, gpu_nano))
    booked = Booked(start_us - _POSTGRES_EPOCH_US, priced.cost_nano, call.feature, call.session, call.user)
    return BookedCharge((day, call.trace_id, call.span_id), call, priced, booked)
