"""A price that changes reaches what is booked: shown first, then applied, and back again to the last byte."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from genai_prices import types as genai

from costapp.core.values import ChargeFlag, CostStatus, Span
from costapp.models import Project, RateSet, RepriceRun
from costapp.services.drain import drain
from costapp.services.genai_catalogue import read_package
from costapp.services.import_prices import import_catalogue, import_csv
from costapp.services.reprice import reprice
from costapp.storage.booked import load_charge, load_day
from costapp.storage.rates import load_rate_book, unpriced_models
from tests.pipeline import NOON_NS, SECOND_NS, call, fingerprint, root, store, totals

Connection = psycopg.Connection[Any]
NOON_DAY = datetime.fromtimestamp(NOON_NS // SECOND_NS, UTC).date()
DAY_NS = 86_400 * SECOND_NS
PRICES = "provider,model,input,output\nopenai,gpt-4o,2.50,10\n"


def story(days: int = 3) -> list[Span]:
    """A call of gpt-4o and one of a model of our own, on each of some days, in two features."""
    spans: list[Span] = []
    for number in range(days):
        at = NOON_NS + number * DAY_NS
        spans += [
            root(10 * number + 1, feature="search", start_ns=at),
            call(10 * number + 1, start_ns=at + SECOND_NS),
            root(10 * number + 2, feature="chat", start_ns=at),
            call(10 * number + 2, start_ns=at + SECOND_NS, model_requested="acme-1", model_responded="acme-1"),
        ]
    return spans


@pytest.fixture
def booked(conn: Connection, project: Project) -> Project:
    """Three days of charges, gpt-4o priced and acme-1 not."""
    import_csv(project, PRICES)
    store(conn, story(), project_id=project.pk)
    drain(conn)
    return project


def test_an_unpriced_model_gets_its_price_later_and_history_follows(conn: Connection, booked: Project) -> None:
    assert totals(conn, "sum(cost_nano), count(*) filter (where cost_status = 0)") == (3 * 3_500_000, 3)
    listed = unpriced_models(conn, booked.pk, datetime(2026, 1, 1, tzinfo=UTC))
    assert [(row.model, row.requests, row.without_rate, row.tokens) for row in listed] == [("acme-1", 3, 3, 3300)]
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")
    result = reprice(conn, booked)
    drain(conn)
    assert (result.changed, result.newly_priced, result.difference_nano) == (3, 3, 3 * 1_200_000)
    assert totals(conn, "sum(cost_nano), count(*) filter (where cost_status = 0)") == (3 * 4_700_000, 0)
    assert totals(conn, "sum(cost_nano)::bigint, sum(unpriced)::bigint", "rollup_5m") == (3 * 4_700_000, 0)
    assert unpriced_models(conn, booked.pk, datetime(2026, 1, 1, tzinfo=UTC)) == []
    assert totals(conn, "count(*), min(reason), sum(new_cost_nano)::bigint", "charge_revision") == (
        3,
        "re-priced",
        3 * 1_200_000,
    )


def test_a_dry_run_shows_the_difference_by_day_and_feature_and_writes_nothing(
    conn: Connection, booked: Project
) -> None:
    import_csv(booked, PRICES.replace("2.50", "3.50") + "openai,acme-1,1,2\n")
    before = fingerprint(conn)
    result = reprice(conn, booked, dry_run=True)
    assert fingerprint(conn) == before
    assert totals(conn, "count(*)", "charge_revision") == (0,)
    first_day = [row for row in result.differences if row.day == NOON_DAY]
    assert [(row.feature, row.old_nano, row.new_nano, row.newly_priced) for row in first_day] == [
        ("chat", 0, 1_200_000, 1),
        ("search", 3_500_000, 4_500_000, 0),
    ]
    applied = reprice(conn, booked)
    assert applied.differences == result.differences


def test_a_price_changed_and_changed_back_restores_every_byte(conn: Connection, booked: Project) -> None:
    before = fingerprint(conn)
    import_csv(booked, PRICES.replace("2.50", "7") + "openai,acme-1,1,2\n")
    reprice(conn, booked)
    drain(conn)
    assert fingerprint(conn) != before
    import_csv(booked, PRICES)
    reprice(conn, booked)
    drain(conn)
    assert fingerprint(conn) == before


def test_repricing_with_unchanged_prices_touches_nothing(conn: Connection, booked: Project) -> None:
    before = fingerprint(conn), totals(conn, "count(*)", "charge_revision")
    result = reprice(conn, booked)
    assert (result.requests, result.changed, result.differences) == (6, 0, [])
    assert totals(conn, "count(*)", "dirty_cell") == (0,)
    assert (fingerprint(conn), totals(conn, "count(*)", "charge_revision")) == before


def test_repricing_gives_what_resolving_the_spans_again_would_give(conn: Connection, booked: Project) -> None:
    import_csv(booked, PRICES.replace("2.50", "7") + "openai,acme-*,1,2\n")
    reprice(conn, booked)
    drain(conn)
    repriced = fingerprint(conn)
    conn.execute("truncate charge, rollup_5m, rollup_hour, rollup_day, latency_hour, latency_day")
    conn.execute("truncate latency_hour_by, latency_day_by")
    conn.execute("truncate session_day, user_day, activity_day")
    conn.execute(
        "insert into dirty_trace (project_id, day, shard, trace_id)"
        " select distinct project_id, day, get_byte(uuid_send(trace_id), 15) %% %s, trace_id from span",
        [16],
    )
    drain(conn)
    assert fingerprint(conn) == repriced


def test_after_the_spans_expired_charges_are_priced_from_their_own_quantities(
    conn: Connection, booked: Project
) -> None:
    conn.execute("delete from span")
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")
    assert reprice(conn, booked).newly_priced == 3
    assert totals(conn, "sum(cost_nano)") == (3 * 4_700_000,)


def test_only_the_days_asked_for_are_repriced(conn: Connection, booked: Project) -> None:
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")
    second = date.fromordinal(NOON_DAY.toordinal() + 1)
    result = reprice(conn, booked, first=second, last=second)
    assert (result.requests, result.changed) == (2, 1)
    assert totals(conn, "array_agg(day) filter (where cost_status = 0)")[0] == [
        NOON_DAY,
        date.fromordinal(NOON_DAY.toordinal() + 2),
    ]


def test_an_interrupted_run_goes_on_where_it_stopped(
    conn: Connection, booked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")

    def stop_after_the_first(day: date) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reprice(conn, booked, progress=stop_after_the_first)
    assert totals(conn, "count(*) filter (where cost_status = 0)") == (2,)
    days: list[date] = []
    result = reprice(conn, booked, progress=days.append)
    assert result.resumed_at == days[0] == date.fromordinal(NOON_DAY.toordinal() + 1)
    assert totals(conn, "count(*) filter (where cost_status = 0)") == (0,)
    assert RepriceRun.objects.get().finished_at is not None


def test_an_interrupted_run_starts_over_when_prices_have_changed_since(conn: Connection, booked: Project) -> None:
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")

    def stop_after_the_first(day: date) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reprice(conn, booked, progress=stop_after_the_first)
    import_csv(booked, PRICES + "openai,acme-1,1,3\n")
    result = reprice(conn, booked)
    assert result.resumed_at is None
    assert totals(conn, "sum(cost_nano) filter (where model = 'acme-1')") == (3 * 1_300_000,)


def test_prices_that_move_during_a_run_are_told(conn: Connection, booked: Project) -> None:
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")

    def another_import(day: date) -> None:
        import_csv(booked, PRICES + "openai,acme-1,1,4\n")

    assert reprice(conn, booked, progress=another_import).prices_moved
    assert not reprice(conn, booked).prices_moved
    assert totals(conn, "sum(cost_nano) filter (where model = 'acme-1')") == (3 * 1_400_000,)


@pytest.mark.parametrize(("seller", "flag"), [("groq", ChargeFlag.VENDOR_PRICE), ("acme", ChargeFlag.PROVIDER_GUESSED)])
def test_flags_that_pricing_added_go_with_the_price_that_needed_them(
    conn: Connection, project: Project, seller: str, flag: ChargeFlag
) -> None:
    """A model that its seller does not list: first without any price, then at its vendor's, then without again."""
    facts = {"model_requested": "gizmo-1", "model_responded": "gizmo-1", "provider_raw": seller}
    store(conn, [root(1), call(1, **facts)], project_id=project.pk)
    drain(conn)
    before = fingerprint(conn)
    prices = genai.ModelPrice(input_mtok=Decimal("2.5"), output_mtok=Decimal(10))
    gizmo = genai.ModelInfo("gizmo-1", genai.ClauseEquals("gizmo-1"), prices=prices)
    vendor = genai.Provider("gizmo", "Gizmo", "x", model_match=genai.ClauseStartsWith("gizmo"), models=[gizmo])
    import_catalogue(read_package([vendor, genai.Provider("groq", "Groq", "x")], package="1.0"))
    reprice(conn, project)
    drain(conn)
    assert totals(conn, "sum(cost_nano), bit_or(flags)") == (3_500_000, flag)
    RateSet.objects.update(superseded_at=datetime.now(UTC), changed_at=datetime.now(UTC))
    reprice(conn, project)
    drain(conn)
    assert fingerprint(conn) == before


def test_a_shard_that_another_worker_holds_is_waited_for(conn: Connection, booked: Project) -> None:
    """The lock makes re-pricing and attribution of one trace take turns, so no older answer wins."""
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")
    conn.execute("set lock_timeout = '50ms'")
    from tests.pipeline import open_connection

    with open_connection() as other, other.transaction():
        for shard in range(16):
            other.execute("select pg_advisory_xact_lock(%s, %s)", [0x5EED, shard])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            reprice(conn, booked)
    assert totals(conn, "count(*) filter (where cost_status = 0)") == (3,)


def test_a_charge_reads_back_as_the_call_it_was_priced_from(conn: Connection, booked: Project) -> None:
    book = load_rate_book(conn, booked.pk)
    with conn.transaction():
        charges = list(load_day(conn, booked.pk, day=NOON_DAY))
    assert len(charges) == 2
    for charge in charges:
        assert book.price(charge.call)._replace(flags=0) == charge.priced
        assert load_charge(conn, booked.pk, key=charge.key) == charge
    assert {charge.priced.status for charge in charges} == {CostStatus.PRICED, CostStatus.UNPRICED}


def test_another_projects_charges_are_left_alone(conn: Connection, booked: Project) -> None:
    other = Project.objects.create(slug="other", name="Other")
    import_csv(other, PRICES)
    store(conn, story(1), project_id=other.pk)
    drain(conn)
    before = totals(conn, f"sum(cost_nano) filter (where project_id = {other.pk})")
    import_csv(booked, PRICES.replace("2.50", "7"))
    reprice(conn, booked)
    assert totals(conn, f"sum(cost_nano) filter (where project_id = {other.pk})") == before


# -- the command --------------------------------------------------------------------------------------


def test_the_command_shows_then_applies(
    conn: Connection, booked: Project, monkeypatch: pytest.MonkeyPatch, capsys: Any, settings: Any
) -> None:
    from tests import pipeline

    monkeypatch.setattr("costapp.management.commands.reprice.connect", lambda *_, **__: pipeline.open_connection())
    call_command("reprice", project="acme")
    assert "still without a price: openai/acme-1, 3 requests" in capsys.readouterr().out
    import_csv(booked, PRICES + "openai,acme-1,1,2\n")
    call_command("reprice", project="acme", dry_run=True)
    out = capsys.readouterr().out
    assert f"{NOON_DAY}  chat: $0.00 -> $0.0012 (+$0.0012; 1 of 1 requests, 1 priced for the first time)" in out
    assert "3 of 6 requests would change" in out
    call_command("reprice", "--json")
    data = json.loads(capsys.readouterr().out)["projects"][0]
    assert (data["changed"], data["difference_nano"], len(data["by_day_and_feature"])) == (3, 3_600_000, 3)
    call_command("reprice")
    assert "all 6 requests" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--project", "nobody"], "There is no project 'nobody'. Projects: acme."),
        (["--from", "tomorrow"], "'tomorrow' is not a date"),
        (["--from", "2026-02-01", "--to", "2026-01-01"], "--to 2026-01-01 is before --from 2026-02-01."),
    ],
)
def test_the_command_refuses_in_a_sentence(
    conn: Connection, project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    from tests import pipeline

    monkeypatch.setattr("costapp.management.commands.reprice.connect", lambda *_, **__: pipeline.open_connection())
    with pytest.raises(CommandError, match=sentence):
        call_command("reprice", *arguments)


def test_without_any_project_the_command_says_so(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from tests import pipeline

    monkeypatch.setattr("costapp.management.commands.reprice.connect", lambda *_, **__: pipeline.open_connection())
    call_command("reprice")
    assert capsys.readouterr().out == "There are no projects.\n"


def test_a_project_without_charges_says_so(conn: Connection, project: Project) -> None:
    assert reprice(conn, project).first is None
