"""The guard as apps meet it: a real collector process, asked over HTTP with a real key."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from costapp.core.guardrails import Incident, alert_key
from costapp.models import Budget, IngestKey, Project
from costapp.services.drain import drain
from costapp.services.evaluate_budgets import evaluate_due
from costapp.storage import guardrails as store
from tests import pipeline
from tests.collectors.conftest import Answer, Collector, database_url
from tests.guardrails.conftest import calls, guardrail
from tests.guardrails.proxy import Proxy

__all__ = ["database_url"]  # fixture

PATH = "/api/v1/guard"


@pytest.fixture(scope="module")
def collector(database_url):
    process = Collector(database_url, COSTAPP_GUARD_STALE_SECONDS="2", COSTAPP_GUARD_PER_SECOND="0")
    yield process
    code, log = process.stop()
    assert code == 0, log
    assert "Traceback" not in log, log


@pytest.fixture
def key(project: Project) -> str:
    return IngestKey.issue(project, "test")[1]


def ask(collector: Collector, key: str | None, query: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return collector.request("GET", f"{PATH}?{query}", headers=({"x-api-key": key} if key else {}) | named)


def incident(conn: Any, rule: Any, subject: str = "s-1", *, seconds: int = 90, value: int = 12) -> None:
    now = datetime.now(UTC)
    made = Incident(subject, now, now, now + timedelta(seconds=seconds), value, is_open=True)
    store.save(conn, rule.as_rule(), incidents={alert_key(rule.as_rule(), made): made})


def test_a_blocked_session_is_told_to_stop_why_and_when_to_come_back(conn, project, collector, key):
    incident(conn, guardrail(project, action="block"))
    answer = ask(collector, key, "session=s-1&feature=bot")
    assert answer.status == 200
    assert answer.json == {
        "decision": "block",
        "reason": "Session s-1 made 12 calls within 5 minutes; the limit is 10 calls. (guardrail Runaway session)",
        "known": True,
        "retry_after": answer.json["retry_after"],
        "budget": None,
    }
    assert 60 < int(answer.headers["retry-after"]) == answer.json["retry_after"] <= 91
    assert ask(collector, key, "session=s-2&feature=bot").json["decision"] == "allow"
    assert ask(collector, key).json["decision"] == "allow"


def test_a_budget_that_is_spent_blocks_its_feature_and_says_what_is_left_of_the_others(conn, project, collector, key):
    now = datetime.now(UTC)
    for name, fields in {
        "Bot": {"dimension": "feature", "values": ["bot"], "amount_nano": 30_000_000, "blocks": True},
        "Each team": {"dimension": "feature", "amount_nano": 10**9},
        "All": {"amount_nano": 40_000_000},
    }.items():
        Budget.objects.create(project=project, name=name, **fields)
    spans = calls(10, at=now) + calls(1, at=now, first=50, feature="search", session="s-9")
    pipeline.store(conn, spans, project_id=project.pk)
    drain(conn)
    evaluate_due(conn)
    bot = ask(collector, key, "feature=bot").json
    assert (bot["decision"], bot["reason"]) == ("block", "Budget Bot is spent: $0.035 of $0.03.")
    assert bot["retry_after"] > 60
    assert (bot["budget"]["name"], bot["budget"]["left_nano"], bot["budget"]["left"]) == ("Bot", 0, "$0.00")
    search = ask(collector, key, "feature=search").json
    assert (search["decision"], search["reason"]) == ("warn", "Budget All is nearly spent: $0.0385 of $0.04.")
    assert (search["budget"]["name"], search["budget"]["left_nano"]) == ("All", 40_000_000 - 38_500_000)
    assert ask(collector, key, "feature=bot&user=ann").json["decision"] == "block"


def test_a_guardrail_that_warns_does_not_stop(conn, project, collector, key):
    incident(conn, guardrail(project, per="user"), "ann")
    answer = ask(collector, key, "user=ann")
    assert (answer.json["decision"], answer.json["retry_after"]) == ("warn", None)
    assert "retry-after" not in answer.headers


def test_every_way_to_send_a_key_works(project, collector, key):
    assert collector.request("GET", PATH, headers={"authorization": f"Bearer {key}"}).status == 200
    assert collector.request("GET", PATH, headers={"x-api-key": key}).status == 200


def test_an_answer_may_be_kept_for_moments_and_be_confirmed_without_a_body(conn, project, collector, key):
    incident(conn, guardrail(project, action="block"))
    first = ask(collector, key, "session=s-1")
    assert first.headers["cache-control"] == "private, max-age=2"
    again = ask(collector, key, "session=s-1", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert int(again.headers["retry-after"]) > 60
    assert ask(collector, key, "session=s-2", if_none_match=first.headers["etag"]).status == 200


def test_the_server_says_how_long_it_took_and_counts_it(project, collector, key):
    before = collector.request("GET", "/metrics").body.decode()
    answer = ask(collector, key)
    took_ms = float(re.fullmatch(r"guard;dur=([\d.]+)", answer.headers["server-timing"])[1])
    assert 0 < took_ms < 5000
    after = collector.request("GET", "/metrics").body.decode()

    def count(text: str) -> int:
        return int(re.search(r"costapp_collector_guard_seconds_count (\d+)", text)[1])

    assert count(after) == count(before) + 1
    assert 'costapp_collector_guard_total{decision="allow",known="true"}' in after


@pytest.mark.parametrize("sent", [None, "ca_ing_wrong", "x" * 1000])
def test_without_a_valid_key_nothing_is_told_but_the_answer_is_a_decision(project, collector, sent):
    answer = ask(collector, sent, "session=s-1")
    assert answer.status == 401
    assert answer.json["decision"] == "allow"
    assert answer.json["known"] is False
    assert answer.json["reason"].startswith("unknown: No valid ingest key")
    assert answer.headers["costapp-guard"] == "unknown"
    assert answer.headers["cache-control"] == "no-store"


def test_a_revoked_key_is_refused_within_the_time_that_keys_are_kept(project, collector, key):
    assert ask(collector, key).status == 200
    IngestKey.objects.update(revoked_at=timezone.now())
    deadline = timezone.now() + timedelta(seconds=10)
    while ask(collector, key).status == 200:
        assert timezone.now() < deadline
    assert ask(collector, key).status == 403


def test_a_key_opens_only_its_own_project(conn, project, collector, key):
    other = Project.objects.create(slug="other", name="Other")
    incident(conn, guardrail(other, action="block"))
    assert ask(collector, key, "session=s-1&project=other").json["decision"] == "allow"


def test_a_guardrail_that_is_switched_off_blocks_nobody_any_more(conn, project, collector, key):
    rule = guardrail(project, action="block")
    incident(conn, rule)
    assert ask(collector, key, "session=s-1").json["decision"] == "block"
    rule.enabled = False
    rule.save()
    deadline = timezone.now() + timedelta(seconds=5)
    while ask(collector, key, "session=s-1").json["decision"] == "block":
        assert timezone.now() < deadline


@pytest.mark.parametrize("query", [
    "session=%FF%FE", "session=%00", "a" * 5000, "&&==&session", "session=s-1&session=s-2", "feature=" + "x" * 4000,
])  # fmt: skip
def test_no_question_makes_it_fail(project, collector, key, query):
    answer = ask(collector, key, query)
    assert answer.status == 200
    assert answer.json["decision"] == "allow"


def test_a_question_that_is_too_long_is_refused_in_words(project, collector, key):
    answer = ask(collector, key, "session=" + "x" * 9000)
    assert answer.status == 400
    assert (answer.json["decision"], answer.json["known"]) == ("allow", False)


def test_other_methods_are_told_which_one_to_use(project, collector, key):
    answer = collector.request("POST", PATH, b"", {"x-api-key": key, "content-type": "application/json"})
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_a_key_that_asks_too_often_is_slowed_down_and_still_gets_a_decision(database_url, project, key):
    slow = Collector(database_url, COSTAPP_GUARD_PER_SECOND="2")
    try:
        answers = [ask(slow, key) for _ in range(23)]
        assert [answer.status for answer in answers[:20]] == [200] * 20
        assert answers[-1].status == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json["decision"] == "allow"
        assert slow.counter('rejected_total{reason="guard_rate_limited"}') >= 1
    finally:
        slow.kill()


@pytest.mark.parametrize(("closed", "decision"), [(False, "allow"), (True, "block")])
def test_while_the_database_is_away_the_project_decides_and_it_recovers(
    conn, database_url, project, key, closed, decision
):
    """The database is a proxy here, so that it can go away without taking the tests along."""
    project.guard_fails_closed = closed
    project.save()
    with Proxy(conn) as proxy:
        collector = Collector(proxy.url(database_url), COSTAPP_GUARD_STALE_SECONDS="1", COSTAPP_GUARD_PER_SECOND="0")
        try:
            assert ask(collector, key).json == {
                "decision": "allow", "reason": "", "known": True, "retry_after": None, "budget": None,
            }  # fmt: skip
            proxy.close()
            deadline = timezone.now() + timedelta(seconds=20)
            while (answer := ask(collector, key)).json["known"]:
                assert timezone.now() < deadline
            assert answer.status == 200
            assert answer.json["decision"] == decision
            assert answer.json["reason"] == "unknown: the database does not answer"
            assert answer.headers["costapp-guard"] == "unknown"
            proxy.open()
            while not ask(collector, key).json["known"]:
                assert timezone.now() < deadline
        finally:
            collector.kill()


def test_many_that_ask_at_once_all_get_an_answer(conn, project, collector, key):
    incident(conn, guardrail(project, action="block"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(collector, key, f"session=s-{n % 3}"), range(90)))
    assert [json.loads(answer.body)["decision"] for answer in answers] == ["allow", "block", "allow"] * 30
