"""Charges on disk: what goes in comes out, whatever the texts and numbers are."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costapp.core.calls import resolve
from costapp.core.values import Priced, Usage
from costapp.services.drain import drain
from costapp.storage import charges, kinds
from tests.pipeline import call, fingerprint, root, store, totals

PRICED = Priced(1, 7, 100, 20, 3, 4000, 50000, 54123, None, None)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def book(conn, each, priced=PRICED):
    row = charges.encode(1, each, priced)
    return charges.write(conn, 1, rows=[row], booked={}, gone=(), reasons={})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, texts, texts, st.integers(0, 10**9), st.none() | st.integers(0, 10**9), st.none() | st.integers())
def test_what_is_encoded_is_what_is_read(conn, feature, user, error, tokens, ttft_us, prompt_hash):
    conn.execute("truncate charge")
    prompt_hash = None if prompt_hash is None else prompt_hash % 2**63
    usage = Usage(tokens, *range(9), tokens)
    each = resolve([call(1)])[0]._replace(
        feature=feature, user=user, error=error, usage=usage, ttft_us=ttft_us, prompt_hash=prompt_hash
    )
    book(conn, each)
    columns = (
        "feature, user_id, coalesce(error, ''), input_tokens, coalesce(cache_read_tokens, 0), cache_write_5m_tokens,"
        " coalesce(units, 0), ttft_us, prompt_hash, cost_nano, input_nano, cache_read_nano, cache_write_nano,"
        " output_nano, other_nano, rate_id, cost_status, extract(epoch from start_at)::bigint"
    )
    clean = [text.replace("\0", "") for text in (feature, user, error)]
    assert totals(conn, columns) == (
        *clean, tokens, 0, 1, tokens, ttft_us, prompt_hash, 54123, 100, 20, 3, 4000, 50000, 7, 1,
        each.start_ns // 10**9,
    )  # fmt: skip


def test_equal_rows_are_not_written_again(conn):
    each = resolve([call(1)])[0]
    row = charges.encode(1, each, PRICED)
    book(conn, each)
    before = totals(conn, "xmin::text", "charge")
    booked = charges.load_booked(conn, 1, nodes=[row.key[:2]])
    assert booked == {row.key: row.booked}
    assert charges.write(conn, 1, rows=[row], booked=booked, gone=(), reasons={}) == ([], [])
    assert totals(conn, "xmin::text", "charge") == before


def test_a_change_tells_the_old_and_the_new_place(conn):
    each = resolve([call(1)])[0]
    old = charges.encode(1, each, PRICED)
    book(conn, each)
    new = charges.encode(1, each._replace(feature="search"), PRICED)
    changes = charges.write(conn, 1, rows=[new], booked={old.key: old.booked}, gone=(), reasons={new.key[1]: "why"})
    assert changes.touched == [old.booked, new.booked]
    assert changes.revisions == [(new.key, "why", old.booked, new.booked)]


def test_the_database_refuses_a_cost_that_is_not_the_sum_of_its_components(conn):
    with pytest.raises(psycopg.errors.CheckViolation):
        book(conn, resolve([call(1)])[0], PRICED._replace(cost_nano=1))


def test_hostile_names_reach_the_sums_as_they_reach_the_charge(conn, project):
    """Names with NUL, quotes and ten thousand characters: charge, session and user agree on what they are called."""
    session, user = "s\0" + "x" * 10_000, "'; drop table charge; --\\\n\t"
    store(conn, [root(1, session=session, user=user, feature="f\0eature"), call(1)], project_id=project.id)
    drain(conn)
    store(conn, [call(1, 3)], project_id=project.id)
    drain(conn)
    stored = totals(conn, "session_id, user_id")
    assert stored == ("s" + "x" * (kinds.TEXT_LIMIT - 1), user)
    assert totals(conn, "session_id, user_id, requests::int", "session_day") == (*stored, 2)
    assert totals(conn, "user_id, sessions::int, requests::int", "user_day") == (user, 1, 2)
    assert len(fingerprint(conn)["user_day"]) == 1
