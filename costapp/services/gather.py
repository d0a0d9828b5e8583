"""Which spans must be looked at together: traces as sets of days, joined with traces that saw the same response.

The answer depends on the stored spans only, never on which trace was marked or when: two nodes (a trace
on a UTC day) belong together if they are the same trace on neighbouring days, or share a response id on
the same or neighbouring days, unless that id is seen in too many traces to identify one call.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

import psycopg

from costapp.core.values import Span
from costapp.storage import traces
from costapp.storage.outbox import SHARDS, shard_of
from costapp.storage.traces import Node, NodeSpans

#: A response id in more traces than this within three days is a mock or a constant, not an identity.
TRACES_PER_RESPONSE = 16

_DAY = timedelta(days=1)


@lru_cache(maxsize=1024)
def _near(day: date) -> tuple[date, date, date]:
    return day - _DAY, day, day + _DAY


class TraceSet(NamedTuple):
    """Nodes to resolve together and all their spans."""

    nodes: list[Node]
    spans: list[Span]


class Gathered(NamedTuple):
    sets: list[TraceSet]
    oversize: list[Node]
    deferred: list[Node]  #: in a set that another worker is busy with
    busy_shards: set[int]  #: whose locks were missing


class Gatherer:
    """Collects the sets around the marked nodes of one project, inside one transaction.

    ``try_lock`` takes a shard for the transaction: a foreign trace is read only after its shard is ours,
    so what is read cannot be changed by another worker before it is written.
    """

    def __init__(self, conn: psycopg.Connection, project_id: int, *, try_lock: Callable[[int], bool]) -> None:
        self._conn = conn
        self._project_id = project_id
        self._try_lock = try_lock
        self._found: dict[Node, NodeSpans] = {}
        self._probed: set[Node] = set()
        self._links: dict[Node, set[Node]] = defaultdict(set)
        self._blocked: set[Node] = set()
        self._busy_shards: set[int] = set()

    def gather(self, nodes: Iterable[Node]) -> Gathered:
        frontier = _around(nodes)
        while frontier:
            self._probed |= frontier
            found = self._load(frontier)
            frontier = (_around(found) | self._linked(found)) - self._probed
        return self._sets()

    def _load(self, frontier: set[Node]) -> list[Node]:
        by_day: dict[date, list[bytes]] = defaultdict(list)
        for day, trace_id in frontier:
            by_day[day].append(trace_id)
        found: list[Node] = []
        for day in sorted(by_day):
            nodes = traces.load_nodes(self._conn, self._project_id, day=day, trace_ids=by_day[day])
            self._found.update(nodes)
            found.extend(nodes)
        return found

    def _linked(self, found: list[Node]) -> set[Node]:
        """Nodes of other traces that share a response id with these, as far as their shards can be had."""
        seen: dict[int, set[Node]] = defaultdict(set)
        for node in found:
            for response_hash in self._found[node].response_hashes:
                seen[response_hash].add(node)
        reach: set[Node] = set()
        for node, other in self._edges(seen):
            if other in self._found or self._try_lock(shard_of(other[1])):
                self._links[node].add(other)
                self._links[other].add(node)
                reach.add(other)
            else:
                self._blocked.add(node)
                self._busy_shards.add(shard_of(other[1]))
        return _around(reach)

    def _edges(self, seen: dict[int, set[Node]]) -> list[tuple[Node, Node]]:
        known = traces.load_shared(self._conn, self._project_id, response_hashes=sorted(seen)) if seen else set()
        asked = {
            response_hash: nodes
            for response_hash, nodes in seen.items()
            if any((response_hash, day) not in known for day, _ in nodes)
        }
        if not asked:
            return []
        days = [day for nodes in asked.values() for day, _ in nodes]
        holders = traces.find_by_response(
            self._conn, self._project_id, response_hashes=sorted(asked),
            first_day=min(days) - 2 * _DAY, last_day=max(days) + 2 * _DAY,
        )  # fmt: skip
        shared = {key for key in _shared(asked, holders) if key not in known}
        traces.report_shared(self._conn, self._project_id, shared=shared, shards=SHARDS)
        # In the order of shards, so that locks are asked for in the same order by everyone.
        edges = set(_edges_of(asked, holders, shared | known))
        return sorted(edges, key=lambda edge: (shard_of(edge[1][1]), edge))

    def _sets(self) -> Gathered:
        gathered = Gathered([], [], [], self._busy_shards)
        seen: set[Node] = set()
        for node in sorted(self._found):
            if node in seen:
                continue
            members = self._members(node)
            seen.update(members)
            if self._found[node].is_oversize:
                gathered.oversize.append(node)
            elif not self._blocked.isdisjoint(members):
                gathered.deferred.extend(members)
            else:
                spans = [span for member in members for span in self._found[member].spans]
                gathered.sets.append(TraceSet(members, spans))
        return gathered

    def _members(self, node: Node) -> list[Node]:
        """Everything reachable from a node. An oversize node stands alone."""
        if self._found[node].is_oversize:
            return [node]
        members, pending = {node}, [node]
        while pending:
            for other in self._beside(pending.pop()) - members:
                if not self._found[other].is_oversize:
                    members.add(other)
                    pending.append(other)
        return sorted(members)

    def _beside(self, node: Node) -> set[Node]:
        """Found nodes of the same trace on the days around, and linked ones."""
        day, trace_id = node
        beside = {(near, trace_id) for near in _near(day) if (near, trace_id) in self._found}
        return beside.union(self._found.keys() & self._links[node]) if node in self._links else beside


def _around(nodes: Iterable[Node]) -> set[Node]:
    """The nodes and the same traces on the days before and after."""
    return {(near, trace_id) for day, trace_id in nodes for near in _near(day)}


_Holders = dict[int, dict[date, set[bytes]]]


def _shared(asked: dict[int, set[Node]], holders: _Holders) -> Iterable[tuple[int, date]]:
    """Response ids and days on which too many traces carry them."""
    for response_hash, nodes in asked.items():
        by_day = holders.get(response_hash, {})
        if sum(map(len, by_day.values())) > TRACES_PER_RESPONSE:
            for day in {near for own_day, _ in nodes for near in _near(own_day)}:
                holding: set[bytes] = set().union(*(by_day.get(near, set()) for near in _near(day)))
                if len(holding) > TRACES_PER_RESPONSE:
                    yield response_hash, day


def _edges_of(
    asked: dict[int, set[Node]], holders: _Holders, shared: set[tuple[int, date]]
) -> Iterable[tuple[Node, Node]]:
    for response_hash, nodes in asked.items():
        by_day = holders.get(response_hash)
        if not by_day:
            continue  # only the trace itself: by far the usual case
        for day, trace_id in nodes:
            if (response_hash, day) in shared:
                continue
            for near in _near(day):
                if (response_hash, near) not in shared:
                    yield from (((day, trace_id), (near, other)) for other in by_day.get(near, ()) if other != trace_id)
