"""Why a call cost what it cost: its meters, the rate behind each, and how sure each statement is."""

from typing import NamedTuple

from costapp.core.values import AttributionSource, ChargeFlag, CostStatus
from costapp.storage.reports.calls import Charge
from costapp.storage.reports.sql import Connection

ATTRIBUTION_WORDS = {
    AttributionSource.NONE: "nobody stated a feature",
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


class MeterLine(NamedTuple):
    """One term: ``quantity x rate per million = amount``."""

    meter: str
    quantity: int | None
    rate_nano: int | None
    amount_nano: int | None


class Explanation(NamedTuple):
    lines: list[MeterLine]
    status_words: str
    attribution_words: str
    flags: list[str]
    drift_nano: int | None  #: the client's own figure minus ours
    rate: str  #: which rate set priced it, in words; "" if none


STATUS_SENTENCES = {
    CostStatus.UNPRICED: "No price: no rate fits this model, or its token counts are unknown. It is missing from totals, not $0 in them.",
    CostStatus.PRICED: "Priced from reported token counts and a dated rate.",
    CostStatus.ESTIMATED: "Estimated: part of the token counts or of the rate had to be assumed.",
    CostStatus.REPORTED: "The client's own figure, because this project lets it count.",
    CostStatus.FREE: "Known to cost nothing: it failed before the provider bills, or the app's own cache answered.",
}

METERS = (
    ("input", "input_tokens"),
    ("cache read", "cache_read_tokens"),
    ("cache write, 5 min", "cache_write_5m_tokens"),
    ("cache write, 1 h", "cache_write_1h_tokens"),
    ("output", "output_tokens"),
    ("reasoning", "reasoning_tokens"),
    ("audio in", "audio_in_tokens"),
    ("audio out", "audio_out_tokens"),
    ("image in", "image_in_tokens"),
    ("image out", "image_out_tokens"),
    ("units", "units"),
)


def explanation(conn: Connection, project_id: int, charge: Charge) -> Explanation:
    drift = (
        None if charge.reported_nano is None or charge.cost_nano is None else charge.reported_nano - charge.cost_nano
    )
    return Explanation(
        _lines(charge),
        STATUS_SENTENCES[CostStatus(charge.cost_status)],
        ATTRIBUTION_WORDS[AttributionSource(charge.attribution_source)],
        [words for flag, words in FLAG_WORDS.items() if charge.flags & flag],
        drift,
        "",
    )


def _lines(charge: Charge) -> list[MeterLine]:
    return [MeterLine(name, getattr(charge, column), None, None) for name, column in METERS if getattr(charge, column)]
