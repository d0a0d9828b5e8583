"""Spans are stored once, whatever is sent and however often."""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connections

from costapp.core.values import Span, SpanFacts
from costapp.storage import spans as stored
from costapp.storage.facts import decode_facts
from costapp.storage.outbox import shard_of

PROJECT = 7
NOW_NS = 1_790_000_000_000_000_000


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own to the test database, which is empty afterwards."""
    name = connections["default"].settings_dict["NAME"]
    with psycopg.connect(settings.DATABASE_URL, dbname=name, autocommit=True) as connection:
        yield connection
        connection.execute("truncate span, dirty_trace")


def make_span(**facts: Any) -> Span:
    return Span(os.urandom(16), 5, 0, NOW_NS, SpanFacts(**facts))


def test_inserting_spans_twice_stores_them_once_and_marks_their_traces_once(conn):
    spans = [make_span(name="a"), make_span(name="b")]
    assert stored.insert_spans(conn, PROJECT, [*spans, *spans]) == 2
    assert stored.insert_spans(conn, PROJECT, spans) == 0
    assert conn.execute("select count(*) from dirty_trace where project_id = %s", (PROJECT,)).fetchone() == (2,)


def test_a_mark_names_the_shard_by_the_last_byte_of_the_trace_id(conn):
    span = make_span(name="a")
    stored.insert_spans(conn, PROJECT, [span])
    query = "select shard, trace_id from dirty_trace where project_id = %s"
    shard, trace_id = conn.execute(query, (PROJECT,)).fetchone()
    assert (shard, trace_id.bytes) == (shard_of(span.trace_id), span.trace_id)


def test_the_first_copy_of_a_span_stays_and_other_content_is_counted_as_a_conflict(conn):
    span = make_span(name="first")
    stored.insert_spans(conn, PROJECT, [span])
    changed = stored.encode_row(PROJECT, *span._replace(facts=SpanFacts(name="second")))
    with conn.transaction():
        assert stored.insert_rows(conn, [changed]) == stored.Inserted([], {PROJECT: 1})
    same = stored.encode_row(PROJECT, *span)
    with conn.transaction():
        assert stored.insert_rows(conn, [same]) == stored.Inserted([], {})
    facts = conn.execute("select facts from span where project_id = %s", (PROJECT,)).fetchone()[0]
    assert decode_facts(facts).name == "first"


def test_the_same_span_id_in_two_projects_is_two_spans(conn):
    span = make_span(name="a")
    assert stored.insert_spans(conn, PROJECT, [span]) == stored.insert_spans(conn, PROJECT + 1, [span]) == 1


def test_copying_a_stored_span_again_raises_so_that_the_caller_takes_the_slow_path(conn):
    row = stored.encode_row(PROJECT, *make_span(name="a"))
    stored.insert_new_rows(conn, [row])
    with pytest.raises(psycopg.errors.UniqueViolation):
        stored.insert_new_rows(conn, [row])


@pytest.mark.parametrize("start_ns", [0, 1, NOW_NS, 2**63 - 1, 2**63, 2**64 - 1])
def test_any_start_time_can_be_stored(conn, start_ns):
    span = make_span(name="a")._replace(start_ns=start_ns)
    assert stored.insert_spans(conn, PROJECT, [span]) == 1
    query = "select start_ns, day = (timestamp '1970-01-01' + start_ns / 1000 * interval '1 us')::date from span"
    assert conn.execute(query).fetchone() == (min(start_ns, 2**63 - 1), True)


def test_rows_are_ordered_by_key_and_the_first_of_equal_keys_is_kept():
    first = make_span(name="first")
    spans = [first, make_span(name="x"), first._replace(start_ns=NOW_NS + 1)]
    rows = [stored.encode_row(PROJECT, *span) for span in spans]
    kept = stored.first_of_each(rows)
    assert sorted(rows[:2]) == kept
    assert [stored.key_of(row) for row in kept] == sorted(stored.key_of(row) for row in kept)
