"""The admin: keys are shown once, and staff of one project see nothing of another."""

import re
from datetime import timedelta

import pytest
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.utils import timezone

from costapp.admin_scope import ProjectScoped
from costapp.models import (
    AlertRule,
    AuditEntry,
    Budget,
    Channel,
    GpuPool,
    GpuRate,
    IngestKey,
    Membership,
    Notification,
    PriceList,
    Project,
    RateSet,
    RepriceRun,
    Silence,
)
from costapp.models.project import hash_key
from costapp.services.audit import record
from costapp.storage.notifications import log_test
from tests.web.conftest import add_member, add_project

pytestmark = pytest.mark.django_db

NUMBERS = {"IntegerField", "PositiveIntegerField", "PositiveSmallIntegerField", "BigIntegerField", "DecimalField"}
OURS = [model for model in site._registry if model._meta.app_label == "costapp"]


@pytest.fixture
def staff(project):
    """Staff who owns `project`, with no permission of Django's and no superuser."""
    user = add_member(project)
    user.is_staff = True
    user.save()
    client = Client()
    client.force_login(user)
    return client


def foreign_message(other):
    """A row of the outbox: the model only reads the table."""
    channel = Channel.objects.create(project=other, name="secret-key-name of a channel", kind=Channel.Kind.EMAIL)
    connection.ensure_connection()
    log_test(connection.connection, other.pk, channel.pk, "secret-key-name", "failed", "no answer", timezone.now())
    return Notification.objects.get(project=other)


def make_foreign(model, other):
    """An object of any model of ours in the project `other`; whoever adds a model with stricter rules adds it here."""
    made = {
        Project: lambda: other,
        Membership: lambda: Membership.objects.get(user=add_member(other)),
        IngestKey: lambda: IngestKey.issue(other, "secret-key-name")[0],
        AuditEntry: lambda: record(other, "somebody", "created", other, None, {"name": "secret-key-name"}),
        RateSet: lambda: RateSet.objects.create(
            price_list=PriceList.objects.create(project=other, name="a list"), model="secret-key-name"
        ),
        RepriceRun: lambda: RepriceRun.objects.create(
            project=other, first_day="2026-01-01", last_day="2026-01-01", next_day="2026-01-01", rates_version=1
        ),
        Silence: lambda: Silence.objects.create(
            project=other, reason="secret-key-name", starts_at=timezone.now(),
            ends_at=timezone.now() + timedelta(days=1),
        ),
        Budget: lambda: Budget.objects.create(project=other, name="secret-key-name", amount_nano=1),
        GpuRate: lambda: GpuRate.objects.create(
            pool=GpuPool.objects.create(project=other, name="a pool"), usd_per_hour=1
        ),
        AlertRule: lambda: AlertRule.objects.create(project=other, name="secret-key-name", warning=1),
        Notification: lambda: foreign_message(other),
    }  # fmt: skip
    if model in made:
        return made[model]()
    given = {"project": other}
    for field in model._meta.fields:
        if field.name == "name":
            given["name"] = "secret-key-name"
        elif (
            not field.null
            and not field.has_default()
            and re.match("Int|BigInt|Pos|Dec|Float", field.get_internal_type())
        ):
            given[field.name] = 1
    return model.objects.create(**given)


@pytest.fixture
def foreign(project):
    """One object of every kind in a project that is not theirs."""
    other = add_project()
    return {model: obj for model in OURS if (obj := make_foreign(model, other))} | {Project: other}


def address(model, obj=None, page="change"):
    name = f"/admin/costapp/{model._meta.model_name}/"
    return f"{name}{obj.pk}/{page}/" if obj else name


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_every_model_of_ours_is_scoped_to_a_project(model):
    assert isinstance(site._registry[model], ProjectScoped)


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_staff_see_the_lists_but_nothing_of_other_projects(staff, foreign, model):
    text = staff.get(address(model)).content.decode()
    assert foreign[Project].slug not in text
    assert "secret-key-name" not in text


def test_staff_cannot_open_change_or_delete_what_is_not_theirs(staff, foreign):
    for model, obj in foreign.items():
        for page in ("change", "delete", "history"):
            assert staff.get(address(model, obj, page)).status_code in {302, 403, 404}, (model, page)
            answer = staff.post(address(model, obj, page), {"post": "yes"})
            assert answer.status_code in {302, 403, 404}, (model, page)
        assert model.objects.filter(pk=obj.pk).exists()


def test_staff_cannot_put_a_key_into_a_foreign_project(staff, foreign):
    answer = staff.post("/admin/costapp/ingestkey/add/", {"project": foreign[Project].pk, "name": "intruder"})
    assert answer.status_code == 200
    assert not IngestKey.objects.filter(name="intruder").exists()


def test_a_key_is_shown_once_and_stored_as_a_hash(staff, project):
    page = staff.post("/admin/costapp/ingestkey/add/", {"project": project.pk, "name": "from-admin"})
    plain = re.search(r"ca_ing_[-\w]+", page.content.decode()).group()
    key = IngestKey.objects.get(name="from-admin")
    assert key.key_hash == hash_key(plain)
    assert plain not in staff.get("/admin/costapp/ingestkey/").content.decode()
    assert plain not in staff.get(address(IngestKey, key)).content.decode()
    assert "no-store" in page["Cache-Control"]


def test_revoking_is_an_action_on_the_list(staff, project):
    key, _ = IngestKey.issue(project, "to-revoke")
    staff.post("/admin/costapp/ingestkey/", {"action": "revoke", "_selected_action": [key.pk]})
    key.refresh_from_db()
    assert key.revoked_at


def test_members_are_added_by_name_so_that_accounts_are_not_listed(staff, project):
    get_user_model().objects.create_user("quiet-person")
    assert "quiet-person" not in staff.get("/admin/costapp/membership/add/").content.decode()
    data = {"project": project.pk, "user_name": "quiet-person", "role": "viewer"}
    staff.post("/admin/costapp/membership/add/", data)
    assert Membership.objects.filter(project=project, user__username="quiet-person", role="viewer").exists()
    assert b"member of the project already" in staff.post("/admin/costapp/membership/add/", data).content


def test_whoever_makes_a_project_owns_it(conn):
    boss = get_user_model().objects.create_superuser("boss")
    client = Client()
    client.force_login(boss)
    client.post(
        "/admin/costapp/project/add/", {"slug": "fresh", "name": "Fresh", "time_zone": "UTC", "attribute_names": "{}"}
    )
    assert client.get("/p/fresh/").status_code == 200


def test_an_owner_needs_no_permission_of_djangos_and_others_get_nothing(staff, project):
    assert "Budgets" in staff.get("/admin/").content.decode()
    for role in ("viewer", "editor"):
        user = add_member(project, role)
        user.is_staff = True
        user.save()
        client = Client()
        client.force_login(user)
        assert client.get("/admin/costapp/budget/").status_code == 403, role
        assert "Budgets" not in client.get("/admin/").content.decode()


def test_an_owner_of_one_project_is_nobody_in_another_of_theirs(staff, project):
    """Owner here, viewer there: the admin shows only what is owned."""
    there = add_project()
    user = Membership.objects.filter(project=project, user__is_staff=True).latest("id").user
    Membership.objects.create(project=there, user=user, role=Membership.Role.VIEWER)
    Budget.objects.create(project=there, name="not to be seen", amount_nano=1)
    assert "not to be seen" not in staff.get("/admin/costapp/budget/").content.decode()
    assert there.name not in staff.get("/admin/costapp/budget/add/").content.decode()


def test_a_new_owner_may_enter_the_admin(staff, project):
    user = get_user_model().objects.create_user("new-owner")
    staff.post("/admin/costapp/membership/add/", {"project": project.pk, "user_name": "new-owner", "role": "owner"})
    user.refresh_from_db()
    assert user.is_staff
    client = Client()
    client.force_login(user)
    assert client.get("/admin/costapp/budget/add/").status_code == 200


def test_a_project_keeps_its_last_owner(conn):
    boss = get_user_model().objects.create_superuser("last-boss")
    client = Client()
    client.force_login(boss)
    there = add_project()
    owner = Membership.objects.get(user=add_member(there))
    page = client.post(address(Membership, owner), {"role": "viewer"})
    assert "last owner" in page.content.decode()
    client.post(address(Membership, owner, "delete"), {"post": "yes"})
    client.post(address(Membership), {"action": "delete_selected", "_selected_action": [owner.pk], "post": "yes"})
    assert Membership.objects.get(pk=owner.pk).role == "owner"
    add_member(there)
    assert client.post(address(Membership, owner), {"role": "viewer"}).status_code == 302
    assert client.post(address(Project, there, "delete"), {"post": "yes"}).status_code == 302
    assert not Project.objects.filter(pk=there.pk).exists()


# --- budgets


def budget_form(project, **changes):
    return {
        "project": project.pk, "name": "Bot", "enabled": "on", "dimension": "feature", "values": "bot\nsearch\n",
        "filters": "environment = production\nEnvironment = staging", "amount_nano": "$1,250.50", "period": "month",
        "rolling_days": "", "carry_over": "none", "starts_on": "", "ends_on": "", "owner": "Mia", "note": "",
        "thresholds": "80%, 100 %, forecast 90",
    } | changes  # fmt: skip


def test_a_budget_is_set_in_dollars_percent_and_names(staff, project):
    assert staff.post("/admin/costapp/budget/add/", budget_form(project)).status_code == 302
    budget = Budget.objects.get(name="Bot")
    assert budget.amount_nano == 1_250_500_000_000
    assert budget.values == ["bot", "search"]
    assert budget.filters == {"environment": ["production", "staging"]}
    assert budget.thresholds == [["actual", 80], ["actual", 100], ["forecast", 90]]
    page = staff.get(address(Budget, budget)).content.decode()
    assert 'value="1,250.50"' in page
    assert 'value="80 %, 100 %, forecast 90 %"' in page
    entry = AuditEntry.objects.filter(object_type="budget").latest("id")
    assert entry.changes["amount"] == [None, "$1,250.50"]


def test_a_new_budget_tells_at_the_usual_thresholds(staff):
    assert 'value="50 %, 80 %, 100 %, forecast 100 %"' in staff.get("/admin/costapp/budget/add/").content.decode()


def test_changing_the_amount_is_audited_and_counts_as_another_revision(staff, project):
    staff.post("/admin/costapp/budget/add/", budget_form(project))
    budget = Budget.objects.get(name="Bot")
    staff.post(address(Budget, budget), budget_form(project, amount_nano="2000"))
    budget.refresh_from_db()
    assert (budget.amount_nano, budget.revision) == (2_000_000_000_000, 2)
    entry = AuditEntry.objects.filter(object_type="budget").latest("id")
    assert entry.changes == {"amount": ["$1,250.50", "$2,000.00"]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"amount_nano": "a lot"}, "is not an amount of money"),
        ({"amount_nano": "0"}, "greater than or equal to 1"),
        ({"amount_nano": "-5"}, "greater than or equal to 1"),
        ({"amount_nano": "200000000"}, "less than or equal to"),
        ({"amount_nano": "0.0000000001"}, "more than nine decimals"),
        ({"thresholds": "most of it"}, "is no threshold"),
        ({"thresholds": "0 %"}, "between 1 % and 1000 %"),
        ({"thresholds": "80, 80"}, "is there twice"),
        ({"filters": "colour = red"}, "There is no dimension “colour”"),
        ({"filters": "production"}, "is no filter"),
        ({"filters": "feature = bot"}, "names what the budget is for already"),
        ({"dimension": ""}, "Choose what the names are"),
        ({"dimension": "user", "values": ""}, "can be narrowed by feature only"),
        ({"period": "rolling"}, "Say over how many days"),
        ({"rolling_days": "7"}, "Say over how many days"),
        ({"period": "rolling", "rolling_days": "7", "carry_over": "unspent"}, "has no end at which money"),
        ({"starts_on": "2026-12-01", "ends_on": "2026-11-01"}, "ends before it starts"),
        ({"values": "\n".join(f"f{i}" for i in range(21))}, "names at most 20 values"),
    ],
)
def test_what_is_wrong_with_a_budget_is_said_in_a_sentence(staff, project, changes, sentence):
    page = staff.post("/admin/costapp/budget/add/", budget_form(project, **changes))
    assert page.status_code == 200
    assert sentence in page.content.decode()
    assert not Budget.objects.filter(name="Bot").exists()


def test_two_budgets_of_one_name_are_refused_in_a_sentence(staff, project):
    staff.post("/admin/costapp/budget/add/", budget_form(project))
    page = staff.post("/admin/costapp/budget/add/", budget_form(project))
    assert "has a budget of that name already" in page.content.decode()


def test_a_channel_of_another_project_cannot_be_told(staff, project):
    there = add_project()
    channel = Channel.objects.create(project=there, name="#theirs", kind=Channel.Kind.WEBHOOK)
    page = staff.post("/admin/costapp/budget/add/", budget_form(project, channels=[channel.pk]))
    assert page.status_code == 200
    assert not Budget.objects.filter(name="Bot").exists()


def test_the_list_of_budgets_can_be_searched_and_says_what_each_covers(staff, project):
    staff.post("/admin/costapp/budget/add/", budget_form(project))
    for words, found in (("search", True), ("Mia", True), ("nothing like it", False)):
        text = staff.get("/admin/costapp/budget/", {"q": words}).content.decode()
        assert ("feature bot or search where environment is production or staging" in text) is found
