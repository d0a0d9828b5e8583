"""Why a call cost what it cost: these quantities x these rates (valid from, source) = this amount."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from costapp.core.money import format_nano
from costapp.core.pricing import RateBook
from costapp.core.providers import SELF_HOSTED
from costapp.core.rates import BEGINNING_NS, END_NS, CompiledRates, Line, RateSet, prompt_tokens
from costapp.core.values import Call, ChargeFlag, CostStatus, Priced, UsageState

#: meter -> words for people
METER_WORDS = {
    "input": "input tokens",
    "cache_read": "cached input tokens",
    "cache_write_5m": "cache writes (5 minutes)",
    "cache_write_1h": "cache writes (1 hour)",
    "output": "output tokens",
    "reasoning": "reasoning tokens",
    "audio_in": "audio input tokens",
    "audio_out": "audio output tokens",
    "image_in": "image input tokens",
    "image_out": "image output tokens",
    "request": "request",
    "web_searches": "web searches",
    "rerank_searches": "rerank searches",
    "seconds_in": "seconds",
    "seconds_out": "seconds",
}


class Explanation(NamedTuple):
    """The terms of a cost, where the rates come from, and what else a reader must know."""

    lines: list[Line]
    total_nano: int | None  #: what the lines sum to; None = no price
    rate_set: RateSet | None
    source: str  #: "" without a rate, else the list, its source and dates
    notes: list[str]

    def texts(self) -> list[str]:
        """One sentence per line, then the source and the notes."""
        return [line_text(line) for line in self.lines] + [text for text in (self.source, *self.notes) if text]


def line_text(line: Line) -> str:
    words = METER_WORDS.get(line.meter, line.meter)
    if line.rate_nano is None:
        return f"{line.quantity:,} {words}: no price"
    per_million = f"{format_nano(line.rate_nano)} per million"
    return f"{line.quantity:,} {words} × {per_million} = {format_nano(line.amount_nano)}"


def explain(book: RateBook, call: Call, priced: Priced | None = None, *, booked: RateSet | None = None) -> Explanation:
    """Terms of the price of a call by today's rates, or by those it was booked with (``booked``).

    ``priced`` is the booked charge: if its amount differs from the terms, a note says so.
    """
    entry = book.entry(call)
    rates = entry.at(call.start_ns)
    if booked is not None and (rates is None or rates.rate_set.id != booked.id):
        rates = CompiledRates(booked)
    priced = priced or book.price(call)
    if priced.gpu_nano is not None:
        return Explanation([], priced.gpu_nano, None, "", _gpu_notes(priced))
    notes = [note for note in (entry.resolved.why, *_status_notes(call, priced)) if note]
    if rates is None or call.usage_state == UsageState.UNKNOWN:
        return Explanation([], None, rates.rate_set if rates else None, rates_text(rates), notes)
    lines = list(rates.lines(call))
    total_nano = sum(line.amount_nano for line in lines)
    notes += _rate_notes(call, rates) + _drift_notes(call, priced, total_nano)
    return Explanation(lines, total_nano, rates.rate_set, rates_text(rates), notes)


def rates_text(rates: CompiledRates | None) -> str:
    """The price list, its source and its dates in a sentence."""
    if rates is None:
        return ""
    row = rates.rate_set
    about = f"{row.provider or 'any provider'}/{row.model}, {dates_text(row.valid_from_ns, row.valid_to_ns)}"
    text = f"Rates: {row.list_name}, {about}" + (f" ({row.source})." if row.source else ".")
    if rates.discount:
        share = rates.discount.ppm / 10_000
        text += f" Less {share:g} % by {rates.discount.rate_set.list_name}."
    return text


def dates_text(from_ns: int, to_ns: int) -> str:
    start = "always valid" if from_ns <= BEGINNING_NS else f"valid from {_date(from_ns)}"
    return start if to_ns >= END_NS else f"{start} until before {_date(to_ns)}"


def _date(at_ns: int) -> str:
    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{at:%Y-%m-%d}" if at.hour == at.minute == 0 else f"{at:%Y-%m-%d %H:%M} UTC"


def _status_notes(call: Call, priced: Priced) -> Sequence[str]:
    if call.flags & ChargeFlag.APP_CACHED:
        saved = "" if priced.avoided_nano is None else f" It would have cost {format_nano(priced.avoided_nano)}."
        return [f"Answered by the application's own cache: nothing was billed.{saved}"]
    if priced.status == CostStatus.REPORTED:
        source = call.reported_source or "the client"
        return [f"The project lets the reported cost count: {format_nano(priced.cost_nano or 0)} by {source}."]
    if priced.status == CostStatus.FREE:
        return [f"The provider refused the call ({call.error}): nothing was billed."]
    if call.usage_state == UsageState.UNKNOWN:
        return [_unknown_usage(priced)]
    if priced.cost_nano is not None:
        return []
    if call.provider == SELF_HOSTED:
        return [
            "Its cost is its share of the GPU hours it ran in: they are still open, or"
            " no engine or no rate is known for them."
        ]
    return ["No rate covers this model at this time: the call is unpriced."]


def _gpu_notes(priced: Priced) -> list[str]:
    share = format_nano(priced.gpu_nano or 0)
    notes = [f"Its share of the GPU hours it ran in: {share}. Tokens have no price of their own."]
    if priced.status == CostStatus.ESTIMATED:
        notes.append("Some of those GPUs have no rate: this is a lower bound.")
    return notes


def _unknown_usage(priced: Priced) -> str:
    text = "The client sent no usable token counts, so the cost is not known."
    if priced.possible_nano is None:
        return text
    return f"{text} If it was billed, then probably not more than {format_nano(priced.possible_nano)}."


def _rate_notes(call: Call, rates: CompiledRates) -> list[str]:
    notes = []
    above = rates.threshold(call.usage)
    if above is not None:
        tokens = prompt_tokens(call.usage)
        notes.append(f"Long context: {tokens:,} prompt tokens are above {above:,}, so the whole request is re-priced.")
    if call.flags & ChargeFlag.CACHE_SPLIT_ASSUMED:
        notes.append("The client does not say how long it cached: 5-minute cache writes were assumed.")
    if call.usage_state == UsageState.PARTIAL:
        notes.append("The client does not send the cached part of the input: this cost is an upper bound.")
    if call.usage_state == UsageState.ESTIMATED:
        notes.append("The token counts are estimates.")
    if rates.context_note:
        notes.append(rates.context_note)
    return notes


def _drift_notes(call: Call, priced: Priced, total_nano: int) -> list[str]:
    notes = []
    ours = priced.status in (CostStatus.PRICED, CostStatus.ESTIMATED)
    if ours and priced.cost_nano != total_nano:
        booked = format_nano(priced.cost_nano or 0)
        notes.append(f"Booked at {booked}: the rates have changed since. Re-pricing brings it up to date.")
    if ours and call.reported_nano is not None and call.reported_nano != total_nano:
        difference = call.reported_nano - total_nano
        notes.append(f"The client reports {format_nano(call.reported_nano)}, {format_nano(difference)} from ours.")
    return notes
