"""Why a call cost what it cost, in words: the booked charge, the rates behind it, and how sure each fact is."""

from typing import NamedTuple

from costapp.core import price_explain
from costapp.core.price_explain import METER_WORDS, rates_text
from costapp.core.rates import CompiledRates, Line, RateSet
from costapp.core.values import AttributionSource, ChargeFlag, CostStatus, Signal, UsageState
from costapp.storage import rates
from costapp.storage.booked import BookedCharge, load_charge
from costapp.storage.reports.calls import Charge
from costapp.storage.reports.sql import Connection
from costapp.web import format as fmt

ATTRIBUTION_WORDS = {
    AttributionSource.NONE: "no span of the trace states a feature",
    AttributionSource.OWN: "stated by the call's own span",
    AttributionSource.ANCESTOR: "inherited from the nearest span above that states it",
    AttributionSource.TRACE: "taken from the trace, whose spans agree on it",
    AttributionSource.RESOURCE: "stated by the service (resource attributes)",
    AttributionSource.RULE: "set by an allocation rule of the project",
}
FLAG_WORDS = {
    ChargeFlag.STREAM: "streamed",
    ChargeFlag.BATCH: "batch processing",
    ChargeFlag.RETRY: "repeats an earlier failed call of this trace",
    ChargeFlag.FALLBACK: "another model after a failed call of this trace",
    ChargeFlag.USAGE_SUSPECT: "its token counts contradicted each other; priced conservatively",
    ChargeFlag.TIME_SUSPECT: "its clock readings contradict each other",
    ChargeFlag.APP_CACHED: "answered by the app's own cache; the provider was not called",
    ChargeFlag.PROVIDER_GUESSED: "the provider was not stated: the model's own vendor was taken",
    ChargeFlag.VENDOR_PRICE: "the seller does not list this model: the price of its own vendor was taken",
    ChargeFlag.CACHE_SPLIT_ASSUMED: "5-minute cache writes assumed, the wire did not say",
}
STATUS = {
    CostStatus.UNPRICED: ("unpriced", "It is missing from totals, and never $0 in them."),
    CostStatus.PRICED: ("priced", "From the token counts that were reported and a dated rate."),
    CostStatus.ESTIMATED: ("estimated", "Part of the token counts or of the rate had to be assumed."),
    CostStatus.REPORTED: ("reported", "The client's own figure, because this project lets it count."),
    CostStatus.FREE: ("free", "It failed before the provider bills, or the app's own cache answered."),
    CostStatus.GPU: ("GPU hours", "Its share of what the GPUs cost while it ran, instead of a price by tokens."),
}
USAGE_WORDS = {
    UsageState.UNKNOWN: "nothing usable on the wire",
    UsageState.REPORTED: "reported by the client",
    UsageState.PARTIAL: "totals known, the cached part is not sent: an upper bound",
    UsageState.ESTIMATED: "estimated",
}
Facts = list[tuple[str, str]]


class MeterLine(NamedTuple):
    """One term: ``quantity x rate per million = amount``."""

    meter: str
    quantity: int
    rate_nano: int | None
    amount_nano: int | None


class Explanation(NamedTuple):
    lines: list[MeterLine]
    status_name: str
    status_words: str
    rate_facts: Facts
    notes: list[str]
    facts: Facts
    attribution_words: str
    flags: list[str]
    drift_nano: int | None  #: the client's own figure minus ours


def explanation(conn: Connection, project_id: int, charge: Charge) -> Explanation:
    booked = load_charge(conn, project_id, key=(charge.day, charge.trace_id.bytes, charge.span_id))
    assert booked is not None, "the charge was read in this request"
    found, row = _terms(conn, project_id, booked)
    name, words = STATUS[CostStatus(charge.cost_status)]
    drift = (
        None if charge.reported_nano is None or charge.cost_nano is None else charge.reported_nano - charge.cost_nano
    )
    return Explanation(
        lines=[_line(line) for line in found.lines],
        status_name=name,
        status_words=words,
        rate_facts=_rate_facts(found.source, row),
        notes=[note for note in found.notes if not note.startswith("The client reports")],
        facts=_facts(charge),
        attribution_words=ATTRIBUTION_WORDS[AttributionSource(charge.attribution_source)],
        flags=[words for flag, words in FLAG_WORDS.items() if charge.flags & flag],
        drift_nano=drift,
    )


def _terms(conn: Connection, project_id: int, booked: BookedCharge) -> tuple[price_explain.Explanation, RateSet | None]:
    """The terms by the rates the charge was booked with, also when those were corrected since."""
    row = rates.rate_set(conn, booked.priced.rate_id) if booked.priced.rate_id is not None else None
    book = rates.load_rate_book(conn, project_id)
    found = price_explain.explain(book, booked.call, booked.priced, booked=row)
    if row is not None and not found.source:
        found = found._replace(source=rates_text(CompiledRates(row)))
    return found, row or found.rate_set


def _line(line: Line) -> MeterLine:
    amount = None if line.rate_nano is None else line.amount_nano
    return MeterLine(METER_WORDS.get(line.meter, line.meter), line.quantity, line.rate_nano, amount)


def _rate_facts(source: str, row: RateSet | None) -> Facts:
    if row is None:
        return []
    facts = [("Rates", source.removeprefix("Rates: "))]
    scope = ", ".join(filter(None, (row.region, row.service_tier, "batch" if row.batch else "")))
    return facts + ([("Holds for", scope)] if scope else [])


def _facts(charge: Charge) -> Facts:
    """What is known about the call, empty facts left out."""
    requested = charge.model_requested
    facts = (
        ("Team", charge.team),
        ("Environment", charge.environment),
        ("Service", charge.service),
        ("Workload", charge.span_name),
        ("Operation", charge.operation),
        ("Provider", charge.provider or "(unknown)"),
        ("Model asked for", requested if requested and requested != charge.model else ""),
        ("Model that answered", charge.model or "(not stated)"),
        ("Service tier", charge.service_tier),
        ("Region", charge.region),
        ("Variant", charge.variant),
        ("Prompt version", charge.prompt_version),
        ("Usage", USAGE_WORDS[UsageState(charge.usage_state)]),
        ("Token rule", charge.usage_rule),
        ("First token after", fmt.duration(charge.ttft_us) if charge.ttft_us is not None else ""),
        ("Error", charge.error),
        ("Finish reason", charge.finish_reason),
        ("Attempts", str(charge.attempts) if charge.attempts > 1 else ""),
        ("Described by", f"{charge.members} spans, counted once" if (charge.members or 1) > 1 else ""),
        ("Came as", "log event" if charge.signal == Signal.EVENT else ""),
    )
    return [(name, str(text)) for name, text in facts if text]
