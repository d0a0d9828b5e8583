"""Calls and rate sets that state only what a test is about."""

import json
from datetime import UTC, datetime
from typing import Any

from costapp.core.rates import BEGINNING_NS, END_NS, RateSet
from costapp.core.values import Call, Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000


def a_call(model: str = "gpt-4o", provider: str = "openai", *, at: datetime = NOON, **stated: Any) -> Call:
    fields: dict[str, Any] = dict.fromkeys(Call._fields, "")
    numbers = ("attribution_source", "flags", "signal")
    unknown = ("duration_us", "ttft_us", "reported_nano", "prompt_hash", "prompt_chars", "output_chars")
    fields.update(dict.fromkeys(numbers, 0) | dict.fromkeys(unknown))
    fields.update(
        trace_id=b"t" * 16, span_id=1, start_ns=ns(at), operation="chat", provider=provider, provider_raw=provider,
        model=model, model_requested=model, usage=Usage(input=1000, output=100), usage_state=1, attempts=1, members=1,
    )  # fmt: skip
    return Call(**(fields | stated))


def usd(dollars_per_mtok: float, *tiers: tuple[int, float]) -> dict[str, Any]:
    """A rate in dollars per million tokens, with (threshold, price) tiers."""
    rate: dict[str, Any] = {"nano": round(dollars_per_mtok * 10**9)}
    if tiers:
        rate["tiers"] = [[start, round(price * 10**9)] for start, price in tiers]
    return rate


def a_rate_set(model: str = "gpt-4o", provider: str = "openai", *, id: int = 1, **stated: Any) -> RateSet:
    rates = stated.pop("rates", {"input": usd(2.5), "output": usd(10)})
    defaults: dict[str, Any] = {
        "region": "", "service_tier": "", "batch": False, "window_start": None, "window_end": None,
        "valid_from_ns": BEGINNING_NS, "valid_to_ns": END_NS, "discount_ppm": None, "priced_as": "",
        "source": "test", "list_name": "test list", "priority": 100,
    }  # fmt: skip
    return RateSet(id=id, provider=provider, model=model, rates=json.dumps(rates), **(defaults | stated))
