"""The table of what clients' numbers mean."""

import pytest

from costapp.core.token_rules import BUILT_IN, DEFAULT, TokenRule, TokenRules, parse_rules, version_key
from costapp.core.values import UsageShape

EXCLUDES = UsageShape.INPUT_EXCLUDES_CACHE


@pytest.mark.parametrize(("scope", "version", "provider", "shape"), [
    ("opentelemetry.instrumentation.genai.openai", "1.3b0", "openai", UsageShape.INCLUSIVE),
    ("opentelemetry.instrumentation.botocore.bedrock-runtime", "0.66b2", "aws", EXCLUDES),
    ("opentelemetry.instrumentation.bedrock", "0.62.4", "aws", EXCLUDES),
    ("opentelemetry.instrumentation.anthropic", "0.62.4", "anthropic", UsageShape.INCLUSIVE),
    ("openlit.instrumentation.anthropic", "", "anthropic", EXCLUDES),
    ("openlit.instrumentation.openai", "", "openai", UsageShape.INCLUSIVE),
    ("com.anthropic.claude_code.tracing", "1.0.0", "anthropic", EXCLUDES),
    ("com.anthropic.sdk.python", "2.11.0", "anthropic", UsageShape.INCLUSIVE),
    ("ai", "", "anthropic", EXCLUDES),
    ("ai", "", "openai", UsageShape.INCLUSIVE),
    ("gen_ai", "", "anthropic", UsageShape.INCLUSIVE),
    ("strands.telemetry.tracer", "", "aws", UsageShape.INCLUSIVE),
    ("gemini-cli", "0.9", "google", UsageShape.OUTPUT_EXCLUDES_REASONING),
    ("some.new.client", "", "", UsageShape.INCLUSIVE),
])  # fmt: skip
def test_measured_clients_have_the_shape_that_was_measured(
    scope: str, version: str, provider: str, shape: UsageShape
) -> None:
    assert DEFAULT.rule(scope, version, provider).shape == shape


def test_a_projects_own_rule_comes_first() -> None:
    own = TokenRule("ours", "some.new.*", shape=EXCLUDES)
    rules = DEFAULT.extended([own])
    assert rules.rule("some.new.client", None, "openai") is own
    assert rules.rule("openlit.instrumentation.openai", None, "openai").name == "openlit"


def test_a_version_range_holds_its_first_and_not_its_last_version() -> None:
    rules = TokenRules([TokenRule("v", "x", version_from="1.5", version_below="2", shape=EXCLUDES)])
    found = [rules.rule("x", v, "").name for v in ("1.4.9", "1.5", "1.10b2", "2.0", "")]
    assert found == ["inclusive", "v", "v", "inclusive", "inclusive"]


def test_versions_compare_by_number() -> None:
    assert version_key("1.10.0") > version_key("1.9.5b0")


def test_rule_names_are_unique_because_a_charge_stores_only_the_name() -> None:
    names = [rule.name for rule in BUILT_IN]
    assert len(names) == len(set(names))


def test_hostile_scope_names_do_not_grow_the_cache_without_end() -> None:
    rules = TokenRules()
    for i in range(10_000):
        rules.rule(f"scope-{i}", None, "")
    assert len(rules._cache) <= 4097


@pytest.mark.parametrize(("version", "hides"), [("0.4b0", True), ("1.3b0", False)])
def test_openai_v2_under_the_latest_conventions_still_hides_the_cached_part(version: str, hides: bool) -> None:
    assert DEFAULT.rule("opentelemetry.util.genai.handler", version, "openai").cached_unseen is hides


def test_a_projects_rules_are_written_as_json() -> None:
    (rule,) = parse_rules(
        [{"name": "gateway", "scope": "acme.*", "shape": "input_excludes_cache", "cached_unseen": True}]
    )
    assert rule == TokenRule("gateway", "acme.*", shape=EXCLUDES, cached_unseen=True)
    assert parse_rules([]) == ()


@pytest.mark.parametrize("wrong", [
    {}, ["x"], [{}], [{"name": ""}], [{"name": "a", "colour": "red"}], [{"name": "a", "shape": "auto"}],
    [{"name": "a", "cached_unseen": "yes"}], [{"name": "a", "scope": 1}], None,
])  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_sentence(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        parse_rules(wrong)
