"""The invented company: always the same, believable, and with the incidents it promises."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from statistics import mean

import pytest

from costapp.core.values import Role, Span, SpanFlag
from costapp.services.seed_demo import company, recorded
from costapp.services.seed_demo.generate import day_spans

ANCHOR = date(2026, 3, 12)  # a Thursday
LATER = datetime(2027, 1, 1, tzinfo=UTC)


def traces_of(days_ago: int, scale: float = 1.0, until: datetime = LATER) -> list[list[Span]]:
    return list(day_spans(ANCHOR - timedelta(days=days_ago), anchor=ANCHOR, until=until, scale=scale))


@pytest.fixture(scope="module")
def ordinary_day() -> list[list[Span]]:
    return traces_of(1)


def calls(traces: list[list[Span]], feature: str) -> Iterator[Span]:
    for root, *children in traces:
        if (root.facts.feature or "") == feature:
            yield from (span for span in children if span.facts.role == Role.CALL)


def test_the_same_day_is_the_same_every_time() -> None:
    assert traces_of(3, scale=0.05) == traces_of(3, scale=0.05)


def test_today_ends_now_and_goes_on_later_with_the_same_spans() -> None:
    noon = datetime(2026, 3, 12, 12, tzinfo=UTC)
    so_far, whole_day = traces_of(0, 0.1, noon), traces_of(0, 0.1)
    assert 0 < len(so_far) < len(whole_day)
    assert {trace[0].trace_id for trace in so_far} <= {trace[0].trace_id for trace in whole_day}


def test_ids_are_unique_and_never_the_id_that_means_none(ordinary_day: list[list[Span]]) -> None:
    spans = [span for trace in ordinary_day for span in trace]
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
    assert all(span.span_id != 0 and -(2**63) <= span.span_id < 2**63 for span in spans)


def test_an_ordinary_day_has_every_feature_and_several_providers(ordinary_day: list[list[Span]]) -> None:
    called = [span.facts for trace in ordinary_day for span in trace if span.facts.role == Role.CALL]
    named = {trace[0].facts.feature for trace in ordinary_day} - {None}
    assert len(named) >= 12
    assert {facts.provider_raw for facts in called} >= {
        "openai",
        "anthropic",
        "gcp.gemini",
        "aws.bedrock",
        "mistral_ai",
    }
    assert {facts.environment for facts in called} == {"production", "staging"}
    assert 2_500 < len(called) < 8_000


def test_every_oddity_that_pages_must_cope_with_occurs(ordinary_day: list[list[Span]]) -> None:
    called = [span.facts for trace in ordinary_day for span in trace if span.facts.role == Role.CALL]
    assert any(facts.error == "429" for facts in called)
    assert any(facts.flags & SpanFlag.STREAM and facts.input is None and not facts.error for facts in called)
    assert any(facts.flags & SpanFlag.APP_CACHED for facts in called)
    assert any(facts.cache_read for facts in called)
    assert any(facts.operation == "embeddings" for facts in called)
    assert any(trace[0].facts.feature is None for trace in ordinary_day)


def test_counts_are_possible(ordinary_day: list[list[Span]]) -> None:
    for facts in (span.facts for trace in ordinary_day for span in trace if span.facts.input is not None):
        assert facts.input is not None
        assert facts.input >= 0
        if facts.scope != "opentelemetry.instrumentation.botocore.bedrock-runtime":
            assert (facts.cache_read or 0) + (facts.cache_write or 0) <= facts.input
        assert (facts.reasoning or 0) <= (facts.output or 0)


def test_children_lie_inside_their_root(ordinary_day: list[list[Span]]) -> None:
    for root, *children in ordinary_day:
        assert root.facts.duration_us is not None
        end_ns = root.start_ns + root.facts.duration_us * 1000 + 1000
        for child in children:
            assert child.parent_id == root.span_id
            assert root.start_ns <= child.start_ns
            assert child.start_ns + (child.facts.duration_us or 0) * 1000 <= end_ns


def test_the_pasted_help_centre_triples_the_prompt() -> None:
    before, during, after = (
        mean(span.facts.input or 0 for span in calls(traces_of(days_ago), "support-bot")) for days_ago in (10, 8, 6)
    )
    assert 2.5 < during / before < 3.6
    assert 0.8 < after / before < 1.25


def test_the_lost_cache_shows_as_reads_that_stop() -> None:
    def share_read(days_ago: int) -> float:
        facts = [span.facts for span in calls(traces_of(days_ago), "code-assist")]
        return sum(one.cache_read or 0 for one in facts) / sum(one.input or 0 for one in facts)

    assert share_read(22) > 0.5
    assert share_read(20) < 0.1


def test_the_runaway_loop_is_one_session_with_hundreds_of_calls() -> None:
    sessions = [span.facts.session for trace in traces_of(company.RUNAWAY_LOOP.from_day) for span in trace[:1]]
    assert sessions.count("s-runaway00return") == 420


def test_weekends_are_quiet_in_the_office_and_busy_in_the_shop() -> None:
    saturday, thursday = traces_of(5), traces_of(7)
    assert len(list(calls(saturday, "email-drafts"))) < len(list(calls(thursday, "email-drafts"))) / 2
    assert len(list(calls(saturday, "fit-advisor"))) > len(list(calls(thursday, "fit-advisor")))


def test_the_recorded_traces_are_what_they_claim() -> None:
    assert len(recorded.conversations()) == 500
    assert all(turn.cached <= turn.input for turns in recorded.conversations() for turn in turns)
    for profile in ("large", "mid", "small"):
        assert len(recorded.hourly_load(profile)) == recorded.HOURS_RECORDED
        assert mean(recorded.hourly_load(profile)) == pytest.approx(1, abs=0.01)
