"""A trace as rows: the tree of its spans, where each lies in time, what it cost, and what became of it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from costapp.core.calls import explain
from costapp.core.ids import span_id_text, trace_id_text
from costapp.core.values import Span, Verdict
from costapp.storage.reports.calls import Charge

WIDTH = 1000  #: of the drawing, in its own units
DEEPEST_INDENT = 12
OUTCOME_WORDS = {
    "charged": "charged",
    "merged": "merged",
    "aggregate": "repeats its children",
    "plain": "",
    "duplicate-signal": "same call as a span",
}


class Row(NamedTuple):
    span_id: int
    span: str  #: hex, for addresses
    depth: int
    name: str
    service: str
    duration_us: int | None
    left: float
    width: float
    failed: bool
    outcome: str
    outcome_words: str
    why: str
    into: tuple[str, str] | None  #: trace and span that carry the charge instead
    charge: Charge | None

    @property
    def indent(self) -> str:
        depth = min(self.depth, DEEPEST_INDENT)
        return "  " * (depth - 1) + "└ " if depth else ""

    @property
    def css(self) -> str:
        return "failed" if self.failed else "charged" if self.charge else "plain"


def waterfall(spans: Sequence[Span], charges: Sequence[Charge]) -> list[Row]:
    """Parents before children, siblings by start; a span whose parent is missing stands at the top."""
    if not spans:
        return []
    verdicts = {(verdict.trace_id, verdict.span_id): verdict for verdict in explain(spans)}
    by_span = {charge.span_id: charge for charge in charges}
    start = min(span.start_ns for span in spans)
    end = max(span.start_ns + (span.facts.duration_us or 0) * 1000 for span in spans)
    scale = WIDTH / max(1, end - start)
    return [
        _row(span, depth, verdicts.get((span.trace_id, span.span_id)), by_span.get(span.span_id), start, scale)
        for span, depth in in_tree_order(spans)
    ]


def in_tree_order(spans: Sequence[Span]) -> list[tuple[Span, int]]:
    """Depth first without recursion: traces can be deep, and broken ones can contain circles."""
    known = {span.span_id for span in spans}
    children: dict[int, list[Span]] = defaultdict(list)
    roots = []
    for span in sorted(spans, key=lambda span: (span.start_ns, span.span_id)):
        is_root = span.parent_id not in known or span.parent_id == span.span_id
        (roots if is_root else children[span.parent_id]).append(span)
    order: list[tuple[Span, int]] = []
    seen: set[int] = set()
    for root in [*roots, *spans]:  # spans again: members of a circle have no root above them
        pending = [(root, 0)]
        while pending:
            span, depth = pending.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            order.append((span, depth))
            pending += [(child, depth + 1) for child in reversed(children[span.span_id])]
    return order


def _row(span: Span, depth: int, verdict: Verdict | None, charge: Charge | None, start: int, scale: float) -> Row:
    facts = span.facts
    outcome = "charged" if charge else verdict.outcome if verdict else "plain"
    if outcome == "charged" and not charge:
        outcome = "pending"  # resolved here, but the job has not booked it yet
    into = None
    if verdict and verdict.into_span_id is not None and verdict.into_trace_id is not None:
        into = (trace_id_text(verdict.into_trace_id), span_id_text(verdict.into_span_id))
    return Row(
        span.span_id,
        span_id_text(span.span_id),
        depth,
        facts.name or "(unnamed)",
        facts.service or "",
        facts.duration_us,
        (span.start_ns - start) * scale,
        max(2.0, (facts.duration_us or 0) * 1000 * scale),
        facts.status == 2,
        outcome,
        "not booked yet" if outcome == "pending" else OUTCOME_WORDS.get(outcome, outcome),
        verdict.why if verdict else "",
        into,
        charge,
    )
