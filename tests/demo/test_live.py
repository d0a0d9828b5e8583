"""Live traffic reads back, through the collectors' own decoder, as the facts it was made from."""

from datetime import UTC, date, datetime
from itertools import islice
from random import Random
from struct import Struct
from time import time_ns

from collectors.batch import TRACES, Batch
from collectors.decode import make_decoder
from collectors.dialects import Recogniser
from collectors.settings import Settings
from costapp.core.calls import resolve
from costapp.core.values import Call, ChargeFlag, Span
from costapp.services.seed_demo.generate import day_spans
from costapp.services.seed_demo.live import live_traces
from costapp.services.seed_demo.otlp import export_request
from costapp.storage.facts import decode_facts

ANCHOR = date(2026, 3, 12)


def sent_and_decoded(traces: list[list[Span]]) -> list[Span]:
    decoder = make_decoder(Recogniser({}, hash_secret=bytes(32)), Settings(), is_json=False)
    batch = Batch(1, 1, TRACES, "http", 0)
    for trace in traces:
        for _ in decoder.decode(export_request(trace).SerializeToString(), batch):
            pass
    return decoded(batch)


_ROW = Struct(">2x 4xi 4xi 4x16s 4xq 4xq 4xq 4xq i")  # a span as binary COPY: see costapp.storage.spans


def decoded(batch: Batch) -> list[Span]:
    fields = [(_ROW.unpack_from(row), row[_ROW.size :]) for row in batch.rows]
    return [Span(row[2], row[3], row[4], row[6], decode_facts(facts)) for row, facts in fields]


_SHOWN = (
    *("trace_id", "span_id", "start_ns", "duration_us", "ttft_us", "error"),
    *("provider", "model", "usage", "usage_state", "usage_rule"),
    *("feature", "user", "session", "team", "environment", "service", "variant", "prompt_version"),
)
# No attribute says batch; and the day of the test lies too far back for a collector.
_NOT_SENT = ChargeFlag.BATCH | ChargeFlag.TIME_SUSPECT


def shown(call: Call) -> dict[str, object]:
    return {name: getattr(call, name) for name in _SHOWN} | {"flags": call.flags & ~_NOT_SENT}


def test_a_day_sent_over_otlp_costs_what_the_same_day_seeded_costs() -> None:
    traces = list(day_spans(ANCHOR, anchor=ANCHOR, until=datetime(2027, 1, 1, tzinfo=UTC), scale=0.03))
    seeded = resolve([span for trace in traces for span in trace])
    sent = resolve(sent_and_decoded(traces))
    assert len(sent) == len(seeded) > 100
    for one, other in zip(sorted(sent), sorted(seeded), strict=True):
        assert shown(one) == shown(other)


def test_live_traces_end_now() -> None:
    for wait_s, spans in islice(live_traces(ANCHOR, per_second=1000, rng=Random(4)), 40):
        root = spans[0]
        end_ns = root.start_ns + (root.facts.duration_us or 0) * 1000
        assert abs(end_ns - time_ns() - wait_s * 1e9) < 1e9
        assert {span.trace_id for span in spans} == {root.trace_id}
