"""Kinds: the texts that charges share come back as they went in, and go when their charges go."""

from datetime import date, timedelta

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costapp.core.calls import resolve
from costapp.core.values import Priced
from costapp.services.drain import drain
from costapp.storage import charges, checks, kinds
from tests.pipeline import NOON_NS, SECOND_NS, call, root, store, totals

PRICED = Priced(1, 7, 100, 20, 3, 4000, 50000, 54123, None, None)
COLUMNS = ", ".join(kinds.COLUMNS)
MAY = date(2026, 5, 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[texts] * 16))
def test_every_text_of_a_call_is_read_as_it_was_stated(conn, stated):
    conn.execute("truncate charge, charge_kind")
    each = resolve([call(1)])[0]._replace(**dict(zip(kinds.COLUMNS, stated, strict=True)))
    row = charges.encode(1, each, PRICED)
    charges.write(conn, 1, rows=[row], booked={}, gone=(), reasons={})
    clean = {name: text.replace("\0", "") for name, text in zip(kinds.COLUMNS, stated, strict=True)}
    if clean["model_requested"] == clean["model"]:
        clean["model_requested"] = ""
    assert totals(conn, COLUMNS) == tuple(clean.values())


def test_calls_of_one_kind_share_it_and_another_project_has_its_own(conn, project):
    store(conn, [root(1), *(call(1, span) for span in range(2, 9))], project_id=project.id)
    store(conn, [root(2), call(2)], project_id=project.id + 1)
    drain(conn)
    store(conn, [root(3), call(3)], project_id=project.id)
    drain(conn)
    assert totals(conn, "count(*)::int, count(distinct project_id)::int", "charge_kind") == (2, 2)
    assert totals(conn, "count(*)::int, count(distinct kind_id)::int", "charge") == (9, 2)


def test_texts_next_to_each_other_are_not_mixed_up():
    blank = ("",) * 14
    assert kinds.kind_of(MAY, ("ab", "c", *blank)).digest != kinds.kind_of(MAY, ("a", "bc", *blank)).digest


def test_a_charge_that_becomes_another_kind_refers_to_that(conn, project):
    store(conn, [root(1), call(1)], project_id=project.id)
    drain(conn)
    store(conn, [call(1, 3, parent=2, service="gateway", team="core", model_responded="azure/gpt-4o",
                      response_id="resp-1-2", scope="litellm")], project_id=project.id)  # fmt: skip
    drain(conn)
    assert totals(conn, "count(*)::int") == (1,)
    assert totals(conn, "team, service") == ("core", "web")


def test_a_charge_without_its_kind_is_found_by_the_ledger_check(conn, project):
    check = next(check for check in checks.CHECKS if check.name == "charge-has-its-kind")
    store(conn, [root(1), call(1)], project_id=project.id)
    drain(conn)
    assert checks.run(conn, check).differences == 0
    conn.execute("update charge_kind set month = '2026-06-01'")
    assert checks.run(conn, check).differences == 1


def test_kinds_go_a_month_after_their_charges(conn, project):
    store(conn, [root(1), call(1)], project_id=project.id)
    store(conn, [root(2), call(2, start_ns=NOON_NS + 70 * 86_400 * SECOND_NS)], project_id=project.id)
    drain(conn)
    assert totals(conn, "count(*)::int", "charge_kind") == (2,)
    kinds.drop_before(conn, day=MAY + timedelta(days=31))
    assert totals(conn, "count(*)::int", "charge_kind") == (2,)
    kinds.drop_before(conn, day=MAY + timedelta(days=70))
    assert totals(conn, "min(month)", "charge_kind") == (date(2026, 8, 1),)


def test_a_number_of_a_transaction_that_was_rolled_back_is_not_used_again(conn):
    kind = kinds.kind_of(MAY, ("core",) + ("",) * 15)
    with conn.transaction():
        kinds.kind_ids(conn, 1, kinds=[kind])
        raise psycopg.Rollback
    (number,) = kinds.kind_ids(conn, 1, kinds=[kind]).values()
    assert totals(conn, "id, team", "charge_kind") == (number, "core")
