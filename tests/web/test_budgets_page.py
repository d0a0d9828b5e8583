"""The Budgets page: the figures of the evaluation, which are those of the pages it links to."""

import html
import re

import pytest
from django.db import connection

from costapp.models import Budget, Membership
from costapp.services.evaluate_budgets import evaluate_due
from costapp.storage import budgets as store
from costapp.web.format import exact_usd
from tests.web.conftest import EVIL, add_member, add_project

pytestmark = pytest.mark.django_db

CENT = 10_000_000
HALF_DOLLAR = 50 * CENT


@pytest.fixture(scope="module")
def budgets(world):
    """Committed, as the evaluation reads them: over, on track, each feature (EVIL among them), later."""
    month = {"project": world.project, "period": "month"}
    quarter = {"project": world.project, "period": "rolling", "rolling_days": 90}
    Budget.objects.create(name="Whole project", amount_nano=1, **quarter, owner="Mia")
    Budget.objects.create(name="Much room", amount_nano=10**15, **quarter)
    Budget.objects.create(name="Each feature", amount_nano=10 * CENT, dimension="feature", **quarter)
    Budget.objects.create(name="Month", amount_nano=HALF_DOLLAR, **month)
    Budget.objects.create(name="Later", amount_nano=5, starts_on="2099-01-01", **month)
    evaluate_due(world.conn)
    yield world
    Budget.objects.filter(project=world.project).delete()


def exact(text):
    """The figures of a page to the nano-dollar, from their tooltips."""
    return re.findall(r'class="money" title="\$([\d.]+)"', text)


def test_the_riskiest_come_first_and_each_says_what_it_is(budgets):
    page = budgets.client().get("/p/acme/budgets/").content.decode()
    assert page.index("Whole project") < page.index("Much room")
    assert "the whole project · &lt;$0" in page or "the whole project · $" in page
    assert "Mia answers for it" in page
    assert "starts on 1 Jan 2099" in page


def test_every_bar_links_to_the_page_that_shows_the_same_number(budgets):
    client = budgets.client()
    page = client.get("/p/acme/budgets/").content.decode()
    rows = re.findall(
        r'<td class="r" data-label="Spent"><a href="([^"]+)"><span class="money" title="\$([\d.]+)"', page
    )
    assert len(rows) >= 4
    for address, figure in rows:
        table = client.get(html.unescape(address) + "&format=json").json()
        assert table["total"]["cost_usd"] == figure


def test_names_that_mean_harm_are_text(budgets):
    page = budgets.client().get("/p/acme/budgets/").content.decode()
    assert EVIL not in page
    assert html.escape(EVIL) in page


def test_all_subjects_of_a_template_are_on_pages_of_their_own(budgets):
    number = Budget.objects.get(name="Each feature").pk
    client = budgets.client()
    page = client.get(f"/p/acme/budgets/?budget={number}").content.decode()
    assert page.count('class="burn ') == 3
    assert "Nothing to show" in client.get(f"/p/acme/budgets/?budget={number}&page=9").content.decode()
    for wrong in ("0", "x", "9" * 30, str(number + 1000)):
        assert client.get(f"/p/acme/budgets/?budget={wrong}").status_code == 404


def test_a_budget_of_another_project_is_not_found(budgets):
    other = add_project()
    foreign = Budget.objects.create(project=other, name="Foreign", amount_nano=1)
    page = budgets.client().get("/p/acme/budgets/").content.decode()
    assert "Foreign" not in page
    assert budgets.client().get(f"/p/acme/budgets/?budget={foreign.pk}").status_code == 404


def test_the_file_has_every_bar_to_the_nano_dollar(budgets):
    answer = budgets.client().get("/p/acme/budgets/?format=csv")
    lines = answer.content.decode().splitlines()
    assert answer["Content-Disposition"] == 'attachment; filename="budgets-acme.csv"'
    assert len(lines) == 1 + 3 + 3
    total = int(budgets.scalar("select sum(cost_nano) from charge"))
    assert f"{total // 10**9}.{total % 10**9:09d}" in lines[1]


def test_without_a_budget_the_page_leads_to_the_admin_for_those_who_may(world):
    other = add_project()
    owner = add_member(other)
    page = world.client(owner).get(f"/p/{other.slug}/budgets/").content.decode()
    assert "An owner of this project who may use the admin can set one." in page
    owner.is_staff = True
    owner.save()
    page = world.client(owner).get(f"/p/{other.slug}/budgets/").content.decode()
    assert f"/admin/costapp/budget/add/?project={other.pk}" in page
    viewer = add_member(other, Membership.Role.VIEWER)
    assert "/admin/costapp/budget/add/" not in world.client(viewer).get(f"/p/{other.slug}/budgets/").content.decode()


def test_overview_says_where_the_month_ends_and_what_is_left(budgets):
    month = Budget.objects.get(name="Month")
    page = budgets.client().get("/p/acme/?range=30d").content.decode()
    reading = store.burns(budgets.conn, budgets.project.pk, budgets.now, budget_id=month.pk)[0].reading
    assert f'title="${exact_usd(reading.forecast_nano)}"' in page
    assert f'title="${exact_usd(max(0, HALF_DOLLAR - reading.spent_nano))}"' in page
    assert "budget Month:" in page  # the line in the chart


def test_overview_forecasts_the_month_without_a_budget_too(budgets):
    other = budgets.project
    Budget.objects.filter(project=other, period="month").delete()
    page = budgets.client().get("/p/acme/").content.decode()
    assert "This month&#x27;s end" in page or "This month's end" in page
    assert "Budget left" not in page


def test_what_is_over_is_under_needs_attention_once(budgets):
    """An open alert says it; without one the budget itself does."""
    client, sentence = budgets.client(), "Whole project is over its budget"
    before = client.get("/p/acme/").content.decode()
    with connection.cursor() as cursor:  # undone with the test
        cursor.execute("update alert set state = 'resolved'")
        cursor.execute("update budget_reading set states = '{}'")
    assert before.count(sentence) <= 1
    assert client.get("/p/acme/").content.decode().count(sentence) == 1


def test_the_page_of_a_feature_has_its_bar(budgets):
    page = budgets.client().get("/p/acme/feature/?is=checkout&range=30d").content.decode()
    assert 'id="budget-burn"' in page
    assert "Each feature, the 90 days to" in page
    assert 'id="budget-burn"' not in budgets.client().get("/p/acme/model/?is=gpt-4o&range=30d").content.decode()
