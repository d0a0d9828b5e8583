"""The recordings of real clients are the oracle: what any ingester can recover from their bytes, no more, no less."""

import random
from collections import Counter

import pytest

from collectors.dialects import Recogniser
from costapp.core.calls import explain, resolve
from costapp.core.meters import input_total, output_total
from costapp.core.values import Call, Span, UsageState
from tests.dialects import wire

RECOGNISER = Recogniser(hash_secret=b"test secret of 32 bytes, or more")
NAMES = [c["id"] for c in wire.captures()]


def totals(calls: list[Call]) -> dict[str, int]:
    good = [call for call in calls if not call.error]
    return {
        "calls_seen": len(good),
        "failed_seen": len(calls) - len(good),
        "usage_unknown": sum(call.usage_state == UsageState.UNKNOWN for call in good),
        "input_total": sum(input_total(call.usage) for call in calls),
        "cache_read": sum(call.usage.cache_read for call in calls),
        "cache_write": sum(call.usage.cache_write_5m + call.usage.cache_write_1h for call in calls),
        "output_total": sum(output_total(call.usage) for call in calls),
        "reasoning": sum(call.usage.reasoning for call in calls),
    }


def spans_of(name: str) -> list[Span]:
    return wire.spans_of(RECOGNISER, wire.capture(name)["files"])


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_yields_exactly_what_is_recoverable_from_it(name: str) -> None:
    expected = wire.capture(name)["recoverable_from_wire"]
    found = totals(resolve(spans_of(name)))
    assert found == {key: expected[key] for key in found}


@pytest.mark.parametrize("name", NAMES)
def test_every_call_of_a_recording_has_the_feature_user_and_session_of_the_application(name: str) -> None:
    seen = [call for call in wire.capture(name)["truth"]["calls"] if call["wire"]["seen"]]
    expected = Counter((call["feature"] or "", call["user"] or "", call["session"] or "") for call in seen)
    assert Counter((call.feature, call.user, call.session) for call in resolve(spans_of(name))) == expected


@pytest.mark.parametrize("name", NAMES)
def test_order_and_repetition_of_delivery_change_nothing(name: str) -> None:
    spans = spans_of(name)
    expected = resolve(spans)
    files = wire.capture(name)["files"]
    shuffler = random.Random(name)
    for variant in (spans + spans, spans[::-1], wire.spans_of(RECOGNISER, files[::-1])):
        assert resolve(variant) == expected
    for _ in range(3):
        shuffled = spans + spans[: len(spans) // 2]
        shuffler.shuffle(shuffled)
        assert resolve(shuffled) == expected


def test_recordings_do_not_disturb_each_other() -> None:
    """All traces in one call of resolve, as when a shared response id joins them: every call stays itself."""
    apart = [call for name in NAMES for call in resolve(spans_of(name))]
    together = resolve([span for name in NAMES for span in spans_of(name)])
    assert sorted(together) == sorted(apart)


@pytest.mark.parametrize("name", NAMES)
def test_every_span_gets_one_verdict(name: str) -> None:
    spans = spans_of(name)
    verdicts = explain(spans)
    assert {(v.trace_id, v.span_id) for v in verdicts} == {(s.trace_id, s.span_id) for s in spans}
    assert sum(v.outcome == "charged" for v in verdicts) == len(resolve(spans))
    assert all(v.why for v in verdicts)


@pytest.mark.parametrize("name", NAMES)
def test_token_metrics_never_exceed_nor_replace_the_calls(name: str) -> None:
    """Points are disjoint; a resent body gives equal points, so their key removes it."""
    files = wire.capture(name)["files"]
    points = wire.points_of(RECOGNISER, files)
    assert points == wire.points_of(RECOGNISER, files)
    assert len({(p.stream, p.start_ns, p.time_ns) for p in points}) == len(points)
    assert all(p.tokens >= 0 and p.token_type for p in points)


def test_claude_code_metrics_and_events_count_the_same_tokens() -> None:
    files = wire.capture("claude-code__plain")["files"]
    points = wire.points_of(RECOGNISER, files)
    call = resolve(wire.spans_of(RECOGNISER, files))[0]
    by_type = {p.token_type: p.tokens for p in points}
    assert by_type["input"] == call.usage.input == 14
    assert by_type["cache_write"] == call.usage.cache_write_5m == 5200
    assert call.reported_nano == 24_192_000
    assert call.provider == "anthropic"


def test_the_one_hour_cache_write_is_kept_apart_where_the_wire_has_it() -> None:
    calls = resolve(spans_of("otel-genai__anthropic-cached"))
    assert sum(call.usage.cache_write_1h for call in calls) == 260
    assert sum(call.usage.cache_write_5m for call in calls) == 1800


def test_clients_that_hide_the_cached_part_are_marked_as_upper_bounds() -> None:
    for name in ("otel-js-openai__mixed", "otel-openai-v2__plain", "vercel-ai-5__tools"):
        chats = [c for c in resolve(spans_of(name)) if not c.error and c.operation == "chat"]
        assert chats
        assert {c.usage_state for c in chats} == {UsageState.PARTIAL}


def test_frameworks_are_not_providers() -> None:
    for call in resolve(spans_of("strands__agent-tool")):
        assert (call.provider, call.provider_raw) == ("openai", "strands-agents")


def test_the_cost_a_client_reports_is_kept_to_the_nano_dollar() -> None:
    by_model = {c.model: c for c in resolve(spans_of("litellm__plain"))}
    assert by_model["gpt-4o-mini-2024-07-18"].reported_nano == 53_100
    assert by_model["gpt-4o-mini-2024-07-18"].reported_source == "gen_ai.cost.total_cost"
    manual = resolve(spans_of("langfuse__manual"))
    assert {c.reported_nano for c in manual} == {1_900_000, None}


def test_no_prompt_text_survives_in_the_facts() -> None:
    for name in NAMES:
        for span in spans_of(name):
            assert "Say hello" not in repr(span), name
            assert "All good, here is the answer" not in repr(span), name


def test_errors_are_classed_alike_whoever_reports_them() -> None:
    classes = {name: sorted(c.error for c in resolve(spans_of(name)) if c.error) for name in NAMES if "error" in name}
    for name, found in classes.items():
        assert "rate_limit" in found, (name, found)
