"""Who a call was made for: nearest statement first, never a guess between two."""

import pytest

from costapp.core.calls import resolve
from costapp.core.values import AttributionSource, Call, Span
from tests.core.factories import call, span


def only(*spans: Span) -> Call:
    (found,) = resolve(spans)
    return found


def test_the_calls_own_statement_wins() -> None:
    root = span(feature="from-root")
    found = only(root, call(root, feature="own"))
    assert (found.feature, found.attribution_source) == ("own", AttributionSource.OWN)


def test_else_the_nearest_ancestor_wins() -> None:
    root = span(feature="far", user="u1")
    middle = span(root, feature="near")
    inner = span(middle)
    found = only(root, middle, inner, call(inner))
    assert (found.feature, found.user, found.attribution_source) == ("near", "u1", AttributionSource.ANCESTOR)


def test_else_the_trace_decides_if_it_speaks_with_one_voice() -> None:
    root = span()
    found = only(root, span(root, feature="search", session="s1"), call(root))
    assert (found.feature, found.session, found.attribution_source) == ("search", "s1", AttributionSource.TRACE)


def test_another_calls_prompt_version_is_not_this_calls() -> None:
    root = span(prompt_version="v1")
    assert only(root, call(root)).prompt_version == "v1"
    root = span()
    found = resolve([root, call(root, at=1, prompt_version="v2"), call(root, at=3)])
    assert [c.prompt_version for c in found] == ["v2", ""]


def test_two_features_in_the_trace_are_not_guessed_between() -> None:
    root = span()
    found = only(root, span(root, feature="search"), span(root, feature="chat"), call(root))
    assert (found.feature, found.attribution_source) == ("", AttributionSource.NONE)


def test_the_resource_comes_last() -> None:
    found = only(call(resource_feature="batch", resource_team="platform"))
    assert (found.feature, found.team, found.attribution_source) == ("batch", "platform", AttributionSource.RESOURCE)
    root = span()
    assert only(root, span(root, feature="x"), call(root, resource_feature="batch")).feature == "x"


def test_a_weak_name_yields_to_an_explicit_one_anywhere_in_the_trace() -> None:
    root = span()
    sibling = span(root, feature="search")
    found = only(root, sibling, call(root, feature="weather_agent", feature_rank=4))
    assert (found.feature, found.attribution_source) == ("search", AttributionSource.TRACE)


def test_a_weak_name_is_better_than_none_and_marked_as_a_rule() -> None:
    root = span(feature="workflow", feature_rank=1)
    found = only(root, call(root, feature="agent", feature_rank=4))
    assert (found.feature, found.attribution_source) == ("workflow", AttributionSource.RULE)


def test_an_explicit_session_on_the_root_beats_a_conversation_id_on_the_call() -> None:
    root = span(session="s-1")
    assert only(root, call(root, session="conv-9", session_rank=1)).session == "s-1"
    assert only(call(session="conv-9", session_rank=1)).session == "conv-9"


def test_a_root_of_another_service_attributes_the_call() -> None:
    root = span(service="web", feature="search", user="u1", session="s1")
    server = span(root, service="worker")
    found = only(call(server, service="worker"), server, root)
    assert (found.feature, found.user, found.service) == ("search", "u1", "worker")


@pytest.mark.parametrize("turned", [False, True])
def test_a_cycle_of_parents_neither_hangs_nor_depends_on_order(turned: bool) -> None:
    one = span(12, span_id=11, feature="a")
    two = span(11, span_id=12, feature="b")
    inside = call(11, span_id=13)
    spans = [one, two, inside]
    found = only(*(spans[::-1] if turned else spans))
    assert found.feature == "a"


def test_a_call_that_is_its_own_parent_is_a_root() -> None:
    assert only(call(77, span_id=77, user="u1")).user == "u1"


def test_a_missing_parent_ends_the_walk() -> None:
    assert only(call(424_242)).feature == ""


def test_a_chain_of_ten_thousand_spans_is_walked_without_recursion() -> None:
    chain = [span(feature="deep", span_id=1)]
    chain += [span(i, span_id=i + 1) for i in range(1, 10_000)]
    found = only(*chain, call(10_000))
    assert found.feature == "deep"
