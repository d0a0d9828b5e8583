"""``Sums``: what a cell adds up to, and the ratios people read. Pure; every page computes them here."""

from collections.abc import Iterable
from typing import NamedTuple


def ratio(part: int | None, whole: int | None) -> float | None:
    """``part / whole``; None (a gap, never 0) when either is unknown or the whole is nothing."""
    return part / whole if part is not None and whole else None


def per(amount_nano: int | None, count: int | None, scale: int = 1) -> int | None:
    """Nano-dollars per ``scale`` things, rounded half up; None when nothing was counted."""
    if amount_nano is None or not count:
        return None
    return (2 * amount_nano * scale + count) // (2 * count)


def known_cost(cost_nano: int | None, unpriced: int) -> int | None:
    """None instead of a zero that only says that nothing carries a price."""
    return None if unpriced and not cost_nano else cost_nano


class Sums(NamedTuple):
    """Sums over cells, in the column order of ``MEASURES``. None = this source does not keep it."""

    cost_nano: int | None = 0
    requests: int = 0
    unpriced: int = 0
    errors: int | None = 0
    retries: int | None = 0
    estimated: int | None = 0
    usage_unknown: int | None = 0
    input_tokens: int | None = 0
    cache_read_tokens: int | None = 0
    cache_write_tokens: int | None = 0
    output_tokens: int | None = 0
    reasoning_tokens: int | None = 0
    priced_tokens: int | None = 0
    tokens: int | None = 0
    duration_us: int | None = 0
    input_nano: int | None = 0
    cache_read_nano: int | None = 0
    cache_write_nano: int | None = 0
    output_nano: int | None = 0
    other_nano: int | None = 0
    possible_nano: int | None = 0
    reported_nano: int | None = 0
    avoided_nano: int | None = 0
    gpu_nano: int | None = 0  #: the part of cost_nano that GPUs of one's own caused

    @property
    def priced(self) -> int:
        return self.requests - self.unpriced

    @property
    def known_cost_nano(self) -> int | None:
        return known_cost(self.cost_nano, self.unpriced)

    @property
    def coverage(self) -> float | None:
        return ratio(self.priced, self.requests)

    @property
    def token_coverage(self) -> float | None:
        return ratio(self.priced_tokens, self.tokens)

    @property
    def cost_per_1k_nano(self) -> int | None:
        """Per 1,000 *priced* requests: an unpriced request must not make the rest look cheaper."""
        return per(self.known_cost_nano, self.priced, 1000)

    @property
    def tokens_per_request(self) -> float | None:
        """Of the requests that stated their usage."""
        return ratio(self.tokens, self.requests - (self.usage_unknown or 0))

    @property
    def cache_hit(self) -> float | None:
        """Cached share of all prompt tokens."""
        if self.input_tokens is None:
            return None
        prompt = self.input_tokens + (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0)
        return ratio(self.cache_read_tokens, prompt)

    @property
    def error_rate(self) -> float | None:
        return ratio(self.errors, self.requests)


MEASURES: tuple[str, ...] = Sums._fields
#: The measures that ``user_day`` keeps.
USER_DAY_KEEPS: tuple[str, ...] = ("cost_nano", "requests", "unpriced", "errors", "tokens", "gpu_nano")


def add_up(rows: Iterable[Sums]) -> Sums:
    """The sums of several rows; a measure that a row does not keep is not known of the whole either."""
    columns = list(zip(*rows, strict=True))
    if not columns:
        return Sums()
    return Sums._make(None if None in column else sum(column) for column in columns)
