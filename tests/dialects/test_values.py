"""Odd values: nothing raises, nothing poisons, nothing is guessed."""

import hmac
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.dialects import Recogniser, Scope
from collectors.dialects.recogniser import BUILT_IN
from collectors.dialects.scalars import (
    COUNT_LIMIT,
    TEXT_LIMIT,
    clean,
    count_of,
    document_of,
    nano_of,
    text_of,
    truth_of,
)
from costapp.core.calls import resolve
from costapp.core.values import Role, Span, SpanFacts, SpanFlag
from tests.dialects.synthetic import RECOGNISER, T0, Client, hits

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
SCALARS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), 1 << 63),
        st.floats(),
        st.text(max_size=40),
        st.binary(max_size=9),
        st.sampled_from(
            ["{}", "[]", '"x"', '{"input": 1}', "{'a': None}", '{"a":', "[[[[", "\x00", "\ud800", "NaN", "1e999"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.one_of(
    st.sampled_from(sorted(BUILT_IN)),
    st.sampled_from(["gen_ai.prompt.0.content", "llm.input_messages.1.message.content", "app.user_id", "a.b.feature",
                     "ai.telemetry.metadata.userId", "mlflow.traceTag.feature", "output.value", "input.value"]),
    st.text(max_size=20),
)  # fmt: skip


def facts(attributes: dict[str, Any], scope: str = "x", recogniser: Recogniser = RECOGNISER) -> SpanFacts:
    return Client(scope, recogniser=recogniser).span("s", attributes).facts


def texts(found: SpanFacts) -> list[str]:
    return [value for name in found.__struct_fields__ if isinstance(value := getattr(found, name), str)]


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(KEYS, SCALARS, max_size=12), st.text(max_size=10),
    st.sampled_from(["", "logfire.openai", "litellm", "strands.telemetry.tracer", "com.anthropic.claude_code.tracing",
                     "gemini-cli", "ai", "mlflow"]),
    st.sampled_from(["app", "codex_exec", "gemini-cli"]),
)  # fmt: skip
def test_no_attribute_value_raises_or_leaves_something_that_cannot_be_stored(
    attributes: dict[str, Any], name: str, scope: str, service: str
) -> None:
    client = Client(scope, service=service)
    spans = [client.span(name, attributes, status=2), client.span(name, {**CHAT, **attributes})]
    events = ("api_request", "codex.sse_event", "gen_ai.client.inference.operation.details")
    logs = [client.log(attributes, name=event, body=attributes.get("model")) for event in events]
    spans += [log for log in logs if log is not None]
    for span in spans:
        for text in texts(span.facts):
            assert "\0" not in text
            text.encode()  # no lone surrogates
        for slot in ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning"):
            number = getattr(span.facts, slot)
            assert number is None or 0 <= number <= 2 * COUNT_LIMIT
    for call in resolve(spans):
        assert all(quantity >= 0 for quantity in call.usage)


@settings(max_examples=300, deadline=None)
@given(KEYS, SCALARS)
def test_recognition_is_pure_so_that_it_can_be_cached(key: str, value: Any) -> None:
    assert RECOGNISER.recognise(key, value) == RECOGNISER.recognise(key, value)


@pytest.mark.parametrize("odd", [True, "12", math.nan, math.inf, -1, 1 << 63, 1.5, [1], {"a": 1}, b"1"])
def test_a_count_that_is_no_integer_in_range_is_null_and_flagged(odd: Any) -> None:
    found = facts({**CHAT, "gen_ai.usage.input_tokens": odd, "gen_ai.usage.output_tokens": 5})
    assert (found.input, found.output) == (None, 5)
    assert found.flags & SpanFlag.USAGE_INVALID


def test_null_states_nothing_and_is_no_oddity() -> None:
    found = facts({**CHAT, "gen_ai.usage.input_tokens": None})
    assert (found.input, found.flags & SpanFlag.USAGE_INVALID) == (None, 0)


@pytest.mark.parametrize(("value", "text"), [
    ("search", "search"), ('"search"', "search"), ('"\\"twice\\""', '"twice"'), ("  x ", "x"), ("", None),
    ("None", None),
    ("null", None), ("[Scrubbed due to 'session']", None), (42, "42"), (42.0, "42"), (math.nan, None), (True, None),
    (None, None), (["x"], None),
])  # fmt: skip
def test_text_is_unquoted_and_empty_or_scrubbed_text_is_absent(value: Any, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(("value", "truth"), [
    (True, True), ("True", True), ("False", False), ("false", False), ('"true"', True), (0, False), ("maybe", None),
    (None, None),
])  # fmt: skip
def test_a_boolean_written_as_text_is_the_boolean_it_says(value: Any, truth: bool | None) -> None:
    assert truth_of(value) is truth


@pytest.mark.parametrize(("value", "nano"), [
    (0.024191999999999998, 24_192_000), ("0.0019", 1_900_000), (5.309999999999999e-05, 53_100), (0, 0), (-1, None),
    ("abc", None), (math.nan, None), (math.inf, None), (1e300, None), (True, None), (3, 3_000_000_000),
    ("1e-99999999", 0),
])  # fmt: skip
def test_a_cost_becomes_integer_nano_dollars_without_float_arithmetic(value: Any, nano: int | None) -> None:
    assert nano_of(value) == nano


def test_documents_are_json_twice_quoted_json_or_python_literals() -> None:
    for text in ('{"a": 1}', '"{\\"a\\": 1}"', "{'a': 1}"):
        assert document_of(text) == {"a": 1}
    for text in ("{'a': __import__('os')}", "[" * 100_000, "{" * 9, "plain"):
        assert document_of(text) is None


@given(st.text(max_size=600))
def test_cleaned_text_can_be_stored_and_is_short_enough(text: str) -> None:
    kept = clean(text + "\0\ud800", 300)
    kept.encode()
    assert "\0" not in kept
    assert len(kept) <= 300


def test_a_long_value_is_cut_and_flagged() -> None:
    found = facts({"app.feature": "x" * 5000})
    assert (len(found.feature or ""), found.flags) == (TEXT_LIMIT, SpanFlag.TRUNCATED)


def test_keys_with_odd_characters_are_only_keys() -> None:
    assert RECOGNISER.recognise("\0\ud800.user_id", "u") is not None
    assert RECOGNISER.recognise("\0", "u") is None


def test_of_two_values_for_one_key_the_first_on_the_wire_counts() -> None:
    pairs = [*hits({"app.feature": "first"}), *hits({"app.feature": "second"})]
    found = RECOGNISER.span(name="s", kind=1, status=0, start_ns=T0, end_ns=T0, hits=pairs, scope=Scope("x"),
                            resource=RECOGNISER.resource([]))  # fmt: skip
    assert found.feature == "first"


def test_an_end_before_the_start_has_no_duration_and_a_flag() -> None:
    found = RECOGNISER.span(name="s", kind=1, status=0, start_ns=T0, end_ns=T0 - 1, hits=[], scope=Scope("x"),
                            resource=RECOGNISER.resource([]))  # fmt: skip
    assert (found.duration_us, found.flags) == (None, SpanFlag.TIME_INVALID)


def test_an_app_can_say_that_its_own_cache_answered_or_that_a_call_was_batched_or_how_many_units_it_bought() -> None:
    found = facts({**CHAT, "app.cache_hit": True, "app.batch": "true", "app.units": 3, "app.unit": "images"})
    assert found.flags & SpanFlag.APP_CACHED
    assert found.flags & SpanFlag.BATCH
    assert (found.units, found.unit) == (3, "images")


# --- the project's own wishes ------------------------------------------------------------------------------------


def test_a_projects_own_names_are_tried_first_in_their_order() -> None:
    own = Recogniser({"feature": ["acme.area", "acme.feature"], "user": "acme.uid"}, hash_secret=b"s" * 32)  # type: ignore[dict-item]
    found = facts({"app.feature": "a", "acme.feature": "b", "user.id": "u", "acme.uid": "v"}, recogniser=own)
    assert (found.feature, found.user) == ("b", "v")
    assert facts({"acme.feature": "b", "acme.area": "c"}, recogniser=own).feature == "c"


def test_a_project_may_take_the_service_name_for_a_feature() -> None:
    own = Recogniser({"feature": ["service.name"]}, hash_secret=b"s" * 32)
    found = resolve(
        [Client("x", service="billing", recogniser=own).span("chat", {**CHAT, "gen_ai.usage.input_tokens": 1})]
    )
    assert (found[0].feature, found[0].service) == ("billing", "billing")


def test_unknown_fields_in_the_projects_names_are_ignored() -> None:
    assert facts({"x": "y"}, recogniser=Recogniser({"nonsense": ["x"]}, hash_secret=b"s" * 32)).feature is None


# --- content -----------------------------------------------------------------------------------------------------


def test_a_prompt_leaves_a_size_and_a_keyed_hash_and_no_text() -> None:
    found = facts({**CHAT, "gen_ai.input.messages": '[{"role":"user","parts":[{"content":"Say  hello"}]}]',
                   "gen_ai.output.messages": '[{"parts":[{"content":"Hi"}]}]'})  # fmt: skip
    assert (found.prompt_chars, found.output_chars) == (10, 2)
    assert found.flags & SpanFlag.CONTENT_DROPPED
    message = hmac.digest(b"synthetic secret of 32 bytes ...", b"Say hello", "sha256")[:8]
    whole = hmac.digest(b"synthetic secret of 32 bytes ...", message, "sha256")[:8]
    assert found.prompt_hash == int.from_bytes(whole, "big", signed=True)


def test_one_conversation_has_one_hash_in_every_dialect_and_another_in_another_project() -> None:
    spellings: list[dict[str, Any]] = [
        {"gen_ai.input.messages": '[{"role":"system","content":"Be terse."},{"role":"user","content":"Say hello"}]'},
        {"gen_ai.input.messages": [{"parts": [{"content": "Be terse."}]}, {"parts": [{"content": "Say  hello "}]}]},
        {"gen_ai.prompt.1.content": "Say hello", "gen_ai.prompt.0.content": "Be terse."},
        {"llm.input_messages.0.message.content": "Be terse.", "llm.input_messages.1.message.content": "Say hello",
         "input.value": '{"model":"x","messages":[]}'},
        {"langfuse.observation.input": '[{"content": "Be terse."}, {"content": "Say hello"}]'},
    ]  # fmt: skip
    assert len({facts({**CHAT, **spelling}).prompt_hash for spelling in spellings}) == 1
    other = Recogniser(hash_secret=b"another secret")
    assert facts({**CHAT, **spellings[0]}, recogniser=other).prompt_hash != facts({**CHAT, **spellings[0]}).prompt_hash


def test_text_is_kept_only_for_a_project_that_opted_in() -> None:
    attributes = {**CHAT, "gen_ai.input.messages": "Say hello", "gen_ai.output.messages": "Hi"}
    keeping = Recogniser(hash_secret=b"s" * 32, store_content=True)
    assert keeping.content(hits(attributes, keeping)) == {"prompt_text": "Say hello", "answer_text": "Hi"}
    assert RECOGNISER.content(hits(attributes)) is None
    assert not facts(attributes, recogniser=keeping).flags & SpanFlag.CONTENT_DROPPED
    assert "Say hello" not in repr(hits(attributes))


# --- events ----------------------------------------------------------------------------------------------------------


def test_a_resent_event_is_the_same_span_and_another_one_is_not() -> None:
    client = Client("com.anthropic.claude_code.events", service="claude-code")
    event = {"event.name": "api_request", "session.id": "s", "prompt.id": "p", "model": "claude-sonnet-4-5",
             "input_tokens": 14, "output_tokens": 310, "event.sequence": 1}  # fmt: skip
    first, again = (client.log(event, body="claude_code.api_request", at=1) for _ in range(2))
    other = client.log({**event, "event.sequence": 2}, body="claude_code.api_request", at=1)
    assert isinstance(first, Span)
    assert isinstance(other, Span)
    assert first == again
    assert (first.trace_id == other.trace_id, first.span_id == other.span_id) == (True, False)


def test_an_event_in_a_trace_stays_in_it_below_its_span() -> None:
    client = Client("opentelemetry.instrumentation.google_genai")
    span = client.span("chat", CHAT)
    log = client.log(
        {**CHAT, "gen_ai.usage.input_tokens": 5}, name="gen_ai.client.inference.operation.details", inside=span
    )
    assert log is not None
    assert (log.trace_id, log.parent_id, log.facts.role) == (span.trace_id, span.span_id, Role.CALL)


def test_message_events_and_evaluations_are_not_calls() -> None:
    client = Client("opentelemetry.instrumentation.openai_v2")
    for name in ("gen_ai.user.message", "gen_ai.choice", "gen_ai.evaluation.result", ""):
        assert client.log({"gen_ai.system": "openai", "gen_ai.response.id": "r"}, name=name) is None


# --- metrics ------------------------------------------------------------------------------------------------------


def point(metric: str, token_type: str, value: float = 5.0, service: str = "app") -> Any:
    return RECOGNISER.metric_point(
        metric=metric, value=value, start_ns=1, time_ns=2, is_delta=True, scope=Scope("m"), resource_key=b"r",
        attributes=[("gen_ai.token.type", token_type), ("gen_ai.request.model", "gpt-4o")],
        resource=RECOGNISER.resource(hits({"service.name": service})),
    )  # fmt: skip


def test_only_token_counters_of_disjoint_types_become_points() -> None:
    found = point("gen_ai.client.token.usage", "input")
    assert (found.tokens, found.token_type, found.model, found.service) == (5, "input", "gpt-4o", "app")
    assert point("gen_ai.client.operation.duration", "input") is None
    assert point("codex.turn.token_usage", "total") is None
    assert point("gemini_cli.token.usage", "cache") is None
    assert point("gen_ai.client.token.usage", "input", service="gemini-cli") is None
    assert point("gen_ai.client.token.usage", "input", math.nan) is None
    assert point("gen_ai.client.token.usage", "input", 5e12).tokens == 5_000_000_000_000


def test_two_series_have_two_streams_and_a_resent_point_has_the_same() -> None:
    one, two = point("gen_ai.client.token.usage", "input"), point("gen_ai.client.token.usage", "output")
    assert one.stream != two.stream
    assert one == point("gen_ai.client.token.usage", "input")


def test_counts_are_believed_up_to_a_billion() -> None:
    assert (count_of(COUNT_LIMIT), count_of(COUNT_LIMIT + 1), count_of(7.0)) == (COUNT_LIMIT, None, 7)
