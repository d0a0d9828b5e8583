"""Every charge can say: these quantities x these rates (valid from, source) = this."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from costapp.core.price_explain import explain
from costapp.core.pricing import RateBook
from costapp.core.values import ChargeFlag, Usage, UsageState
from tests.prices.factories import a_call, a_rate_set, ns, usd


@given(st.tuples(*[st.integers(0, 10**6)] * 10))
def test_the_lines_sum_to_the_charge(amounts: tuple[int, ...]) -> None:
    rates = {"input": usd(3, (200_000, 6)), "cache_read": usd(0.3), "output": usd(15), "audio_out": usd(80)}
    book, call = RateBook([a_rate_set(rates=rates)]), a_call(usage=Usage(*amounts))
    explanation = explain(book, call)
    assert explanation.total_nano == book.price(call).cost_nano
    assert sum(line.amount_nano for line in explanation.lines) == explanation.total_nano


def test_an_ordinary_call_reads_as_quantities_times_rates_with_source_and_dates() -> None:
    row = a_rate_set(valid_from_ns=ns(datetime(2026, 3, 1, tzinfo=UTC)), source="contract 17", list_name="Acme 2026")
    texts = explain(RateBook([row]), a_call(usage=Usage(input=1200, reasoning=30))).texts()
    assert texts == [
        "1,200 input tokens × $2.50 per million = $0.003",
        "30 reasoning tokens × $10.00 per million = $0.0003",
        "Rates: Acme 2026, openai/gpt-4o, valid from 2026-03-01 (contract 17).",
    ]


def test_a_discount_is_named() -> None:
    list_price = a_rate_set(priority=0, list_name="genai-prices")
    cut = a_rate_set(id=9, model="gpt-*", rates={}, discount_ppm=125_000, list_name="Acme 2026")
    from tests.prices.test_pricing import catalogue

    text = explain(RateBook([cut], **catalogue(list_price)), a_call()).source
    assert text.endswith("Less 12.5 % by Acme 2026.")


def test_long_context_assumed_cache_and_missing_tiers_are_notes() -> None:
    book = RateBook([a_rate_set(rates={"input": usd(3, (1000, 6)), "output": usd(1)})])
    flags = int(ChargeFlag.CACHE_SPLIT_ASSUMED)
    notes = " ".join(explain(book, a_call(usage=Usage(input=1001), flags=flags, service_tier="flex")).notes)
    assert "1,001 prompt tokens are above 1,000" in notes
    assert "5-minute cache writes were assumed" in notes
    assert "service tier flex" in notes


def test_what_has_no_price_says_why() -> None:
    unknown_model = explain(RateBook([]), a_call("acme-1"))
    assert (unknown_model.total_nano, unknown_model.notes) == (
        None,
        ["No rate covers this model at this time: the call is unpriced."],
    )
    unknown_usage = explain(RateBook([a_rate_set()]), a_call(usage=Usage(), usage_state=UsageState.UNKNOWN))
    assert "no usable token counts" in unknown_usage.notes[0]
    assert "probably not more than $0.0512" in unknown_usage.notes[0]
    local = explain(RateBook([]), a_call("llama-3", host="localhost"))
    assert "private host" in local.notes[0]


def test_free_calls_say_why_and_what_was_saved() -> None:
    book = RateBook([a_rate_set()])
    cached = explain(book, a_call(flags=int(ChargeFlag.APP_CACHED)))
    assert cached.notes[0] == (
        "Answered by the application's own cache: nothing was billed. It would have cost $0.0035."
    )
    refused = a_call(usage=Usage(), usage_state=UsageState.UNKNOWN, error="rate_limit")
    assert "refused the call (rate_limit)" in explain(book, refused).notes[0]


def test_a_booked_charge_is_explained_by_the_rates_it_was_booked_with() -> None:
    old, new = a_rate_set(id=1), a_rate_set(id=2, rates={"input": usd(1), "output": usd(1)})
    call = a_call()
    booked = RateBook([old]).price(call)
    explanation = explain(RateBook([new]), call, booked, booked=old)
    assert explanation.total_nano == booked.cost_nano == 3_500_000
    drifted = explain(RateBook([new]), call, booked)
    assert "the rates have changed since" in " ".join(drifted.notes)


def test_the_clients_own_figure_stands_beside_ours() -> None:
    notes = explain(RateBook([a_rate_set()]), a_call(reported_nano=3_000_000)).notes
    assert notes == ["The client reports $0.003, -$0.0005 from ours."]
    counted = RateBook([a_rate_set()], reported_cost_counts=True)
    assert "reported cost count: $0.003" in explain(counted, a_call(reported_nano=3_000_000)).notes[0]
