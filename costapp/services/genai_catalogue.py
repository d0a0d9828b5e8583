"""The `genai-prices` package read as dated rate rows and name-matching data. Writes nothing.

The package resolves a price anew for every call (last matching condition wins, variants override
single prices). Here that is unrolled once: for each model and context, time is cut at every date and
hour where anything changes, and each stretch becomes one row with all its prices spelled out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from importlib.metadata import version
from typing import Any, NamedTuple

from genai_prices import types as genai
from genai_prices.data_snapshot import get_snapshot
from genai_prices.units import UnitRegistry

from costapp.core.money import NANO_PER_USD, UNITS_PER_PRICE, divide_half_up

PACKAGE = "genai-prices"

#: price key of the package -> our meter. What is missing here is stated by no span.
METERS: Mapping[str, str] = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_in",
    "output_audio_mtok": "audio_out",
    "input_image_mtok": "image_in",
    "output_image_mtok": "image_out",
    "output_reasoning_mtok": "reasoning",
    "requests_kcount": "request",
    "input_mchars": "characters",
    "input_text_messages_kcount": "messages",
    "audio_hours": "seconds",
    "input_audio_hours": "seconds_in",
    "output_audio_hours": "seconds_out",
    "input_document_kpages": "pages",
    "input_gpixels": "pixels",
    "rerank_searches_kcount": "rerank_searches",
    "web_searches_kcount": "web_searches",
}
#: The package bills these by at least ten seconds, in code rather than in its data.
MINIMUM_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
#: what selects a variant there -> service tier here ("" = batch); anything else no span can state
TIER_KEYS = ("service_tier", "speed")
_ANY_DAY = date(2000, 1, 1)


class WantedRates(NamedTuple):
    """One row as the source has it now."""

    provider: str
    model: str
    rates: dict[str, dict[str, Any]]
    region: str = ""
    service_tier: str = ""
    batch: bool = False
    window_start: time | None = None
    window_end: time | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None


class CatalogueData(NamedTuple):
    version: str
    rows: list[WantedRates]
    names: dict[str, Any]  #: {"providers": [...]}, see core.model_names.CatalogueProvider
    skipped: list[str]  #: meters and variants that spans cannot state


def package_version() -> str:
    return version(PACKAGE)


def read_package(providers: Sequence[genai.Provider] | None = None, *, package: str | None = None) -> CatalogueData:
    """Everything the installed package (or a given list of its providers) knows."""
    known = get_snapshot().providers if providers is None else providers
    rows = [row for provider in known for model in provider.models for row in model_rows(provider, model)]
    names = {"providers": [_provider_names(provider) for provider in known]}
    return CatalogueData(package or package_version(), rows, names, sorted(_skipped(known)))


def model_rows(provider: genai.Provider, model: genai.ModelInfo) -> Iterator[WantedRates]:
    """All rows of one model: per context, per stretch of dates, per time-of-day window."""
    for tier, batch, context in _contexts(model):
        for start, end in _stretches(model):
            if context and not _has_variant(model, context, start or _ANY_DAY):
                continue
            for window_start, window_end, rates in _windows(provider, model, start or _ANY_DAY, context):
                if rates:
                    yield WantedRates(
                        provider=provider.id,
                        model=model.id,
                        rates=rates,
                        service_tier=tier,
                        batch=batch,
                        window_start=window_start,
                        window_end=window_end,
                        valid_from=_midnight(start),
                        valid_to=_midnight(end),
                    )


def _contexts(model: genai.ModelInfo) -> Iterator[tuple[str, bool, dict[str, str]]]:
    yield "", False, {}
    seen = set()
    for variant in model.price_variants or ():
        context = tuple(sorted(variant.when.items()))
        if context in seen or len(context) != 1:
            continue
        seen.add(context)
        key, value = context[0]
        if (key, value) == ("processing", "batch"):
            yield "", True, dict(context)
        elif key in TIER_KEYS and value != "default":
            yield value, False, dict(context)


def _has_variant(model: genai.ModelInfo, context: Mapping[str, str], day: date) -> bool:
    at = datetime.combine(day, time(), UTC)
    return any(
        variant.when.items() <= context.items() and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _conditions(model: genai.ModelInfo) -> Iterator[genai.StartDateConstraint | genai.TimeOfDateConstraint]:
    prices = model.prices if isinstance(model.prices, list) else []
    for holder in (*prices, *(model.price_variants or ())):
        if holder.constraint is not None:
            yield holder.constraint


def _stretches(model: genai.ModelInfo) -> Iterator[tuple[date | None, date | None]]:
    """[start, end) between consecutive dates of change; None = open."""
    changes = sorted({c.start_date for c in _conditions(model) if isinstance(c, genai.StartDateConstraint)})
    yield from zip((None, *changes), (*changes, None), strict=True)


def _windows(
    provider: genai.Provider, model: genai.ModelInfo, day: date, context: Mapping[str, str]
) -> Iterator[tuple[time | None, time | None, dict[str, Any]]]:
    """The day in parts of equal price; one part without ends when the price holds all day."""
    daily = [c for c in _conditions(model) if isinstance(c, genai.TimeOfDateConstraint)]
    edges = sorted({_utc(edge) for c in daily for edge in (c.start_time, c.end_time)} | {time()})
    parts: list[tuple[time, dict[str, Any]]] = []
    for edge in edges:
        rates = _rates(provider, model, datetime.combine(day, edge, UTC), context)
        if not parts or parts[-1][1] != rates:
            parts.append((edge, rates))
    if len(parts) == 1:
        yield None, None, parts[0][1]
        return
    ends = [start for start, _ in parts[1:]] + [time()]
    for (start, rates), end in zip(parts, ends, strict=True):
        yield start, end, rates


def _utc(value: time) -> time:
    if value.tzinfo is None:
        return value
    return datetime.combine(_ANY_DAY, value).astimezone(UTC).time()


def _rates(
    provider: genai.Provider, model: genai.ModelInfo, at: datetime, context: Mapping[str, str]
) -> dict[str, Any]:
    registry = _registry()
    prices = model.get_prices(at, context).__dict__
    rates: dict[str, Any] = {}
    for key, price in prices.items():
        if price is not None and key in METERS:
            per = registry.unit_for_price_key(key).per
            rates[METERS[key]] = _rate(price, per)
    minimum = MINIMUM_SECONDS.get((provider.id, model.id))
    for meter in rates.keys() & {"seconds", "seconds_in"}:
        if minimum:
            rates[meter]["minimum"] = minimum
    return rates


def _registry() -> UnitRegistry:
    from genai_prices.units import _get_registry

    return _get_registry()


def _rate(price: Decimal | genai.TieredPrices, per: int) -> dict[str, Any]:
    if isinstance(price, genai.TieredPrices):
        tiers = [[tier.start, _nano(tier.price, per)] for tier in price.tiers]
        return {"nano": _nano(price.base, per), "tiers": tiers}
    return {"nano": _nano(price, per)}


def _nano(price: Decimal, per: int) -> int:
    """Dollars per ``per`` units -> nano-dollars per million units (rounded only for prices per hour)."""
    exact = Fraction(price) * NANO_PER_USD * UNITS_PER_PRICE / per
    return divide_half_up(exact.numerator, exact.denominator)


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


# -- names --------------------------------------------------------------------------------------------


def _provider_names(provider: genai.Provider) -> dict[str, Any]:
    return {
        "id": provider.id,
        "provider_match": clause_json(provider.provider_match),
        "model_match": clause_json(provider.model_match),
        "fallback": provider.fallback_model_providers or [],
        "models": [[model.id, clause_json(model.match)] for model in provider.models],
    }


def clause_json(clause: Any) -> dict[str, Any] | None:
    """A match clause as JSON: ``{"or": [{"equals": "gpt-4"}, ...]}``."""
    if clause is None:
        return None
    (name,) = (field.name for field in fields(clause))
    value = getattr(clause, name)
    return {name.rstrip("_"): [clause_json(part) for part in value] if isinstance(value, list) else value}


def _skipped(providers: Sequence[genai.Provider]) -> set[str]:
    skipped = set()
    for provider in providers:
        for model in provider.models:
            prices = model.prices if isinstance(model.prices, list) else [genai.ConditionalPrice(prices=model.prices)]
            keys = {key for part in prices for key, price in part.prices.__dict__.items() if price is not None}
            skipped |= {f"price of {key}" for key in keys - METERS.keys()}
            for variant in model.price_variants or ():
                if not variant.when.keys() <= {"processing", *TIER_KEYS}:
                    skipped.add(f"prices by {', '.join(sorted(variant.when))}")
    return skipped
