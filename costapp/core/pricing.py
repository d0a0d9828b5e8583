"""The one price function: live pricing, re-pricing and what-if all call `RateBook.price`.

A rate book knows every rate that may apply in one project. The first call of a distinct (provider,
model, region, tier, batch, host) resolves names and builds a timeline of compiled rates; every later
one is a dict lookup, a bisect by time and a few integer multiplications.
Which rates those are is decided in core.rate_choice.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from costapp.core.model_names import Names, Resolved
from costapp.core.rate_choice import Candidate, Context, Entry, OwnNames, candidate_of, context_of, fit_of, timeline
from costapp.core.rates import CompiledRates, Discount, RateSet
from costapp.core.values import Call, ChargeFlag, CostStatus, Priced, Usage, UsageState

#: Distinct (provider, model, ...) keys kept; beyond it the cache starts over (hostile model names).
MAX_ENTRIES = 20_000

#: Answers of a provider that refused the call before doing any work: not billed.
REFUSED_ERRORS = frozenset({
    "authentication", "context_length", "invalid_request", "not_found", "overloaded", "permission", "quota",
    "rate_limit",
})  # fmt: skip
#: For possible spend: a token is taken to be at least this many characters ...
CHARS_PER_TOKEN = 2
#: ... and this many tokens where no size is known at all.
ASSUMED_TOKENS = 4096
#: At least this many, for what no size shows: system prompts, tool schemas, hidden reasoning.
UNSEEN_TOKENS = 1024

#: A billion dollars: more is a made-up number, and would not fit a bigint when summed.
MAX_POSSIBLE_NANO = 10**18

_BATCH = int(ChargeFlag.BATCH)
_APP_CACHED = int(ChargeFlag.APP_CACHED)
_UNPRICED, _PRICED, _ESTIMATED = int(CostStatus.UNPRICED), int(CostStatus.PRICED), int(CostStatus.ESTIMATED)
_UNKNOWN, _USAGE_ESTIMATED = int(UsageState.UNKNOWN), int(UsageState.ESTIMATED)


class RateBook:
    """The rates in force for one project. Immutable in meaning; caches what it has looked up."""

    def __init__(
        self,
        rate_sets: Iterable[RateSet],
        *,
        names: Names | None = None,
        catalogue: Mapping[tuple[str, str], Sequence[RateSet]] | None = None,
        reported_cost_counts: bool = False,
    ) -> None:
        """``rate_sets`` are a project's own (or all); ``catalogue`` is shared between projects, by key."""
        self.names = names or Names()
        self.reported_cost_counts = reported_cost_counts
        self._catalogue = catalogue or {}
        self._own = list(rate_sets)
        self._entries: dict[tuple[str, str, str, str, str, int, str, str], Entry] = {}

    def entry(self, call: Call) -> Entry:
        """How this call's provider and model were understood, and the timeline of its rates."""
        key = (
            call.provider,
            call.model,
            call.model_requested,
            call.region,
            call.service_tier,
            call.flags & _BATCH,
            call.host,
            call.provider_raw,
        )
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= MAX_ENTRIES:
                self._entries.clear()
            entry = self._entries[key] = self._look_up(call)
        return entry

    def price(self, call: Call) -> Priced:
        """What a call cost. Never raises; what cannot be priced has ``cost_nano`` None, never 0."""
        rates = self.entry(call).at(call.start_ns)
        if call.usage_state == _UNKNOWN or call.flags & _APP_CACHED:
            priced = _without_bill(call, rates)
        elif rates is None:
            priced = _UNKNOWN_PRICE
        elif rates.complete and not any(call.usage[6:]):
            priced = _price_text(call, rates)
        else:
            priced = _price_lines(call, rates)
        return _by_policy(call, priced) if self.reported_cost_counts else priced

    def price_as(self, call: Call, *, provider: str, model: str) -> Priced:
        """What the same usage would have cost on another model, at the same time and tier."""
        other = call._replace(
            provider=provider, provider_raw=provider, model=model, model_requested=model, host="", region=""
        )
        return self.price(other)

    # -- looking up: once per distinct key --------------------------------------------------------

    def _look_up(self, call: Call) -> Entry:
        context = context_of(call)
        resolved = self._resolve(call)
        candidates = self._candidates(call, resolved, context)
        starts, segments = timeline(candidates, resolved, context)
        return Entry(resolved, context, starts, segments)

    def _resolve(self, call: Call) -> Resolved:
        """By the model that answered; by the one asked for if that name says nothing (deployments)."""
        seller = self.names.seller(call.provider or call.provider_raw, call.host, call.model)
        resolved = self.names.resolve(seller, call.model)
        if resolved.model or not call.model_requested or call.model_requested == call.model:
            return resolved
        seller = self.names.seller(call.provider or call.provider_raw, call.host, call.model_requested)
        asked = self.names.resolve(seller, call.model_requested)
        if not asked.model:
            return resolved
        why = f"{call.model or 'The answering model'} has no price; that of the requested model was taken. {asked.why}"
        return asked._replace(why=why.strip(), inexact=True)

    def _candidates(self, call: Call, resolved: Resolved, context: Context) -> list[Candidate]:
        listed = self._listed(resolved, context)
        if not self._own:
            return listed
        names = OwnNames.of(call, resolved, self.names)
        own = [names.candidate(row, fit) for row in self._own if (fit := fit_of(row, context))]
        mine = [candidate for candidate in own if candidate]
        rates = [candidate for candidate in mine if candidate.row.discount_ppm is None]
        result = listed + rates
        for candidate in mine:
            if candidate.row.discount_ppm is not None:
                result.extend(self._discounted(candidate, listed, context))
        return result

    def _listed(self, resolved: Resolved, context: Context) -> list[Candidate]:
        rows = self._catalogue.get((resolved.owner, resolved.model), ())
        return [candidate_of(row, 2, 2, fit, own=False) for row in rows if (fit := fit_of(row, context))]

    def _discounted(self, candidate: Candidate, listed: Sequence[Candidate], context: Context) -> Iterator[Candidate]:
        """Catalogue rows again, at a project's negotiated share, for as long as both hold."""
        row = candidate.row
        if row.priced_as:
            provider, _, model = row.priced_as.partition("/")
            listed = self._listed(self.names.resolve(self.names.seller(provider, "", model), model), context)
        for base in listed:
            start = max(base.row.valid_from_ns, row.valid_from_ns)
            end = min(base.row.valid_to_ns, row.valid_to_ns)
            if start < end:
                yield base._replace(
                    priority=candidate.priority,
                    model=candidate.model,
                    provider=candidate.provider,
                    row=base.row._replace(valid_from_ns=start, valid_to_ns=end),
                    discount=Discount(row.discount_ppm or 0, row),
                    own=bool(row.priced_as),
                )


_new = tuple.__new__  # half the cost of calling a NamedTuple


def _price_text(call: Call, rates: CompiledRates) -> Priced:
    """The ordinary call: text tokens only, every meter priced. Same result as `_price_lines`."""
    usage = call.usage
    band = rates.band(usage)
    uncached, read, write_5m, write_1h, output, reasoning = usage[:6]
    input_nano = (uncached * band.input + 500_000) // 1_000_000
    output_nano = (output * band.output + 500_000) // 1_000_000
    if reasoning:
        output_nano += (reasoning * band.reasoning + 500_000) // 1_000_000
    read_nano = (read * band.cache_read + 500_000) // 1_000_000 if read else 0
    write_nano = (write_5m * band.cache_write_5m + 500_000) // 1_000_000 if write_5m else 0
    if write_1h:
        write_nano += (write_1h * band.cache_write_1h + 500_000) // 1_000_000
    status = _ESTIMATED if rates.inexact or call.usage_state == _USAGE_ESTIMATED else _PRICED
    cost_nano = input_nano + read_nano + write_nano + output_nano
    rate_id = rates.rate_set.id
    return _new(Priced, (
        status, rate_id, input_nano, read_nano, write_nano, output_nano, 0, cost_nano, None, None, rates.flags, None
    ))  # fmt: skip


#: meter -> component of `Priced`; every other meter is "other"
_COMPONENTS: Mapping[str, str] = {
    "input": "input", "audio_in": "input", "image_in": "input",
    "cache_read": "cache_read",
    "cache_write_5m": "cache_write", "cache_write_1h": "cache_write",
    "output": "output", "reasoning": "output", "audio_out": "output", "image_out": "output",
}  # fmt: skip


def _price_lines(call: Call, rates: CompiledRates) -> Priced:
    """Any call, line by line. Unpriced when usage was reported in nothing that has a price."""
    lines = list(rates.lines(call))
    missing = [line for line in lines if line.rate_nano is None]
    if missing and len(missing) == len(lines):
        return _UNKNOWN_PRICE
    sums: dict[str, int] = defaultdict(int)
    for line in lines:
        sums[_COMPONENTS.get(line.meter, "other")] += line.amount_nano
    inexact = rates.inexact or bool(missing) or call.usage_state == _USAGE_ESTIMATED
    return Priced(
        status=_ESTIMATED if inexact else _PRICED,
        rate_id=rates.rate_set.id,
        input_nano=sums["input"],
        cache_read_nano=sums["cache_read"],
        cache_write_nano=sums["cache_write"],
        output_nano=sums["output"],
        other_nano=sums["other"],
        cost_nano=sum(sums.values()),
        possible_nano=None,
        avoided_nano=None,
        flags=rates.flags,
    )


_UNKNOWN_PRICE = Priced(_UNPRICED, None, 0, 0, 0, 0, 0, None, None, None)


def _without_bill(call: Call, rates: CompiledRates | None) -> Priced:
    """A call that was not billed, or whose usage nobody knows."""
    if call.flags & _APP_CACHED:
        known = rates is not None and call.usage_state != _UNKNOWN
        return _free(rates, avoided_nano=_price_lines(call, rates).cost_nano if known and rates else None)
    if call.error in REFUSED_ERRORS:
        return _free(rates)
    return _UNKNOWN_PRICE._replace(possible_nano=_possible_nano(call, rates) if rates else None)


def _free(rates: CompiledRates | None, *, avoided_nano: int | None = None) -> Priced:
    rate_id = rates.rate_set.id if rates else None
    return Priced(int(CostStatus.FREE), rate_id, 0, 0, 0, 0, 0, 0, None, avoided_nano)


def _by_policy(call: Call, priced: Priced) -> Priced:
    """The client's own figure, where the project lets it count. Its 0 for unknown usage is none."""
    reported = call.reported_nano
    if reported is None or priced.status == CostStatus.FREE or (reported == 0 and priced.cost_nano != 0):
        return priced
    return priced._replace(status=int(CostStatus.REPORTED), cost_nano=reported, possible_nano=None)


def with_gpu(priced: Priced, gpu_nano: int | None, is_estimate: bool = False) -> Priced:
    """A call with its share of the GPU hours it ran in. The share replaces a price by tokens, which would be a second
    bill for the same work; without one (the hours are still open, or cost nobody knows what) the price stays.

    ``is_estimate``: some of its GPUs have no rate, so the share is a lower bound.
    """
    if gpu_nano is None:
        return priced
    status = int(CostStatus.ESTIMATED if is_estimate else CostStatus.GPU)
    return Priced(status, None, 0, 0, 0, 0, 0, gpu_nano, None, None, 0, gpu_nano)


def possible_usage(call: Call) -> Usage:
    """A generous guess at what a call with unknown usage may have used, per attempt.

    Uncached; two characters per token where sizes are known but not less than UNSEEN_TOKENS, else
    ASSUMED_TOKENS. The output of a failed call is not known, so it is assumed too.
    """
    output_known = call.output_chars is not None and not call.error
    return Usage(
        input=_tokens(call.prompt_chars),
        output=_tokens(call.output_chars if output_known else None),
    )


def _tokens(chars: int | None) -> int:
    return ASSUMED_TOKENS if chars is None else max(-(-chars // CHARS_PER_TOKEN), UNSEEN_TOKENS)


def _possible_nano(call: Call, rates: CompiledRates) -> int:
    once = sum(line.amount_nano for line in rates.lines(call._replace(usage=possible_usage(call))))
    return min(once * max(call.attempts, 1), MAX_POSSIBLE_NANO)
