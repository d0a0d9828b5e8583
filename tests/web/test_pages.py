"""What pages say: unknown is never zero, nothing is run as HTML, and few statements are needed."""

import json
import re
from collections import Counter
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from costapp.storage.reports import sql
from tests.web.conftest import EVIL

pytestmark = pytest.mark.django_db


@pytest.fixture
def statements(monkeypatch):
    """Counts what reports ask; their doors are imported by name, so the connection's cursor is watched."""
    asked = Counter()
    original = sql.run

    def counting(conn, text, params):
        asked["reports"] += 1
        return original(conn, text, params)

    for name in ("spend", "activity", "state", "calls", "health", "traces"):
        monkeypatch.setattr(f"costapp.storage.reports.{name}.run", counting)
    return asked


def page(world, url):
    answer = world.client().get(url)
    assert answer.status_code == 200, answer.content[:300]
    return answer.content.decode()


@pytest.mark.parametrize(
    ("url", "most"),
    [
        ("/p/acme/?range=30d", 12),
        ("/p/acme/feature/?is=checkout&range=30d", 20),
        ("/p/acme/user/?is=u-1&range=30d", 20),
        ("/p/acme/calls/?range=30d", 7),
        ("/p/acme/session/?is=s-1", 6),
        ("/p/acme/health/?range=30d", 12),
    ],
)
def test_a_page_asks_few_statements(world, statements, url, most):
    client = world.client()
    client.get(url)
    statements.clear()
    with CaptureQueriesContext(connection) as models:
        client.get(url)
    assert statements["reports"] + len(models) <= most


@pytest.mark.parametrize("dimension", ["user", "feature", "prompt_version"])
def test_an_address_without_a_value_leads_to_all_values_in_the_same_range(world, dimension):
    answer = world.client().get(f"/p/acme/{dimension}/?range=7d", follow=True)
    assert answer.redirect_chain == [(f"/p/acme/?range=7d&by={dimension}", 302)]
    assert answer.status_code == 200


def test_data_health_says_what_arrived_late_and_what_was_left_aside(world):
    world.conn.execute("delete from ingest_log")
    assert "Nothing arrived late" in page(world, "/p/acme/health/?range=24h")
    world.conn.execute(
        "insert into ingest_log (at, project_id, signal, transport, requests, received, stored, duplicates, rejected,"
        " bytes, reasons) values (%s, %s, 'traces', 'http', 1, 100, 90, 2, 1, 9000, %s)",
        [world.now, world.project.pk, '{"arrived_late": 20}'],
    )
    text = page(world, "/p/acme/health/?range=24h")
    world.conn.execute("delete from ingest_log")
    assert "20 of 100 (20%) came more than an hour after they started" in text
    assert "not drawn: 7 records and data points without usage" in text


def test_a_user_page_calls_its_mean_latency_a_mean(world):
    assert "Mean latency" in page(world, "/p/acme/user/?is=u-1&range=30d")
    assert "Latency p50" in page(world, "/p/acme/feature/?is=checkout&range=30d")


def test_unpriced_is_said_and_never_shown_as_zero(world):
    text = page(world, "/p/acme/model/?is=nobody-knows-1&range=30d")
    assert "unpriced" in text
    assert ">$0.00<" not in text


def test_overview_says_what_is_missing_from_its_totals(world):
    text = page(world, "/p/acme/?range=30d")
    assert "carry no price" in text
    assert "nobody-knows-1" in text
    assert "name no feature" in text


def test_names_from_telemetry_are_never_markup(world):
    for url in ("/p/acme/?range=30d", f"/p/acme/feature/?is={quote(EVIL)}&range=30d", "/p/acme/calls/?range=30d"):
        text = page(world, url)
        assert "<img" not in text
        figures = re.findall(r'<script id="figure[^>]*>(.*?)</script>', text, re.S)
        for figure in figures:
            for trace in json.loads(figure)["data"]:  # Plotly reads these two as HTML
                assert "<img" not in json.dumps([trace["name"], trace["hovertext"]])


def test_a_range_that_cannot_be_shown_is_explained_and_the_default_shown(world):
    for query, words in (
        ("from=x", "is not a date"),
        ("from=2020-01-01&to=2026-01-01", "at most 400 days"),
        ("from=2026-02-01&to=2026-01-01", "ends before it begins"),
    ):
        assert words in page(world, f"/p/acme/?{query}")


def test_a_combination_that_would_need_every_call_is_refused_in_words(world):
    assert "This split needs a wider view" in page(world, "/p/acme/?range=30d&by=user&model=gpt-4o")


@pytest.mark.parametrize("name", ["\x00", "x" * 5000, "'; drop table charge; --", "%00", "🦄" * 200])
def test_odd_values_in_the_address_are_survived(world, name):
    client = world.client()
    for url in (
        f"/p/acme/?feature={quote(name)}",
        f"/p/acme/feature/?is={quote(name)}",
        f"/p/acme/session/?is={quote(name)}",
        f"/p/acme/calls/?before={quote(name)}&only={quote(name)}",
        f"/p/acme/?by={quote(name)}&sort={quote(name)}&range={quote(name)}",
    ):
        assert client.get(url).status_code in {200, 404}, url


@pytest.mark.parametrize("trace", ["zz", "0" * 32, "g" * 32, "0" * 31, "é" * 32])
def test_a_trace_that_is_not_there_is_404(world, trace):
    assert world.client().get(f"/p/acme/trace/{quote(trace)}/").status_code == 404
    assert world.client().get(f"/p/acme/trace/{quote(trace)}/0000000000000001/").status_code == 404


def test_paging_through_calls_shows_every_call_once(world, monkeypatch):
    monkeypatch.setattr("costapp.web.views.calls.PAGE", 7)
    client, seen, url = world.client(), [], "/p/acme/calls/?range=30d"
    while url:
        text = client.get(url).content.decode()
        seen += re.findall(r'href="/p/acme/trace/([0-9a-f]{32})/[0-9a-f]{16}/"', text)
        older = re.search(r'href="(\?[^"]*before=[^"]+)">Older', text)
        url = "/p/acme/calls/" + older.group(1).replace("&amp;", "&") if older else ""
    assert len(seen) == len(set(seen)) == world.scalar("select count(*) from charge")


def test_a_rare_filter_stops_after_a_bounded_search_and_says_so(world, monkeypatch):
    monkeypatch.setattr("costapp.storage.reports.calls.SCAN_LIMIT", 5)
    text = page(world, "/p/acme/calls/?range=30d&feature=nothing-like-it")
    assert "Search further back" in text


def test_a_key_is_shown_once_and_not_again(world):
    client = world.client()
    first = client.post("/p/acme/connect/keys/", {"name": "app"}).content.decode()
    key = re.search(r'id="new-key">(ca_ing_[^<]+)<', first).group(1)
    assert f"Bearer {key}" in first
    assert key not in client.get("/p/acme/connect/").content.decode()
    assert f"…{key[-4:]}" in client.get("/p/acme/connect/").content.decode()


def test_a_revoked_key_is_marked(world):
    client = world.client()
    client.post("/p/acme/connect/keys/", {"name": "app"})
    key = world.project.ingest_keys.first()
    client.post(f"/p/acme/connect/keys/{key.pk}/revoke/")
    key.refresh_from_db()
    assert key.revoked_at
    assert ">revoked<" in client.get("/p/acme/connect/").content.decode()
