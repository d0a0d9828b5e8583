"""The one price function, with rates that say exactly what each test is about."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.model_names import CatalogueProvider, Names
from costapp.core.pricing import ASSUMED_TOKENS, UNSEEN_TOKENS, RateBook, _price_lines, _price_text
from costapp.core.rate_choice import matches
from costapp.core.rates import BEGINNING_NS, CompiledRates, RateSet
from costapp.core.values import Call, ChargeFlag, CostStatus, Usage, UsageState
from tests.prices.factories import a_call, a_rate_set, ns, usd

MIDNIGHT = datetime(2026, 7, 1, tzinfo=UTC)
CLAUDE = {
    "input": usd(3),
    "cache_read": usd(0.3),
    "cache_write": usd(3.75),
    "cache_write_1h": usd(6),
    "output": usd(15),
}


def cost(call: Call, *rate_sets: RateSet, **kwargs: Any) -> int | None:
    return RateBook(rate_sets, **kwargs).price(call).cost_nano


def test_every_component_is_quantity_times_rate_and_the_cost_is_their_sum() -> None:
    usage = Usage(input=1000, cache_read=2000, cache_write_5m=300, cache_write_1h=40, output=50, reasoning=6)
    priced = RateBook([a_rate_set(rates=CLAUDE)]).price(a_call(usage=usage))
    assert priced.input_nano == 1000 * 3_000
    assert priced.cache_read_nano == 2000 * 300
    assert priced.cache_write_nano == 300 * 3_750 + 40 * 6_000
    assert priced.output_nano == 56 * 15_000
    parts = (priced.input_nano, priced.cache_read_nano, priced.cache_write_nano, priced.output_nano, priced.other_nano)
    assert priced.cost_nano == sum(parts)
    assert (priced.status, priced.rate_id) == (CostStatus.PRICED, 1)


def test_five_minute_and_one_hour_cache_writes_are_priced_apart() -> None:
    both = cost(a_call(usage=Usage(cache_write_5m=1000, cache_write_1h=1000)), a_rate_set(rates=CLAUDE))
    assert both == 1000 * 3_750 + 1000 * 6_000


def test_meters_without_a_rate_are_billed_as_the_wider_meter() -> None:
    usage = Usage(input=1, cache_read=10, cache_write_1h=100, output=1000, reasoning=10_000, audio_in=5, image_out=7)
    assert cost(a_call(usage=usage), a_rate_set(rates={"input": usd(1), "output": usd(2)})) == 116_000 + 22_014_000


def test_reasoning_has_its_own_rate_where_there_is_one() -> None:
    rates = {"input": usd(1), "output": usd(2), "reasoning": usd(3)}
    assert cost(a_call(usage=Usage(output=10, reasoning=100)), a_rate_set(rates=rates)) == 20_000 + 300_000


def test_audio_and_image_meters_have_their_own_rates() -> None:
    rates = {"input": usd(1), "output": usd(2), "audio_in": usd(40), "audio_out": usd(80), "image_in": usd(5)}
    usage = Usage(input=1, audio_in=10, audio_out=100, image_in=1000)
    priced = RateBook([a_rate_set(rates=rates)]).price(a_call(usage=usage))
    assert (priced.input_nano, priced.output_nano) == (1_000 + 400_000 + 5_000_000, 8_000_000)


@pytest.mark.parametrize(("total", "reached"), [(199_999, False), (200_000, False), (200_001, True)])
def test_one_prompt_token_above_the_threshold_reprices_the_whole_request(total: int, reached: bool) -> None:
    rates = {"input": usd(3, (200_000, 6)), "cache_read": usd(0.3, (200_000, 0.6)), "output": usd(15, (200_000, 22.5))}
    usage = Usage(input=1000, cache_read=total - 1000, output=10)
    factor = 2 if reached else 1
    expected = 1000 * 3_000 * factor + (total - 1000) * 300 * factor + 10 * (22_500 if reached else 15_000)
    assert cost(a_call(usage=usage), a_rate_set(rates=rates)) == expected


@given(st.integers(0, 400_000), st.integers(0, 400_000), st.integers(0, 100_000))
def test_what_is_cached_does_not_move_the_threshold(uncached: int, cached: int, written: int) -> None:
    book = RateBook([a_rate_set(rates={"input": usd(1, (300_000, 2)), "output": usd(1)})])
    price = 2_000 if uncached + cached + written > 300_000 else 1_000
    usage = Usage(input=uncached, cache_read=cached, cache_write_5m=written)
    assert book.price(a_call(usage=usage)).cost_nano == (uncached + cached + written) * price


def test_calls_on_both_sides_of_midnight_get_their_own_rate() -> None:
    before = a_rate_set(id=1, valid_to_ns=ns(MIDNIGHT))
    after = a_rate_set(id=2, rates={"input": usd(1), "output": usd(4)}, valid_from_ns=ns(MIDNIGHT))
    book = RateBook([after, before])
    last = a_call()._replace(start_ns=ns(MIDNIGHT) - 1)
    assert book.price(last).rate_id == 1
    assert book.price(last._replace(start_ns=ns(MIDNIGHT))).rate_id == 2
    assert book.price(last).cost_nano == 3_500_000
    assert book.price(last._replace(start_ns=ns(MIDNIGHT))).cost_nano == 1_400_000


def test_of_two_open_rates_the_later_start_counts() -> None:
    book = RateBook([a_rate_set(id=1), a_rate_set(id=2, valid_from_ns=ns(MIDNIGHT))])
    assert book.price(a_call(at=datetime(2026, 6, 1, tzinfo=UTC))).rate_id == 1
    assert book.price(a_call(at=datetime(2026, 8, 1, tzinfo=UTC))).rate_id == 2


def test_outside_its_dates_a_rate_does_not_price() -> None:
    row = a_rate_set(valid_from_ns=ns(MIDNIGHT), valid_to_ns=ns(datetime(2026, 7, 2, tzinfo=UTC)))
    days = [datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), MIDNIGHT, datetime(2026, 7, 2, tzinfo=UTC)]
    assert [cost(a_call(at=day), row) is not None for day in days] == [False, True, False]


@pytest.mark.parametrize(
    ("hour", "minute", "rate_id"),
    [(0, 29, 1), (0, 30, 2), (16, 29, 2), (16, 30, 1), (23, 59, 1)],
)
def test_time_of_day_windows_hold_to_the_minute(hour: int, minute: int, rate_id: int) -> None:
    book = RateBook([a_rate_set(id=1), a_rate_set(id=2, window_start=30, window_end=16 * 60 + 30)])
    assert book.price(a_call(at=datetime(2026, 7, 1, hour, minute, tzinfo=UTC))).rate_id == rate_id


@pytest.mark.parametrize(("hour", "rate_id"), [(21, 1), (22, 2), (0, 2), (5, 2), (6, 1)])
def test_a_window_may_span_midnight(hour: int, rate_id: int) -> None:
    book = RateBook([a_rate_set(id=1), a_rate_set(id=2, window_start=22 * 60, window_end=6 * 60)])
    assert book.price(a_call(at=datetime(2026, 7, 1, hour, tzinfo=UTC))).rate_id == rate_id


def test_batch_and_service_tier_take_their_own_rates() -> None:
    book = RateBook([
        a_rate_set(id=1), a_rate_set(id=2, batch=True), a_rate_set(id=3, service_tier="flex"),
        a_rate_set(id=4, region="eu-west-1"),
    ])  # fmt: skip
    ids = {
        "plain": book.price(a_call()).rate_id,
        "batch": book.price(a_call(flags=int(ChargeFlag.BATCH))).rate_id,
        "batch by tier": book.price(a_call(service_tier="batch")).rate_id,
        "flex": book.price(a_call(service_tier="Flex")).rate_id,
        "default": book.price(a_call(service_tier="default")).rate_id,
        "region": book.price(a_call(region="eu-west-1")).rate_id,
        "other region": book.price(a_call(region="us-east-1")).rate_id,
    }
    assert ids == {
        "plain": 1, "batch": 2, "batch by tier": 2, "flex": 3, "default": 1, "region": 4, "other region": 1,
    }  # fmt: skip


@pytest.mark.parametrize("stated", [{"service_tier": "priority"}, {"flags": int(ChargeFlag.BATCH)}])
def test_a_tier_without_a_rate_of_its_own_is_an_estimate_at_the_standard_rate(stated: dict[str, Any]) -> None:
    priced = RateBook([a_rate_set()]).price(a_call(**stated))
    assert (priced.status, priced.cost_nano) == (CostStatus.ESTIMATED, 3_500_000)


def test_a_fee_per_request_and_units_are_other_cost() -> None:
    rates = {"input": usd(1), "output": usd(1), "request": {"nano": 5_000_000_000_000}}
    priced = RateBook([a_rate_set(rates=rates)]).price(a_call(usage=Usage(input=10)))
    assert (priced.other_nano, priced.cost_nano) == (5_000_000, 5_010_000)
    searches = {"input": usd(1), "output": usd(1), "web_searches": {"nano": 10**13}}
    call = a_call(usage=Usage(input=10, units=3), unit="searches")
    assert RateBook([a_rate_set(rates=searches)]).price(call).other_nano == 30_000_000


def test_usage_in_nothing_that_has_a_price_is_unpriced_not_free() -> None:
    by_the_second = a_rate_set(rates={"seconds": {"nano": 10**11}})
    assert cost(a_call(usage=Usage(input=10)), by_the_second) is None
    assert cost(a_call(usage=Usage(units=60), unit="seconds"), by_the_second) == 6_000_000


def test_a_meter_without_any_price_beside_priced_ones_makes_an_estimate() -> None:
    priced = RateBook([a_rate_set(rates={"input": usd(1)})]).price(a_call(usage=Usage(input=10, output=5)))
    assert (priced.status, priced.cost_nano) == (CostStatus.ESTIMATED, 10_000)


# -- what was not billed, or nobody knows -------------------------------------------------------------


def test_unknown_usage_is_unpriced_with_an_upper_bound() -> None:
    call = a_call(usage=Usage(), usage_state=UsageState.UNKNOWN, prompt_chars=4001, output_chars=400)
    priced = RateBook([a_rate_set()]).price(call)
    assert (priced.status, priced.cost_nano) == (CostStatus.UNPRICED, None)
    assert priced.possible_nano == 2001 * 2_500 + UNSEEN_TOKENS * 10_000


def test_a_failed_call_counts_every_attempt_and_an_assumed_output() -> None:
    call = a_call(usage=Usage(), usage_state=UsageState.UNKNOWN, error="timeout", attempts=3, output_chars=10)
    assert RateBook([a_rate_set()]).price(call).possible_nano == 3 * ASSUMED_TOKENS * (2_500 + 10_000)


@pytest.mark.parametrize("error", ["rate_limit", "authentication", "invalid_request"])
def test_a_refused_call_is_free(error: str) -> None:
    call = a_call(usage=Usage(), usage_state=UsageState.UNKNOWN, error=error)
    priced = RateBook([a_rate_set()]).price(call)
    assert (priced.status, priced.cost_nano, priced.possible_nano) == (CostStatus.FREE, 0, None)


def test_a_failed_call_with_usage_is_billed() -> None:
    assert cost(a_call(error="timeout"), a_rate_set()) == 3_500_000


def test_the_applications_own_cache_is_free_and_what_it_saved_is_kept_apart() -> None:
    priced = RateBook([a_rate_set()]).price(a_call(flags=int(ChargeFlag.APP_CACHED)))
    assert (priced.status, priced.cost_nano, priced.avoided_nano) == (CostStatus.FREE, 0, 3_500_000)


def test_estimated_usage_makes_an_estimated_cost() -> None:
    priced = RateBook([a_rate_set()]).price(a_call(usage_state=UsageState.ESTIMATED))
    assert (priced.status, priced.cost_nano) == (CostStatus.ESTIMATED, 3_500_000)


def test_no_rate_is_unpriced_never_zero() -> None:
    priced = RateBook([]).price(a_call())
    assert (priced.status, priced.cost_nano, priced.rate_id) == (CostStatus.UNPRICED, None, None)


# -- the client's own figure --------------------------------------------------------------------------


def test_by_policy_the_reported_cost_counts_and_the_components_stay_ours() -> None:
    call = a_call(reported_nano=9_999)
    ours, theirs = RateBook([a_rate_set()]), RateBook([a_rate_set()], reported_cost_counts=True)
    assert (ours.price(call).status, ours.price(call).cost_nano) == (CostStatus.PRICED, 3_500_000)
    assert (theirs.price(call).status, theirs.price(call).cost_nano) == (CostStatus.REPORTED, 9_999)
    assert theirs.price(call).input_nano == 2_500_000


def test_a_reported_zero_is_no_figure_unless_ours_is_zero_too() -> None:
    book = RateBook([a_rate_set()], reported_cost_counts=True)
    assert book.price(a_call(reported_nano=0)).cost_nano == 3_500_000
    unknown = a_call(usage=Usage(), usage_state=UsageState.UNKNOWN, reported_nano=0)
    assert book.price(unknown).cost_nano is None


# -- own lists ----------------------------------------------------------------------------------------


def catalogue(*rate_sets: RateSet) -> dict[str, Any]:
    rows: dict[tuple[str, str], list[RateSet]] = {}
    for row in rate_sets:
        rows.setdefault((row.provider, row.model), []).append(row._replace(priority=0, list_name="catalogue"))
    return {"catalogue": rows, "names": one_vendor()}


def one_vendor() -> Names:
    """Names of a catalogue in which openai sells gpt-4o (in any spelling that begins so) and gpt-5."""
    models = msgspec.Raw(b'[["gpt-4o", {"starts_with": "gpt-4o"}], ["gpt-5", {"equals": "gpt-5"}]]')
    return Names([CatalogueProvider("openai", model_match={"starts_with": "gpt"}, models=models)])


def discount(percent: float, **stated: Any) -> RateSet:
    return a_rate_set(**({"id": 9, "rates": {}, "discount_ppm": round(percent * 10_000)} | stated))


def test_own_rates_win_over_the_catalogue() -> None:
    own = a_rate_set(id=5, rates={"input": usd(1), "output": usd(1)})
    priced = RateBook([own], **catalogue(a_rate_set())).price(a_call("gpt-4o-2024-08-06"))
    assert (priced.rate_id, priced.cost_nano) == (5, 1_100_000)


def test_an_exact_own_rate_wins_over_a_pattern_and_a_named_provider_over_any() -> None:
    any_provider = a_rate_set(id=5, model="gpt-*", provider="")
    pattern = a_rate_set(id=6, model="gpt-4*")
    exact = a_rate_set(id=7, model="gpt-4o")
    assert RateBook([exact, pattern, any_provider]).price(a_call()).rate_id == 7
    assert RateBook([pattern, any_provider]).price(a_call()).rate_id == 6
    assert RateBook([any_provider]).price(a_call(provider="azure")).rate_id == 5
    assert RateBook([pattern]).price(a_call(provider="azure")).rate_id is None


@pytest.mark.parametrize("written", ["aws", "bedrock", "AWS.Bedrock"])
def test_an_own_list_may_spell_a_provider_as_clients_do(written: str) -> None:
    assert cost(a_call("acme-1", "aws"), a_rate_set("acme-1", written)) == 3_500_000


def test_a_price_agreed_with_one_seller_is_not_anothers(catalogue_book: RateBook) -> None:
    shared = {"names": catalogue_book.names, "catalogue": catalogue_book._catalogue}
    book = RateBook([discount(50, model="*", provider="openai")], **shared)
    plain = RateBook([], **shared)
    azure, openai = a_call("gpt-4o", "azure"), a_call("gpt-4o", "openai")
    assert book.entry(azure).resolved.owner == "openai"
    assert book.price(azure) == plain.price(azure)
    assert 2 * (book.price(openai).cost_nano or 0) == plain.price(openai).cost_nano


@pytest.mark.parametrize(
    ("model", "own"),
    [("gpt-4o", True), ("gpt-4o-2024-08-06", True), ("gpt-4o-2024-05-13", False), ("gpt-4o-mini", False)],
)
def test_an_own_rate_covers_the_spellings_of_its_model_and_no_other_model(
    catalogue_book: RateBook, model: str, own: bool
) -> None:
    shared = {"names": catalogue_book.names, "catalogue": catalogue_book._catalogue}
    book = RateBook([a_rate_set("gpt-4o", id=10**9)], **shared)
    assert (book.price(a_call(model)).rate_id == 10**9) is own


@given(st.text("ab*", min_size=1, max_size=8).filter(lambda text: "*" in text), st.text("ab", max_size=8))
def test_a_star_stands_for_any_run_of_characters(pattern: str, name: str) -> None:
    regex = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, name) == bool(re.fullmatch(regex, name))


def test_a_discount_comes_off_the_catalogues_rates_from_date_to_date() -> None:
    row = discount(20, model="gpt-4*", valid_from_ns=ns(MIDNIGHT), valid_to_ns=ns(datetime(2026, 8, 1, tzinfo=UTC)))
    book = RateBook([row], **catalogue(a_rate_set()))
    months = [book.price(a_call(at=datetime(2026, month, 15, tzinfo=UTC))) for month in (6, 7, 8)]
    assert [priced.cost_nano for priced in months] == [3_500_000, 2_800_000, 3_500_000]
    assert {priced.rate_id for priced in months} == {1}


def test_a_discount_also_holds_for_batch_and_for_long_context() -> None:
    tiered = {"input": usd(1, (1000, 2)), "output": usd(1)}
    rows = (a_rate_set(id=1, rates=tiered), a_rate_set(id=2, rates={"input": usd(0.5), "output": usd(0.5)}, batch=True))
    book = RateBook([discount(10, model="*", provider="")], **catalogue(*rows))
    assert book.price(a_call(usage=Usage(input=2000))).cost_nano == 3_600_000
    assert book.price(a_call(flags=int(ChargeFlag.BATCH))).cost_nano == 495_000


def test_a_deployment_name_can_stand_for_a_catalogue_model() -> None:
    alias = discount(0, model="prod-chat", provider="", priced_as="openai/gpt-4o")
    priced = RateBook([alias], **catalogue(a_rate_set())).price(a_call("prod-chat", "azure"))
    assert (priced.status, priced.cost_nano, priced.flags) == (CostStatus.PRICED, 3_500_000, 0)


def test_a_self_hosted_model_is_priced_by_the_projects_own_rate_alone() -> None:
    call = a_call("llama-3", host="localhost:8000")
    assert cost(call) is None
    assert cost(call, a_rate_set(model="llama-3")) == 3_500_000
    assert cost(call, a_rate_set(model="llama-*", provider="self-hosted")) == 3_500_000


def test_another_sellers_price_is_flagged_and_ones_own_is_not() -> None:
    shared = catalogue(a_rate_set())
    assert RateBook([], **shared).price(a_call(provider="")).flags == ChargeFlag.PROVIDER_GUESSED
    assert RateBook([a_rate_set(id=5, provider="")], **shared).price(a_call(provider="")).flags == 0


def test_the_same_usage_can_be_priced_on_another_model() -> None:
    book = RateBook([a_rate_set(), a_rate_set("gpt-5", id=2, rates={"input": usd(1), "output": usd(1)})])
    call = a_call(host="localhost", region="eu")
    assert book.price_as(call, provider="openai", model="gpt-5").cost_nano == 1_100_000
    assert book.price_as(call, provider="openai", model="gpt-4o").cost_nano == book.price(a_call()).cost_nano


# -- one function, two paths --------------------------------------------------------------------------

quantities = st.integers(0, 10**9)


@given(st.tuples(*[quantities] * 6), st.booleans())
def test_the_fast_path_prices_exactly_like_the_line_by_line_path(amounts: tuple[int, ...], tiered: bool) -> None:
    rates = CLAUDE | ({"input": usd(3, (200_000, 6))} if tiered else {})
    compiled, call = CompiledRates(a_rate_set(rates=rates)), a_call(usage=Usage(*amounts))
    assert _price_text(call, compiled) == _price_lines(call, compiled)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=20), st.integers(BEGINNING_NS, 2**63 - 1))
def test_no_name_or_time_makes_pricing_fail(model: str, provider: str, host: str, at_ns: int) -> None:
    book = RateBook([discount(5, model="*", provider="")], **catalogue(a_rate_set()))
    priced = book.price(a_call(model, provider, host=host)._replace(start_ns=at_ns))
    assert (priced.cost_nano is None) == (priced.status == CostStatus.UNPRICED)


def test_a_flood_of_made_up_model_names_does_not_grow_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costapp.core.pricing.MAX_ENTRIES", 10)
    book = RateBook([a_rate_set()])
    for number in range(35):
        book.price(a_call(f"model-{number}"))
    assert len(book._entries) <= 10
