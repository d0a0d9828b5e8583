"""Price lists in the admin: rates can be added, ended and superseded, not edited."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from costapp.models import PriceList, RateSet

pytestmark = pytest.mark.django_db


@pytest.fixture
def rate_set() -> RateSet:
    price_list = PriceList.objects.create(name="own prices")
    return RateSet.objects.create(price_list=price_list, model="acme-1", rates={"input": {"nano": 1_500_000_000}})


def form(rate_set: RateSet, **changed: Any) -> dict[str, Any]:
    return {
        "price_list": rate_set.price_list_id, "provider": "", "model": "acme-2", "rates": "{}", "currency": "USD",
        "valid_from_0": "", "valid_from_1": "", "valid_to_0": "", "valid_to_1": "",
    } | changed  # fmt: skip


def test_the_lists_show_prices_in_dollars(admin_client: Client, rate_set: RateSet) -> None:
    page = admin_client.get("/admin/costapp/rateset/").content.decode()
    assert "input $1.50" in page
    assert "own prices" in admin_client.get("/admin/costapp/pricelist/").content.decode()


def test_a_rate_in_the_table_can_be_ended_but_not_changed(admin_client: Client, rate_set: RateSet) -> None:
    url = f"/admin/costapp/rateset/{rate_set.pk}/change/"
    changed = form(rate_set, rates='{"input": {"nano": 7}}', valid_to_0="2026-12-31", valid_to_1="00:00:00")
    assert admin_client.post(url, changed).status_code == 302
    rate_set.refresh_from_db()
    assert rate_set.rates == {"input": {"nano": 1_500_000_000}}
    assert rate_set.valid_to is not None


def test_wrong_rates_are_superseded_and_stay(admin_client: Client, rate_set: RateSet) -> None:
    before = rate_set.changed_at
    data = {"action": "supersede", "_selected_action": [rate_set.pk]}
    page = admin_client.post("/admin/costapp/rateset/", data, follow=True).content.decode()
    rate_set.refresh_from_db()
    assert "1 rates superseded" in page
    assert rate_set.superseded_reason == "superseded by admin"
    assert rate_set.changed_at > before
    assert admin_client.get(f"/admin/costapp/rateset/{rate_set.pk}/delete/").status_code == 403


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "State rates, or a discount"),
        ({"rates": '{"inptu": {"nano": 1}}'}, "is not a meter"),
        ({"rates": '{"input": {"nano": -1}}'}, "must be whole nano-dollars"),
        ({"rates": '{"input": {"nano": 1.5}}'}, "must be whole nano-dollars"),
        ({"rates": '{"input": 5}'}, "must be whole nano-dollars"),
        ({"rates": '["input"]'}, "Rates are a JSON object"),
        ({"discount_percent": "101"}, "less than or equal to 100"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rate_is_said_in_words(
    admin_client: Client, rate_set: RateSet, changed: dict[str, Any], sentence: str
) -> None:
    page = admin_client.post("/admin/costapp/rateset/add/", form(rate_set, **changed)).content.decode()
    assert sentence in page
    assert RateSet.objects.count() == 1


def test_a_discount_can_be_added(admin_client: Client, rate_set: RateSet) -> None:
    added = admin_client.post("/admin/costapp/rateset/add/", form(rate_set, model="gpt-*", discount_percent="12.5"))
    assert added.status_code == 302
    assert RateSet.objects.latest("id").discount_percent == Decimal("12.5")
