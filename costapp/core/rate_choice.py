"""Which rates apply to a call at which time: candidates, how well they fit, and the timeline they make.

Order of choice: own price list before catalogue (priority); exact model before pattern; named provider
before any; region before any region; batch and service tier as stated before the standard rate;
time-of-day window before the whole day; the later start before the earlier. Runs once per distinct
spelling of a call; what it returns is then asked for every call.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from costapp.core.model_names import Names, Resolved, Seller, model_spellings
from costapp.core.providers import ALIASES
from costapp.core.rates import MINUTES_PER_DAY, NS_PER_MINUTE, CompiledRates, Discount, RateSet
from costapp.core.values import Call, ChargeFlag

_STANDARD_TIERS = frozenset({
    "", "auto", "default", "on_demand", "on-demand", "ondemand", "regular", "scale", "standard", "standard_only",
    "provisioned",
})  # fmt: skip
_TIER_ALIASES = {"turbo": "fast", "speed:fast": "fast", "flex_processing": "flex", "reserved": ""}
_BATCH = int(ChargeFlag.BATCH)
_GUESSED = int(ChargeFlag.PROVIDER_GUESSED)
_VENDOR_PRICE = int(ChargeFlag.VENDOR_PRICE)


class Context(NamedTuple):
    """What besides the model selects a rate."""

    region: str
    service_tier: str
    batch: bool


class Segment(NamedTuple):
    """The rates of a stretch of time: one, or one per time-of-day window."""

    minutes: tuple[int, ...]  #: starts of the windows, minutes after midnight UTC; the first is 0
    rates: tuple[CompiledRates | None, ...]


class Entry(NamedTuple):
    """Everything known about one distinct (provider, model, region, tier, batch, host)."""

    resolved: Resolved
    context: Context
    starts: tuple[int, ...]
    segments: tuple[Segment, ...]

    def at(self, start_ns: int) -> CompiledRates | None:
        index = bisect_right(self.starts, start_ns) - 1
        if index < 0:
            return None
        segment = self.segments[index]
        if len(segment.minutes) == 1:
            return segment.rates[0]
        minute = start_ns // NS_PER_MINUTE % MINUTES_PER_DAY
        return segment.rates[bisect_right(segment.minutes, minute) - 1]


class Candidate(NamedTuple):
    """A row that may price a call. Compared as a tuple, the greatest fits best."""

    priority: int
    model: int  #: 2 = exactly this model, 1 = pattern
    provider: int  #: 2 = exactly this provider, 1 = any
    region: bool
    batch: bool
    tier: bool  #: the row is for the stated batch / service tier
    windowed: bool
    valid_from_ns: int
    row: RateSet
    discount: Discount | None
    own: bool  #: the project's own rates: nothing about them is guessed


class OwnNames(NamedTuple):
    """Every name that a project's own row may use for a call."""

    providers: frozenset[str]  #: who bills; not whose list price is taken: Azure's discount is not OpenAI's
    models: frozenset[str]

    @classmethod
    def of(cls, call: Call, resolved: Resolved, names: Names) -> "OwnNames":
        said = call.provider or call.provider_raw
        providers = {said.lower(), names.provider_id(said), resolved.provider}
        models = {resolved.model}
        for text in (call.model, call.model_requested):
            models.add(text.strip().lower())
            models.update(_other_spellings(text, resolved, names))
        return cls(frozenset(providers - {""}), frozenset(models - {""}))

    def candidate(self, row: RateSet, fit: "Fit") -> Candidate | None:
        provider, model = row.provider.lower(), row.model.lower()
        if provider and self.providers.isdisjoint((provider, ALIASES.get(provider, ""))):
            return None
        if model in self.models:
            return candidate_of(row, 2, 2 if provider else 1, fit, own=True)
        if "*" in model and any(matches(model, name) for name in self.models):
            return candidate_of(row, 1, 2 if provider else 1, fit, own=True)
        return None


def _other_spellings(text: str, resolved: Resolved, names: Names) -> Iterator[str]:
    """Shorter names of the same model; not those that the catalogue knows as another model."""
    seller = Seller(resolved.provider)
    for spelling in model_spellings(text, resolved.provider):
        if not spelling.inexact and names.resolve(seller, spelling.text).model in ("", resolved.model):
            yield spelling.text


class Fit(NamedTuple):
    region: bool
    batch: bool
    tier: bool


def matches(pattern: str, name: str) -> bool:
    """Whether a name is the pattern with any run of characters for each ``*``. Linear: names are hostile."""
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def context_of(call: Call) -> Context:
    """The region, service tier ("" = standard) and batch that select a rate."""
    tier = call.service_tier.strip().lower()
    tier = _TIER_ALIASES.get(tier, tier)
    batch = bool(call.flags & _BATCH) or tier == "batch"
    return Context(call.region.lower(), "" if tier in _STANDARD_TIERS or tier == "batch" else tier, batch)


def fit_of(row: RateSet, context: Context) -> Fit | None:
    """How a row suits a context, or None when it is for another one."""
    if row.region and row.region.lower() != context.region:
        return None
    if row.service_tier not in ("", context.service_tier) or (row.batch and not context.batch):
        return None
    return Fit(bool(row.region), row.batch == context.batch, row.service_tier == context.service_tier)


def candidate_of(row: RateSet, model: int, provider: int, fit: Fit, *, own: bool) -> Candidate:
    windowed = row.window_start is not None
    return Candidate(row.priority, model, provider, *fit, windowed, row.valid_from_ns, row, None, own)


# -- one timeline per distinct key ------------------------------------------------------------------


def timeline(
    candidates: Sequence[Candidate], resolved: Resolved, context: Context
) -> tuple[tuple[int, ...], tuple[Segment, ...]]:
    """Cut time where any row starts or ends; within each stretch the best row of each window wins."""
    cuts = sorted({edge for c in candidates for edge in (c.row.valid_from_ns, c.row.valid_to_ns)})
    compiled: dict[Candidate, CompiledRates] = {}

    def compile_once(candidate: Candidate) -> CompiledRates:
        if candidate not in compiled:
            compiled[candidate] = _compile(candidate, resolved, context)
        return compiled[candidate]

    segments = []
    for start in cuts:
        active = sorted((c for c in candidates if c.row.covers(start)), key=_preference, reverse=True)
        segments.append(_segment(active, compile_once))
    return tuple(cuts), tuple(segments)


def _preference(candidate: Candidate) -> tuple[int, ...]:
    return (*candidate[:8], candidate.row.id)


def _segment(active: Sequence[Candidate], compile_once: Callable[[Candidate], CompiledRates]) -> Segment:
    edges = {edge for c in active for edge in (c.row.window_start, c.row.window_end) if edge is not None}
    starts = sorted({0} | {edge % MINUTES_PER_DAY for edge in edges})
    best = [next((c for c in active if _in_window(c.row, minute)), None) for minute in starts]
    keep = [i for i in range(len(starts)) if i == 0 or best[i] is not best[i - 1]]
    rates = tuple(compile_once(c) if (c := best[i]) else None for i in keep)
    return Segment(tuple(starts[i] for i in keep), rates)


def _compile(candidate: Candidate, resolved: Resolved, context: Context) -> CompiledRates:
    own = candidate.own
    missing = _missing_context(candidate, context)
    return CompiledRates(
        candidate.row,
        candidate.discount,
        flags=0 if own else _GUESSED * resolved.guessed + _VENDOR_PRICE * resolved.vendor_price,
        inexact=bool(missing) or (resolved.inexact and not own),
        context_note=missing,
    )


def _missing_context(candidate: Candidate, context: Context) -> str:
    """A sentence when a stated batch or service tier has no rate of its own."""
    if context.batch and not candidate.batch:
        return "No batch rate is known: the regular rate was taken."
    if context.service_tier and not candidate.tier:
        return f"No rate for the service tier {context.service_tier} is known: the standard rate was taken."
    return ""


def _in_window(row: RateSet, minute: int) -> bool:
    if row.window_start is None or row.window_end is None or row.window_start == row.window_end:
        return True
    if row.window_start < row.window_end:
        return row.window_start <= minute < row.window_end
    return minute >= row.window_start or minute < row.window_end
