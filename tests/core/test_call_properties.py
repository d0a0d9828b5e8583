"""Properties of `resolve` over invented traces: order, repetition, the short cut, conservation, cost."""

import time
from collections.abc import Callable
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from costapp.core import calls
from costapp.core.calls import explain, resolve
from costapp.core.meters import input_total, output_total
from costapp.core.values import Call, Role, Signal, Span, SpanFacts, SpanFlag
from tests.core.factories import SECOND, T0, call, span

COUNTS = st.sampled_from([None, 0, 1, 20, 100, 101, 4000])
TRACES = (b"a" * 16, b"b" * 16)


@st.composite
def traces(draw: st.DrawFn, scopes: tuple[str, ...] = ("otel", "sdk", "langchain"), most: int = 9) -> list[Span]:
    """Spans with colliding times, ids, usage and parents: everything the merge rules look at."""
    size = draw(st.integers(0, most))
    return [draw(spans(number, scopes, size)) for number in range(1, size + 1)]


@st.composite
def spans(draw: st.DrawFn, number: int, scopes: tuple[str, ...], size: int) -> Span:
    role = draw(st.sampled_from([Role.CALL, Role.CALL, Role.PLAIN, Role.AGGREGATE, Role.MAYBE]))
    facts = SpanFacts(
        name=draw(st.sampled_from(["a", "b"])), role=int(role), status=draw(st.sampled_from([0, 0, 2])),
        duration_us=draw(st.sampled_from([None, 0, 10, 10_000])), scope=draw(st.sampled_from(scopes)),
        signal=int(draw(st.sampled_from([Signal.SPAN] * 5 + [Signal.EVENT]))),
        flags=draw(st.sampled_from([0, 0, 0, int(SpanFlag.LATE_RESULT), int(SpanFlag.STREAM)])),
        input=draw(COUNTS), output=draw(COUNTS), cache_read=draw(COUNTS), reasoning=draw(COUNTS),
        response_id=draw(st.sampled_from([None, None, "r1", "r2", "~x"])),
        model_requested=draw(st.sampled_from([None, "gpt-4o", "gpt-4o-2024-08-06", "claude-3"])),
        feature=draw(st.sampled_from([None, None, "f", "g"])), feature_rank=draw(st.sampled_from([0, 0, 3])),
        session=draw(st.sampled_from([None, "s"])), user=draw(st.sampled_from([None, "u", "v"])),
    )  # fmt: skip
    trace = draw(st.sampled_from(TRACES))
    start = T0 + draw(st.sampled_from([0, 1, 2_000_000, 9_000_000, SECOND, 4000 * SECOND]))
    return Span(trace, number, draw(st.integers(0, size + 1)), start, facts)


@settings(max_examples=400, deadline=None)
@given(traces(), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_the_calls(found: list[Span], random: object) -> None:
    expected = resolve(found)
    again = found + found[::2]
    random.shuffle(again)  # type: ignore[attr-defined]
    assert resolve(again) == expected


@settings(max_examples=400, deadline=None)
@given(traces(scopes=("otel",)))
def test_the_short_cut_gives_the_answer_of_the_long_way(found: list[Span]) -> None:
    with mock.patch.object(calls, "_is_simple", lambda leaves: not leaves):
        long_way = resolve(found)
    assert resolve(found) == long_way


@settings(max_examples=300, deadline=None)
@given(traces())
def test_no_call_is_invented_and_every_span_is_explained_once(found: list[Span]) -> None:
    made = resolve(found)
    places = {(s.trace_id, s.span_id) for s in found}
    assert {(c.trace_id, c.span_id) for c in made} <= places
    assert len({(c.trace_id, c.span_id) for c in made}) == len(made)
    verdicts = explain(found)
    assert {(v.trace_id, v.span_id) for v in verdicts} == places
    assert {(v.trace_id, v.span_id) for v in verdicts if v.outcome == "charged"} == {
        (c.trace_id, c.span_id) for c in made
    }


@settings(max_examples=300, deadline=None)
@given(traces())
def test_tokens_of_a_call_never_exceed_what_one_of_its_spans_states(found: list[Span]) -> None:
    largest_in = max((s.facts.input or 0) + (s.facts.cache_read or 0) for s in found) if found else 0
    largest_out = max((s.facts.output or 0) + (s.facts.reasoning or 0) for s in found) if found else 0
    for one in resolve(found):
        assert all(quantity >= 0 for quantity in one.usage)
        assert input_total(one.usage) <= largest_in
        assert output_total(one.usage) <= largest_out


def timed(work: Callable[[], list[Call]]) -> tuple[int, float]:
    started = time.process_time()
    found = work()
    return len(found), time.process_time() - started


def pairs(number: int) -> list[Span]:
    """Parallel equal calls, each seen by two scopes: the worst case for finding twins."""
    root = span(lasts=99)
    outer = [call(root, at=i / 1e6, lasts=2.0) for i in range(number)]
    inner = [call(root, at=0.5 + i / 1e6, lasts=1.0, scope="sdk") for i in range(number)]
    return [root, *outer, *inner]


def test_hostile_traces_cost_about_as_much_per_span_as_small_ones() -> None:
    """A quadratic search would cost 16 times as much (generous bound: the machine is shared)."""
    small, seconds_small = timed(lambda: resolve(pairs(600)))
    large, seconds_large = timed(lambda: resolve(pairs(2400)))
    assert (small, large) == (600, 2400)
    assert seconds_large < 4 * seconds_small * 2.5 + 0.2
