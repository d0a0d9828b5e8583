"""More real clients, recorded by ourselves: every attempt comes out as the wire has it, no more, no less.

The expectation is what the provider served, less what the client does not send (the manifest says why). It was
not taken from the code under test.
"""

import json
import random
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collectors.dialects import Recogniser
from costapp.core.calls import explain, resolve
from costapp.core.meters import input_total, output_total
from costapp.core.values import Call, Span, UsageState
from tests.dialects import wire

FOLDER = Path(__file__).resolve().parents[1] / "data" / "recordings"
RECORDINGS: dict[str, dict[str, Any]] = {
    recording["id"]: recording for recording in json.loads((FOLDER / "manifest.json").read_text())["captures"]
}
RECOGNISER = Recogniser(hash_secret=b"test secret of 32 bytes, or more")
NAMES = list(RECORDINGS)
#: Clients that invent token counts where the provider sent none, and say so nowhere on the wire.
ESTIMATES = {"openlit__stream"}


class Outcome(NamedTuple):
    """One call, in the words of the manifest."""

    failed: bool
    known: bool  # the wire has usage
    input_total: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output_total: int
    reasoning: int
    feature: str
    user: str
    session: str


@cache
def spans_of(name: str) -> list[Span]:
    return wire.spans_of(RECOGNISER, RECORDINGS[name]["files"], FOLDER)


def expected(name: str) -> Counter[Outcome]:
    found: Counter[Outcome] = Counter()
    for attempt in RECORDINGS[name]["truth"]["calls"]:
        seen = attempt["wire"]
        tokens = seen["tokens"] or {}
        counts = [tokens.get(field, 0) for field in Outcome._fields[2:8]]
        outcome = Outcome(
            not attempt["billable"], seen["usage"], *counts, seen["feature"], seen["user"], seen["session"]
        )
        found[outcome] += seen["sightings"]
    return +found


def outcome_of(call: Call) -> Outcome:
    usage = call.usage
    return Outcome(
        bool(call.error), call.usage_state != UsageState.UNKNOWN, input_total(usage), usage.cache_read,
        usage.cache_write_5m + usage.cache_write_1h, usage.cache_write_1h, output_total(usage), usage.reasoning,
        call.feature, call.user, call.session,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_yields_each_attempt_as_the_wire_has_it(name: str) -> None:
    assert Counter(map(outcome_of, resolve(spans_of(name)))) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_totals_of_the_manifest_are_those_of_its_attempts(name: str) -> None:
    totals = RECORDINGS[name]["recoverable_from_wire"]
    attempts = list(expected(name).elements())
    for field in Outcome._fields[2:8]:
        assert totals[field] == sum(getattr(attempt, field) for attempt in attempts), field
    assert totals["failed_seen"] == sum(attempt.failed for attempt in attempts)
    assert totals["calls_seen"] == sum(not attempt.failed for attempt in attempts)
    assert totals["usage_unknown"] == sum(not attempt.failed and not attempt.known for attempt in attempts)


@pytest.mark.parametrize("name", NAMES)
def test_models_are_those_that_were_asked_or_that_answered(name: str) -> None:
    attempts = RECORDINGS[name]["truth"]["calls"]
    true = {attempt[field] for attempt in attempts for field in ("model_requested", "model_responded")}
    for call in resolve(spans_of(name)):
        assert any(model == call.model or model.endswith(f".{call.model}") for model in true), call.model


@pytest.mark.parametrize("name", NAMES)
def test_order_and_repetition_of_delivery_change_nothing(name: str) -> None:
    spans = spans_of(name)
    calls = resolve(spans)
    files = RECORDINGS[name]["files"][::-1]
    shuffled = spans + spans[: len(spans) // 2]
    random.Random(name).shuffle(shuffled)
    for variant in (spans + spans, spans[::-1], shuffled, wire.spans_of(RECOGNISER, files, FOLDER)):
        assert resolve(variant) == calls


def test_interleaved_recordings_do_not_disturb_each_other() -> None:
    apart = [call for name in NAMES for call in resolve(spans_of(name))]
    together = [span for name in NAMES for span in spans_of(name)]
    random.Random(7).shuffle(together)
    assert sorted(resolve(together)) == sorted(apart)


@pytest.mark.parametrize("name", NAMES)
def test_every_span_gets_one_verdict(name: str) -> None:
    spans = spans_of(name)
    verdicts = explain(spans)
    assert {(v.trace_id, v.span_id) for v in verdicts} == {(s.trace_id, s.span_id) for s in spans}
    assert sum(v.outcome == "charged" for v in verdicts) == len(resolve(spans))


@pytest.mark.parametrize("name", NAMES)
def test_a_hidden_cached_part_makes_an_upper_bound_never_a_plain_figure(name: str) -> None:
    """Where the client keeps the cached part for itself, the call says that it may have cost less."""
    if name in ESTIMATES:
        assert UsageState.ESTIMATED in {call.usage_state for call in resolve(spans_of(name))}
    for attempt in RECORDINGS[name]["truth"]["calls"]:
        seen, tokens = attempt["wire"]["tokens"], attempt["tokens"]
        if not seen or not tokens or seen["input_total"] != tokens["input_total"]:
            continue
        if tokens["cache_read"] and not seen["cache_read"]:
            counts = (seen["input_total"], seen["output_total"])
            states = {
                c.usage_state
                for c in resolve(spans_of(name))
                if (input_total(c.usage), output_total(c.usage)) == counts
            }
            assert states == {UsageState.PARTIAL}, counts


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_text_survives_in_the_facts(name: str) -> None:
    for span in spans_of(name):
        assert "Say hello" not in repr(span)
        assert "All good, here is the answer" not in repr(span)
