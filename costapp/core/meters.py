"""Reported token counts -> disjoint billable quantities that sum to what was reported.

Counts on the wire overlap: cached tokens may or may not be inside the input number, reasoning inside the
output number, audio inside either. A `UsageShape` says which. Counts that contradict each other are
flagged and read so that the charge is not too low; no quantity is ever negative.
"""

from typing import NamedTuple

from costapp.core.providers import Provider
from costapp.core.token_rules import TokenRule
from costapp.core.values import ChargeFlag, SpanFacts, SpanFlag, Usage, UsageShape, UsageState

#: Providers whose own API reports input without its cached part: exceeding it is no contradiction.
EXCLUDING_PROVIDERS = frozenset({"anthropic", "aws"})
#: Providers whose own API reports output without its reasoning part.
THOUGHTS_APART_PROVIDERS = frozenset({"google"})

_INCLUSIVE = int(UsageShape.INCLUSIVE)
_DISJOINT = int(UsageShape.DISJOINT)
_INPUT_APART = int(UsageShape.INPUT_EXCLUDES_CACHE)
_OUTPUT_APART = int(UsageShape.OUTPUT_EXCLUDES_REASONING)
_SUSPECT = int(ChargeFlag.USAGE_SUSPECT)
_SPLIT_ASSUMED = int(ChargeFlag.CACHE_SPLIT_ASSUMED)
_STREAM = int(SpanFlag.STREAM)
_UNKNOWN, _REPORTED = int(UsageState.UNKNOWN), int(UsageState.REPORTED)
_PARTIAL, _ESTIMATED = int(UsageState.PARTIAL), int(UsageState.ESTIMATED)
_NOTHING = Usage()
_new = tuple.__new__  # half the cost of calling a NamedTuple


class Reading(NamedTuple):
    """What one span's counts mean."""

    usage: Usage
    state: int  # UsageState
    rule: str  # name of the token rule that decided
    flags: int  # ChargeFlag bits


class Side(NamedTuple):
    """One side (input or output) of a call, split."""

    text: int
    inner: int  # cache or reasoning
    audio: int
    image: int
    suspect: bool


def read(facts: SpanFacts, rule: TokenRule, provider: Provider) -> Reading:
    """The billable quantities a span states."""
    f = facts
    if not (f.input or f.output or f.cache_read or f.cache_write or f.cache_write_1h or f.reasoning or f.units):
        return Reading(_NOTHING, _UNKNOWN, "", 0)
    shape = int(f.usage_shape or rule.shape)
    name = rule.name if not f.usage_shape else "stated-by-span"
    write_1h = f.cache_write_1h or 0
    write = f.cache_write or 0
    flags = 0
    if write_1h > write:
        flags = _SUSPECT if f.cache_write is not None else 0
        write = write_1h
    elif write and f.cache_write_1h is None:
        flags = _SPLIT_ASSUMED
    cached = (f.cache_read or 0) + write
    if cached > (f.input or 0) and shape in (_INCLUSIVE, _OUTPUT_APART):
        name = "cache-exceeds-input"
        if f.input is not None and provider.name not in EXCLUDING_PROVIDERS:
            flags |= _SUSPECT
    if (f.reasoning or 0) > (f.output or 0) and shape in (_INCLUSIVE, _INPUT_APART):
        name = "reasoning-exceeds-output"
        if f.output is not None and provider.name not in THOUGHTS_APART_PROVIDERS:
            flags |= _SUSPECT
    came = split(
        f.input or 0,
        cached,
        f.audio_in or 0,
        f.image_in or 0,
        inner_apart=shape in (_INPUT_APART, _DISJOINT),
        parts_apart=shape == _DISJOINT,
    )
    went = split(
        f.output or 0,
        f.reasoning or 0,
        f.audio_out or 0,
        f.image_out or 0,
        inner_apart=shape in (_OUTPUT_APART, _DISJOINT),
        parts_apart=shape == _DISJOINT,
    )
    if came.suspect or went.suspect:
        flags |= _SUSPECT
    usage = _new(Usage, (
        came.text, f.cache_read or 0, write - write_1h, write_1h, went.text, f.reasoning or 0,
        came.audio, went.audio, came.image, went.image, f.units or 0,
    ))  # fmt: skip
    return _new(Reading, (usage, _state(f, rule), name, flags))


def split(total: int, inner: int, audio: int, image: int, *, inner_apart: bool, parts_apart: bool) -> Side:
    """Take the parts out of a total.

    `inner` (cache or reasoning) larger than the total proves that it is not inside it. Audio and image
    tokens may themselves be cached, so what does not fit beside the cache is taken to be in it; more
    audio than the whole is a contradiction, and the total stands.
    """
    text = total if inner_apart or inner > total else total - inner
    if parts_apart or not (audio or image):
        return _new(Side, (text, inner, audio, image, False))
    suspect = audio + image > total + (inner if inner_apart else 0)
    audio = min(audio, text)
    image = min(image, text - audio)
    return Side(text - audio - image, inner, audio, image, suspect)


def _state(f: SpanFacts, rule: TokenRule) -> int:
    if f.cache_read is None and f.cache_write is None:
        if rule.estimates_streams and f.flags & _STREAM:
            return _ESTIMATED
        if rule.cached_unseen and f.input and f.operation != "embeddings" and f.usage_shape != _DISJOINT:
            return _PARTIAL
    return _REPORTED


def input_total(usage: Usage) -> int:
    """Every input token, cached or not."""
    return (
        usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h + usage.audio_in + usage.image_in
    )


def output_total(usage: Usage) -> int:
    """Every output token, reasoning included."""
    return usage.output + usage.reasoning + usage.audio_out + usage.image_out
