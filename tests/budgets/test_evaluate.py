"""What a budget tells, and when: once per threshold and period, with the number of the page, late data included."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from costapp.core.budgets import BUDGET_DIMENSIONS
from costapp.models import Budget
from costapp.services.drain import drain
from costapp.services.evaluate_budgets import evaluate_due
from costapp.services.reprice import reprice
from costapp.storage import budgets as store
from costapp.storage.reports.dimensions import DIMENSIONS
from tests.budgets.conftest import NOW, USD, look, make, open_alerts, reading, spend, titles

BERLIN = ZoneInfo("Europe/Berlin")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def test_crossings_are_told_once_each_and_80_does_not_mute_100(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 50], ["actual", 80], ["actual", 100]])
    for dollars in (40, 15, 30, 20):
        spend(conn, project, dollars)
        for _ in range(3):
            look(conn, budget)
    assert titles(conn) == [
        "All has spent $55.00 of $100.00 (55 %) of its budget for May 2026.",
        "All has spent $85.00 of $100.00 (85 %) of its budget for May 2026.",
        "All is over its budget for May 2026: $105.00 of $100.00 (105 %).",
    ]
    assert len(open_alerts(conn)) == 1  # the highest says the others too


def test_a_jump_over_all_thresholds_is_one_message(conn, project, channel):
    budget = make(project, channel)
    spend(conn, project, 130)
    look(conn, budget)
    assert titles(conn) == ["All is over its budget for May 2026: $130.00 of $100.00 (130 %)."]
    assert conn.execute("select count(*) from alert").fetchone() == (4,)


def test_the_alert_has_the_figures_the_driver_and_the_address_of_the_page(conn, project, channel):
    budget = make(
        project, channel, name="Bot", dimension="feature", values=["bot"], owner="Mia", note="Ask first.",
        thresholds=[["actual", 80]],
    )  # fmt: skip
    spend(conn, project, 50, at("2026-04-10 12:00"), feature="bot", environment="staging")
    spend(conn, project, 20, feature="bot", environment="staging")
    spend(conn, project, 70, feature="bot", environment="production")
    spend(conn, project, 500, feature="other")
    look(conn, budget)
    detail, path, subject, level = conn.execute("select detail, path, subject, level from alert").fetchone()
    facts = dict(detail["facts"])
    assert facts["Spent"] == "$90.00 of $100.00 (90 %)"
    assert facts["Period"] == "May 2026, 2026-05-01 to 2026-05-31 (Europe/Berlin)"
    assert (facts["Owner"], facts["Note"]) == ("Mia", "Ask first.")
    assert detail["driver"] == (
        "The driver is environment production: $70.00, $70.00 more than in the same days of April 2026."
    )
    assert path == "/p/acme/feature/?is=bot&from=2026-05-01&to=2026-05-31"
    assert (subject, level) == ({"feature": "bot"}, "warning")


def test_unpriced_calls_are_said(conn, project, channel):
    budget = make(project, channel)
    spend(conn, project, 60)
    spend(conn, project, 60, model_requested="nobody-knows-1", model_responded="nobody-knows-1")
    look(conn, budget)
    detail = conn.execute("select detail from alert").fetchone()[0]
    assert ["Unpriced", "1 of 2 requests carry no price: real spend is higher"] in detail["facts"]
    assert (reading(conn, budget).unpriced, reading(conn, budget).requests) == (1, 2)


def test_a_new_period_starts_clean_and_the_end_of_the_old_one_is_told(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 100]])
    spend(conn, project, 110, at("2026-05-31 23:00"))
    look(conn, budget, at("2026-05-31 23:30"))
    look(conn, budget, at("2026-06-01 00:00"))
    assert titles(conn, "resolved") == ["May 2026 is over: All spent $110.00 of $100.00."]
    assert open_alerts(conn) == []
    spend(conn, project, 120, at("2026-06-01 00:10"))
    look(conn, budget, at("2026-06-01 01:00"))
    assert titles(conn)[1:] == ["All is over its budget for June 2026: $120.00 of $100.00 (120 %)."]


def test_a_period_that_is_not_complete_yet_waits_before_it_is_closed(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 100]])
    spend(conn, project, 50, at("2026-05-31 22:00"))
    look(conn, budget, at("2026-05-31 23:30"))
    conn.execute(
        "insert into dirty_cell (marked_at, bucket_at, project_id) values (%s, %s, %s)",
        (at("2026-05-31 23:59"), at("2026-05-31 23:55"), project.pk),
    )
    look(conn, budget, at("2026-06-01 00:00:10"))
    spend(conn, project, 60, at("2026-05-31 23:56"))  # came before the end was complete: not late
    look(conn, budget, at("2026-06-01 00:01"))
    assert titles(conn) == ["All is over its budget for May 2026: $110.00 of $100.00 (110 %)."]
    look(conn, budget, at("2026-06-01 00:20"))
    assert open_alerts(conn) == []
    assert titles(conn, "resolved") == ["May 2026 is over: All spent $110.00 of $100.00."]


def test_late_data_is_one_notice_that_says_so(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 80], ["actual", 100]])
    spend(conn, project, 50, at("2026-05-20 12:00"))
    look(conn, budget, at("2026-05-31 23:30"))
    look(conn, budget, at("2026-06-01 00:30"))
    assert titles(conn) == []
    spend(conn, project, 60, at("2026-05-25 12:00"))
    for minutes in range(0, 60, 15):
        look(conn, budget, at("2026-06-01 02:00") + timedelta(minutes=minutes))
    assert titles(conn) == [
        "Late crossing: data that came after May 2026 had ended put All at $110.00 of $100.00 (110 %) for it."
    ]
    look(conn, budget, at("2026-06-02 09:00"))
    assert (open_alerts(conn), titles(conn, "resolved")) == ([], [])  # it goes without a word


def test_data_that_arrives_again_tells_nothing_again(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 100]])
    number = spend(conn, project, 110)
    look(conn, budget)
    conn.execute(
        "insert into dirty_trace (project_id, day, shard, trace_id) select project_id, day, 0, trace_id from charge"
    )
    drain(conn)
    look(conn, budget)
    assert (number > 0, len(titles(conn)), titles(conn, "resolved")) == (True, 1, [])


def test_a_correction_of_prices_below_a_threshold_is_a_recovery_that_is_told(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 80], ["actual", 100]])
    spend(conn, project, 110)
    look(conn, budget)
    conn.execute(
        "update costapp_rateset set rates = jsonb_set(rates, '{input,nano}', '1250000000'), changed_at = now()"
    )
    reprice(conn, project)
    drain(conn)
    look(conn, budget)
    assert reading(conn, budget).spent_nano == 55 * USD
    assert titles(conn, "resolved") == ["All is below 100 % of its budget again: $55.00 of $100.00 for May 2026."]
    spend(conn, project, 100)  # at half the price: $105
    look(conn, budget)
    assert titles(conn)[-1] == "All is over its budget for May 2026: $105.00 of $100.00 (105 %)."


def test_a_clock_that_steps_back_changes_nothing(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 100]])
    spend(conn, project, 110, at("2026-05-31 22:00"))
    for moment in ("2026-05-31 23:59", "2026-06-01 00:05", "2026-05-31 23:00", "2026-06-01 00:06", "2026-05-31 12:00"):
        look(conn, budget, at(moment))
    assert len(titles(conn)) == 1
    assert titles(conn, "resolved") == ["May 2026 is over: All spent $110.00 of $100.00."]
    assert open_alerts(conn) == []


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_of_23_or_25_hours_is_one_day(conn, project, channel, day, hours):
    budget = make(project, channel, period="day", thresholds=[["actual", 100]])
    midnight = at(f"{day} 00:00")
    for hour in range(hours):
        moment = midnight.astimezone(ZoneInfo("UTC")) + timedelta(hours=hour, minutes=30)
        spend(conn, project, 10, moment)
    for dollars, moment in ((77, midnight - timedelta(minutes=1)), (88, at(f"{day} 23:59") + timedelta(minutes=2))):
        spend(conn, project, dollars, moment)
    look(conn, budget, at(f"{day} 23:59"))
    assert reading(conn, budget, key=day).spent_nano == hours * 10 * USD


def test_each_feature_has_the_amount_unless_it_has_its_own(conn, project, channel):
    each = make(project, channel, name="Each", dimension="feature", thresholds=[["actual", 100]])
    own = make(
        project, channel, name="Search", dimension="feature", values=["search"], amount_nano=500 * USD,
        thresholds=[["actual", 100]],
    )  # fmt: skip
    for feature, dollars in (("bot", 120), ("search", 300), ("quiet", 20), ("", 900)):
        spend(conn, project, dollars, feature=feature or None)
    look(conn, each)
    look(conn, own)
    assert titles(conn) == ["bot is over its budget for May 2026: $120.00 of $100.00 (120 %)."]
    assert conn.execute("select subject, path from alert").fetchone() == (
        {"feature": "bot"}, "/p/acme/feature/?is=bot&from=2026-05-01&to=2026-05-31",
    )  # fmt: skip
    rows = conn.execute("select subject from budget_reading where budget_id = %s order by 1", (each.pk,)).fetchall()
    assert rows == [("bot",), ("quiet",)]


def test_a_subject_that_gets_its_own_budget_leaves_the_template_without_a_word(conn, project, channel):
    each = make(project, channel, name="Each", dimension="feature", thresholds=[["actual", 100]])
    spend(conn, project, 120, feature="bot")
    look(conn, each)
    make(project, channel, name="Bot", dimension="feature", values=["bot"], amount_nano=500 * USD)
    look(conn, each)
    assert (open_alerts(conn), titles(conn, "resolved")) == ([], [])


def test_each_user_can_have_an_amount(conn, project, channel):
    budget = make(project, channel, dimension="user", amount_nano=2 * USD, thresholds=[["actual", 100]])
    for user in ("ada", "bob"):
        spend(conn, project, 3 if user == "ada" else 1, user=user)
    look(conn, budget)
    assert titles(conn) == ["ada is over its budget for May 2026: $3.00 of $2.00 (150 %)."]


def test_more_subjects_than_the_limit_are_said(conn, project, settings):
    settings.BUDGET_SUBJECTS = 2
    budget = make(project, dimension="feature")
    for feature, dollars in (("a", 1), ("b", 2), ("c", 3)):
        spend(conn, project, dollars, feature=feature)
    outcome = look(conn, budget)
    assert (outcome.subjects, outcome.beyond) == (2, 1)
    assert {reading(conn, budget, name).spent_nano for name in ("b", "c")} == {2 * USD, 3 * USD}


def test_money_moves_with_a_late_root_and_so_do_budgets(conn, project, channel):
    """The call was (unattributed); its root names the feature later."""
    from tests import pipeline

    budget = make(project, channel, dimension="feature", thresholds=[["actual", 100]])
    start_ns = int(NOW.timestamp()) * pipeline.SECOND_NS
    pipeline.store(conn, [pipeline.call(9_001, start_ns=start_ns, input=44_000_000, output=0)], project_id=project.pk)
    drain(conn)
    look(conn, budget)
    assert titles(conn) == []
    pipeline.store(conn, [pipeline.root(9_001, start_ns=start_ns, feature="bot")], project_id=project.pk)
    drain(conn)
    look(conn, budget)
    assert titles(conn) == ["bot is over its budget for May 2026: $110.00 of $100.00 (110 %)."]


def test_unspent_money_is_carried_over_once(conn, project, channel):
    budget = make(project, channel, carry_over="unspent", thresholds=[["actual", 100]])
    spend(conn, project, 30, at("2026-05-10 12:00"))
    look(conn, budget, at("2026-05-31 12:00"))
    spend(conn, project, 160, at("2026-06-10 12:00"))
    look(conn, budget, at("2026-06-10 13:00"))
    assert reading(conn, budget, key="2026-06-01").limit_nano == 170 * USD
    assert titles(conn) == []
    spend(conn, project, 11, at("2026-06-11 12:00"))
    look(conn, budget, at("2026-06-11 13:00"))
    assert titles(conn) == ["All is over its budget for June 2026: $171.00 of $170.00 (100 %)."]


def test_a_budget_made_today_gets_nothing_carried_over_from_before(conn, project):
    budget = make(project, carry_over="unspent")
    look(conn, budget)
    assert reading(conn, budget).carried_nano == 0


def test_another_amount_counts_from_now_on_and_may_fire_again(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 100]])
    spend(conn, project, 110)
    look(conn, budget)
    budget.amount_nano = 200 * USD
    budget.save()
    look(conn, budget)
    assert open_alerts(conn) == []
    spend(conn, project, 95)
    look(conn, budget)
    assert titles(conn)[-1] == "All is over its budget for May 2026: $205.00 of $200.00 (102 %)."
    look(conn, budget, at("2026-06-01 00:30"))
    budget.amount_nano = 50 * USD
    budget.save()
    look(conn, budget, at("2026-06-01 00:45"))
    assert reading(conn, budget).limit_nano == 200 * USD  # history keeps its limit


def test_another_time_zone_counts_from_now_on_and_tells_nothing_again(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 100]])
    spend(conn, project, 110)
    look(conn, budget)
    project.time_zone = "America/Los_Angeles"
    project.save()
    drain(conn)
    look(conn, budget)
    assert len(titles(conn)) == 1
    assert conn.execute("select end_at from budget_period").fetchone()[0] == datetime(
        2026, 6, 1, tzinfo=ZoneInfo("America/Los_Angeles")
    )


def test_a_rolling_budget_stays_one_alert_over_midnight_and_recovers_when_days_fall_out(conn, project, channel):
    budget = make(project, channel, period="rolling", rolling_days=3, thresholds=[["actual", 100]])
    spend(conn, project, 110, at("2026-05-20 12:00"))
    for moment in ("2026-05-20 13:00", "2026-05-21 13:00", "2026-05-22 13:00"):
        look(conn, budget, at(moment))
    assert len(titles(conn)) == 1
    look(conn, budget, at("2026-05-23 00:01"))
    assert titles(conn, "resolved") == [
        "All is below 100 % of its budget again: $0.00 of $100.00 for the 3 days to 23 May 2026."
    ]
    spend(conn, project, 105, at("2026-05-24 12:00"))
    look(conn, budget, at("2026-05-24 13:00"))
    assert len(titles(conn)) == 2


def test_spend_outside_the_days_of_a_budget_does_not_count(conn, project):
    budget = make(project, starts_on=date(2026, 5, 10), ends_on=date(2026, 5, 20))
    for day in ("2026-05-09", "2026-05-10", "2026-05-20", "2026-05-21"):
        spend(conn, project, 10, at(f"{day} 12:00"))
    look(conn, budget, at("2026-05-09 12:00"))
    assert conn.execute("select count(*) from budget_reading").fetchone() == (0,)
    look(conn, budget, at("2026-05-20 13:00"))
    assert reading(conn, budget).spent_nano == 20 * USD


def test_filters_and_several_names_narrow_what_counts(conn, project):
    budget = make(project, dimension="feature", values=["a", "b"], filters={"environment": ["production"]})
    for feature, environment, dollars in (("a", "production", 1), ("b", "production", 2), ("a", "staging", 4)):
        spend(conn, project, dollars, feature=feature, environment=environment)
    look(conn, budget)
    assert reading(conn, budget).spent_nano == 3 * USD


def test_the_forecast_warns_before_the_money_is_gone(conn, project, channel):
    budget = make(project, channel, thresholds=[["forecast", 100]])
    for day in range(1, 16):
        spend(conn, project, 5, at(f"2026-05-{day:02} 12:00"))
    look(conn, budget, at("2026-05-15 23:00"))
    found = reading(conn, budget)
    assert found.low_nano <= found.forecast_nano <= found.high_nano
    assert 140 * USD < found.forecast_nano < 170 * USD
    assert at("2026-05-19 12:00") < found.runs_out_at < at("2026-05-22 00:00")
    [title] = titles(conn)
    assert title.startswith("All is heading for $1")
    assert title.endswith("% of its $100.00.")


def test_a_switched_off_or_deleted_budget_closes_its_alerts_without_a_word(conn, project, channel):
    ways = {"off": lambda b: Budget.objects.filter(pk=b.pk).update(enabled=False), "gone": lambda b: b.delete()}
    for name, end in ways.items():
        budget = make(project, channel, name=name)
        spend(conn, project, 110, datetime.now(BERLIN))
        evaluate_due(conn)
        assert open_alerts(conn)
        end(budget)
        evaluate_due(conn)
        assert (open_alerts(conn), titles(conn, "resolved")) == ([], [])


def test_a_budget_of_one_project_never_reads_another(conn, project, channel):
    from costapp.models import Project

    other = Project.objects.create(slug="other", name="Other")
    spend(conn, project, 500, feature="bot")
    budget = make(other, None, dimension="feature", values=["bot"])
    look(conn, budget)
    assert reading(conn, budget).spent_nano == 0


def test_budgets_can_be_for_every_dimension_that_reports_know_but_the_session():
    assert set(BUDGET_DIMENSIONS) == set(DIMENSIONS) - {"session"}


def test_the_driver_is_what_rose_beyond_its_share_not_what_is_always_there(conn, project, channel):
    """Everything is production; a new prompt version replaced another; one model is what is new."""
    budget = make(project, channel, thresholds=[["actual", 50]])
    where = {"environment": "production"}
    spend(conn, project, 20, at("2026-04-10 12:00"), feature="bot", prompt_version="v1", **where)
    spend(conn, project, 20, at("2026-04-10 12:00"), feature="search", prompt_version="v1", **where)
    spend(conn, project, 22, feature="bot", prompt_version="v2", **where)
    spend(conn, project, 20, feature="search", prompt_version="v2", **where)
    spend(conn, project, 40, feature="agent", prompt_version="v2", **where)
    look(conn, budget)
    detail = conn.execute("select detail from alert").fetchone()[0]
    assert detail["driver"] == "The driver is feature agent: $40.00, $40.00 more than in the same days of April 2026."


def test_spend_that_did_not_rise_has_no_driver(conn, project, channel):
    budget = make(project, channel, thresholds=[["actual", 50]])
    for moment in (at("2026-04-10 12:00"), NOW):
        spend(conn, project, 60, moment, feature="bot")
    look(conn, budget)
    assert conn.execute("select detail ->> 'driver' from alert").fetchone() == ("",)


def test_readings_are_kept_as_long_as_charges_and_go_with_their_budget(conn, project):
    old, gone = make(project, name="old"), make(project, name="gone")
    for budget in (old, gone):
        look(conn, budget, at("2026-04-10 12:00"))
        look(conn, budget, at("2026-05-10 12:00"))
    gone.delete()
    assert store.drop_before(conn, at=at("2026-05-05 00:00")) == 3
    rows = conn.execute("select budget_id, period_key from budget_reading").fetchall()
    assert rows == [(old.pk, date(2026, 5, 1))]


def test_a_heavy_budget_rests_before_it_is_looked_at_again(conn, project, monkeypatch):
    from costapp.services import evaluate_budgets

    monkeypatch.setattr(evaluate_budgets, "LIGHT_S", 0.0)
    budget = make(project)
    try:
        assert evaluate_due(conn).subjects == 1
        assert evaluate_budgets._rests_until[budget.pk] > 0
    finally:
        evaluate_budgets._rests_until.clear()
