"""Why a trace costs what it costs: every span with its verdict, every call with its price lines."""

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

import psycopg

from costapp.core import calls, price_explain
from costapp.core.engines import own
from costapp.core.price_explain import Explanation
from costapp.core.pricing import with_gpu
from costapp.core.providers import SELF_HOSTED
from costapp.core.values import Call, Priced, Span, Verdict
from costapp.services.attribute import rate_book
from costapp.services.gather import Gatherer
from costapp.storage import charges, gpu_calls, traces
from costapp.storage.reports.gpu_of_call import CallHour, hours_of
from costapp.storage.token_rules import load_token_rules
from costapp.storage.traces import Node


class ExplainedSpan(NamedTuple):
    span: Span
    verdict: Verdict


class ExplainedCall(NamedTuple):
    call: Call
    priced: Priced  #: by today's rates
    price: Explanation
    booked_nano: int | None  #: what the charge says; None if unpriced
    is_booked: bool  #: false while the trace waits to be attributed
    gpu_hours: list[CallHour]  #: of a self-hosted call


class ExplainedTrace(NamedTuple):
    """One set of traces that are resolved together, in one project."""

    project_id: int
    spans: list[ExplainedSpan]
    calls: list[ExplainedCall]
    is_oversize: bool = False  #: more spans than are resolved as a whole


def explain_trace(conn: psycopg.Connection, trace_id: bytes) -> list[ExplainedTrace]:
    """The sets that a trace is part of: one per project that received it, none if no span of it is stored.

    Changes nothing: what the search would note down is rolled back.
    """
    found = traces.find_trace(conn, trace_id)
    explained = []
    for project_id in sorted(found):
        with conn.transaction(force_rollback=True):
            explained += _sets(conn, project_id, found[project_id])
    return explained


def _sets(conn: psycopg.Connection, project_id: int, nodes: Iterable[Node]) -> list[ExplainedTrace]:
    gathered = Gatherer(conn, project_id, try_lock=lambda shard: True).gather(nodes)
    whole = [_explained(conn, project_id, one.spans, one.nodes) for one in gathered.sets]
    return whole + [ExplainedTrace(project_id, [], [], is_oversize=True) for _ in gathered.oversize]


def _explained(conn: psycopg.Connection, project_id: int, spans: list[Span], nodes: list[Node]) -> ExplainedTrace:
    book, rules = rate_book(conn, project_id), load_token_rules(conn, project_id)
    by_key = {(span.trace_id, span.span_id): span for span in spans}
    verdicts = [
        ExplainedSpan(by_key[verdict.trace_id, verdict.span_id], verdict)
        for verdict in calls.explain(spans, rules=rules)
    ]
    booked = {key[1:]: charge for key, charge in charges.load_booked(conn, project_id, nodes=nodes).items()}
    mappings = gpu_calls.load_rules(conn, project_id)
    resolved = [own(call, mappings) for call in calls.resolve(spans, rules=rules)]
    shares = gpu_calls.load_shares(conn, project_id, keys=[charges.key_of(call) for call in resolved])
    priced_calls = []
    for call in resolved:
        share = shares.get(charges.key_of(call))
        priced = with_gpu(book.price(call), *share) if share else book.price(call)
        charge = booked.get((call.trace_id, call.span_id))
        price = price_explain.explain(book, call, priced._replace(cost_nano=charge.cost_nano) if charge else priced)
        priced_calls.append(
            ExplainedCall(
                call,
                priced,
                price,
                charge.cost_nano if charge else None,
                charge is not None,
                _gpu_hours(conn, project_id, call),
            )
        )
    return ExplainedTrace(project_id, verdicts, priced_calls)


def _gpu_hours(conn: psycopg.Connection, project_id: int, call: Call) -> list[CallHour]:
    if call.provider != SELF_HOSTED:
        return []
    day, trace_id, span_id = charges.key_of(call)
    return hours_of(conn, project_id, day=day, trace_id=UUID(bytes=trace_id), span_id=span_id)
