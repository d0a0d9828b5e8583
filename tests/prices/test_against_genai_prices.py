"""Our price of every model in the catalogue equals the package's own, to the documented rounding."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pytest
from genai_prices import types as genai
from genai_prices.data_snapshot import get_snapshot

from costapp.core.model_names import Names, Resolved, Seller
from costapp.core.pricing import RateBook
from costapp.core.values import Call, ChargeFlag, CostStatus, Usage
from costapp.services.genai_catalogue import METERS, TIER_KEYS
from tests.prices.factories import NOON, a_call

#: unit of a call -> usage key of the package, for models billed by something else than tokens
UNITS = {
    "seconds": ("audio_seconds", "input_audio_seconds", "output_audio_seconds"),
    "characters": ("input_characters",),
    "pages": ("input_document_pages",),
    "messages": ("input_text_messages",),
}


class ExactNames(Names):
    """No recognising: the call names the catalogue's own ids. Recognition has its own tests."""

    def seller(self, provider: str, host: str, model: str) -> Seller:
        return Seller(provider)

    def resolve(self, seller: Seller, model: str) -> Resolved:
        return Resolved(seller.provider, seller.provider, model)


def moments(model: genai.ModelInfo) -> Iterator[datetime]:
    """Both sides of every date and hour at which a price of this model changes, and now."""
    prices = model.prices if isinstance(model.prices, list) else []
    yield NOON
    for holder in (*prices, *(model.price_variants or ())):
        if isinstance(holder.constraint, genai.StartDateConstraint):
            midnight = datetime.combine(holder.constraint.start_date, time(), UTC)
            yield from (midnight - timedelta(seconds=1), midnight)
        elif isinstance(holder.constraint, genai.TimeOfDateConstraint):
            for edge in (holder.constraint.start_time, holder.constraint.end_time):
                at = datetime.combine(NOON.date(), edge).astimezone(UTC)
                yield from (at - timedelta(seconds=1), at)


def contexts(model: genai.ModelInfo) -> Iterator[dict[str, str]]:
    yield {}
    seen: list[dict[str, str]] = [{}]
    for variant in model.price_variants or ():
        if variant.when not in seen and variant.when.keys() <= {"processing", *TIER_KEYS}:
            seen.append(variant.when)
            yield variant.when


def thresholds(model: genai.ModelInfo) -> set[int]:
    holders = model.prices if isinstance(model.prices, list) else [genai.ConditionalPrice(prices=model.prices)]
    tiered = [p for h in holders for p in h.prices.__dict__.values() if isinstance(p, genai.TieredPrices)]
    return {tier.start for price in tiered for tier in price.tiers}


def usages(model: genai.ModelInfo, dice: random.Random) -> Iterator[Usage]:
    """A random call of text, one of every modality, and prompts at N-1, N and N+1 of each threshold."""
    yield Usage(*(dice.randrange(40_000) for _ in range(6)))
    if any(key and ("audio" in key or "image" in key) for key in _price_keys(model)):
        yield Usage(*(dice.randrange(5_000) for _ in range(10)))
    for threshold in sorted(thresholds(model)):
        for total in (threshold - 1, threshold, threshold + 1):
            cached = dice.randrange(total)
            yield Usage(input=total - cached, cache_read=cached, output=dice.randrange(3_000))


def _price_keys(model: genai.ModelInfo) -> set[str]:
    holders = model.prices if isinstance(model.prices, list) else [genai.ConditionalPrice(prices=model.prices)]
    return {key for holder in holders for key, price in holder.prices.__dict__.items() if price is not None}


def their_usage(usage: Usage, unit: str) -> genai.Usage:
    tokens = genai.Usage(
        input_tokens=sum(usage[:4]) + usage.audio_in + usage.image_in,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write_5m + usage.cache_write_1h,
        cache_write_5m_tokens=usage.cache_write_5m,
        cache_write_1h_tokens=usage.cache_write_1h,
        output_tokens=usage.output + usage.reasoning + usage.audio_out + usage.image_out,
        output_reasoning_tokens=usage.reasoning,
        input_audio_tokens=usage.audio_in,
        output_audio_tokens=usage.audio_out,
        input_image_tokens=usage.image_in,
        output_image_tokens=usage.image_out,
        cache_audio_read_tokens=0,
        cache_image_read_tokens=0,
    )
    for key in UNITS.get(unit, ()):
        setattr(tokens, key, usage.units)
    return tokens


def cases(model: genai.ModelInfo, dice: random.Random) -> Iterator[tuple[datetime, dict[str, str], Usage, str]]:
    for at in moments(model):
        for context in contexts(model):
            for usage in usages(model, dice):
                yield at, context, usage, ""
    for unit in {METERS[key].split("_")[0] for key in _price_keys(model) & METERS.keys()} & UNITS.keys():
        for units in (7, 4_321):
            yield NOON, {}, Usage(units=units), unit


def our_call(provider: str, model: str, at: datetime, context: dict[str, str], usage: Usage, unit: str) -> Call:
    batch = context.get("processing") == "batch"
    tier = next((context[key] for key in TIER_KEYS if key in context), "")
    flags = ChargeFlag.BATCH if batch else 0
    return a_call(model, provider, at=at, usage=usage, unit=unit, service_tier=tier, flags=flags)


@pytest.mark.parametrize("provider", get_snapshot().providers, ids=lambda provider: provider.id)
def test_every_catalogue_price_equals_the_packages_own(catalogue_book: RateBook, provider: genai.Provider) -> None:
    book = RateBook((), names=ExactNames(), catalogue=catalogue_book._catalogue)
    dice = random.Random(provider.id)
    for model in provider.models:
        for at, context, usage, unit in cases(model, dice):
            theirs = model.calc_price(
                their_usage(usage, unit), provider, genai_request_timestamp=at, price_context=context
            ).total_price
            ours = book.price(our_call(provider.id, model.id, at, context, usage, unit))
            exact_nano = theirs * 10**9
            if ours.status == CostStatus.UNPRICED:
                assert exact_nano == 0, (model.id, at, context, usage)
            else:
                assert abs((ours.cost_nano or 0) - exact_nano) <= rounding(usage), (model.id, at, context, usage, ours)


@pytest.mark.parametrize("provider", get_snapshot().providers, ids=lambda provider: provider.id)
def test_every_catalogue_id_is_recognised_as_the_package_does(
    catalogue_book: RateBook, provider: genai.Provider
) -> None:
    everyone = get_snapshot().providers
    for model in provider.models:
        theirs = provider.find_model(model.id, all_providers=everyone)
        if theirs is not None:
            ours = catalogue_book.names.resolve(Seller(provider.id), model.id)
            assert (ours.provider, ours.model) == (provider.id, theirs.id), model.id


def rounding(usage: Usage) -> Decimal:
    """Half a nano per used meter, and one fee; prices per hour are themselves rounded per million seconds."""
    return Decimal(sum(1 for quantity in usage if quantity) + 1) / 2 + Decimal(usage.units) / 2_000_000


def test_the_comparison_covers_tiers_dates_windows_and_batch() -> None:
    models = [model for provider in get_snapshot().providers for model in provider.models]
    assert sum(len(thresholds(model)) for model in models) > 50
    assert sum({"processing": "batch"} in contexts(model) for model in models) > 50
    assert sum(len(list(moments(model))) > 1 for model in models) > 200
