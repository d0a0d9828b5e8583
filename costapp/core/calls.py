"""From the spans of a trace to its model calls. Pure: no clock, no I/O, independent of the order of spans.

A charge is one model call, not one span. `resolve` finds the leaves (spans that describe one call each),
unites the ones that describe the same call (`costapp.core.merge`), reads their token counts
(`costapp.core.meters`) and finds out whom they were made for (`costapp.core.attribution`).

Most traces have one instrumentation and nothing to merge; they take a short cut that gives the same answer.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from costapp.core import patterns
from costapp.core.attribution import Attribution, Trace, attribute
from costapp.core.errors import error_class
from costapp.core.merge import Leaf, ScopeKey, group
from costapp.core.meters import Reading, input_total, output_total, read
from costapp.core.providers import SELF_HOSTED, Provider, at_host, provider_of
from costapp.core.token_rules import DEFAULT, TokenRules
from costapp.core.values import Call, ChargeFlag, Role, Signal, Span, SpanFacts, SpanFlag, UsageState, Verdict

_CALL, _AGGREGATE, _MAYBE = int(Role.CALL), int(Role.AGGREGATE), int(Role.MAYBE)
_EVENT = int(Signal.EVENT)
_UNKNOWN, _REPORTED = int(UsageState.UNKNOWN), int(UsageState.REPORTED)
_ESTIMATED = int(UsageState.ESTIMATED)
_TIME_FLAGS = int(SpanFlag.TIME_INVALID | SpanFlag.TIME_OUT_OF_RANGE)
_GUESSED = int(ChargeFlag.PROVIDER_GUESSED)
_OWN_SERVER = Provider(SELF_HOSTED, False)
_new = tuple.__new__  # half the cost of calling a NamedTuple
#: SpanFlag -> ChargeFlag, for those that describe the call.
_CARRIED = (
    (int(SpanFlag.STREAM), int(ChargeFlag.STREAM)), (int(SpanFlag.BATCH), int(ChargeFlag.BATCH)),
    (int(SpanFlag.APP_CACHED), int(ChargeFlag.APP_CACHED)),
)  # fmt: skip
#: Calls inside one usage-bearing wrapper that are compared with it (bounds hostile traces).
MAX_COMPARED = 1000


class Resolution(NamedTuple):
    """What was found in a set of traces."""

    groups: list[list[Leaf]]  # one per call, the canonical member first
    aggregates: list[tuple[Trace, Span]]  # usage-bearing spans that repeat the usage of others
    traces: dict[bytes, Trace]


def resolve(spans: Sequence[Span], *, rules: TokenRules = DEFAULT) -> list[Call]:
    """The model calls these spans describe, ordered by start.

    `spans` are all spans of one or more traces (those joined by equal response ids); duplicates are harmless.
    """
    found = _resolution(spans, rules)
    calls = [_call(leaves) if len(leaves) > 1 else _lone_call(leaves[0]) for leaves in found.groups]
    if len(calls) > 1:
        calls.sort(key=_call_order)
        calls = _with_patterns(calls, found)
    return calls


def _call_order(call: Call) -> tuple[int, bytes, int]:
    return (call.start_ns, call.trace_id, call.span_id)


def _resolution(spans: Sequence[Span], rules: TokenRules) -> Resolution:
    traces = _traces(spans)
    leaves: list[Leaf] = []
    aggregates: list[tuple[Trace, Span]] = []
    for trace in traces.values():
        _find_leaves(trace, rules, leaves, aggregates)
    if _is_simple(leaves):
        return Resolution([[leaf] for leaf in leaves], aggregates, traces)
    groups, more = group(leaves)
    aggregates += [(leaf.trace, leaf.span) for leaf in more]
    return Resolution([_canonical_first(members) for members in groups], aggregates, traces)


def _traces(spans: Iterable[Span]) -> dict[bytes, Trace]:
    """Spans by trace and id. Of two different spans with one id, always the same one stays."""
    by_trace: dict[bytes, dict[int, Span]] = {}
    for span in spans:
        by_id = by_trace.get(span.trace_id)
        if by_id is None:
            by_id = by_trace[span.trace_id] = {}
        known = by_id.get(span.span_id)
        if known is None or (known is not span and known != span and _bytes(span) < _bytes(known)):
            by_id[span.span_id] = span
    return {trace_id: Trace(by_id) for trace_id, by_id in by_trace.items()}


def _bytes(span: Span) -> bytes:
    return msgspec.msgpack.encode(span)


def _find_leaves(trace: Trace, rules: TokenRules, leaves: list[Leaf], aggregates: list[tuple[Trace, Span]]) -> None:
    """Spans that describe one call: those that say so, and usage-bearing ones with no call below them."""
    claims: list[Span] = []
    maybes: list[Span] = []
    for span in trace.by_id.values():
        role = span.facts.role
        if role == _CALL:
            claims.append(span)
        elif role and _has_usage(span):
            maybes.append(span)
    if not claims and not maybes:
        return
    trace.holders.update(span.span_id for span in claims)
    trace.holders.update(span.span_id for span in maybes)
    for span in claims:
        trace.context(span)
    leaves_here = [_leaf(trace, span, rules) for span in claims]
    if maybes:
        busy = _busy(trace, [*claims, *maybes])
        for leaf in leaves_here:
            leaf.prepare()
        for span in sorted(maybes, key=lambda span: span.span_id):
            leaf = _leaf(trace, span, rules)
            leaf.prepare()
            if span.span_id in busy or _repeats_contained(leaf, leaves_here[: len(claims)]):
                aggregates.append((trace, span))
            else:
                leaves_here.append(leaf)
    leaves += leaves_here


def _has_usage(span: Span) -> bool:
    f = span.facts
    return bool(f.input or f.output or f.cache_read or f.cache_write)


def _busy(trace: Trace, holders: Sequence[Span]) -> set[int]:
    """Ids of the spans that hold another call or usage-bearing span. Each link is walked once."""
    busy: set[int] = set()
    for span in holders:
        trace.context(span)
        above = trace.above(span).holder
        if span.facts.signal == _EVENT and above and trace.by_id[above].facts.role == _MAYBE:
            above = trace.above(trace.by_id[above]).holder  # an event that repeats its own span
        while above and above not in busy:
            busy.add(above)
            outer = trace.by_id[above]
            trace.context(outer)
            above = trace.above(outer).holder
    return busy


def _repeats_contained(leaf: Leaf, calls: Sequence[Leaf]) -> bool:
    """A wrapper whose calls are not below it (lost or unlinked parents) but add up to what it states."""
    if leaf.scope[1] == _EVENT:
        return False
    inside = [c for c in calls[:MAX_COMPARED] if leaf.start_ns <= c.start_ns and c.end_ns <= leaf.end_ns and c.known]
    if not inside:
        return False
    total = (sum(c.tokens_in for c in inside), sum(c.tokens_out for c in inside))
    last = max(inside, key=lambda c: c.key)
    mine = (leaf.tokens_in, leaf.tokens_out)
    return mine in (total, (last.tokens_in, last.tokens_out))


def _leaf(trace: Trace, span: Span, rules: TokenRules) -> Leaf:
    f = span.facts
    provider = provider_of(f.provider_raw or "", f.model_responded or f.model_requested or "")
    rule = rules.rule(f.scope, f.scope_version, provider.name)
    return Leaf(span, trace, read(f, rule, provider), provider)


def _is_simple(leaves: Sequence[Leaf]) -> bool:
    """Nothing can merge: one instrumentation, no event, no shared response id, no call inside another."""
    if not leaves:
        return True
    scope = leaves[0].scope
    ids = set()
    for leaf in leaves:
        facts = leaf.span.facts
        if leaf.scope != scope or leaf.scope[2] or leaf.trace.above(leaf.span).holder:
            return False
        if facts.response_id:
            if facts.response_id in ids:
                return False
            ids.add(facts.response_id)
    return scope[1] != _EVENT or len(leaves) == 1


def _canonical_first(members: list[Leaf]) -> list[Leaf]:
    """The span that carries the charge comes first: a span before an event, a success before a failure,
    then the earliest and outermost. Late arrivals of twins can change it, order of arrival cannot."""
    if len(members) == 1:
        return members
    return sorted(members, key=lambda leaf: (leaf.scope[1], leaf.failed, *leaf.key))


def _best_reading(members: Sequence[Leaf]) -> Leaf:
    """The member with the most detailed counts; of equals, the one with the smaller output."""
    return min(members, key=_reading_order)


def _reading_order(leaf: Leaf) -> tuple[object, ...]:
    usage, f = leaf.reading.usage, leaf.span.facts
    return (
        not leaf.known, leaf.reading.state != _REPORTED, leaf.failed,
        -(usage.cache_read + usage.cache_write_5m + usage.cache_write_1h), f.cache_write_1h is None,
        f.cache_read is None, -usage.reasoning, f.reasoning is None, leaf.tokens_out, *leaf.key,
    )  # fmt: skip


def _united_usage(members: Sequence[Leaf]) -> Reading:
    """The best member's counts, with the reasoning part another member knows."""
    best = _best_reading(members)
    reading = best.reading
    if any(_repeats_estimate(best, leaf) for leaf in members):
        reading = reading._replace(state=_ESTIMATED)
    if reading.usage.reasoning or not best.known:
        return reading
    for leaf in members:
        part = leaf.reading.usage.reasoning
        if part and leaf.tokens_out == best.tokens_out and part <= reading.usage.output:
            usage = reading.usage._replace(output=reading.usage.output - part, reasoning=part)
            return reading._replace(usage=usage)
    return reading


def _repeats_estimate(best: Leaf, span: Leaf) -> bool:
    """An event repeats what its own client's span only estimated (OpenLIT fills the gaps with zeros in events)."""
    return (
        span.reading.state == _ESTIMATED
        and span.scope[0] == best.scope[0]
        and (span.tokens_in, span.tokens_out) == (best.tokens_in, best.tokens_out)
    )


def _lone_call(leaf: Leaf) -> Call:
    """A call that one span describes: the same as `_call`, without asking who else knows what."""
    f = leaf.span.facts
    to = attribute([(leaf.trace, leaf.span)])
    return _made([leaf], f, leaf.reading, leaf.provider, to, leaf.failed, 1 + (f.resends or 0))


def _call(members: Sequence[Leaf]) -> Call:
    """A call that several spans and events describe, the canonical one first."""
    f = _united_facts(members)
    provider = _provider(members, f.model_responded or f.model_requested or "")
    to = attribute([(leaf.trace, leaf.span) for leaf in members])
    failed = all(leaf.failed for leaf in members)
    return _made(members, f, _united_usage(members), provider, to, failed, _attempts(members))


def _made(
    members: Sequence[Leaf], f: SpanFacts, reading: Reading, provider: Provider, to: Attribution, failed: bool,
    attempts: int,
) -> Call:  # fmt: skip
    first = members[0]
    span = first.span
    requested = f.model_requested or ""
    model = f.model_responded or requested
    if not model:
        requested = model = _inherited_model(first)
        provider = provider_of(f.provider_raw or "", model)
    served = next((leaf for leaf in members if _serves(leaf.span.facts)), None)
    if served is not None:
        provider = _OWN_SERVER  # what the client calls it does not matter: its server told us
    elif f.host:
        provider = at_host(provider, f.host, model)
    return _new(Call, (
        span.trace_id, span.span_id, span.start_ns, f.duration_us, f.ttft_us, f.service or "", f.name,
        f.operation or "chat", provider.name, f.provider_raw or "", model, requested, f.region or "",
        f.service_tier or "", f.host or "", to.feature, to.user, to.session, to.team, to.environment, to.variant,
        to.prompt_version, to.source, reading.usage, reading.state, reading.rule, f.unit or "",
        error_class(f.error or "error") if failed else "", f.finish_reason or "",
        reading.flags | (_GUESSED if provider.guessed else 0) | (_carried(f.flags) if f.flags else 0), attempts,
        len(members), f.reported_nano, f.reported_source or "", f.prompt_hash, f.prompt_chars, f.output_chars, f.signal,
        f.queue_us, f.prefill_us, f.decode_us, f.instance or "", served.span.start_ns if served is not None else None,
    ))  # fmt: skip


def _serves(facts: SpanFacts) -> bool:
    """The span is an inference server's own."""
    return facts.prefill_us is not None or facts.decode_us is not None


def _carried(span_flags: int) -> int:
    """What the flags of spans say about their call."""
    flags = int(ChargeFlag.TIME_SUSPECT) if span_flags & _TIME_FLAGS else 0
    for theirs, ours in _CARRIED:
        if span_flags & theirs:
            flags |= ours
    return flags


#: Facts of a call that any member may supply, the canonical one first.
_SUPPLIED = (
    "ttft_us", "service", "operation", "provider_raw", "model_responded", "model_requested", "region", "service_tier",
    "host", "unit", "error", "finish_reason", "reported_nano", "reported_source", "prompt_hash", "prompt_chars",
    "output_chars", "duration_us", "queue_us", "prefill_us", "decode_us", "instance",
)  # fmt: skip


def _united_facts(members: Sequence[Leaf]) -> SpanFacts:
    """The canonical member's facts, with what only others know."""
    f = members[0].span.facts
    missing = {
        name: value
        for name in _SUPPLIED
        if getattr(f, name) is None
        and (value := next((v for leaf in members if (v := getattr(leaf.span.facts, name)) is not None), None))
        is not None
    }
    flags = 0
    for leaf in members:
        flags |= leaf.span.facts.flags
    for name in ("model_responded", "model_requested"):
        fuller = _fuller_name(missing.get(name) or getattr(f, name), members)
        if fuller:
            missing[name] = fuller
    return msgspec.structs.replace(f, flags=flags, **missing)


def _fuller_name(model: str | None, members: Sequence[Leaf]) -> str:
    """The model as another member spells it with a vendor and region in front ("us.anthropic." + model), if one does.

    The prefix decides the price (inference profiles), and one Bedrock instrumentation cuts it off.
    """
    if not model:
        return ""
    facts = [leaf.span.facts for leaf in members]
    names = {name for f in facts for name in (f.model_responded, f.model_requested) if name}
    return max((name for name in names if name.endswith(f".{model}")), key=lambda name: (len(name), name), default="")


def _provider(members: Sequence[Leaf], model: str) -> Provider:
    """The first provider a member states; else the vendor of the model."""
    stated = next((leaf.provider for leaf in members if not leaf.provider.guessed and leaf.provider.name), None)
    if stated is not None:
        return stated
    return provider_of(members[0].span.facts.provider_raw or "", model)


def _attempts(members: Sequence[Leaf]) -> int:
    """Requests made for this call: several spans of one scope below the same wrapper, or resends inside one."""
    resends = max(leaf.span.facts.resends or 0 for leaf in members)
    if len(members) < 3:
        return 1 + resends
    per_scope: dict[ScopeKey, int] = {}
    for leaf in members:
        if not leaf.scope[2]:
            per_scope[leaf.scope] = per_scope.get(leaf.scope, 0) + 1
    return max(max(per_scope.values(), default=1), 1 + resends)


def _inherited_model(leaf: Leaf) -> str:
    """The model of the nearest ancestor that states one (Codex puts it on the turn)."""
    trace, current = leaf.trace, leaf.trace.parent(leaf.span)
    for _ in range(64):
        if current is None:
            break
        f = current.facts
        if f.model_requested or f.model_responded:
            return f.model_requested or f.model_responded or ""
        trace.context(current)
        current = trace.parent(current)
    return ""


def _with_patterns(calls: list[Call], found: Resolution) -> list[Call]:
    """Mark retries and fallbacks; only a trace with a failed call has any."""
    if not any(call.error for call in calls):
        return calls
    marks = patterns.flags(
        patterns.Attempt(
            call.start_ns, call.span_id, call.start_ns + (call.duration_us or 0) * 1000,
            (call.trace_id, found.traces[call.trace_id].by_id[call.span_id].parent_id), call.operation,
            call.model_requested or call.model, call.prompt_hash, bool(call.error),
        )
        for call in calls
    )  # fmt: skip
    return [
        call._replace(flags=call.flags | marks[key]) if (key := (call.trace_id, call.span_id)) in marks else call
        for call in calls
    ]


def explain(spans: Sequence[Span], *, rules: TokenRules = DEFAULT) -> list[Verdict]:
    """Why each span was charged, merged or left out: one verdict per span, ordered by start."""
    found = _resolution(spans, rules)
    verdicts: dict[tuple[bytes, int], Verdict] = {}
    for members in found.groups:
        first = members[0].span
        for leaf in members:
            verdicts[(leaf.span.trace_id, leaf.span.span_id)] = _leaf_verdict(leaf, first, len(members))
    for trace, span in found.aggregates:
        why = "It repeats the usage of the calls below it." if trace else ""
        verdicts[(span.trace_id, span.span_id)] = Verdict(span.trace_id, span.span_id, "aggregate", None, None, why)
    every = [span for trace in found.traces.values() for span in trace.by_id.values()]
    every.sort(key=lambda span: (span.start_ns, span.trace_id, span.span_id))
    return [verdicts.get((span.trace_id, span.span_id)) or _plain_verdict(span) for span in every]


def _leaf_verdict(leaf: Leaf, first: Span, members: int) -> Verdict:
    span = leaf.span
    if span is first:
        state = UsageState(leaf.reading.state).name.lower()
        rule = f" by rule {leaf.reading.rule}" if leaf.reading.rule else ""
        return Verdict(span.trace_id, span.span_id, "charged", None, None, f"Usage {state}{rule}{_twins(members - 1)}.")
    outcome = "duplicate-signal" if leaf.scope[1] == _EVENT and first.facts.signal != _EVENT else "merged"
    same_id = span.facts.response_id and span.facts.response_id == first.facts.response_id
    why = "It has the same response id." if same_id else "It describes the same call."
    return Verdict(span.trace_id, span.span_id, outcome, first.trace_id, first.span_id, why)


def _twins(others: int) -> str:
    if others < 2:
        return "; one more span or event describes the same call" if others else ""
    return f"; {others} more spans or events describe the same call"


def _plain_verdict(span: Span) -> Verdict:
    outcome = "aggregate" if span.facts.role == _AGGREGATE else "plain"
    why = "It groups other spans and states no usage." if outcome == "aggregate" else "It is not about a model call."
    return Verdict(span.trace_id, span.span_id, outcome, None, None, why)


__all__ = ["Resolution", "explain", "input_total", "output_total", "resolve"]
