"""Overlapping counts become disjoint quantities that sum to what was reported."""

from hypothesis import given
from hypothesis import strategies as st

from costapp.core.meters import input_total, output_total, read
from costapp.core.providers import Provider
from costapp.core.token_rules import DEFAULT, DEFAULT_RULE, TokenRule
from costapp.core.values import ChargeFlag, SpanFacts, SpanFlag, Usage, UsageShape, UsageState

OPENAI, ANTHROPIC = Provider("openai", False), Provider("anthropic", False)
SUSPECT = ChargeFlag.USAGE_SUSPECT
COUNT = st.one_of(st.none(), st.integers(0, 50), st.integers(0, 1_000_000_000))


def reading(provider: Provider = OPENAI, rule: TokenRule = DEFAULT_RULE, **facts: int | None) -> tuple[Usage, int]:
    found = read(SpanFacts(**facts), rule, provider)  # type: ignore[arg-type]
    return found.usage, found.flags & SUSPECT


def test_inclusive_and_excluding_reports_of_one_call_give_the_same_quantities() -> None:
    inclusive, _ = reading(input=1812, output=90, cache_read=1000, cache_write=800)
    excluding, _ = reading(
        input=12, output=90, cache_read=1000, cache_write=800, usage_shape=int(UsageShape.INPUT_EXCLUDES_CACHE)
    )
    buckets, _ = reading(input=12, output=90, cache_read=1000, cache_write=800, usage_shape=int(UsageShape.DISJOINT))
    assert inclusive == excluding == buckets == Usage(12, 1000, 800, 0, 90)


def test_five_thousand_uncached_and_fourteen_hundred_cached_are_not_taken_for_inclusive() -> None:
    """Arithmetic alone cannot tell; the table of scopes can."""
    rule = DEFAULT.rule("opentelemetry.instrumentation.botocore.bedrock-runtime", "0.66b2", "aws")
    usage, suspect = reading(Provider("aws", False), rule, input=5000, output=10, cache_read=1400)
    assert (usage.input, usage.cache_read, suspect) == (5000, 1400, 0)


def test_more_cache_than_input_proves_that_the_input_excludes_it() -> None:
    usage, suspect = reading(ANTHROPIC, input=14, output=310, cache_write=5200)
    assert (usage.input, usage.cache_write_5m, suspect) == (14, 5200, 0)


def test_for_a_provider_that_includes_the_cache_it_is_a_contradiction_priced_high() -> None:
    usage, suspect = reading(OPENAI, input=14, output=310, cache_read=5200)
    assert (usage.input, usage.cache_read, suspect) == (14, 5200, SUSPECT)


def test_reasoning_larger_than_the_output_lies_beside_it() -> None:
    usage, suspect = reading(Provider("google", False), input=10, output=80, reasoning=180)
    assert (usage.output, usage.reasoning, suspect) == (80, 180, 0)
    assert reading(OPENAI, input=10, output=80, reasoning=180)[1] == SUSPECT


def test_the_one_hour_part_is_taken_out_of_the_cache_writes() -> None:
    usage, _ = reading(ANTHROPIC, input=2093, cache_read=1800, cache_write=260, cache_write_1h=200, output=101)
    assert (usage.input, usage.cache_write_5m, usage.cache_write_1h) == (33, 60, 200)


def test_a_one_hour_part_larger_than_all_cache_writes_is_suspect_and_not_negative() -> None:
    usage, suspect = reading(ANTHROPIC, input=2093, cache_write=10, cache_write_1h=200, output=1)
    assert (usage.cache_write_5m, usage.cache_write_1h, suspect) == (0, 200, SUSPECT)


def test_an_unstated_split_of_cache_writes_is_marked_as_assumed() -> None:
    assert read(SpanFacts(input=9, cache_write=5), DEFAULT_RULE, ANTHROPIC).flags & ChargeFlag.CACHE_SPLIT_ASSUMED
    assert not read(SpanFacts(input=9, cache_write=5, cache_write_1h=0), DEFAULT_RULE, ANTHROPIC).flags


def test_more_audio_than_the_whole_is_suspect_and_the_total_stands() -> None:
    usage, suspect = reading(input=100, output=10, audio_in=900)
    assert (input_total(usage), suspect) == (100, SUSPECT)


def test_zero_and_absent_counts_are_unknown_usage() -> None:
    for facts in (SpanFacts(), SpanFacts(input=0, output=0), SpanFacts(cache_read=0)):
        found = read(facts, DEFAULT_RULE, OPENAI)
        assert (found.state, found.usage) == (UsageState.UNKNOWN, Usage())


def test_embeddings_without_output_are_reported_in_full() -> None:
    found = read(SpanFacts(input=212, operation="embeddings"), TokenRule("x", cached_unseen=True), OPENAI)
    assert found.state == UsageState.REPORTED


def test_a_client_that_hides_the_cache_gives_an_upper_bound() -> None:
    rule = DEFAULT.rule("@opentelemetry/instrumentation-openai", "0.21.0", "openai")
    assert read(SpanFacts(input=212, output=1, operation="chat"), rule, OPENAI).state == UsageState.PARTIAL


def test_counts_invented_for_a_stream_are_estimates() -> None:
    rule = DEFAULT.rule("openlit.instrumentation.openai", "", "openai")
    stream = int(SpanFlag.STREAM)
    assert read(SpanFacts(input=19, output=15, flags=stream), rule, OPENAI).state == UsageState.ESTIMATED
    real = SpanFacts(input=19, output=15, cache_read=0, flags=stream)
    assert read(real, rule, OPENAI).state == UsageState.REPORTED


@given(
    st.sampled_from(list(UsageShape)),
    st.sampled_from([OPENAI, ANTHROPIC, Provider("", False)]),
    COUNT,
    COUNT,
    COUNT,
    COUNT,
    COUNT,
    COUNT,
    COUNT,
    COUNT,
)
def test_quantities_are_never_negative_and_sum_to_the_reported_totals(
    shape: UsageShape, provider: Provider, came: int | None, went: int | None, cached: int | None, written: int | None,
    hour: int | None, reasoning: int | None, audio_in: int | None, audio_out: int | None,
) -> None:  # fmt: skip
    facts = SpanFacts(
        input=came,
        output=went,
        cache_read=cached,
        cache_write=written,
        cache_write_1h=hour,
        reasoning=reasoning,
        audio_in=audio_in,
        audio_out=audio_out,
        usage_shape=int(shape),
    )
    found = read(facts, DEFAULT_RULE, provider)
    if found.state == UsageState.UNKNOWN:
        return
    assert all(quantity >= 0 for quantity in found.usage)
    total_in, total_out = input_total(found.usage), output_total(found.usage)
    inner_in = (cached or 0) + max(written or 0, hour or 0)
    inside = shape in (UsageShape.AUTO, UsageShape.INCLUSIVE, UsageShape.OUTPUT_EXCLUDES_REASONING)
    parts_in = (audio_in or 0) if shape == UsageShape.DISJOINT else 0
    assert total_in == ((came or 0) if inside and inner_in <= (came or 0) else (came or 0) + inner_in + parts_in)
    inside = shape in (UsageShape.AUTO, UsageShape.INCLUSIVE, UsageShape.INPUT_EXCLUDES_CACHE)
    parts_out = (audio_out or 0) if shape == UsageShape.DISJOINT else 0
    fits = inside and (reasoning or 0) <= (went or 0)
    assert total_out == ((went or 0) if fits else (went or 0) + (reasoning or 0) + parts_out)
