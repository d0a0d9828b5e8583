"""The glossary names what the code has, and the worked example comes out as the code computes it."""

import re
from pathlib import Path

import pytest

from costapp.core.calls import resolve
from costapp.core.money import format_usd, line_cost
from costapp.core.values import AttributionSource, CostStatus, Role, Span, SpanFacts, Usage, UsageState

DOCS = Path(__file__).parents[1] / "docs"
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
MONEY = (DOCS / "how-money-works.md").read_text(encoding="utf-8")


def entry(word: str) -> str:
    return next(line for line in GLOSSARY.splitlines() if line.startswith(f"| **{word}"))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("Meter", Usage._fields),
        ("Cost status", [status.name.lower() for status in CostStatus]),
        ("Usage state", [state.name.lower() for state in UsageState]),
        ("Attribution source", [source.name.lower() for source in AttributionSource]),
    ],
)
def test_the_glossary_lists_every_value(word: str, names: list[str]) -> None:
    assert [name for name in names if name not in entry(word)] == []


def reported_as(scope: str, provider: str, **counts: int) -> Usage:
    facts = SpanFacts(
        name="chat", role=Role.CALL, operation="chat", scope=scope, provider_raw=provider, model_responded="m", **counts
    )
    (call,) = resolve([Span(b"t" * 16, 1, 0, 1, facts)])
    return call.usage


def test_both_ways_to_report_cached_tokens_give_the_meters_of_the_example() -> None:
    inclusive = reported_as(
        "opentelemetry.instrumentation.genai.openai", "openai", input=1240, cache_read=1152, output=70
    )
    exclusive = reported_as(
        "opentelemetry.instrumentation.botocore.bedrock-runtime", "aws.bedrock", input=88, cache_read=1152, output=70
    )
    assert inclusive == exclusive == Usage(input=88, cache_read=1152, output=70)
    assert MONEY.count("| 88 | 1,152 | 70 | 1,310 |") == 2


def test_the_worked_example_adds_up() -> None:
    lines = re.findall(r"^\| (\w+) \| ([\d,]+) \| \$([\d.]+) \| ([\d,]+) \|$", MONEY, re.MULTILINE)
    assert [name for name, *_ in lines] == ["input", "cache_read", "output"]
    costs = []
    for _, tokens, usd, nano in lines:
        rate_nano = int(usd.replace(".", "")) * 10**7  # dollars with two decimals
        costs.append(line_cost(int(tokens.replace(",", "")), rate_nano))
        assert f"{costs[-1]:,}" == nano
    assert f"**{sum(costs):,}**" in MONEY
    assert format_usd(sum(costs)).startswith("$0.00236")
