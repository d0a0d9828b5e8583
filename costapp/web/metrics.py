"""The columns of tables and exports as data: one row here is one figure, with the formula its tooltip shows."""

from collections.abc import Callable
from typing import NamedTuple

from costapp.storage.reports.sums import Sums, per, ratio
from costapp.web import format as fmt


class Line(NamedTuple):
    """One row of a split table with all that its columns need."""

    value: str
    label: str
    now: Sums
    before_cost_nano: int | None
    total_cost_nano: int
    sessions: int | None = None
    p50_us: float | None = None
    p95_us: float | None = None


class Column(NamedTuple):
    key: str
    label: str
    formula: str
    value: Callable[[Line], float | int | None]
    show: Callable[[Line], str]
    money: bool = False

    @property
    def minus(self) -> str:
        """The key that turns the order round."""
        return f"-{self.key}"


def _money(key: str, label: str, formula: str, value: Callable[[Line], int | None], gap: str = fmt.GAP) -> Column:
    return Column(key, label, formula, value, lambda line: fmt.usd(value(line), gap), money=True)


def _change(line: Line) -> float | None:
    if line.before_cost_nano is None or not line.before_cost_nano:
        return None
    return (line.now.cost_nano or 0) / line.before_cost_nano - 1


COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        _money(
            "cost",
            "Cost",
            "Sum of all charges that carry a price. Requests without a price are counted beside it, never as $0.",
            lambda line: line.now.known_cost_nano,
            "unpriced",
        ),
        Column(
            "change",
            "Change",
            "Cost ÷ cost of the previous period − 1.",
            _change,
            lambda line: fmt.change(line.now.cost_nano, line.before_cost_nano),
        ),
        Column(
            "share",
            "Share",
            "Cost ÷ cost of all rows, the hidden ones included.",
            lambda line: ratio(line.now.known_cost_nano, line.total_cost_nano),
            lambda line: fmt.percent(ratio(line.now.known_cost_nano, line.total_cost_nano)),
        ),
        Column(
            "requests",
            "Requests",
            "Model calls. One call seen by several instrumentations counts once.",
            lambda line: line.now.requests,
            lambda line: fmt.count(line.now.requests),
        ),
        _money("per-1k", "Per 1k req.", "Cost ÷ priced requests × 1,000.", lambda line: line.now.cost_per_1k_nano),
        _money(
            "per-session",
            "Per session",
            "Cost ÷ sessions. A session is counted on each day, and for each feature, in which it made a call; "
            "known for ranges of whole days.",
            lambda line: per(line.now.known_cost_nano, line.sessions),
        ),
        Column(
            "p50",
            "p50",
            "Half of the calls were faster. From a histogram with slots of about 5 %.",
            lambda line: line.p50_us,
            lambda line: fmt.duration(line.p50_us),
        ),
        Column(
            "p95",
            "p95",
            "95 % of the calls were faster. From a histogram with slots of about 5 %.",
            lambda line: line.p95_us,
            lambda line: fmt.duration(line.p95_us),
        ),
        Column(
            "tokens",
            "Tokens per req.",
            "All tokens (input, cached, output, reasoning) ÷ requests that stated their usage.",
            lambda line: line.now.tokens_per_request,
            lambda line: fmt.compact(line.now.tokens_per_request),
        ),
        Column(
            "cache",
            "Cache hit",
            "Prompt tokens read from the provider's cache ÷ all prompt tokens.",
            lambda line: line.now.cache_hit,
            lambda line: fmt.percent(line.now.cache_hit),
        ),
        Column(
            "errors",
            "Errors",
            "Failed calls ÷ all calls.",
            lambda line: line.now.error_rate,
            lambda line: fmt.percent(line.now.error_rate),
        ),
        Column(
            "coverage",
            "Coverage",
            "Requests that carry a price ÷ all requests.",
            lambda line: line.now.coverage,
            lambda line: fmt.percent(line.now.coverage),
        ),
    )
}


def ordered(lines: list[Line], sort: str) -> list[Line]:
    """By a column, largest first; a leading "-" turns it round; unknown values last either way."""
    key = sort.removeprefix("-")
    if key == "name":
        return sorted(lines, key=lambda line: line.label.lower(), reverse=sort.startswith("-"))
    column = COLUMNS.get(key) or COLUMNS["cost"]
    known = [line for line in lines if column.value(line) is not None]
    unknown = [line for line in lines if column.value(line) is None]
    known.sort(key=lambda line: (column.value(line), line.label), reverse=not sort.startswith("-"))
    return known + unknown
