"""The self-check: silent on a sound ledger, precise on a damaged one."""

import pytest
from django.core.management import CommandError, call_command

from costapp.models import LedgerCheck
from costapp.services.drain import drain
from costapp.services.verify_ledger import publish, verify
from costapp.storage.checks import CHECKS
from tests.pipeline import NOON_NS, SECOND_NS, call, root, store


def _broken(conn):
    return {one.result.check.name: one.result for one in verify(conn) if one.result.differences}


@pytest.fixture
def ledger(conn, project):
    project.time_zone = "Asia/Kathmandu"
    project.save()
    spans = [
        span
        for n in range(60)
        for span in (
            root(n, start_ns=NOON_NS + n * 1800 * SECOND_NS, feature=f"f{n % 3}", user=f"u{n % 5}" if n % 2 else None),
            call(n, start_ns=NOON_NS + n * 1800 * SECOND_NS, session=f"s{n % 4}" if n % 3 else None),
        )
    ]
    store(conn, spans, project_id=project.id)
    drain(conn)
    return conn


def test_a_drained_ledger_holds_every_invariant(ledger):
    assert _broken(ledger) == {}


def test_a_ledger_with_work_waiting_holds_every_invariant(ledger, project):
    store(ledger, [call(900), root(901), call(901)], project_id=project.id)
    assert _broken(ledger) == {}


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("delete from span where span_id = 2 and trace_id = '00000000-0000-0000-0000-000000000007'",
         {"charge-has-its-span"}),
        ("delete from charge where trace_id = '00000000-0000-0000-0000-000000000007'",
         {"cells-are-charges", "latency-hours-are-charges", "latency-days-are-charges", "sessions-are-charges",
          "users-are-charges"}),
        ("update rollup_5m set requests = requests + 1", {"cells-are-charges", "hours-are-cells", "days-are-cells"}),
        ("update rollup_hour set cost_nano = cost_nano + 1", {"hours-are-cells"}),
        ("delete from rollup_day", {"days-are-cells"}),
        ("update latency_hour set requests = requests + 1",
         {"latency-hours-are-charges", "latency-hours-by-one-are-hours"}),
        ("update latency_day set requests = requests + 1",
         {"latency-days-are-charges", "latency-days-by-one-are-days"}),
        ("update latency_hour_by set slot = slot + 1", {"latency-hours-by-one-are-hours"}),
        ("update latency_day_by set value = 'other' where dimension = 'model'", {"latency-days-by-one-are-days"}),
        ("delete from latency_day_by where dimension = 'service'", {"latency-days-by-one-are-days"}),
        ("update session_day set requests = requests + 1 where session_id = 's1'", {"sessions-are-charges"}),
        ("delete from user_day where user_id = ''", {"users-are-charges"}),
        ("insert into dirty_trace (project_id, day, shard, trace_id, marked_at)"
         " select project_id, day, 0, trace_id, now() - interval '1 hour' from span limit 1", {"outbox-is-worked-on"}),
        ("insert into odd_trace select project_id, day, trace_id, 'failed', now(), 'ValueError' from span limit 1",
         {"traces-can-be-resolved"}),
    ],
)  # fmt: skip
def test_damage_is_found_and_named(ledger, damage, found):
    ledger.execute(damage)
    assert set(_broken(ledger)) == found


def test_the_constraints_of_the_table_refuse_what_the_checks_look_for(ledger):
    """Both are kept: a constraint can be dropped by hand, and then the check speaks."""
    for constraint in ("charge_is_sum_of_components", "charge_unpriced_has_no_cost"):
        ledger.execute(f"alter table charge drop constraint {constraint}")
    try:
        ledger.execute("update charge set cost_nano = 1, cost_status = 0")
        assert {"charge-components", "unpriced-is-not-zero"} <= set(_broken(ledger))
    finally:
        ledger.execute("truncate charge")
        ledger.execute(
            "alter table charge add constraint charge_unpriced_has_no_cost"
            " check ((cost_status = 0) = (cost_nano is null)),"
            " add constraint charge_is_sum_of_components check (cost_nano is null or cost_status = 3"
            " or cost_nano = input_nano + output_nano + coalesce(cache_read_nano, 0) + coalesce(cache_write_nano, 0)"
            " + coalesce(other_nano, 0) + coalesce(gpu_nano, 0))"
        )


def test_results_are_published_for_data_health(ledger):
    ledger.execute("delete from rollup_day")
    publish(list(verify(ledger)))
    assert LedgerCheck.objects.count() == len(CHECKS)
    found = LedgerCheck.objects.get(name="days-are-cells")
    assert not found.holds
    assert found.shown[0]["actual"] == "none"


def test_the_command_fails_when_a_sum_differs(ledger, capsys, settings):
    settings.DATABASE_URL = ledger.info.dsn + f" password={ledger.info.password}"
    call_command("verify_ledger", "--no-publish")
    assert "invariants hold" in capsys.readouterr().out
    ledger.execute("delete from rollup_day")
    with pytest.raises(CommandError, match="1 of"):
        call_command("verify_ledger")
    assert "days-are-cells" in capsys.readouterr().out
    assert LedgerCheck.objects.count() == len(CHECKS)
