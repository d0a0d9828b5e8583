"""Re-pricing history in the admin: the difference is shown, then a worker carries it out, once, whatever happens."""

import re
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from costapp import tasks
from costapp.models import AuditEntry, Membership, PriceList, Project, RepriceRun
from costapp.services import reprice_queue
from costapp.services.drain import drain
from costapp.services.import_prices import import_csv
from costapp.services.reprice import reprice
from costapp.storage import outbox, reprice_runs
from tests.pipeline import open_connection, store, totals
from tests.prices.test_reprice import NOON_DAY, PRICES, story

Connection = psycopg.Connection[Any]
ADDRESS = "/admin/costapp/repricerun/new/"
NEW_PRICES = PRICES.replace("2.50", "3.50") + "openai,acme-1,1,2\n"
PERIOD = {"first": str(NOON_DAY), "last": "2026-06-30"}
LIST = "/admin/costapp/repricerun/"


@pytest.fixture
def booked(conn: Connection, project: Project) -> Project:
    """Three days of charges, booked before the prices changed."""
    import_csv(project, PRICES)
    store(conn, story(), project_id=project.pk)
    drain(conn)
    import_csv(project, NEW_PRICES)
    return project


def staff(name: str, project: Project, role: str) -> Client:
    user = get_user_model().objects.create_user(name, is_staff=True)
    Membership.objects.create(project=project, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def owner(booked: Project) -> Client:
    return staff("olga", booked, Membership.Role.OWNER)


@pytest.fixture
def bell(conn: Connection, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The worker's task, on a connection of its own."""
    settings.DATABASE_URL = conn.info.dsn + f" password={conn.info.password}"
    monkeypatch.setattr(tasks, "_local", threading.local())
    yield tasks.reprice_history
    if getattr(tasks._local, "conn", None):
        tasks._local.conn.close()


def show(client: Client, project: Project, **period: str) -> str:
    return str(client.get(ADDRESS, {"project": project.pk, **PERIOD, **period}).content.decode())


def apply(client: Client, project: Project, page: str) -> Any:
    seen = re.search(r'name="seen" value="(-?\d+)"', page)
    assert seen
    return client.post(ADDRESS, {"project": project.pk, **PERIOD, "seen": seen.group(1)}, follow=True)


def sums(conn: Connection) -> Any:
    return totals(conn, "sum(cost_nano)::bigint, count(*) filter (where cost_status = 0)")


def test_the_page_shows_what_the_dry_run_finds_and_writes_nothing(
    conn: Connection, booked: Project, owner: Client
) -> None:
    before = sums(conn)
    page = show(owner, booked)
    assert "6 of 6 requests of 2026-05-29 to 2026-05-31 (UTC) would change, $0.0105 → $0.0171 (+$0.0066)" in page
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>.*?<td>(\+\$[\d.]+)</td>', page)
    found = reprice(conn, booked, dry_run=True).differences
    assert [(day, feature) for day, feature, _ in rows] == [(str(row.day), row.feature) for row in found]
    assert {money for _, _, money in rows} == {"+$0.0012", "+$0.001"}
    assert sums(conn) == before
    assert not RepriceRun.objects.exists()


def test_what_was_applied_is_what_was_shown_and_is_audited(
    conn: Connection, booked: Project, owner: Client, bell: Any
) -> None:
    shown = reprice(conn, booked, dry_run=True)
    answer = apply(owner, booked, show(owner, booked)).content.decode()
    assert "is queued" in answer
    assert "waits for a worker" in answer
    run = RepriceRun.objects.get()
    assert (run.state, run.requested_by, run.first_day) == ("requested", "olga", NOON_DAY)
    entry = AuditEntry.objects.get(object_type="reprice run")
    assert (entry.actor, entry.action, entry.project) == ("olga", "created", booked)
    assert sums(conn) == (3 * 3_500_000, 3)
    bell()
    assert sums(conn) == (3 * 5_700_000, 0)
    run.refresh_from_db()
    assert run.state == "done"
    assert run.finished_at is not None
    for name in reprice_runs.COUNTS:
        assert getattr(run, name) == getattr(shown, name), name
    page = owner.get(LIST, {"q": "olga"}).content.decode()
    assert "3 of 3" in page
    assert "+$0.0066" in page
    assert "0 reprice runs" in owner.get(LIST, {"q": "nobody-else"}).content.decode()
    assert "have today&#x27;s prices already" in show(owner, booked)


def test_two_clicks_are_one_run(booked: Project, owner: Client) -> None:
    page = show(owner, booked)
    apply(owner, booked, page)
    apply(owner, booked, page)
    assert RepriceRun.objects.count() == 1
    assert AuditEntry.objects.filter(object_type="reprice run").count() == 1


def test_two_workers_at_once_do_it_once(conn: Connection, booked: Project, owner: Client) -> None:
    shown = reprice(conn, booked, dry_run=True)
    apply(owner, booked, show(owner, booked))
    start = threading.Barrier(2)
    problems: list[BaseException] = []

    def work() -> None:
        from django.db import connection

        try:
            with open_connection() as own:
                start.wait(10)
                reprice_queue.work_off(own, budget_s=30)
        except BaseException as problem:
            problems.append(problem)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert problems == []
    run = RepriceRun.objects.get()
    assert (run.state, run.requests, run.changed) == ("done", shown.requests, shown.changed)
    assert totals(conn, "count(*)", "charge_revision where reason = 're-priced'") == (shown.changed,)


def test_a_project_that_another_worker_holds_is_left_to_it(conn: Connection, booked: Project, owner: Client) -> None:
    apply(owner, booked, show(owner, booked))
    with open_connection() as other, reprice_runs.held(other, booked.pk) as is_held:
        assert is_held
        reprice_queue.work_off(conn, budget_s=30)
        assert RepriceRun.objects.get().state == "requested"
    reprice_queue.work_off(conn, budget_s=30)
    assert RepriceRun.objects.get().state == "done"


def test_a_worker_that_dies_between_two_steps_loses_and_doubles_nothing(
    conn: Connection, booked: Project, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = reprice(conn, booked, dry_run=True)
    apply(owner, booked, show(owner, booked))
    advance, steps = reprice_runs.advance, []

    def die_on_the_fourth(*args: Any, **step: Any) -> None:
        advance(*args, **step)
        steps.append(step["shard"])
        if len(steps) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(reprice_runs, "advance", die_on_the_fourth)
    with open_connection() as dying, pytest.raises(KeyboardInterrupt):
        reprice_queue.work_off(dying, budget_s=30)
    run = RepriceRun.objects.get()
    assert (run.state, run.next_day, run.next_shard) == ("running", NOON_DAY, 3)  # the fourth was not committed
    monkeypatch.undo()
    reprice_queue.work_off(conn, budget_s=30)
    run.refresh_from_db()
    assert (run.state, run.requests, run.changed) == ("done", shown.requests, shown.changed)
    assert run.new_nano - run.old_nano == shown.difference_nano
    assert totals(conn, "count(*)", "charge_revision where reason = 're-priced'") == (shown.changed,)


def test_a_bell_stops_when_its_time_is_over_and_the_next_one_goes_on(
    conn: Connection, booked: Project, owner: Client
) -> None:
    apply(owner, booked, show(owner, booked))
    reprice_queue.work_off(conn, budget_s=0)
    run = RepriceRun.objects.get()
    assert (run.state, run.next_shard) == ("running", 1)
    assert "0 of 3" in owner.get(LIST).content.decode()
    for _ in range(3 * outbox.SHARDS - 1):
        reprice_queue.work_off(conn, budget_s=0)
    run.refresh_from_db()
    assert run.state == "running"  # all steps are done; to say so is the next bell's
    reprice_queue.work_off(conn, budget_s=0)
    run.refresh_from_db()
    assert (run.state, run.changed) == ("done", 6)


def test_deleting_a_run_stops_it(conn: Connection, booked: Project, owner: Client) -> None:
    apply(owner, booked, show(owner, booked))
    reprice_queue.work_off(conn, budget_s=0)
    run = RepriceRun.objects.get()
    owner.post(f"{LIST}{run.pk}/delete/", {"post": "yes"})
    before = sums(conn)
    reprice_queue.work_off(conn, budget_s=30)
    assert sums(conn) == before
    assert AuditEntry.objects.filter(object_type="reprice run", action="deleted").count() == 1
    with pytest.raises(reprice_runs.RunGone):
        reprice_runs.advance(conn, run.pk, day=NOON_DAY, shard=1, counts=dict.fromkeys(reprice_runs.COUNTS, 0))


def test_prices_that_changed_since_are_shown_again_instead_of_applied(
    conn: Connection, booked: Project, owner: Client
) -> None:
    page = show(owner, booked)
    import_csv(booked, NEW_PRICES.replace("3.50", "4.50"))
    again = apply(owner, booked, page).content.decode()
    assert "Prices have changed since the difference was shown" in again
    assert not RepriceRun.objects.exists()
    apply(owner, booked, again)
    import_csv(booked, NEW_PRICES.replace("3.50", "5.50"))
    reprice_queue.work_off(conn, budget_s=30)
    assert RepriceRun.objects.get().prices_moved
    assert "done; prices changed meanwhile, run it again" in owner.get(LIST).content.decode()


def test_a_difference_that_takes_too_long_is_said_and_can_be_applied(
    conn: Connection, booked: Project, owner: Client, settings: Any
) -> None:
    settings.REPRICE_PREVIEW_S = 0
    page = show(owner, booked)
    assert "takes longer than 0 seconds: 2026-05-29 and later were not looked at" in page
    apply(owner, booked, page)
    reprice_queue.work_off(conn, budget_s=30)
    assert sums(conn) == (3 * 5_700_000, 0)


def test_only_owners_get_there_and_only_to_their_projects(conn: Connection, booked: Project, owner: Client) -> None:
    other = Project.objects.create(slug="other", name="Other")
    stranger = staff("otto", other, Membership.Role.OWNER)
    viewer = staff("vera", booked, Membership.Role.VIEWER)
    chosen = {"project": booked.pk, **PERIOD}
    assert owner.get(ADDRESS, chosen).status_code == 200
    for method in ("get", "post"):
        assert getattr(stranger, method)(ADDRESS, {**chosen, "seen": "1"}).status_code == 404
        assert getattr(viewer, method)(ADDRESS, {**chosen, "seen": "1"}).status_code == 403
    assert owner.get(ADDRESS, {"project": "x"}).status_code == 404
    assert "Acme" not in stranger.get(ADDRESS).content.decode()
    assert not RepriceRun.objects.exists()
    boss = Client()
    boss.force_login(get_user_model().objects.create_superuser("boss"))
    assert "6 of 6 requests" in show(boss, booked)


def test_a_period_that_makes_no_sense_or_is_empty_is_told(booked: Project, owner: Client) -> None:
    assert "is before the first" in show(owner, booked, last="2026-01-01")
    assert "Enter a valid date" in show(owner, booked, first="soon")
    empty = show(owner, booked, first="2026-01-01", last="2026-01-31")
    assert "There are no charges in this period." in empty
    assert "Nothing has to be applied" in empty


def test_price_lists_lead_there(booked: Project, owner: Client) -> None:
    price_list = PriceList.objects.get(project=booked)
    for page in ("/admin/costapp/pricelist/", LIST, f"/admin/costapp/pricelist/{price_list.pk}/change/"):
        assert ADDRESS in owner.get(page).content.decode(), page
    form = owner.get(ADDRESS).content.decode()
    assert f'<option value="{booked.pk}" selected>' in form


def test_the_commands_own_unfinished_run_is_not_the_workers(conn: Connection, booked: Project) -> None:
    run = RepriceRun.objects.create(
        project=booked, first_day=NOON_DAY, last_day=NOON_DAY, next_day=NOON_DAY, rates_version=1
    )
    reprice_queue.work_off(conn, budget_s=30)
    run.refresh_from_db()
    assert (run.state, run.changed) == ("running", 0)
