"""Odd values: kept, cut or rejected as documented; never an error of ours, whatever the bytes."""

import contextlib
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import traces as generated
from collectors.batch import Batch
from collectors.codecs import JSON, PROTOBUF, Cuts
from collectors.decode import make_decoder
from collectors.dialects import Recogniser
from collectors.errors import Refusal
from collectors.settings import Settings
from costapp.core.values import SpanFacts, SpanFlag
from costapp.storage.facts import decode_facts
from costapp.storage.spans import key_of
from tests.collectors.conftest import json_span, stored_count, traces

FACTS_AT = 90  # where the facts of a row begin
LIMITS = Settings(attributes=8, events=3, key_bytes=32, value_chars=64, name_chars=16, nesting=4)


def decoded(body: bytes | dict[str, Any], *, signal: str = "traces", limits: Settings = LIMITS) -> Batch:
    is_json = isinstance(body, dict)
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    batch = Batch(1, 1, signal, "http", len(data))
    decoder = make_decoder(Recogniser({}, hash_secret=bytes(32)), limits, is_json=is_json)
    for _ in decoder.decode(data, batch):
        pass
    return batch


def facts_of(batch: Batch, number: int = 0) -> SpanFacts:
    return decode_facts(batch.rows[number][FACTS_AT:])


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def test_a_nul_and_a_lone_surrogate_become_the_replacement_character():
    spans = [json_span(1, name="a\0b"), json_span(2, name="\ud800x"), json_span(3, attributes=[
        attribute("app.feature", stringValue="s\0\udc00")])]  # fmt: skip
    batch = decoded(traces(*spans))
    assert [facts_of(batch, number).name for number in (0, 1)] == ["a\ufffdb", "\ufffdx"]
    assert facts_of(batch, 2).feature == "s\ufffd\ufffd"


def test_invalid_utf8_refuses_nothing():
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"1" * 16, span_id=b"1" * 8, name="aXXb")
    body = request.SerializeToString().replace(b"XX", b"\xff\xfe")
    assert facts_of(decoded(body)).name == "a\ufffd\ufffdb"
    text = json.dumps(traces(json_span(1, name="aXXb"))).encode().replace(b"XX", b"\xff\xfe")
    batch = Batch(1, 1, "traces", "http", 0)
    for _ in make_decoder(Recogniser({}, hash_secret=bytes(32)), LIMITS, is_json=True).decode(text, batch):
        pass
    assert facts_of(batch).name == "a\ufffd\ufffdb"


@pytest.mark.parametrize("value", [
    {"intValue": "-1"}, {"intValue": 10**10}, {"intValue": "99999999999999999999"}, {"doubleValue": "NaN"},
    {"doubleValue": "Infinity"}, {"boolValue": True}, {"arrayValue": {"values": [{"intValue": 1}]}},
    {"bytesValue": "AAAA"}, {"stringValue": "many"},
])  # fmt: skip
def test_a_senseless_token_count_is_no_count_and_the_span_is_flagged(value):
    facts = facts_of(decoded(traces(json_span(1, attributes=[attribute("gen_ai.usage.input_tokens", **value)]))))
    assert facts.input is None
    assert facts.flags & SpanFlag.USAGE_INVALID


@pytest.mark.parametrize("value", [{"intValue": 12}, {"intValue": "12"}, {"doubleValue": 12.0}, {"doubleValue": "12"}])
def test_integers_come_as_numbers_or_as_text(value):
    spans = traces(json_span(1, attributes=[attribute("gen_ai.usage.input_tokens", **value)]))
    assert facts_of(decoded(spans)).input == 12


def test_null_means_absent_everywhere():
    nothing = attribute("gen_ai.usage.input_tokens", doubleValue=None)
    span = json_span(1, attributes=[nothing, None, {"key": "x"}],
                     events=[None, {"name": None}], status=None, kind=None, parentSpanId=None)  # fmt: skip
    facts = facts_of(decoded(traces(span, None)))
    assert (facts.input, facts.kind, facts.status) == (None, 0, 0)


def test_bare_nan_is_no_json_but_is_read_as_absent(collector, key, conn):
    body = json.dumps(traces(json_span(1, attributes=[attribute("gen_ai.usage.cost", doubleValue=math.nan)])))
    assert "NaN" in body
    assert collector.post(key, body.encode()).status == 200
    assert stored_count(conn) == 1


@pytest.mark.parametrize(("span", "reason"), [
    ({"traceId": "0" * 32}, "invalid_trace_id"), ({"traceId": "0" * 30}, "invalid_trace_id"),
    ({"traceId": "z" * 32}, "invalid_trace_id"), ({"traceId": None}, "invalid_trace_id"),
    ({"traceId": "AAAAAAAAAAAAAAAAAAAAAQ=="}, "invalid_trace_id"), ({"traceId": "ä" * 32}, "invalid_trace_id"),
    ({"spanId": "0" * 16}, "invalid_span_id"), ({"spanId": "1"}, "invalid_span_id"),
    ({"spanId": ""}, "invalid_span_id"),
])  # fmt: skip
def test_wrong_ids_are_rejected_and_counted(span, reason):
    batch = decoded(traces(json_span(1, **span), json_span(2)))
    assert (dict(batch.rejected), len(batch.rows)) == ({reason: 1}, 1)


def test_ids_are_hex_of_any_case():
    batch = decoded(traces(json_span(1, traceId="ABCDEFabcdef" + "1" * 20, spanId="FFFFFFFFFFFFFFFE")))
    found = key_of(batch.rows[0])
    assert (found.trace_id.hex(), found.span_id) == ("abcdefabcdef" + "1" * 20, -2)


def test_what_exceeds_a_limit_is_cut_and_counted():
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(6):
        deep = {"arrayValue": {"values": [deep]}}
    span = json_span(1, name="n" * 17, events=[{"name": "e"}] * 4, attributes=[
        attribute("k" * 33, stringValue="x"), attribute("app.feature", stringValue="v" * 65),
        attribute("gen_ai.response.finish_reasons", **deep), *([attribute("a", intValue=1)] * 6),
    ])  # fmt: skip
    batch = decoded(traces(span))
    assert dict(batch.odd) == {
        "names_cut": 1, "events_cut": 1, "attributes_cut": 1, "keys_cut": 1, "values_cut": 1, "nesting_cut": 1,
    }  # fmt: skip
    assert facts_of(batch).name == "n" * 16


@pytest.mark.parametrize("start", [0, 1, 2**63, 2**64 - 1, "18446744073709551616", -5])
def test_spans_of_far_off_times_are_kept_and_flagged(start):
    batch = decoded(traces(json_span(1, startTimeUnixNano=start)))
    assert facts_of(batch).flags & SpanFlag.TIME_OUT_OF_RANGE
    assert batch.odd["time_out_of_range"] == 1


def test_a_span_that_ends_before_it_starts_has_no_duration():
    facts = facts_of(decoded(traces(json_span(1, endTimeUnixNano="5"))))
    assert facts.duration_us is None
    assert facts.flags & SpanFlag.TIME_INVALID


def test_deeply_nested_bodies_are_bad_data():
    for body in (b'{"resourceSpans":' + b"[" * 100_000, b'{"x":' + b'{"a":' * 100_000):
        batch = Batch(1, 1, "traces", "http", 0)
        with pytest.raises(Refusal) as caught:
            list(make_decoder(Recogniser({}, hash_secret=bytes(32)), LIMITS, is_json=True).decode(body, batch))
        assert caught.value.kind.http_status == 400


def test_protobuf_values_nested_too_deeply_cost_only_their_attribute():
    value = b""  # an empty AnyValue, wrapped into arrays of one value each
    for _ in range(150):
        array = _field(1, value)
        value = _field(5, array)
    deep = _field(1, b"app.feature") + _field(2, value)
    span = _field(1, b"1" * 16) + _field(2, b"1" * 8) + _field(9, deep)
    batch = decoded(_field(1, _field(2, _field(2, span))))
    assert len(batch.rows) == 1
    assert batch.odd["attribute_undecodable"] == 1


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(data), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + data


def test_an_error_message_says_where_without_repeating_the_payload():
    with pytest.raises(Refusal) as caught:
        decoded(traces(json_span(1, name={"secret": "prompt text"})))
    assert "spans[0].name" in caught.value.message
    assert "prompt" not in caught.value.message


SEEDS = [next(generated.requests(spans=16, seed=seed)).SerializeToString() for seed in range(3)]
JSON_SEEDS = [generated.as_json(next(generated.requests(spans=8, seed=seed))) for seed in range(2)]


def mutated(body: bytes, seed: int) -> bytes:
    dice = random.Random(seed)
    data = bytearray(body)
    for _ in range(dice.randint(1, 12)):
        at = dice.randrange(len(data))
        choice = dice.randrange(4)
        if choice == 0:
            data[at] = dice.randrange(256)
        elif choice == 1:
            del data[at : at + dice.randint(1, 40)]
        elif choice == 2:
            data[at:at] = dice.randbytes(dice.randint(1, 20))
        else:
            data[at:at] = data[at : at + 30]
    return bytes(data) or b"\0"


@settings(max_examples=300, deadline=None)
@given(st.integers(), st.sampled_from(["traces", "logs", "metrics"]), st.booleans())
def test_no_body_makes_decoding_fail_in_any_way_but_a_refusal(seed, signal, is_json):
    body = mutated(random.Random(seed).choice(JSON_SEEDS if is_json else SEEDS), seed)
    batch = Batch(1, 1, signal, "http", len(body))
    decoder = make_decoder(Recogniser({}, hash_secret=bytes(32)), Settings(), is_json=is_json)
    with contextlib.suppress(Refusal):
        for _ in decoder.decode(body, batch):
            pass
    assert batch.weight + batch.rejected.total() + batch.ignored <= batch.received


def test_mutated_bodies_are_never_answered_500(collector, key, conn):
    for seed in range(150):
        for bodies, content_type in ((SEEDS, "application/x-protobuf"), (JSON_SEEDS, "application/json")):
            path = ("/v1/traces", "/v1/logs", "/v1/metrics")[seed % 3]
            answer = collector.post(key, mutated(bodies[seed % 2], seed), path=path, content_type=content_type)
            assert answer.status in {200, 400}, (seed, content_type, answer)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["key", "value", "stringValue", "intValue", "arrayValue", "values", "kvlistValue", "x"]), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_json_value_as_an_attribute_is_read_or_lost(value):
    cuts = Cuts(Settings())
    raw = json.dumps(value).encode()
    pair = JSON.key_value(raw, cuts)
    assert pair is None or isinstance(pair[0], str)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_as_an_attribute_are_read_or_lost(raw):
    pair = PROTOBUF.key_value(raw, Cuts(Settings()))
    assert pair is None or isinstance(pair[0], str)
