"""Why two periods of one slice differ, in money: volume, mix, tokens per call, cache, price.

    parts = decompose(before, after)        # {"gpt-5": Usage(...), ...}: one entry per model (or any other key)
    sum(parts.amounts.values()) == parts.after_nano - parts.before_nano      # to the nano-dollar, always

Order of substitution. The earlier period is turned into the later one in seven steps, each taken with the earlier
steps done; a part is what its step added. A different order would share joint effects differently, so this one is
fixed: what teams decide about most directly comes last, at the quantities that are really used now.

1. `volume`  as many calls as now, in the old mix
2. `mix`     each key's share of the calls as now. A key that is new brings its own cost per call, and nothing later
3. `prompt`  as many prompt tokens per call (uncached, read from and written to a cache) as now
4. `output`  as many output tokens per call (visible and reasoning) as now
5. `cache`   the prompt split between uncached, cache read and cache write as now
6. `price`   each token at the price paid now
7. `other`   what is not charged by token (images, tool calls, GPU time), per call, as now

Only calls that carry a price take part: an unpriced call is neither free nor cheaper. Their number is told beside.
Everything is exact rational arithmetic; each step's sum is rounded to a nano-dollar once, so the parts telescope.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from costapp.core.money import divide_half_up

PARTS = ("volume", "mix", "prompt", "output", "cache", "price", "other")
_PROMPT = ("input", "cache_read", "cache_write")
_ZERO = Fraction(0)


class Usage(NamedTuple):
    """Sums over the calls of one key in one period, as a rollup keeps them."""

    requests: int = 0
    unpriced: int = 0
    input_tokens: int = 0  # uncached
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0  # reasoning included
    priced_tokens: int = 0  # of the calls that carry a price, all meters
    input_nano: int = 0
    cache_read_nano: int = 0
    cache_write_nano: int = 0
    output_nano: int = 0
    cost_nano: int = 0  # the whole; what the four above leave is `other`

    def plus(self, other: "Usage") -> "Usage":
        return Usage._make(mine + theirs for mine, theirs in zip(self, other, strict=True))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def priced(self) -> int:
        return self.requests - self.unpriced


class Change(NamedTuple):
    """A quantity then and now; None where nothing was counted."""

    before: Fraction | None
    after: Fraction | None

    @property
    def factor(self) -> Fraction | None:
        return self.after / self.before if self.before and self.after is not None else None


class Decomposition(NamedTuple):
    before_nano: int
    after_nano: int
    amounts: dict[str, int]  # nano-dollars of each of PARTS, in that order
    quantities: dict[
        str, Change
    ]  # the figure behind a part: calls, tokens per call, cached share, price level (then = 1)
    unpriced_before: int  # calls without a price: in none of the amounts
    unpriced_after: int

    @property
    def difference_nano(self) -> int:
        return self.after_nano - self.before_nano

    @property
    def largest(self) -> str:
        """The part that moved most in the direction of the whole difference."""
        sign = -1 if self.difference_nano < 0 else 1
        return max(PARTS, key=lambda part: sign * self.amounts[part])


class _PerCall(NamedTuple):
    """One key's calls: how many, and what one of them is made of. Tokens and prices are of priced calls."""

    calls: Fraction
    prompt: Fraction
    output: Fraction
    split: dict[str, Fraction] | None  # of the prompt; None when there was no prompt
    prices: dict[str, Fraction | None]  # nano-dollars per token; None for a meter without tokens
    other: Fraction  # nano-dollars

    @property
    def cost(self) -> Fraction:
        split = self.split or {}
        prompt = sum((split[m] * (self.prices[m] or _ZERO) for m in split), _ZERO)
        return self.prompt * prompt + self.output * (self.prices["output"] or _ZERO) + self.other


def decompose(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> Decomposition:
    """The difference in cost between two periods, in parts that sum to it exactly."""
    old = {key: _per_call(usage) for key, usage in before.items() if usage.priced > 0}
    new = {key: _per_call(usage) for key, usage in after.items() if usage.priced > 0}
    was, now = total(before.values()), total(after.values())
    # amounts booked on nothing that counts as a priced call have no quantity to be explained by
    loose_old = was.cost_nano - sum(before[key].cost_nano for key in old)
    loose_new = now.cost_nano - sum(after[key].cost_nano for key in new)
    steps = [Fraction(was.cost_nano - loose_old), *_steps(old, new)]
    repriced = Change(Fraction(1), steps[6] / steps[5]) if steps[5] else Change(None, None)
    sums = [divide_half_up(step.numerator, step.denominator) for step in steps]
    amounts = {part: sums[i + 1] - sums[i] for i, part in enumerate(PARTS)}
    amounts["other"] += loose_new - loose_old
    return Decomposition(
        was.cost_nano, now.cost_nano, amounts, _quantities(was, now) | {"price": repriced}, was.unpriced, now.unpriced
    )


def total(usages: Iterable[Usage]) -> Usage:
    whole = Usage()
    for usage in usages:
        whole = whole.plus(usage)
    return whole


def _steps(old: Mapping[str, _PerCall], new: Mapping[str, _PerCall]) -> list[Fraction]:
    """The cost of all calls after each of the seven substitutions."""
    calls_old = sum((each.calls for each in old.values()), _ZERO)
    calls_new = sum((each.calls for each in new.values()), _ZERO)
    cost_old = sum((each.calls * each.cost for each in old.values()), _ZERO)
    if not calls_old or not calls_new:  # all of it came or went: there is nothing to compare call by call
        return [sum((each.calls * each.cost for each in new.values()), _ZERO)] * len(PARTS)
    steps = [cost_old * calls_new / calls_old]
    stages = [_stages(old.get(key), now) for key, now in new.items()]
    return steps + [sum(step, _ZERO) for step in zip(*stages, strict=True)]


def _stages(was: _PerCall | None, now: _PerCall) -> list[Fraction]:
    """One key's cost after mix, prompt, output, cache, price and other."""
    if was is None:
        return [now.calls * now.cost] * 6
    # a meter that was not used then has no price then: today's stands in, and makes no price difference
    prices = {meter: price if price is not None else now.prices[meter] for meter, price in was.prices.items()}
    each = was._replace(calls=now.calls, prices=prices)
    stages = [each]
    stages.append(stages[-1]._replace(prompt=now.prompt, split=was.split or now.split))
    stages.append(stages[-1]._replace(output=now.output))
    stages.append(stages[-1]._replace(split=now.split))
    stages.append(stages[-1]._replace(prices=now.prices))
    stages.append(stages[-1]._replace(other=now.other))
    return [now.calls * stage.cost for stage in stages]


def _per_call(usage: Usage) -> _PerCall:
    calls = usage.priced
    # tokens of unpriced calls in the same key are taken out in proportion
    share = Fraction(usage.priced_tokens, usage.tokens) if usage.tokens else _ZERO
    tokens = {meter: getattr(usage, f"{meter}_tokens") * share for meter in (*_PROMPT, "output")}
    booked = {meter: getattr(usage, f"{meter}_nano") for meter in tokens}
    prices = {meter: booked[meter] / tokens[meter] if tokens[meter] else None for meter in tokens}
    by_token = sum(booked[meter] for meter in tokens if tokens[meter])
    prompt = sum((tokens[meter] for meter in _PROMPT), _ZERO)
    return _PerCall(
        Fraction(calls),
        prompt / calls,
        tokens["output"] / calls,
        {meter: tokens[meter] / prompt for meter in _PROMPT} if prompt else None,
        prices,
        Fraction(usage.cost_nano - by_token, calls),
    )


def _quantities(was: Usage, now: Usage) -> dict[str, Change]:
    def change(part: str, whole: str) -> Change:
        return Change(_ratio(getattr(was, part), getattr(was, whole)), _ratio(getattr(now, part), getattr(now, whole)))

    return {
        "volume": Change(Fraction(was.requests), Fraction(now.requests)),
        "prompt": change("prompt_tokens", "requests"),
        "output": change("output_tokens", "requests"),
        "cache": change("cache_read_tokens", "prompt_tokens"),
    }


def _ratio(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole else None
