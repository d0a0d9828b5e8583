"""Reads of the price tables for workers: raw SQL, no Django, because collectors-side tools price too.

The tables are written by Django models (costapp.models.pricing). The shared catalogue is loaded once
per version and connection target, and its JSON is decoded only for models that are looked up.
"""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg.rows import tuple_row

from costapp.core.model_names import CatalogueProvider, Names
from costapp.core.pricing import RateBook
from costapp.core.rates import BEGINNING_NS, END_NS, RateSet

Connection = psycopg.Connection[Any]

_RATE_SET = f"""
select r.id, r.provider, r.model, r.region, r.service_tier, r.batch,
       (extract(epoch from r.window_start) / 60)::int, (extract(epoch from r.window_end) / 60)::int,
       coalesce((extract(epoch from r.valid_from) * 1000000000)::bigint, {BEGINNING_NS}),
       coalesce((extract(epoch from r.valid_to) * 1000000000)::bigint, {END_NS}),
       r.rates::text, (r.discount_percent * 10000)::int, r.priced_as, r.source, l.name, l.priority
from costapp_rateset r join costapp_pricelist l on l.id = r.price_list_id
"""


class Catalogue(NamedTuple):
    """The shared public prices, by (provider, model), and how to recognise names in them."""

    rate_sets: dict[tuple[str, str], list[RateSet]]
    names: Names


class CatalogueAge(NamedTuple):
    name: str
    version: str
    imported_at: datetime | None
    rate_sets: int  #: in force


class UnpricedModel(NamedTuple):
    """Calls of one model that carry no cost, and why."""

    provider: str
    model: str
    requests: int
    without_rate: int  #: usage is known, a price is missing
    without_usage: int  #: the client sent no usable token counts
    tokens: int
    possible_nano: int | None  #: upper bound of what they may have cost, where one can be given
    first_at: datetime
    last_at: datetime


_cached_catalogue: tuple[tuple[str, int], Catalogue] | None = None


def load_rate_book(conn: Connection, project_id: int) -> RateBook:
    """Every rate that may apply in a project: its own lists, shared custom lists, the catalogue."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        own = cursor.execute(
            _RATE_SET + "where l.kind <> 'catalogue' and (l.project_id = %s or l.project_id is null)"
            " and r.superseded_at is null",
            [project_id],
        ).fetchall()
        policy = cursor.execute("select reported_cost_counts from costapp_project where id = %s", [project_id])
        counts = policy.fetchone()
    catalogue = load_catalogue(conn)
    return RateBook(
        map(RateSet._make, own),
        names=catalogue.names,
        catalogue=catalogue.rate_sets,
        reported_cost_counts=bool(counts and counts[0]),
    )


def load_catalogue(conn: Connection) -> Catalogue:
    """The shared catalogue; kept for as long as `rates_version` stays the same."""
    global _cached_catalogue
    key = (conn.info.dsn, rates_version(conn))
    if _cached_catalogue is None or _cached_catalogue[0] != key:
        _cached_catalogue = (key, _load_catalogue(conn))
    return _cached_catalogue[1]


def _load_catalogue(conn: Connection) -> Catalogue:
    with conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_RATE_SET + "where l.kind = 'catalogue' and r.superseded_at is null")
        rate_sets: dict[tuple[str, str], list[RateSet]] = {}
        for row in map(RateSet._make, cursor):
            rate_sets.setdefault((row.provider, row.model), []).append(row)
        lists = cursor.execute(
            "select names->'providers' #>> '{}' from costapp_pricelist"
            " where kind = 'catalogue' and names is not null order by priority desc, id"
        ).fetchall()
    providers = [known for (text,) in lists for known in msgspec.json.decode(text, type=list[CatalogueProvider])]
    return Catalogue(rate_sets, Names(providers))


def rates_version(conn: Connection) -> int:
    """Changes whenever any rate, list or project policy does; one indexed read, so ask often."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("""
            select coalesce((extract(epoch from max(changed_at)) * 1000000)::bigint, 0)
                   + (select count(*) from costapp_rateset)
                   + (select coalesce(sum((extract(epoch from changed_at) * 1000000)::bigint % 1000000007), 0)
                      from costapp_pricelist)::bigint
                   + (select coalesce(sum(id), 0) from costapp_project where reported_cost_counts)::bigint
            from costapp_rateset
        """)
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def rate_set(conn: Connection, rate_id: int) -> RateSet | None:
    """One rate set, superseded ones included: what a booked charge was priced with."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_RATE_SET + "where r.id = %s", [rate_id]).fetchone()
    return RateSet._make(row) if row else None


def catalogue_age(conn: Connection) -> CatalogueAge | None:
    """Which catalogue is loaded and since when; None when none was ever imported."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("""
            select l.name, l.version, l.imported_at,
                   (select count(*) from costapp_rateset r where r.price_list_id = l.id and r.superseded_at is null)
            from costapp_pricelist l where l.kind = 'catalogue' order by l.imported_at desc nulls last limit 1
        """).fetchone()
    return CatalogueAge._make(row) if row else None


def unpriced_models(conn: Connection, project_id: int, since: datetime) -> list[UnpricedModel]:
    """Models with calls that have no cost since a time, the busiest first."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            """
            select provider, model, count(*),
                   count(*) filter (where usage_state <> 0), count(*) filter (where usage_state = 0),
                   sum(input_tokens::bigint + output_tokens + coalesce(cache_read_tokens, 0)
                       + coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0)
                       + coalesce(reasoning_tokens, 0) + coalesce(audio_in_tokens, 0) + coalesce(audio_out_tokens, 0)
                       + coalesce(image_in_tokens, 0) + coalesce(image_out_tokens, 0))::bigint,
                   sum(possible_nano)::bigint, min(start_at), max(start_at)
            from charge_full
            where project_id = %s and day >= (%s at time zone 'UTC')::date and start_at >= %s and cost_status = 0
            group by provider, model
            order by count(*) desc, provider, model
            """,
            [project_id, since, since],
        ).fetchall()
    return [UnpricedModel._make(row) for row in rows]
