"""Dated sets of rates, and the compiled form that prices usage: pure values, no names, no choosing.

A rate set holds the price of every meter of one SKU from - to. Meters a rate set does not name are
billed as the wider meter they are part of (cached input as input, reasoning as output). A context
tier is a cliff: one prompt token above the threshold re-prices every token of the request.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from costapp.core.money import less_discount, line_cost
from costapp.core.values import Call, Usage

#: meter -> the meters whose price it takes, narrowest first. Order = fields of `Usage` before units.
METER_FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "input": ("input",),
    "cache_read": ("cache_read", "input"),
    "cache_write_5m": ("cache_write_5m", "cache_write", "input"),
    "cache_write_1h": ("cache_write_1h", "cache_write", "input"),
    "output": ("output",),
    "reasoning": ("reasoning", "output"),
    "audio_in": ("audio_in", "input"),
    "audio_out": ("audio_out", "output"),
    "image_in": ("image_in", "input"),
    "image_out": ("image_out", "output"),
}
TOKEN_METERS = tuple(METER_FALLBACKS)
REQUEST = "request"  #: a fee per call, whatever it used
#: unit of `Call.unit` -> meters that may price it, narrowest first
UNIT_METERS: Mapping[str, tuple[str, ...]] = {
    "characters": ("characters",),
    "images": ("images",),
    "messages": ("messages",),
    "pages": ("pages",),
    "pixels": ("pixels",),
    "searches": ("web_searches", "rerank_searches"),
    "seconds": ("seconds", "seconds_in", "seconds_out"),
}
UNIT_METER_NAMES = frozenset(meter for meters in UNIT_METERS.values() for meter in meters)
RATE_METERS = frozenset((*TOKEN_METERS, "cache_write", REQUEST)) | UNIT_METER_NAMES

#: Dearest price that is believed: $100,000 per million tokens, $100 per unit. Keeps sums inside a bigint.
MAX_RATE_NANO = 10**14

BEGINNING_NS = -(2**63)
END_NS = 2**63 - 1
NS_PER_MINUTE = 60 * 10**9
MINUTES_PER_DAY = 24 * 60


class Rate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Price of one meter in nano-dollars per million units."""

    nano: int
    #: (prompt tokens above which it holds, price): the highest that is exceeded counts
    tiers: tuple[tuple[int, int], ...] = ()
    minimum: int = 0  #: units billed at least, when any are used

    def at(self, prompt_tokens: int) -> int:
        price = self.nano
        for threshold, tier_price in self.tiers:
            if prompt_tokens > threshold:
                price = tier_price
        return price


_rates_decoder = msgspec.json.Decoder(dict[str, Rate])


class RateSet(NamedTuple):
    """One row of the table costapp_rateset that is in force, with what its price list says."""

    id: int
    provider: str  #: catalogue id; "" = any
    model: str  #: catalogue id or a wire name; ``*`` = any run of characters
    region: str  #: "" = any
    service_tier: str  #: "" = standard
    batch: bool
    window_start: int | None  #: minutes after midnight UTC; None = the whole day
    window_end: int | None
    valid_from_ns: int
    valid_to_ns: int  #: exclusive
    rates: str  #: JSON {meter: Rate}
    discount_ppm: int | None  #: not None: no rates of its own, but this much off the catalogue's
    priced_as: str  #: for a discount row: "provider/model" of the catalogue that it stands for
    source: str
    list_name: str
    priority: int  #: higher wins

    def decode(self) -> dict[str, Rate]:
        return _rates_decoder.decode(self.rates)

    def covers(self, at_ns: int) -> bool:
        return self.valid_from_ns <= at_ns < self.valid_to_ns


class Discount(NamedTuple):
    """A negotiated share off the list price."""

    ppm: int
    rate_set: RateSet


class Line(NamedTuple):
    """One term of a cost: ``quantity x rate_nano per million = amount_nano``."""

    meter: str
    quantity: int
    rate_nano: int | None  #: None = this meter has no price
    amount_nano: int


def prompt_tokens(usage: Usage) -> int:
    """The whole prompt, cached part included: what context thresholds look at."""
    return (
        usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h + usage.audio_in + usage.image_in
    )


class Band(NamedTuple):
    """Prices within one context band, in the order of `Usage`. None = this meter has no price."""

    prices: tuple[int | None, ...]
    #: the same with 0 for None, named for speed
    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int


class CompiledRates:
    """A rate set made ready: flat prices per context band, discount applied, meters inherited."""

    __slots__ = (
        "_rates", "_thresholds", "bands", "complete", "context_note", "discount", "flags", "inexact", "rate_set",
        "request",
    )  # fmt: skip

    def __init__(
        self,
        rate_set: RateSet,
        discount: Discount | None = None,
        *,
        flags: int = 0,
        inexact: bool = False,
        context_note: str = "",
    ) -> None:
        self.rate_set = rate_set
        self.discount = discount
        self.flags = flags  #: ChargeFlag bits that a price by these rates carries
        self.inexact = inexact  #: taken for want of a rate for this very region, tier or model
        self.context_note = context_note  #: a sentence, when the stated tier or batch has no rate of its own
        self._rates = {meter: _discounted(rate, discount) for meter, rate in rate_set.decode().items()}
        token_rates = [rate for meter, rate in self._rates.items() if meter not in UNIT_METER_NAMES]
        self._thresholds = sorted({threshold for rate in token_rates for threshold, _ in rate.tiers})
        self.bands = [self._band(at) for at in (0, *(threshold + 1 for threshold in self._thresholds))]
        self.request = self._rates.get(REQUEST)
        #: every text meter has a price and there is no other fee: the fast path need not check
        self.complete = self.request is None and all(None not in band.prices[:6] for band in self.bands)

    def band(self, usage: Usage) -> Band:
        if not self._thresholds:
            return self.bands[0]
        return self.bands[bisect_left(self._thresholds, prompt_tokens(usage))]

    def threshold(self, usage: Usage) -> int | None:
        """The highest context threshold that a prompt exceeds; None = the base rates hold."""
        index = bisect_left(self._thresholds, prompt_tokens(usage))
        return self._thresholds[index - 1] if index else None

    def lines(self, call: Call) -> Iterator[Line]:
        """Every term of the cost of a call, those of meters without a price included."""
        prices = self.band(call.usage).prices
        for meter, quantity, price in zip(TOKEN_METERS, call.usage, prices, strict=False):
            if quantity:
                yield Line(meter, quantity, price, 0 if price is None else line_cost(quantity, price))
        if call.usage.units:
            yield self._unit_line(call)
        if self.request:
            yield Line(REQUEST, 1, self.request.nano, line_cost(1, self.request.nano))

    def _unit_line(self, call: Call) -> Line:
        units = call.usage.units
        for meter in unit_meters(call.unit, call.operation):
            rate = self._rates.get(meter)
            if rate:
                quantity = max(units, rate.minimum)
                return Line(meter, quantity, rate.nano, line_cost(quantity, rate.nano))
        return Line(call.unit or "units", units, None, 0)

    def _band(self, tokens: int) -> Band:
        prices = tuple(self._price(meter, tokens) for meter in TOKEN_METERS)
        return Band(prices, *(price or 0 for price in prices[:6]))

    def _price(self, meter: str, tokens: int) -> int | None:
        for source in METER_FALLBACKS[meter]:
            rate = self._rates.get(source)
            if rate:
                return rate.at(tokens)
        return None


def unit_meters(unit: str, operation: str) -> Sequence[str]:
    """Meters that may price a unit; a search means a rerank search in a rerank call."""
    meters = UNIT_METERS.get(unit, (unit,))
    return meters[::-1] if operation == "rerank" else meters


def _discounted(rate: Rate, discount: Discount | None) -> Rate:
    if discount is None:
        return rate
    tiers = tuple((threshold, less_discount(price, discount.ppm)) for threshold, price in rate.tiers)
    return Rate(less_discount(rate.nano, discount.ppm), tiers, rate.minimum)
