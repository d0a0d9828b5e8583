"""An anomaly in one sentence, for people: what costs how much too much, since when, and what moved.

Support-bot costs $412.00 above expected since 14:05: prompt version v7 sends 3.1x more input tokens; 92 % of it
on gpt-5.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from anomaly.decompose import Decomposition
from costapp.core.money import divide_half_up, format_usd

#: A ratio nearer to 1 than this is not worth a number.
_NEAR_ONE = Fraction(5, 100)
#: "92 % of it on gpt-5" is said from here on.
_CONCENTRATED_PERCENT = 50


class Concentration(NamedTuple):
    """The value that holds most of the change."""

    label: str
    share: Fraction


def sentence(
    subject: str,
    above_nano: int,
    since: str,
    parts: Decomposition | None,
    *,
    driver: str = "",
    is_new: bool = False,
    alike: bool = False,
    concentration: Concentration | None = None,
) -> str:
    """``subject`` as it starts a sentence; ``driver`` such as "prompt version v7"; "" when it is the subject itself."""
    side = "above" if above_nano >= 0 else "below"
    text = f"{subject} costs {format_usd(abs(above_nano))} {side} expected since {since}"
    cause = _cause(parts, driver=driver, is_new=is_new, alike=alike)
    if cause:
        text += f": {cause}"
    if concentration and concentration.share * 100 >= _CONCENTRATED_PERCENT:
        text += f"; {percent(min(concentration.share, Fraction(1)))} of it on {concentration.label}"
    return text + "."


def _cause(parts: Decomposition | None, *, driver: str, is_new: bool, alike: bool) -> str:
    if is_new and driver:
        return f"{driver} was not seen before"
    moved = _moved(parts) if parts is not None and parts.before_nano else ""
    if alike:
        return f"everything rose alike, {moved}" if moved else "everything rose alike"
    if driver:
        return f"{driver} {moved}" if moved else f"driven by {driver}"
    return moved and f"it {moved}"


def _moved(parts: Decomposition) -> str:
    """What the largest part did, as a verb phrase: `sends 3.1x more input tokens`; "" when it cannot be put so."""
    part = parts.largest
    change = parts.quantities.get(part)
    if part == "cache" and change is not None and change.before is not None and change.after is not None:
        less = "less" if change.after < change.before else "more"
        return f"reads {less} from the cache: {percent(change.after)} of the prompt, {percent(change.before)} before"
    if part == "mix":
        return "moved to dearer models" if parts.difference_nano >= 0 else "moved to cheaper models"
    if part == "other":
        return "has other charges than before"
    factor = change.factor if change is not None else None
    if factor is None or abs(factor - 1) < _NEAR_ONE:
        return ""
    return _PHRASES[part][factor < 1].format(times(factor))


_PHRASES: Mapping[str, tuple[str, str]] = {
    "volume": ("makes {} more calls", "makes only {} as many calls"),
    "prompt": ("sends {} more input tokens per call", "sends only {} as many input tokens per call"),
    "output": ("gets {} more output tokens per call", "gets only {} as many output tokens per call"),
    "price": ("pays {} the price per token", "pays only {} the price per token"),
}


def times(factor: Fraction) -> str:
    """A factor for people: `3.1x`, `12x`, `0.25x`."""
    if factor >= 10:
        return f"{divide_half_up(factor.numerator, factor.denominator)}x"
    digits = 10 if factor >= 1 else 100
    scaled = divide_half_up(factor.numerator * digits, factor.denominator)
    whole, rest = divmod(scaled, digits)
    return f"{whole}.{rest:0{len(str(digits)) - 1}d}x"


def percent(share: Fraction) -> str:
    return f"{divide_half_up(share.numerator * 100, share.denominator)} %"
