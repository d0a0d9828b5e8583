"""What is remembered about earlier spans saves time and changes nothing."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from benchmarks import traces
from collectors.batch import TRACES, Batch
from collectors.cut import cut
from collectors.decode import Decoder, make_decoder
from collectors.dialects import Recogniser
from collectors.settings import Settings
from costapp.storage.spans import facts_of

NOW_NS = time.time_ns()
SCOPES = ["", "litellm", "logfire", "gemini-cli", "com.anthropic.claude_code.tracing", "strands.telemetry", "x"]
SERVICES = ["", "shop", "codex_cli_rs", "gemini-cli"]
NAMES = ["chat", "handle_responses", "SELECT", "n" * 300]
COUNTS = st.sampled_from([0, 1, 7, 130, 70_000, 2**40, -1, 1.0, "12", None])
ATTRIBUTES = {
    "gen_ai.operation.name": st.sampled_from(["chat", "invoke_agent", "execute_tool"]),
    "gen_ai.request.model": st.sampled_from(["gpt-4o", "m"]),
    "gen_ai.response.id": st.sampled_from(["a", "b", "run-1", "lc_run-2", "chatcmpl-3", "", 5]),
    "litellm.call_id": st.sampled_from(["a", "b"]),
    "gen_ai.usage.input_tokens": COUNTS,
    "gen_ai.usage.prompt_tokens": COUNTS,
    "gen_ai.usage.output_tokens": COUNTS,
    "gen_ai.usage.completion_tokens": COUNTS,
    "gen_ai.usage.cache_read.input_tokens": COUNTS,
    "llm.token_count.prompt": COUNTS,
    "error.type": st.sampled_from(["timeout", "RateLimitError"]),
    "http.response.status_code": st.sampled_from([200, 429, 500]),
    "user.id": st.sampled_from(["u1", "u2", "u" * 300, ""]),
    "session.id": st.sampled_from(["s1", "s2"]),
    "thread_id": st.sampled_from(["t1", "t2"]),
    "ai.response.msToFirstChunk": st.sampled_from([10, 20.5]),
    "gen_ai.input.messages": st.sampled_from(["hello", "bye", "x" * 200]),
    "gen_ai.response.finish_reasons": st.sampled_from([["stop"], ["length"]]),
    "server.address": st.sampled_from(["api.example.com", "https://h:8443/x"]),
    "nobody.wants.this": st.integers(0, 3),
}
attribute_lists = st.lists(st.sampled_from(sorted(ATTRIBUTES)), max_size=8).flatmap(
    lambda keys: st.tuples(*(st.tuples(st.just(key), ATTRIBUTES[key]) for key in keys))
)
# Few shapes and many spans, so that spans do have likes.
span_groups = attribute_lists.flatmap(
    lambda pairs: st.lists(
        st.tuples(*(st.tuples(st.just(key), ATTRIBUTES[key]) for key, _ in pairs)), min_size=2, max_size=4
    )
)


def decoder(limits: Settings = Settings(), *, store_content: bool = False) -> Decoder:  # noqa: B008
    recogniser = Recogniser({}, hash_secret=bytes(32), store_content=store_content)
    return make_decoder(recogniser, limits, is_json=False)


def decoded(by: Decoder, body: bytes) -> Batch:
    batch = Batch(1, 1, TRACES, "http", 0)
    for _ in by.decode(body, batch):
        pass
    return batch


def any_value(value: object) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue()


def body_of(number: int, attributes, *, scope="x", service="shop", name="chat", status=0, duration_ns=5_000) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
    scoped = group.scope_spans.add()
    scoped.scope.name = scope
    span = scoped.spans.add(
        trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), parent_span_id=b"\xff" * 8,
        name=name, kind=3, start_time_unix_nano=NOW_NS, end_time_unix_nano=NOW_NS + duration_ns,
    )  # fmt: skip
    span.status.code = status
    span.attributes.extend(KeyValue(key=key, value=any_value(value)) for key, value in attributes)
    return request.SerializeToString()


@settings(max_examples=300, deadline=None)
@given(
    groups=st.lists(span_groups, min_size=1, max_size=3),
    scope=st.sampled_from(SCOPES),
    service=st.sampled_from(SERVICES),
    name=st.sampled_from(NAMES),
    status=st.sampled_from([0, 2]),
    durations=st.lists(st.sampled_from([-1, 0, 900, 5_000, 10**12]), min_size=1, max_size=4),
    store_content=st.booleans(),
)
def test_a_span_is_stored_the_same_whether_or_not_its_likes_came_before(
    groups, scope, service, name, status, durations, store_content
):
    remembering = decoder(store_content=store_content)
    spans = [attributes for group in groups for attributes in group] * 2
    for number, attributes in enumerate(spans, 1):
        duration_ns = durations[number % len(durations)]
        body = body_of(number, attributes, scope=scope, service=service, name=name, status=status,
                       duration_ns=duration_ns)  # fmt: skip
        known, fresh = decoded(remembering, body), decoded(decoder(store_content=store_content), body)
        assert known.rows == fresh.rows
        assert known.content == fresh.content
        assert known.odd["names_cut"] == fresh.odd["names_cut"]


def test_ordinary_traffic_is_stored_the_same_span_by_span():
    remembering = decoder()
    for request in traces.requests(spans=512, per_request=8, seed=3):
        body = request.SerializeToString()
        assert decoded(remembering, body).rows == decoded(decoder(), body).rows


def test_a_repeated_span_does_not_keep_what_its_like_said_of_itself():
    shared = decoder()
    first, second = (
        facts_of(decoded(shared, body_of(number, [
            ("gen_ai.operation.name", "chat"), ("gen_ai.usage.input_tokens", number * 10), ("user.id", f"u{number}"),
            ("gen_ai.response.id", f"r{number}"),
        ], duration_ns=number * 1000)).rows[0])
        for number in (1, 2)
    )  # fmt: skip
    assert (first.input, first.user, first.response_id, first.duration_us) == (10, "u1", "r1", 1)
    assert (second.input, second.user, second.response_id, second.duration_us) == (20, "u2", "r2", 2)


@pytest.mark.parametrize("number", range(3))
def test_a_field_sent_twice_counts_the_last_time_also_in_spans_that_repeat(number):
    """Protobuf says so; the cut at known places sees only the first."""
    span = _only_span(body_of(7, []))
    twice = span + b"\x12\x08" + bytes([9]) * 8  # another span_id behind everything else
    shared = decoder()
    for _ in range(number + 1):
        rows = decoded(shared, _request_of(twice)).rows
    assert rows == decoded(decoder(), _request_of(twice)).rows
    assert bytes([9]) * 8 in rows[0]


CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 5}
ID = "gen_ai.response.id"
INVENTED = "chatcmpl-01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize(
    ("scope", "first", "second"),
    [
        ("x", {"error.type": "timeout"}, {"error.type": "timeout", "gen_ai.usage.input_tokens": 0}),
        ("x", {"http.response.status_code": 500}, {"http.response.status_code": 500, "gen_ai.usage.input_tokens": 0}),
        ("litellm", {ID: "a"}, {ID: INVENTED}),
        ("x", {ID: "a"}, {ID: "run-1"}),
        ("x", {ID: "a", "litellm.call_id": "b"}, {ID: "b", "litellm.call_id": "b"}),
        ("x", {"user.id": "a"}, {"user.id": "u" * 300}),
        ("x", {"gen_ai.usage.prompt_tokens": 4}, {"gen_ai.usage.prompt_tokens": 9}),
        ("x", {"gen_ai.usage.output_tokens": 4}, {"gen_ai.usage.output_tokens": -9}),
        ("com.anthropic.claude_code.tracing", {"gen_ai.usage.cache_read.input_tokens": 1},
         {"gen_ai.usage.cache_read.input_tokens": 900}),
        ("gemini-cli", {"gen_ai.usage.output_tokens": 1}, {"gen_ai.usage.output_tokens": 0}),
    ],
)  # fmt: skip
def test_where_a_value_decides_more_than_itself_nothing_is_reused(scope, first, second):
    shared = decoder()
    decoded(shared, body_of(1, (CALL | first).items(), scope=scope))
    body = body_of(2, (CALL | second).items(), scope=scope)
    assert decoded(shared, body).rows == decoded(decoder(), body).rows


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=120), at=st.integers(0, 80))
def test_any_bytes_are_cut_like_they_are_parsed_or_not_at_all(raw, at):
    span = _only_span(body_of(7, [("user.id", "u")]))
    damaged = span[:at] + raw + span[at + len(raw) :]
    assert cut(damaged) is None or len(cut(damaged)) == 6
    shared = decoder()
    decoded(shared, _request_of(span))
    try:
        expected = decoded(decoder(), _request_of(damaged)).rows
    except Exception as error:
        with pytest.raises(type(error)):
            decoded(shared, _request_of(damaged))
    else:
        assert decoded(shared, _request_of(damaged)).rows == expected


def test_memory_of_what_is_remembered_is_bounded():
    shared = decoder()
    for number in range(1, 9_001):
        decoded(shared, body_of(number, [], service=f"s{number}"))
    assert len(shared._repeats._contexts) <= 4_096


def _only_span(body: bytes) -> bytes:
    return ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0].SerializeToString()


def _request_of(span: bytes) -> bytes:
    """A request that holds these bytes as its only span."""
    scoped = _field(2, span)
    return _field(1, _field(2, scoped))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, *_length(len(content))]) + content


def _length(size: int) -> list[int]:
    return [size] if size < 128 else [size & 0x7F | 0x80, *_length(size >> 7)]
