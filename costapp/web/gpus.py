"""What the GPU page is made of: its range in whole hours, one pool or all, and the comparison with an API."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from django.http import QueryDict

from costapp.core.allocation import Method
from costapp.storage.reports import gpu, spend
from costapp.storage.reports.cells import Grain, Scope
from costapp.storage.reports.gpu import BreakEven, ModelCost
from costapp.storage.reports.gpu_of_call import CallHour
from costapp.storage.reports.sql import Connection
from costapp.storage.reports.sums import Sums, per, ratio

HOUR = timedelta(hours=1)
NANO = 10**9
MAX_PRICE = Decimal(100_000)  #: dollars per million tokens that a reader may type
#: Users are summed from the calls themselves, so for ranges up to this length and number of calls only.
USERS_UP_TO, USERS_UP_TO_CALLS = timedelta(days=8), 20_000

METHOD_WORDS = {
    Method.SHARING.value: "processor sharing",
    Method.TOKENS.value: "token-weighted",
    Method.PHASES.value: "phase-measured",
    Method.CAPACITY.value: "practical capacity",
}


def in_hours(scope: Scope) -> Scope:
    """The scope widened to whole UTC hours: GPU money is not known finer."""
    start = _floor(scope.start)
    end = _floor(scope.end + HOUR - timedelta(microseconds=1))
    return scope._replace(start=start, end=end, grain=scope.grain if scope.grain is Grain.DAY else Grain.HOUR)


def _floor(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def read_pool(query: QueryDict, known: Sequence[int]) -> int | None:
    """The pool in the address, if there is such a one."""
    text = query.get("pool", "")
    return int(text) if text.isdecimal() and len(text) < 10 and int(text) in known else None


class Prices(NamedTuple):
    """Of an API, in nano-dollars per million tokens."""

    input_nano: int
    cached_nano: int
    output_nano: int


class Assumptions(NamedTuple):
    """All that the comparison takes for granted; each can be edited on the page."""

    prices: Prices
    gpu_hour_nano: int | None  #: None = what the GPUs really cost
    load_percent: int  #: of the traffic of the range
    model: str  #: '' = all
    problem: str = ""  #: what of the address could not be read, in words


class Verdict(NamedTuple):
    """The same tokens, on the project's GPUs and through an API."""

    own_nano: int
    api_nano: int
    load_factor: float | None  #: x traffic at which both cost the same
    tokens: int

    @property
    def own_is_cheaper(self) -> bool:
        return self.own_nano < self.api_nano

    @property
    def difference_nano(self) -> int:
        return abs(self.own_nano - self.api_nano)


def paid_to_apis(conn: Connection, scope: Scope, self_hosted: str) -> Prices | None:
    """What the project's own API calls cost on average in the range; None without such calls."""
    rows = [row.sums for row in spend.split(conn, scope, "provider").rows if row.value != self_hosted]
    found = (
        _mean(rows, "input_nano", "input_tokens"),
        _mean(rows, "cache_read_nano", "cache_read_tokens"),
        _mean(rows, "output_nano", "output_tokens"),
    )
    if found[0] is None or found[2] is None:
        return None
    return Prices(found[0], found[1] if found[1] is not None else found[0], found[2])


def _mean(rows: Sequence[Sums], amount: str, count: str) -> int | None:
    nano, tokens = sum(getattr(row, amount) or 0 for row in rows), sum(getattr(row, count) or 0 for row in rows)
    return per(nano, tokens, 1_000_000) if nano else None


def read_assumptions(query: QueryDict, default: Prices, models: Sequence[str]) -> Assumptions:
    """As typed, or the defaults; what cannot be read is said and replaced."""
    problems: list[str] = []

    def price(name: str, words: str, otherwise: int | None) -> int | None:
        text = query.get(name, "").strip().removeprefix("$")
        if not text:
            return otherwise
        try:
            dollars = Decimal(text)
        except InvalidOperation:
            dollars = Decimal(-1)
        if not dollars.is_finite() or not 0 <= dollars <= MAX_PRICE:
            problems.append(f"{words} must be an amount of dollars, such as 0.15.")
            return otherwise
        return int(dollars * NANO)

    prices = Prices(
        price("api-input", "The API's price of input", default.input_nano) or 0,
        price("api-cached", "The API's price of cached input", default.cached_nano) or 0,
        price("api-output", "The API's price of output", default.output_nano) or 0,
    )
    hourly = price("gpu-hour", "The price of a GPU-hour", None)
    load = query.get("load", "")
    if load and not (load.isdecimal() and len(load) < 7 and int(load) > 0):
        problems.append("Traffic must be a whole number of percent, such as 200 for twice as much.")
    percent = int(load) if load.isdecimal() and len(load) < 7 and int(load) else 100
    model = query.get("served", "")
    return Assumptions(prices, hourly, percent, model if model in models else "", " ".join(problems))


def compare(found: BreakEven, assumed: Assumptions) -> Verdict | None:
    """Own GPUs cost the same whatever they carry; an API costs per token. None without traffic."""
    if not found.requests:
        return None
    own_nano = found.cost_nano
    if assumed.gpu_hour_nano is not None:
        own_nano = per(assumed.gpu_hour_nano * found.gpu_us, gpu.HOURS_US) or 0
    once_nano = found.api_nano(**assumed.prices._asdict())
    api_nano = per(once_nano * assumed.load_percent, 100) or 0
    factor = found._replace(cost_nano=own_nano).load_factor(once_nano)
    tokens = (found.input_tokens + found.cached_tokens + found.output_tokens) * assumed.load_percent // 100
    return Verdict(own_nano, api_nano, factor, tokens)


class UnitCost(NamedTuple):
    """One served model's prices per million tokens, with its share of unused time and without."""

    model: ModelCost
    allocation: dict[str, int | None]
    usage: dict[str, int | None]

    @property
    def is_split(self) -> bool:
        """Whether calls said when their prompt had been read: else only all tokens together have a price."""
        return self.model.prefill_nano > 0


def unit_costs(models: Sequence[ModelCost]) -> list[UnitCost]:
    return [
        UnitCost(model, _per_million(model, allocation=True), _per_million(model, allocation=False))
        for model in models
        if model.model
    ]


def _per_million(model: ModelCost, *, allocation: bool) -> dict[str, int | None]:
    is_split = model.prefill_nano > 0
    kinds = {
        kind: model.per_million(kind, allocation=allocation) if is_split else None
        for kind in ("input", "cached", "output")
    }
    return kinds | {"blended": model.blended_per_million(allocation=allocation)}


class CallHourRow(NamedTuple):
    """An hour of a call for the table of its page."""

    hour: CallHour
    method_words: str
    share: float | None  #: of what the pool attributed in the hour


def call_hour_row(hour: CallHour) -> CallHourRow:
    share = None if hour.gpu_nano is None else ratio(hour.gpu_nano, hour.pool_nano or 0)
    return CallHourRow(hour, METHOD_WORDS.get(hour.method, hour.method), share)
