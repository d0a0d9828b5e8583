"""Whose call is it: feature, user, session, team, variant, prompt version.

Per dimension: the call's own statement, else its nearest ancestor's (in any service of the trace), else
the trace's if all statements in it agree, else the resource's, else nothing. Never a guess between two
candidates: what cannot be told stays empty and is shown as unattributed.

Weak statements (a workflow or agent name for the feature, a conversation or thread id for the session)
are tried in the same order, but only after every explicit one has failed.

Parent links are untrusted: a missing parent ends the walk, and spans on a cycle have no parent. Linear
in the number of spans.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from costapp.core.values import AttributionSource, Span, SpanFacts

OWN = int(AttributionSource.OWN)
ANCESTOR = int(AttributionSource.ANCESTOR)
TRACE = int(AttributionSource.TRACE)
RESOURCE = int(AttributionSource.RESOURCE)
RULE = int(AttributionSource.RULE)
NONE = int(AttributionSource.NONE)


class Context(NamedTuple):
    """What a span passes on to its descendants."""

    feature: str | None = None
    user: str | None = None
    session: str | None = None
    team: str | None = None
    variant: str | None = None
    prompt_version: str | None = None
    environment: str | None = None
    weak_feature: str | None = None
    weak_feature_rank: int = 0
    weak_session: str | None = None
    holder: int = 0  # id of the nearest call or usage-bearing span, the span itself included; 0 = none


class Attribution(NamedTuple):
    """The resolved dimensions of one call; "" = not attributed."""

    feature: str
    user: str
    session: str
    team: str
    variant: str
    prompt_version: str
    environment: str
    source: int  # AttributionSource of the feature


_new = tuple.__new__  # half the cost of calling a NamedTuple
EMPTY: Final = Context()
_PENDING: Final = Context(holder=-1)  # marks a span whose context is being computed
_RESOURCE: Final = ("resource_feature", "resource_user", "resource_session", "resource_team", "resource_variant")


class Trace:
    """The spans of one trace, by id, with what each inherits (computed on demand, once)."""

    __slots__ = ("_agreed", "_contexts", "_cyclic", "by_id", "holders")

    def __init__(self, by_id: dict[int, Span]) -> None:
        self.by_id = by_id
        #: Calls and usage-bearing spans; must be complete before the first context is asked for.
        self.holders: set[int] = set()
        self._contexts: dict[int, Context] = {}
        self._cyclic: set[int] = set()
        self._agreed: dict[str, str] | None = None

    def context(self, span: Span) -> Context:
        """What `span` and its ancestors state."""
        contexts, by_id = self._contexts, self.by_id
        above = contexts.get(span.parent_id, _PENDING)
        if above is not _PENDING and span.span_id not in contexts:  # usually a sibling has been asked before
            return self._pass_down([span], above)
        chain: list[Span] = []
        found = EMPTY
        current: Span | None = span
        while current is not None:
            known = contexts.get(current.span_id)
            if known is _PENDING:
                return self._cut_cycle(chain, current)
            if known is not None:
                found = known
                break
            contexts[current.span_id] = _PENDING
            chain.append(current)
            current = by_id.get(current.parent_id) if current.parent_id else None
        return self._pass_down(chain, found)

    def above(self, span: Span) -> Context:
        """What the ancestors of `span` state. Valid once `context(span)` has run."""
        if span.span_id in self._cyclic:
            return EMPTY
        return self._contexts.get(span.parent_id, EMPTY)

    def parent(self, span: Span) -> Span | None:
        """The parent, None for roots, orphans and spans on a cycle. Valid once `context(span)` has run."""
        return None if span.span_id in self._cyclic or not span.parent_id else self.by_id.get(span.parent_id)

    def agreed(self) -> dict[str, str]:
        """Per dimension the value that all statements of the trace agree on; weak ones as "weak_" + name."""
        if self._agreed is None:
            self._agreed = _agreed(span.facts for span in self.by_id.values())
        return self._agreed

    def _pass_down(self, chain: Sequence[Span], context: Context) -> Context:
        contexts, holders = self._contexts, self.holders
        for span in reversed(chain):
            context = extended(context, span.facts, span.span_id if span.span_id in holders else 0)
            contexts[span.span_id] = context
        return context

    def _cut_cycle(self, chain: list[Span], first: Span) -> Context:
        """Every span on the cycle counts as a root, so that it does not matter which is met first."""
        start = next(i for i, span in enumerate(chain) if span.span_id == first.span_id)
        for span in chain[start:]:
            self._cyclic.add(span.span_id)
            self._pass_down([span], EMPTY)
        return self._pass_down(chain[:start], self._contexts[first.span_id])


def extended(context: Context, f: SpanFacts, holder: int) -> Context:
    """The context of a child with these facts. Returns `context` itself if the span adds nothing."""
    feature, session = f.feature, f.session
    if not (feature or session or f.user or f.team or f.variant or f.prompt_version or holder):
        if f.environment and f.environment != context.environment:
            return context._replace(environment=f.environment)
        return context
    weak, rank = context.weak_feature, context.weak_feature_rank
    if f.feature_rank:
        if weak is None or f.feature_rank <= rank:
            weak, rank = feature, f.feature_rank
        feature = None
    weak_session = context.weak_session
    if f.session_rank:
        weak_session, session = session, None
    return _new(Context, (
        feature or context.feature, f.user or context.user, session or context.session, f.team or context.team,
        f.variant or context.variant, f.prompt_version or context.prompt_version, f.environment or context.environment,
        weak, rank, weak_session, holder or context.holder,
    ))  # fmt: skip


def attribute(members: Sequence[tuple[Trace, Span]]) -> Attribution:
    """The dimensions of one call, seen by these spans, the canonical one first."""
    if len(members) > 1:
        context = _union(members)
        return _resolved(context, _common([trace for trace, _ in members]), [span.facts for _, span in members])
    trace, span = members[0]
    return _resolved(trace.context(span), trace.agreed(), (span.facts,))


def _resolved(c: Context, agreed: Mapping[str, str], members: Sequence[SpanFacts]) -> Attribution:
    """Per dimension: the call or its ancestors, else the trace, else the resource, else a weak name."""
    said = agreed.get
    f = members[0]
    if len(members) > 1:
        f = _first_resource(members)
    feature, source = _feature(c, said("feature"), f.resource_feature, members)
    if not feature:
        feature = c.weak_feature or said("weak_feature") or ""
        source = RULE if feature else NONE
    return _new(Attribution, (
        feature,
        c.user or said("user") or f.resource_user or "",
        c.session or said("session") or f.resource_session or c.weak_session or said("weak_session") or "",
        c.team or said("team") or f.resource_team or "",
        c.variant or said("variant") or f.resource_variant or "",
        c.prompt_version or "",  # another call's prompt is not this one's, even if it is the only one that is named
        c.environment or said("environment") or "",
        source,
    ))  # fmt: skip


def _feature(
    c: Context, of_trace: str | None, of_resource: str | None, members: Sequence[SpanFacts]
) -> tuple[str, int]:
    if c.feature:
        for f in members:
            if f.feature and not f.feature_rank:
                return c.feature, OWN
        return c.feature, ANCESTOR
    if of_trace:
        return of_trace, TRACE
    return (of_resource, RESOURCE) if of_resource else ("", NONE)


def _first_resource(members: Sequence[SpanFacts]) -> SpanFacts:
    """The first resource statement per dimension, of all members."""
    first: dict[str, Any] = {name: next((v for f in members if (v := getattr(f, name))), None) for name in _RESOURCE}
    return SpanFacts(**first)


def _common(traces: Sequence[Trace]) -> Mapping[str, str]:
    """What the traces agree on; a dimension that two of them state differently is left out."""
    first, *others = (trace.agreed() for trace in dict.fromkeys(traces))
    if not others:
        return first
    names = {name for agreed in (first, *others) for name in agreed}
    return {name: value for name in names if (value := _one(a.get(name, "") for a in (first, *others)))}


def _union(members: Sequence[tuple[Trace, Span]]) -> Context:
    """The members' own statements first, then what they inherit, each in member order."""
    contexts = [extended(EMPTY, span.facts, 0) for _, span in members]
    contexts += [trace.context(span) for trace, span in members]
    columns = list(zip(*contexts, strict=True))[:7]
    first: list[str | None] = [next((str(value) for value in column if value), None) for column in columns]
    weak = min((c for c in contexts if c.weak_feature), key=lambda c: c.weak_feature_rank, default=EMPTY)
    weak_session = next((c.weak_session for c in contexts if c.weak_session), None)
    return Context(first[0], first[1], first[2], first[3], first[4], first[5], first[6], weak.weak_feature,
                   weak.weak_feature_rank, weak_session)  # fmt: skip


def _one(values: Iterable[str]) -> str:
    """The only distinct value, "" if there is none or more than one."""
    found = {value for value in values if value}
    return found.pop() if len(found) == 1 else ""


def _agreed(all_facts: Iterable[SpanFacts]) -> dict[str, str]:
    stated: dict[str, set[str]] = {}
    environment = None
    for f in all_facts:
        if f.environment and f.environment != environment:
            environment = f.environment
            stated.setdefault("environment", set()).add(environment)
        if not (f.feature or f.session or f.user or f.team or f.variant):
            continue
        feature = f"weak_feature_{f.feature_rank}" if f.feature_rank else "feature"
        session = "weak_session" if f.session_rank else "session"
        for field, value in ((feature, f.feature), (session, f.session), ("user", f.user), ("team", f.team),
                             ("variant", f.variant)):  # fmt: skip
            if value:
                stated.setdefault(field, set()).add(value)
    agreed = {field: next(iter(values)) for field, values in stated.items() if len(values) == 1}
    weak = min((field for field in stated if field.startswith("weak_feature_")), default="")
    if weak in agreed:
        agreed["weak_feature"] = agreed[weak]
    return agreed
