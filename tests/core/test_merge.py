"""One call seen by several spans and events is one call; calls that were really made stay apart."""

import pytest

from costapp.core.calls import explain, resolve
from costapp.core.values import ChargeFlag, Role, SpanFlag, UsageState
from tests.core.factories import TRACE, agent, call, event, failed, span

OTHER_TRACE = bytes(range(16, 32))


def test_two_equal_calls_of_one_instrumentation_are_two_calls() -> None:
    root = span()
    twins = [call(root, at=0.1, lasts=0.2), call(root, at=0.4, lasts=0.2)]
    assert len(resolve([root, *twins])) == 2


def test_equal_parallel_calls_of_one_instrumentation_stay_apart() -> None:
    root = span()
    assert len(resolve([root, *(call(root, at=0.1) for _ in range(5))])) == 5


def test_equal_parallel_calls_seen_by_two_instrumentations_stay_that_many() -> None:
    root = span()
    pairs = [
        s
        for i in range(5)
        for s in (call(root, at=0.1 + i / 1000, lasts=1.0), call(root, at=0.11 + i / 1000, lasts=0.9, scope="sdk"))
    ]
    assert len(resolve([root, *pairs])) == 5


def test_a_wrapper_call_around_a_client_call_of_another_scope_is_the_same_call() -> None:
    outer = call(scope="langchain", input=98, cache_read=None)
    inner = call(outer, at=0.1, lasts=0.5, cache_read=40, response_id="chatcmpl-1")
    (found,) = resolve([outer, inner])
    assert (found.members, found.span_id, found.usage.cache_read, found.usage.input) == (2, outer.span_id, 40, 60)


def test_siblings_of_two_scopes_with_nearly_equal_usage_are_one_call() -> None:
    root = span(lasts=3)
    one = call(root, at=0.1, lasts=1.0, scope="openllmetry", output=102)
    two = call(root, at=0.101, lasts=0.99, scope="sdk", output=101)
    (found,) = resolve([root, one, two])
    assert found.usage.output == 101  # the client that adds message_start's token is not believed


def test_siblings_whose_usage_differs_are_two_calls() -> None:
    root = span(lasts=3)
    assert len(resolve([root, call(root, at=0.1), call(root, at=0.15, lasts=0.5, scope="sdk", input=200)])) == 2


def test_siblings_one_after_the_other_are_two_calls() -> None:
    root = span(lasts=3)
    assert len(resolve([root, call(root, at=0.1, lasts=0.5), call(root, at=0.7, lasts=0.5, scope="sdk")])) == 2


def test_three_instrumentations_of_one_call_in_two_conventions_are_one() -> None:
    root = span(lasts=3)
    chain = call(root, at=0.1, lasts=1.0, scope="openinference.instrumentation.langchain")
    client = call(root, at=0.11, lasts=0.95, scope="openinference.instrumentation.anthropic")
    sdk = call(client, at=0.12, lasts=0.9, scope="com.anthropic.sdk.python", response_id="msg_1", cache_write_1h=0)
    (found,) = resolve([root, chain, client, sdk])
    assert found.members == 3


def test_different_response_ids_prove_different_calls() -> None:
    root = span(lasts=3)
    spans = [root, call(root, at=0.1, response_id="a"), call(root, at=0.11, lasts=0.9, scope="sdk", response_id="b")]
    assert len(resolve(spans)) == 2


def test_one_response_id_in_two_traces_is_one_call() -> None:
    one = call(scope="openllmetry", response_id="msg_1", feature="search")
    two = call(trace=OTHER_TRACE, at=0.01, lasts=0.9, scope="sdk", response_id="msg_1", user="u1")
    (found,) = resolve([one, two])
    assert (found.trace_id, found.feature, found.user, found.members) == (TRACE, "search", "u1", 2)


def test_a_response_id_repeated_an_hour_later_is_another_call() -> None:
    assert len(resolve([call(response_id="chatcmpl-1"), call(at=3600, response_id="chatcmpl-1")])) == 2


def test_a_response_id_repeated_with_other_usage_is_another_call() -> None:
    assert len(resolve([call(response_id="chatcmpl-1"), call(at=2, response_id="chatcmpl-1", input=777)])) == 2


def test_an_agent_that_repeats_the_sum_of_its_calls_is_not_charged() -> None:
    outer = agent(input=200, output=40, lasts=5)
    spans = [outer, call(outer, at=1), call(outer, at=3)]
    assert sum(c.usage.input for c in resolve(spans)) == 200
    assert {v.span_id: v.outcome for v in explain(spans)}[outer.span_id] == "aggregate"


def test_nested_agents_are_not_charged_whether_or_not_they_include_each_other() -> None:
    outer = agent(input=300, output=60, lasts=9)
    inner = agent(outer, at=1, lasts=4, input=100, output=20)
    spans = [outer, inner, call(inner, at=2), call(outer, at=6), call(outer, at=7)]
    assert sum(c.usage.input for c in resolve(spans)) == 300


def test_an_agent_with_usage_and_no_call_below_it_is_charged() -> None:
    (found,) = resolve([agent(input=500, output=50, model_requested="gpt-4o")])
    assert found.usage.input == 500


def test_usage_without_a_role_is_a_call_only_if_no_call_lies_below_it() -> None:
    outer = span(role=Role.MAYBE, input=100, output=20, lasts=5, scope="x")
    assert len(resolve([outer])) == 1
    inner = call(outer, at=1)
    assert [c.span_id for c in resolve([outer, inner])] == [inner.span_id]


def test_a_wrapper_whose_calls_lost_their_parents_is_still_not_charged() -> None:
    outer = agent(input=200, output=40, lasts=9)
    orphans = [call(987_654, at=1), call(987_654, at=3)]
    assert sum(c.usage.input for c in resolve([outer, *orphans])) == 200


def test_an_empty_outer_call_of_the_same_scope_is_the_same_request() -> None:
    outer = call(operation="embeddings", input=None, output=None)
    inner = call(outer, at=0.1, lasts=0.5, operation="embeddings", output=None)
    (found,) = resolve([outer, inner])
    assert found.usage.input == 100


def test_an_outer_call_that_holds_several_calls_is_their_wrapper() -> None:
    outer = call(operation="embeddings", input=None, output=None, lasts=5)
    spans = [outer, call(outer, at=1), call(outer, at=3)]
    assert len(resolve(spans)) == 2


def test_a_later_call_below_a_span_that_was_left_current_is_a_call_of_its_own() -> None:
    first = call(lasts=1.0)
    later = call(first, at=2.0)
    assert len(resolve([first, later])) == 2
    assert len(resolve([first, call(first, at=2.0, scope="sdk")])) == 2


def test_a_twin_in_another_service_is_found_in_spite_of_its_clock() -> None:
    outer = call(lasts=1.0, service="app", scope="openai")
    inner = call(outer, at=7.0, service="gateway", scope="litellm")
    assert len(resolve([outer, inner])) == 1


def test_attempts_below_one_wrapper_are_counted_and_charged_once() -> None:
    outer = call(scope="langchain", lasts=9)
    spans = [outer, failed(outer, at=1), failed(outer, at=3), call(outer, at=5, response_id="r")]
    (found,) = resolve(spans)
    assert (found.error, found.attempts) == ("", 3)


def test_a_request_and_its_later_result_are_one_call() -> None:
    root = span(lasts=9)
    request = call(root, at=1, lasts=0.5, scope="logfire.openai", input=None, output=None)
    result = call(root, at=2, lasts=0.0, scope="logfire.openai", flags=int(SpanFlag.LATE_RESULT))
    (found,) = resolve([root, request, result])
    assert (found.span_id, found.usage.input, found.attempts) == (request.span_id, 100, 1)


def test_a_framework_around_a_request_and_its_later_result_is_one_call() -> None:
    outer = call(lasts=9, scope="pydantic-ai")
    request = call(outer, at=1, lasts=0.5, scope="logfire.openai", input=None, output=None)
    result = call(outer, at=2, lasts=0.0, scope="logfire.openai", flags=int(SpanFlag.LATE_RESULT))
    assert len(resolve([outer, request, result])) == 1


def test_an_event_in_the_context_of_a_call_is_that_call() -> None:
    one = call(response_id="r1")
    spans = [one, event(one, at=1.0, response_id="r1", reasoning=5)]
    (found,) = resolve(spans)
    assert (found.span_id, found.members, found.usage.reasoning) == (one.span_id, 2, 5)
    assert {v.outcome for v in explain(spans)} == {"charged", "duplicate-signal"}


def test_an_event_written_beside_the_call_is_that_call_if_usage_agrees() -> None:
    root = span(lasts=9)
    assert len(resolve([root, call(root, at=1), event(root, at=2.1, scope="events")])) == 1
    assert len(resolve([root, call(root, at=1), event(root, at=2.1, scope="events", input=999)])) == 2


def test_an_event_that_seems_to_start_before_its_call_is_that_call() -> None:
    root = span(lasts=9)
    early = event(root, at=0.9995, lasts=1.001, scope="events")
    assert len(resolve([root, call(root, at=1, lasts=1.0), early])) == 1


def test_an_event_alone_is_a_call() -> None:
    (found,) = resolve([event()])
    assert found.signal == 1


def test_derived_ids_join_a_span_and_an_event_but_never_two_spans() -> None:
    one = call(response_id="~codex:100:20", scope="codex")
    two = event(trace=OTHER_TRACE, at=1, response_id="~codex:100:20", scope="codex")
    assert len(resolve([one, two])) == 1
    assert len(resolve([one, call(at=2, response_id="~codex:100:20", scope="codex")])) == 2


def test_a_call_failed_only_if_every_span_of_it_failed() -> None:
    outer = call(scope="langchain", lasts=9)
    assert resolve([outer, failed(outer, at=1)])[0].error == ""
    outer = failed(scope="langchain", lasts=9)
    (found,) = resolve([outer, failed(outer, at=1)])
    assert (found.error, found.usage_state) == ("rate_limit", UsageState.UNKNOWN)


def test_a_retry_and_a_fallback_are_marked() -> None:
    root = span(lasts=9)
    spans = [
        root,
        failed(root, at=1, lasts=0.1),
        call(root, at=2),
        failed(root, at=4, lasts=0.1),
        call(root, at=5, model_requested="gpt-4o"),
    ]
    marks = [c.flags & (ChargeFlag.RETRY | ChargeFlag.FALLBACK) for c in resolve(spans)]
    assert marks == [0, ChargeFlag.RETRY, 0, ChargeFlag.FALLBACK]


def test_resends_inside_one_span_count_as_attempts() -> None:
    assert resolve([call(resends=2)])[0].attempts == 3


@pytest.mark.parametrize("state", ["input", "output"])
def test_a_call_without_usage_is_unknown_not_free(state: str) -> None:
    (found,) = resolve([call(input=None, output=None)])
    assert found.usage_state == UsageState.UNKNOWN
    (zeros,) = resolve([call(input=0, output=0)])
    assert zeros.usage_state == UsageState.UNKNOWN


def test_a_call_without_a_model_takes_the_one_its_turn_states() -> None:
    turn = span(role=Role.MAYBE, input=100, output=20, model_requested="gpt-5-mini", lasts=9)
    step = span(turn, at=1, role=Role.MAYBE, input=100, output=20)
    (found,) = resolve([turn, step])
    assert (found.span_id, found.model, found.provider) == (step.span_id, "gpt-5-mini", "openai")


@pytest.mark.parametrize("regional", ["us.anthropic.claude-sonnet-4-5-v1:0", "anthropic.claude-sonnet-4-5-v1:0"])
def test_a_model_keeps_the_region_prefix_that_one_of_two_instrumentations_cuts_off(regional: str) -> None:
    outer = call(scope="opentelemetry.instrumentation.bedrock", model_requested="claude-sonnet-4-5-v1:0")
    inner = call(outer, scope="otel.botocore.bedrock-runtime", model_requested=regional)
    [found] = resolve([outer, inner])
    assert (found.model, found.model_requested) == (regional, regional)
