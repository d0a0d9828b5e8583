"""Importing a price list in the admin: the difference is shown first and applied as shown, or not at all."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from costapp.models import AuditEntry, Membership, PriceList, Project, RateSet

pytestmark = pytest.mark.django_db

ADDRESS = "/admin/costapp/pricelist/import/"
FIRST = "model,input,output\nacme-1,2.50,10\nacme-2,1,4\n"
SECOND = "model,input,output\nacme-1,3.00,10\n"


@pytest.fixture
def project() -> Project:
    return Project.objects.create(slug="acme", name="Acme")


@pytest.fixture
def owner(project: Project) -> Client:
    """Staff who owns the project and is no superuser."""
    user = get_user_model().objects.create_user("olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="costapp"))
    Membership.objects.create(project=project, user=user, role=Membership.Role.OWNER)
    client = Client()
    client.force_login(user)
    return client


def upload(client: Client, project: Project, text: str | bytes, name: str = "own prices") -> Any:
    content = text.encode() if isinstance(text, str) else text
    file = SimpleUploadedFile("prices.csv", content, "text/csv")
    return client.post(ADDRESS, {"project": project.pk, "name": name, "file": file})


def apply(client: Client, project: Project, text: str, page: Any, name: str = "own prices") -> Any:
    seen = re.search(r'name="seen" value="(\w+)"', page.content.decode())
    assert seen
    sent = text.replace("\n", "\r\n")  # as browsers do
    return client.post(ADDRESS, {"project": project.pk, "name": name, "text": sent, "seen": seen.group(1)})


def in_force(project: Project) -> set[tuple[str, int]]:
    found = RateSet.objects.filter(price_list__project=project, superseded_at=None)
    return {(rates.model, rates.rates["input"]["nano"]) for rates in found}


def test_the_difference_is_shown_before_anything_is_written(owner: Client, project: Project) -> None:
    page = upload(owner, project, FIRST)
    assert "2 rates opened" in page.content.decode()
    assert "any provider/acme-1: input $2.50, output $10.00" in page.content.decode()
    assert f'name="text" value="{FIRST}"' in page.content.decode()  # what is sent back is what was seen
    assert not PriceList.objects.exists()


def test_what_was_shown_is_applied_and_audited(owner: Client, project: Project) -> None:
    assert apply(owner, project, FIRST, upload(owner, project, FIRST)).status_code == 302
    assert in_force(project) == {("acme-1", 2_500_000_000), ("acme-2", 1_000_000_000)}
    page = upload(owner, project, SECOND)
    text = page.content.decode()
    assert "<b>removed</b> any provider/acme-2: input $1.00, output $4.00 (superseded)" in text
    assert "<b>added</b> any provider/acme-1: input $3.00, output $10.00" in text
    apply(owner, project, SECOND, page)
    assert in_force(project) == {("acme-1", 3_000_000_000)}
    entry = AuditEntry.objects.filter(action="imported").latest("id")
    assert (entry.actor, entry.project) == ("olga", project)
    assert "acme-2" in entry.changes["changes"][1]


def test_a_list_that_changed_meanwhile_is_shown_again_instead(owner: Client, project: Project) -> None:
    page = upload(owner, project, SECOND)
    apply(owner, project, FIRST, upload(owner, project, FIRST))  # somebody else
    answer = apply(owner, project, SECOND, page)
    assert "The list has changed since the difference was shown" in answer.content.decode()
    assert in_force(project) == {("acme-1", 2_500_000_000), ("acme-2", 1_000_000_000)}
    apply(owner, project, SECOND, answer)
    assert in_force(project) == {("acme-1", 3_000_000_000)}


def test_the_same_file_again_changes_nothing(owner: Client, project: Project) -> None:
    apply(owner, project, FIRST, upload(owner, project, FIRST))
    text = upload(owner, project, FIRST).content.decode()
    assert "nothing new, 2 rates are as they were" in text
    assert "Apply this" not in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model,input\nacme-1,cheap\n", "Line 2: input is &#x27;cheap&#x27;; write a price like 2.50."),
        ("color\nred\n", "there is no column &#x27;color&#x27;"),
        ("", "The submitted file is empty."),
        (b"model,input\n\xff\xfe,1\n", "not UTF-8 text"),
        ("model,input\n" + "#" * 2_000_001, "larger than 2 MB"),
    ],
)
def test_a_file_with_errors_says_which_and_changes_nothing(
    owner: Client, project: Project, content: str | bytes, problem: str
) -> None:
    assert problem in upload(owner, project, content).content.decode()
    assert not RateSet.objects.exists()


def test_nobody_imports_into_a_project_of_others(owner: Client, project: Project) -> None:
    other = Project.objects.create(slug="other", name="Other")
    page = upload(owner, other, FIRST)
    assert "Select a valid choice" in page.content.decode()
    assert "Other" not in owner.get(ADDRESS).content.decode()
    viewer = get_user_model().objects.create_user("vera", is_staff=True)
    client = Client()
    client.force_login(viewer)
    assert client.get(ADDRESS).status_code == 403
    assert not PriceList.objects.exists()


def test_the_list_of_price_lists_leads_there(owner: Client) -> None:
    assert ADDRESS in owner.get("/admin/costapp/pricelist/").content.decode()
