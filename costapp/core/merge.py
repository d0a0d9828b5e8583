"""Which spans saw the same model call. One call is often recorded by a framework, an SDK and a log event.

Rules (conventions of real clients; none of them merges two calls that were really made):

1. the same response id, in any trace, close in time;
2. one span is an ancestor of the other, and their scopes differ, or the outer has no usage, or the outer
   holds exactly this one;
3. different scopes, one interval inside the other, and the same outcome (both failed, or equal usage, or
   both without usage and the same model);
4. a request span without usage and the sibling that reports its result later (logfire streams);
5. a log event and the span it was written in, or a span with equal usage around its time.

Rules 2 to 5 never join two spans whose response ids differ. Candidates are found by hashing and sweeping,
so the cost stays near-linear.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from costapp.core.attribution import Trace
from costapp.core.meters import Reading, input_total, output_total
from costapp.core.providers import Provider
from costapp.core.values import Signal, Span, SpanFlag, UsageState

#: Clock and scheduling slack between two instrumentations of one call.
SLACK_NS = 5_000_000
#: Two sightings of one response id further apart than this are two calls (providers have repeated ids).
SAME_ID_WINDOW_NS = 10 * 60 * 1_000_000_000
#: An event is written when the call ends: this much may lie between them.
EVENT_SLACK_NS = 2_000_000_000
#: Twins may count this many tokens differently (one client adds message_start's output token).
TOKEN_TOLERANCE = 5
#: How many overlapping candidates are looked at for one span before giving up (bounds hostile traces).
LOOK_BACK = 64

#: Distinct scopes compared with each other in one trace (bounds hostile traces).
MAX_SCOPES = 8
#: Prefix of response ids that we derived from usage because the client sends none.
DERIVED_ID = "~"

#: What counts as one observer of calls: scope, signal, and whether it reports results of earlier spans.
ScopeKey = tuple[str, int, int]

_EVENT = int(Signal.EVENT)
_LATE = int(SpanFlag.LATE_RESULT)
_UNKNOWN = int(UsageState.UNKNOWN)


_MODEL_TAIL = re.compile(r"([-@]\d{4}-\d{2}-\d{2}|[-@]\d{8}|-latest)?(-v\d+(:\d+)?)?$")
_MODEL_HEAD = re.compile(r"^(.*/|(?:[a-z]{2,6}\.)?(?:anthropic|amazon|meta|mistral|cohere|deepseek)\.|models/)")


@lru_cache(maxsize=4096)
def model_key(model: str) -> str:
    """A model name without vendor prefix, date and version tail: equal for two spellings of one model."""
    return _MODEL_TAIL.sub("", _MODEL_HEAD.sub("", model.strip().lower()))


class Group:
    """The leaves that are one call."""

    __slots__ = ("ids", "leaves")

    def __init__(self, leaf: "Leaf") -> None:
        self.leaves = [leaf]
        response_id = leaf.span.facts.response_id
        self.ids = {response_id} if response_id and not response_id.startswith(DERIVED_ID) else set()


class Leaf:
    """A span or event that describes one model call.

    Most leaves have nothing to merge with. What only comparing them needs is not known before `prepare`.
    """

    __slots__ = (
        "duration_ns",
        "end_ns",
        "failed",
        "group",
        "model",
        "provider",
        "reading",
        "scope",
        "span",
        "start_ns",
        "tokens_in",
        "tokens_out",
        "trace",
    )
    duration_ns: int
    end_ns: int
    group: Group
    model: str
    start_ns: int
    tokens_in: int
    tokens_out: int

    def __init__(self, span: Span, trace: Trace, reading: Reading, provider: Provider) -> None:
        facts = span.facts
        self.span, self.trace, self.reading, self.provider = span, trace, reading, provider
        self.failed = facts.status == 2
        self.scope: ScopeKey = (facts.scope or "", facts.signal, facts.flags & _LATE)

    def prepare(self) -> None:
        """Work out what comparing this leaf with others needs; again and again is harmless until it is grouped."""
        facts, usage = self.span.facts, self.reading.usage
        self.start_ns = self.span.start_ns
        self.duration_ns = (facts.duration_us or 0) * 1000
        self.end_ns = self.start_ns + self.duration_ns
        self.model = model_key(facts.model_responded or facts.model_requested or "")
        self.tokens_in, self.tokens_out = input_total(usage), output_total(usage)
        self.group = Group(self)

    @property
    def key(self) -> tuple[int, int, bytes, int]:
        """Order of members: by start, the outermost first, then by identity. Independent of arrival."""
        return (self.start_ns, -self.duration_ns, self.span.trace_id, self.span.span_id)

    @property
    def known(self) -> bool:
        return self.reading.state != _UNKNOWN


def group(leaves: Sequence[Leaf]) -> tuple[list[list[Leaf]], list[Leaf]]:
    """Partition leaves into calls; also the leaves that turned out to be aggregates of several calls.

    The result does not depend on the order of `leaves`.
    """
    for leaf in leaves:
        leaf.prepare()
    ordered = sorted(leaves, key=lambda leaf: leaf.key)
    _by_response_id(ordered)
    for siblings in _by_trace(ordered):
        _late_results(siblings)
    aggregates = _by_nesting(ordered)
    if aggregates:
        dropped = {id(leaf) for leaf in aggregates}
        ordered = [leaf for leaf in ordered if id(leaf) not in dropped]
    for siblings in _by_trace(ordered):
        _twins(siblings)
        _events(siblings)
    groups = {id(leaf.group): leaf.group for leaf in ordered}
    return [sorted(found.leaves, key=lambda leaf: leaf.key) for found in groups.values()], aggregates


def _join(a: Leaf, b: Leaf) -> bool:
    """Unite the calls of two leaves, unless their response ids prove them different."""
    one, other = a.group, b.group
    if one is other:
        return True
    if one.ids and other.ids and not one.ids & other.ids:
        return False
    if len(one.leaves) < len(other.leaves):
        one, other = other, one
    for leaf in other.leaves:
        leaf.group = one
    one.leaves += other.leaves
    one.ids |= other.ids
    return True


def _by_trace(ordered: Sequence[Leaf]) -> Iterator[list[Leaf]]:
    traces: dict[bytes, list[Leaf]] = {}
    for leaf in ordered:
        traces.setdefault(leaf.span.trace_id, []).append(leaf)
    return iter(traces.values())


def _same_usage(a: Leaf, b: Leaf) -> bool:
    return abs(a.tokens_in - b.tokens_in) <= TOKEN_TOLERANCE and abs(a.tokens_out - b.tokens_out) <= TOKEN_TOLERANCE


def _by_response_id(ordered: Sequence[Leaf]) -> None:
    """Rule 1."""
    sightings: dict[str, list[Leaf]] = {}
    for leaf in ordered:
        if leaf.span.facts.response_id:
            sightings.setdefault(leaf.span.facts.response_id, []).append(leaf)
    for response_id, leaves in sightings.items():
        if len(leaves) > 1:
            _unite_sightings(leaves, derived=response_id.startswith(DERIVED_ID))


def _unite_sightings(leaves: Sequence[Leaf], *, derived: bool) -> None:
    """Join each leaf to the first earlier call that is near in time and does not contradict it."""
    open_calls: list[tuple[Leaf, dict[ScopeKey, Leaf]]] = []  # first leaf, one leaf per scope
    for leaf in leaves:
        for first, by_scope in open_calls[-LOOK_BACK:]:
            if leaf.start_ns - max(first.end_ns, first.start_ns) > SAME_ID_WINDOW_NS:
                continue
            twin = by_scope.get(leaf.scope)
            if twin is not None and (derived or not _may_be_same(twin, leaf)):
                continue
            _join(first, leaf)
            by_scope.setdefault(leaf.scope, leaf)
            break
        else:
            open_calls.append((leaf, {leaf.scope: leaf}))


def _may_be_same(a: Leaf, b: Leaf) -> bool:
    """Two sightings of one id by one instrumentation: the provider has repeated ids when usage differs."""
    return not (a.known and b.known) or _same_usage(a, b)


def _by_nesting(ordered: Sequence[Leaf]) -> list[Leaf]:
    """Rule 2. Returns the leaves that hold several successful calls: they are aggregates, whatever they say."""
    by_place = {(leaf.span.trace_id, leaf.span.span_id): leaf for leaf in ordered}
    held: dict[int, tuple[Leaf, list[Leaf]]] = {}
    for leaf in ordered:
        holder = leaf.trace.above(leaf.span).holder
        outer = by_place.get((leaf.span.trace_id, holder)) if holder else None
        if outer is not None and leaf.scope[1] != _EVENT and _within(outer, leaf):
            held.setdefault(id(outer), (outer, []))[1].append(leaf)
    aggregates: dict[int, Leaf] = {}
    for outer, inner in sorted(held.values(), key=lambda pair: pair[0].key, reverse=True):  # the innermost first
        several = _calls_among(inner) > 1 or any(id(leaf) in aggregates for leaf in inner)
        if several and len(outer.group.leaves) == 1:
            aggregates[id(outer)] = outer
            continue
        for leaf in inner:
            if id(leaf) not in aggregates:
                _join(outer, leaf)
    return list(aggregates.values())


def _within(outer: Leaf, leaf: Leaf) -> bool:
    """The inner call began before the outer one ended: a span left current makes later calls its children.

    Clocks of two services may differ by more than a call lasts, so there the link alone decides.
    """
    if outer is leaf:
        return False
    return leaf.start_ns <= outer.end_ns + SLACK_NS or leaf.span.facts.service != outer.span.facts.service


def _calls_among(inner: Sequence[Leaf]) -> int:
    """How many successful calls these are. Twins have different scopes, so the largest scope counts."""
    per_scope: dict[ScopeKey, set[int]] = defaultdict(set)
    for leaf in inner:
        if not leaf.failed:
            per_scope[leaf.scope].add(id(leaf.group))
    return max(map(len, per_scope.values()), default=0)


def _late_results(leaves: Sequence[Leaf]) -> None:
    """Rule 4: a result belongs to the latest request before it that has none yet, of the same parent if it can be."""
    if not any(leaf.scope[2] for leaf in leaves):
        return
    for same_parent in (True, False):
        waiting: dict[tuple[str, int, str], list[Leaf]] = defaultdict(list)
        for leaf in leaves:
            if len(leaf.group.leaves) > 1:
                continue
            model = model_key(leaf.span.facts.model_requested or leaf.model)
            place = (leaf.scope[0], leaf.span.parent_id if same_parent else 0, model)
            if not leaf.scope[2]:
                if not leaf.known and not leaf.failed:
                    waiting[place].append(leaf)
            elif waiting[place]:
                _join(waiting[place].pop(), leaf)


Near = Callable[[Leaf, Leaf], bool]


def _contains(a: Leaf, b: Leaf) -> bool:
    """One interval lies inside the other. `a` does not start after `b`."""
    if b.end_ns <= a.end_ns + SLACK_NS and b.start_ns <= a.end_ns + SLACK_NS:
        return True
    return b.start_ns - SLACK_NS <= a.start_ns and a.end_ns <= b.end_ns + SLACK_NS


def _written_at_end(one: Leaf, other: Leaf) -> bool:
    """The event was written during the call or shortly after it."""
    call, event = (one, other) if other.scope[1] == _EVENT else (other, one)
    return call.start_ns - SLACK_NS <= event.end_ns <= call.end_ns + EVENT_SLACK_NS


def _twins(leaves: Sequence[Leaf]) -> None:
    """Rule 3."""
    spans = [leaf for leaf in leaves if leaf.scope[1] != _EVENT]
    if len({leaf.scope for leaf in spans}) > 1:
        _pair(spans, _buckets, _contains)
        if any(leaf.known for leaf in spans) and not all(leaf.known for leaf in spans):
            _pair(spans, _model_buckets, _contains)


def _events(leaves: Sequence[Leaf]) -> None:
    """Rule 5."""
    if all(leaf.scope[1] != _EVENT for leaf in leaves):
        return
    by_id = {leaf.span.span_id: leaf for leaf in leaves}
    loose: list[Leaf] = []
    for leaf in leaves:
        if leaf.scope[1] != _EVENT:
            loose.append(leaf)
            continue
        call = by_id.get(leaf.span.parent_id) or by_id.get(leaf.trace.above(leaf.span).holder)
        if call is not None and call.group is leaf.group:
            continue
        if call is None or not _reports(leaf, call) or not _join(call, leaf):
            loose.append(leaf)
    if len({leaf.scope for leaf in loose}) > 1 and any(leaf.scope[1] == _EVENT for leaf in loose):
        _pair(loose, _buckets, _written_at_end, events_only=True)


def _reports(event: Leaf, call: Leaf) -> bool:
    """The event was written in the call's context and does not contradict it; one event of a kind per call.

    Of two equal visible outputs, one may leave out the reasoning (Gemini CLI's spans do).
    """
    same = _may_be_same(call, event) or (
        abs(call.tokens_in - event.tokens_in) <= TOKEN_TOLERANCE
        and call.reading.usage.output == event.reading.usage.output
    )
    return same and all(member.scope != event.scope for member in call.group.leaves)


def _buckets(leaf: Leaf) -> Iterator[tuple[object, ...]]:
    """Where to file a leaf, then where to look for its twins."""
    if leaf.failed and not leaf.known:
        yield ("failed",)
    elif not leaf.known:
        yield ("unknown", leaf.model)
    else:
        width = TOKEN_TOLERANCE + 1
        came, went = leaf.tokens_in // width, leaf.tokens_out // width
        yield (came, went)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                if i or j:
                    yield (came + i, went + j)


def _model_buckets(leaf: Leaf) -> Iterator[tuple[object, ...]]:
    """Twins of which only one knows the usage."""
    yield (leaf.model, leaf.known)
    yield (leaf.model, not leaf.known)


def _pair(
    leaves: Sequence[Leaf],
    buckets: Callable[[Leaf], Iterator[tuple[object, ...]]],
    near: Near,
    *,
    events_only: bool = False,
) -> None:
    """Join leaves of different scopes, one to one, each to the nearest earlier candidate.

    Each pair of scopes has its own stacks, from which a leaf is taken when its twin is found; so equal
    parallel calls seen by two scopes stay that many calls.
    """
    scopes = list(dict.fromkeys(leaf.scope for leaf in leaves))[:MAX_SCOPES]
    allowed = set(scopes)
    waiting: dict[object, list[Leaf]] = defaultdict(list)
    for leaf in leaves:
        if leaf.scope not in allowed or (leaf.failed and buckets is _model_buckets):
            continue
        home, *neighbours = buckets(leaf)
        others = [s for s in scopes if s != leaf.scope and not (events_only and s[1] == leaf.scope[1])]
        for scope in others:
            places = [(home, scope, leaf.scope), *((place, scope, leaf.scope) for place in neighbours)]
            if buckets is _model_buckets:
                places = places[1:]
            _take_twin(leaf, [waiting[place] for place in places if place in waiting], near)
        for scope in others:
            waiting[(home, leaf.scope, scope)].append(leaf)


def _take_twin(leaf: Leaf, stacks: Sequence[list[Leaf]], near: Near) -> None:
    """Join `leaf` to the latest waiting leaf that fits, and take that one from its stack."""
    best: tuple[Leaf, list[Leaf], int] | None = None
    for stack in stacks:
        for i in range(len(stack) - 1, max(len(stack) - 1 - LOOK_BACK, -1), -1):
            other = stack[i]
            if best is not None and other.key <= best[0].key:
                break
            if _fits(other, leaf, near):
                best = (other, stack, i)
                break
    if best is not None and _join(best[0], leaf):
        del best[1][best[2]]


def _fits(earlier: Leaf, leaf: Leaf, near: Near) -> bool:
    if not near(earlier, leaf):
        return False
    if earlier.known and leaf.known and not _same_usage(earlier, leaf):
        return False
    one, other = earlier.group, leaf.group
    if one is other:
        return True
    if one.ids and other.ids and not one.ids & other.ids:
        return False
    scopes = {member.scope for member in one.leaves}
    return not any(member.scope in scopes for member in other.leaves)
