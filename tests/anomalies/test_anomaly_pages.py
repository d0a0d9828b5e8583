"""The feed, its marks, judging, and What changed: the same money on every page, and nothing to run in it."""

import json
import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from costapp.models import AuditEntry, Membership
from costapp.services.detect_anomalies import detect_anomalies
from costapp.storage import anomalies as store
from tests.anomalies.conftest import BROKE, MENDED, START

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
RANGE = f"from={START:%Y-%m-%d}&to={BROKE:%Y-%m-%d}"


def client_of(world, role):
    user = get_user_model().objects.create_user(f"{role}-of-acme")
    Membership.objects.create(project=world.project, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def anomaly(world):
    detect_anomalies(world.conn, now=MENDED + timedelta(minutes=2))
    (found,) = store.since(world.conn, world.project.pk, START)
    return found


def text_of(answer):
    assert answer.status_code == 200
    return unescape(re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_the_feed_shows_sentence_band_drivers_parts_and_links_into_the_calls(world, anomaly):
    client = client_of(world, "viewer")
    answer = client.get(f"/p/acme/anomalies/?{RANGE}")
    page = text_of(answer)
    assert anomaly.title in page
    assert "Prompt version v7" in page
    assert "Prompt size" in page
    assert "Reason (optional)" not in page  # a viewer reads
    figure = json.loads(re.search(r'id="figure-anomaly-\d+"[^>]*>(.*?)</script>', answer.content.decode(), re.S)[1])
    assert [trace["name"] for trace in figure["data"]] == ["Usual, low", "Usual band", "Expected", "Cost"]
    calls = unescape(re.search(r'href="([^"]+/calls/[^"]+)">The calls', answer.content.decode())[1])
    listed = client.get(calls + "&format=json").json()
    spent = sum(row["cost_nano"] for row in listed["rows"])
    assert spent == anomaly.actual_nano


def test_cost_charts_mark_it_and_lead_to_it(world, anomaly):
    client = client_of(world, "viewer")
    for path in ("/p/acme/?", "/p/acme/feature/?is=support-bot&"):
        content = client.get(path + RANGE).content.decode()
        figure = json.loads(re.search(r'id="figure-cost"[^>]*>(.*?)</script>', content, re.S)[1])
        (marks,) = [trace for trace in figure["data"] if trace["name"] == "Anomalies"]
        assert marks["meta"]["hrefs"] == [f"/p/acme/anomalies/?id={anomaly.id}"]
        assert f'href="/p/acme/anomalies/?id={anomaly.id}"' in content
    other = client.get(f"/p/acme/feature/?is=search&{RANGE}").content.decode()
    assert f"/anomalies/?id={anomaly.id}" not in other
    assert client.get(f"/p/acme/anomalies/?id={anomaly.id}").status_code == 200
    assert client.get("/p/acme/anomalies/?id=99999999").status_code == 404


def test_an_editor_confirms_or_dismisses_with_a_reason_and_it_is_audited(world, anomaly):
    editor, address = client_of(world, "editor"), f"/p/acme/anomalies/{anomaly.id}/judge/"
    answer = editor.post(address, {"verdict": "dismissed", "reason": "<b>load test</b>"}, follow=True)
    page = answer.content.decode()
    assert "&lt;b&gt;load test&lt;/b&gt;" in page
    assert "Dismissed by editor-of-acme" in text_of(answer)
    entry = AuditEntry.objects.get(action="dismissed")
    assert entry.changes["anomaly"][1] == anomaly.title
    assert "Take it back" in text_of(editor.get(f"/p/acme/anomalies/?id={anomaly.id}"))
    assert editor.post(address, {"verdict": "nonsense"}).status_code == 404
    assert editor.post("/p/acme/anomalies/99999999/judge/", {"verdict": "confirmed"}).status_code == 404
    assert editor.get(address).status_code == 405
    assert client_of(world, "viewer").post(address, {"verdict": "confirmed"}).status_code == 404


def test_an_empty_feed_says_so_in_words(world):
    page = text_of(client_of(world, "viewer").get("/p/acme/anomalies/?range=7d"))
    assert "Detection has not run yet" in page
    detect_anomalies(world.conn, now=BROKE)
    page = text_of(client_of(world, "editor").get("/p/acme/anomalies/?range=7d"))
    assert "Nothing unusual" in page


def changed(world, query):
    return client_of(world, "viewer").get(f"/p/acme/what-changed/?{query}")


WINDOW = (
    f"from={BROKE:%Y-%m-%dT%H:%M}%2B00:00&to={MENDED:%Y-%m-%dT%H:%M}%2B00:00"
    f"&vs_from={BROKE - timedelta(days=7):%Y-%m-%dT%H:%M}%2B00:00"
    f"&vs_to={MENDED - timedelta(days=7):%Y-%m-%dT%H:%M}%2B00:00"
)


def test_the_parts_of_what_changed_sum_to_the_difference_of_the_calls(world):
    told = changed(world, WINDOW + "&feature=support-bot&format=json").json()
    amounts = {row["part"]: row["amount_nano"] for row in told["rows"]}
    then, now = amounts.pop("then"), amounts.pop("now")
    assert then + sum(amounts.values()) == now
    assert max(amounts, key=amounts.get) == "prompt"
    sql = "select sum(cost_nano) from charge_full where feature = 'support-bot' and start_at >= %s and start_at < %s"
    assert world.rows(sql, BROKE, MENDED) == [now]
    assert world.rows(sql, BROKE - timedelta(days=7), MENDED - timedelta(days=7)) == [then]


def test_what_changed_shows_a_waterfall_movers_and_the_figures_behind(world):
    answer = changed(world, WINDOW)
    page = text_of(answer)
    assert "Prompt size" in page
    assert "tokens →" in page
    assert "What moved most" in page
    assert "support-bot" in page
    figure = json.loads(re.search(r'id="figure-parts"[^>]*>(.*?)</script>', answer.content.decode(), re.S)[1])
    (bars,) = figure["data"]
    assert len(bars["y"]) == len(figure["layout"]["xaxis"]["ticktext"])


def test_without_a_second_period_the_one_before_is_taken_and_a_wrong_one_is_said(world):
    start, end = START + timedelta(days=8), START + timedelta(days=15)
    told = changed(world, f"from={start:%Y-%m-%d}&to={end - timedelta(days=1):%Y-%m-%d}&format=json").json()
    assert told["then_end"] == told["start"]
    assert "is not a date" in text_of(client_of(world, "editor").get("/p/acme/what-changed/?vs_from=never"))


def test_what_changed_of_one_user_is_read_from_the_calls_and_nothing_is_said_of_nothing(world):
    answer = changed(world, WINDOW + "&user=u-3")
    assert answer.status_code == 200
    assert "Nothing to compare" in text_of(client_of(world, "editor").get("/p/acme/what-changed/?feature=nobody"))
