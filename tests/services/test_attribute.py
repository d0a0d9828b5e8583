"""From spans to charges, on a real database."""

from costapp.services.drain import drain
from tests.pipeline import call, root, store, totals


def test_a_trace_becomes_one_charge_per_call(conn, project):
    store(conn, [root(1, feature="search"), call(1, 2), call(1, 3)], project_id=project.id)
    assert drain(conn) == 2
    assert totals(conn, "count(*), sum(input_tokens), min(feature)") == (2, 2000, "search")
    assert totals(conn, "sum(requests), sum(input_tokens)", "rollup_5m") == (2, 2000)
    assert totals(conn, "sum(requests), sum(input_tokens)", "rollup_day") == (2, 2000)
