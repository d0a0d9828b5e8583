"""The admin: keys are shown once, and staff of one project see nothing of another."""

import re

import pytest
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from costapp.admin_scope import ProjectScoped
from costapp.models import IngestKey, Membership, PriceList, Project
from costapp.models.project import hash_key
from tests.web.conftest import add_member, add_project

pytestmark = pytest.mark.django_db

OURS = [model for model in site._registry if model._meta.app_label == "costapp"]


@pytest.fixture
def staff(project):
    """Staff who owns `project` and may do everything the admin's permissions allow, but is no superuser."""
    user = add_member(project)
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="costapp"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def foreign(project):
    """One object of every kind in a project that is not theirs."""
    other = add_project()
    member = Membership.objects.get(user=add_member(other))
    key, _ = IngestKey.issue(other, "secret-key-name")
    prices = PriceList.objects.create(name=f"prices of {other.slug}", kind=PriceList.Kind.CUSTOM, project=other)
    return {Project: other, Membership: member, IngestKey: key, PriceList: prices}


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
