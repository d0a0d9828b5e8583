"""Logs and metrics: those that carry usage are stored, the rest is counted. Prompt text only by opt-in."""

import time
from pathlib import Path

import pytest

from costapp.core.values import Signal
from costapp.storage.facts import decode_facts
from tests.collectors.conftest import json_span, stored_count, traces

CAPTURES = Path(__file__).resolve().parents[1] / "data/captures"


def attribute(key, **value):
    return {"key": key, "value": value}


def test_log_events_of_a_coding_agent_are_stored_once_as_calls(collector, key, conn):
    body = (CAPTURES / "claude-code__plain.00-logs.json.bin").read_bytes()
    for _ in range(2):
        assert collector.post(key, body, path="/v1/logs").status == 200
    facts = [decode_facts(row) for (row,) in conn.execute("select facts from span")]
    assert facts
    assert {found.signal for found in facts} == {Signal.EVENT}
    received, stored, duplicates = conn.execute(
        "select sum(received), sum(stored), sum(duplicates) from ingest_log where signal = 'logs'"
    ).fetchone()
    assert (stored, duplicates) == (len(facts), len(facts))
    assert received > stored + duplicates  # records without usage


def test_token_counters_are_stored_once_and_other_metrics_are_counted(collector, key, conn):
    body = (CAPTURES / "claude-code__plain.01-metrics.json.bin").read_bytes()
    before = collector.counter("ignored_total")
    for _ in range(2):
        assert collector.post(key, body, path="/v1/metrics").status == 200
    points = conn.execute("select token_type, model, tokens, is_delta from metric_point").fetchall()
    assert {point[0] for point in points} >= {"input", "output"}
    assert all(is_delta for *_, is_delta in points)
    assert sum(tokens for _, _, tokens, _ in points) > 0
    stored = conn.execute("select sum(stored), sum(duplicates) from ingest_log where signal = 'metrics'").fetchone()
    assert stored == (len(points), len(points))
    assert collector.counter("ignored_total") > before


def test_a_request_of_nothing_but_ignored_records_is_a_success(collector, key, conn):
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}}, None]}]}]}
    answer = collector.post(key, body, path="/v1/logs")
    assert (answer.status, answer.body) == (200, b"{}")
    assert stored_count(conn) == 0


@pytest.mark.parametrize("opted_in", [False, True])
def test_prompt_text_is_stored_only_by_a_project_that_opted_in(collector, key, project, conn, opted_in):
    project.store_content = opted_in
    project.save()
    secret = "tell me about the merger"
    span = json_span(1, attributes=[
        attribute("gen_ai.operation.name", stringValue="chat"),
        attribute("gen_ai.input.messages", stringValue=f'[{{"role":"user","parts":[{{"content":"{secret}"}}]}}]'),
    ])  # fmt: skip
    assert collector.post(key, traces(span)).status == 200
    contents = conn.execute("select content::text from span_content").fetchall()
    assert [secret in content for (content,) in contents] == ([True] if opted_in else [])
    facts = conn.execute("select facts from span").fetchone()[0]
    assert secret.encode() not in facts
    assert decode_facts(facts).prompt_hash is not None


def test_refused_requests_appear_in_the_log_of_their_project(collector, key, conn):
    assert collector.post(key, b"{").status == 400
    assert collector.post(key, b" " * (1024 * 1024 + 1)).status == 413
    for _ in range(200):
        rows = conn.execute("select rejected, reasons from ingest_log where reasons is not null").fetchall()
        if rows:
            break
        time.sleep(0.05)
    assert rows == [(2, {"undecodable": 1, "too_large": 1})]
