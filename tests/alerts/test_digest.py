"""Reports say what the pages say, once per period, at the channel's hour in the project's time zone."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from costapp.core.money import format_usd
from costapp.models import Budget, Channel, Membership
from costapp.services.digest import Period, due_period, queue_digests, report
from costapp.services.drain import drain
from costapp.services.evaluate_budgets import evaluate_due
from tests import pipeline
from tests.alerts.conftest import add_channel, deliver, finding, fire, rows

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def subscribe(project, digest, receiver, hour=8, **fields):
    channel = add_channel(project, name=f"{digest}-{hour}", url=receiver.url("ok"), digest=digest, digest_hour=hour)
    Channel.objects.filter(pk=channel.pk).update(created_at=CREATED)
    channel.refresh_from_db()
    return channel


def moment(text):
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("digest", "now", "first", "last"),
    [
        # Berlin is two hours ahead in summer: 08:00 there is 06:00 UTC
        ("daily", "2026-05-29T05:59:00+00:00", None, None),
        ("daily", "2026-05-29T06:00:00+00:00", "2026-05-28", "2026-05-28"),
        ("daily", "2026-05-29T21:59:00+00:00", "2026-05-28", "2026-05-28"),
        ("daily", "2026-05-29T22:30:00+00:00", None, None),
        # and one in winter; the days on which clocks change
        ("daily", "2026-03-29T05:59:00+00:00", None, None),
        ("daily", "2026-03-29T06:00:00+00:00", "2026-03-28", "2026-03-28"),
        ("daily", "2026-10-25T06:59:00+00:00", None, None),
        ("daily", "2026-10-25T07:00:00+00:00", "2026-10-24", "2026-10-24"),
        ("weekly", "2026-06-01T05:59:00+00:00", None, None),
        ("weekly", "2026-06-01T06:00:00+00:00", "2026-05-25", "2026-05-31"),
        ("weekly", "2026-06-03T06:00:00+00:00", None, None),
    ],
)
def test_a_report_is_due_at_the_channels_hour_where_the_project_is(project, receiver, digest, now, first, last):
    found = due_period(subscribe(project, digest, receiver), moment(now))
    assert (found and (found.first.isoformat(), found.last.isoformat())) == (first and (first, last))


def test_a_channel_does_not_get_a_report_of_before_it_was_made(project, receiver):
    channel = subscribe(project, "daily", receiver)
    channel.created_at = moment("2026-05-29T06:30:00+00:00")
    assert due_period(channel, moment("2026-05-29T07:00:00+00:00")) is None
    assert due_period(channel, moment("2026-05-30T07:00:00+00:00"))


@pytest.fixture
def spent(conn, project):
    """Two days of calls, dearer on the second; some without a price and some without a feature."""
    pipeline.price(project)
    spans = []
    for day, calls in ((0, 10), (1, 30)):
        for number in range(calls):
            trace = day * 1000 + number + 1
            start_ns = pipeline.NOON_NS + day * 86400 * pipeline.SECOND_NS
            feature = {"feature": ("checkout", "search")[number % 2]} if number % 5 else {}
            model = "nobody-knows" if number % 10 == 9 else "gpt-4o"
            names = {"model_requested": model, "model_responded": model}
            spans.append(pipeline.root(trace, start_ns=start_ns, **feature))
            spans.append(pipeline.call(trace, start_ns=start_ns, **names))
    pipeline.store(conn, spans, project_id=project.pk)
    drain(conn)
    return moment("2026-05-31T07:00:00+00:00")  # the second day, 30 May, has ended


def test_the_report_has_the_figures_of_its_page_and_is_sent_once(conn, project, receiver, courier, clock, spent):
    subscribe(project, "daily", receiver)
    clock.now = spent
    assert queue_digests(conn, spent) == 1
    assert queue_digests(conn, spent + timedelta(minutes=5)) == 0
    deliver(conn, courier)
    [got] = receiver.received
    assert got.json["kind"] == "digest"
    parts = {item["title"]: item for item in got.json["items"]}
    facts = {fact["label"]: fact["text"] for fact in parts["Spend"]["facts"]}
    user = get_user_model().objects.create_user("mia")
    Membership.objects.create(project=project, user=user)
    client = Client()
    client.force_login(user)
    path = parts["Spend"]["url"].removeprefix("http://localhost:8000")
    page = client.get(f"{path}&by=feature&format=json").json()
    assert facts["Spend"] == format_usd(page["total"]["cost_nano"])
    assert facts["Requests"] == f"{page['total']['requests']:,}" == "30"
    assert facts["Without a price"].startswith(f"{page['total']['unpriced']} requests")
    dearest = {fact["label"]: fact["text"] for fact in parts["Dearest features"]["facts"]}
    shown = {row["feature"] or "(unattributed)": format_usd(row["cost_nano"]) for row in page["rows"]}
    assert dearest == shown
    assert "(+200 %)" in facts["The day before"]
    assert {fact["label"] for fact in parts["Changed most"]["facts"]} == set(shown)
    assert got.json["heading"] == f"Acme, Sat 30 May 2026: {facts['Spend']} (+200 %)."


def test_budgets_and_open_alerts_are_in_the_report(conn, project):
    """Budgets are evaluated on the database's clock, so this test is too."""
    pipeline.price(project)
    now = datetime.now(UTC)
    start_ns = int((now - timedelta(seconds=30)).timestamp()) * pipeline.SECOND_NS
    spans = [span for n in range(1, 101) for span in (pipeline.root(n, start_ns=start_ns, feature="search"),
                                                     pipeline.call(n, start_ns=start_ns))]  # fmt: skip
    pipeline.store(conn, spans, project_id=project.pk)
    drain(conn)
    Budget.objects.create(project=project, name="All of it", amount_nano=1_000_000_000, period="quarter")
    evaluate_due(conn, budget_s=5)
    conn.execute("update alert set state = 'resolved'")
    fire(conn, finding(project))
    today = now.date()
    parts = {part["title"]: part for part in report(conn, project, Period(today, today, "daily"), now)["items"]}
    assert parts["1 open alert"]["facts"] == [["Warning", "Cost of support-bot is $81.20, above $80.00."]]
    [[name, text]] = parts["Budgets at most risk"]["facts"]
    assert name == "All of it"
    assert text.startswith("$0.35 of $1.00 (35 %)")


def test_nothing_is_a_report_too(conn, project, receiver, courier, clock):
    subscribe(project, "daily", receiver)
    clock.now = moment("2026-05-31T07:00:00+00:00")
    assert queue_digests(conn, clock.now) == 1
    deliver(conn, courier)
    assert receiver.received[0].json["heading"] == "Acme, Sat 30 May 2026: $0.00 (unchanged)."


def test_two_workers_queue_a_report_once(conn, project, receiver):
    subscribe(project, "daily", receiver)
    now = moment("2026-05-31T07:00:00+00:00")
    with pipeline.open_connection() as other:
        assert queue_digests(conn, now) + queue_digests(other, now) == 1
    assert rows(conn, "select count(*) from notification") == [1]
