"""From a request body to a batch of rows, item by item.

A bad item is rejected and counted, the good rest goes on; an odd value is cut or ignored and counted. Only
a body that cannot be parsed at all is refused. Decoding pauses (yields) now and then, so that one large
request does not hold up the others.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import orjson

from collectors import wire
from collectors.attributes import Attributes
from collectors.batch import LOGS, TRACES, Batch
from collectors.codecs import JSON, PROTOBUF, Codec, Group
from collectors.dialects import Event, Hit, Recogniser, Resource, Scope
from collectors.errors import Refusal, bad_data
from collectors.settings import Settings
from costapp.core.ids import response_hash
from costapp.core.values import Role, SpanFacts, SpanFlag
from costapp.storage.facts import FactsTemplate, encode_facts, facts_template
from costapp.storage.spans import encode_row, pack_row

PAUSE = 512  # items between two pauses
_FEW_HITS = 2  # spans that state more hardly ever repeat
_TEMPLATES = 4_096
_DAY_NS = 86_400_000_000_000
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_CHECK = "Check Content-Type and Content-Encoding."
_UNDECODABLE = (wire.DecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Decoder:
    """Decodes the requests of one project in one encoding."""

    def __init__(self, codec: Codec, recogniser: Recogniser, limits: Settings) -> None:
        self._codec = codec
        self._recogniser = recogniser
        self._limits = limits
        self._attributes = Attributes(codec, recogniser, limits)
        self._templates: dict[tuple[Any, ...], tuple[FactsTemplate | None, Any]] = {}
        self._earliest_ns = self._latest_ns = 0

    def decode(self, body: bytes, batch: Batch) -> Iterator[None]:
        """Fill the batch from the body. Refusal if the body cannot be parsed."""
        now_ns = time.time_ns()
        self._earliest_ns = now_ns - self._limits.retention_days * _DAY_NS
        self._latest_ns = now_ns + _DAY_NS
        read = {TRACES: self._spans, LOGS: self._log_records}.get(batch.signal, self._metrics)
        try:
            for group in self._codec.groups(batch.signal, body):
                yield from read(group, batch)
        except _UNDECODABLE as error:
            raise _undecodable(error) from None
        batch.odd += self._attributes.cuts.odd
        self._attributes.cuts.odd.clear()

    def _context(self, group: Group) -> tuple[Resource, Scope]:
        return self._attributes.resource(group.resource), self._attributes.scope(group.scope)

    def _spans(self, group: Group, batch: Batch) -> Iterator[None]:
        resource, scope = self._context(group)
        for number, span in enumerate(self._allowed(group.items, batch), 1):
            reason = self._span(span, resource, scope, batch)
            if reason:
                batch.rejected[reason] += 1
            if not number % PAUSE:
                yield

    def _allowed(self, items: Sequence[Any], batch: Batch) -> Sequence[Any]:
        room = self._limits.spans - batch.received
        batch.received += len(items)
        if len(items) <= room:
            return items
        batch.rejected["too_many_items"] += len(items) - max(room, 0)
        return items[: max(room, 0)]

    def _span(self, span: Any, resource: Resource, scope: Scope, batch: Batch) -> str:
        """Add one span; the reason if it is rejected."""
        trace_id, span_id = span.trace_id, span.span_id
        if len(trace_id) != 16 or trace_id == _NO_TRACE:
            return "invalid_trace_id"
        if len(span_id) != 8 or span_id == _NO_SPAN:
            return "invalid_span_id"
        parent = span.parent_span_id
        parent_id = int.from_bytes(parent, "big", signed=True) if len(parent) == 8 else self._odd_parent(parent)
        hits, events = self._attributes.hits(span.attributes), span.events
        start_ns, end_ns = span.start_ns, span.end_ns
        in_time = self._earliest_ns <= start_ns <= self._latest_ns
        template = None
        if len(hits) <= _FEW_HITS and in_time and start_ns <= end_ns and not events:
            template = self._template(span, hits, scope, resource)
        if template is not None:
            document, hashed = template.fill((end_ns - start_ns) // 1000), 0
        else:
            facts = self._facts(span, hits, events, scope, resource)
            if not in_time:
                facts.flags |= SpanFlag.TIME_OUT_OF_RANGE
                batch.odd["time_out_of_range"] += 1
            document = encode_facts(facts)
            hashed = response_hash(facts.response_id) if facts.response_id else 0
        if len(document) > self._limits.facts_bytes:
            return "span_too_large"
        number = int.from_bytes(span_id, "big", signed=True)
        row = pack_row(batch.project_id, trace_id, number, parent_id, start_ns, hashed, document)
        batch.rows.append(row)
        if self._recogniser.store_content and (content := self._recogniser.content(hits)):
            batch.content.append((row, orjson.dumps(content).decode()))
        return ""

    def _facts(
        self, span: Any, hits: Sequence[Hit], events: Sequence[Any], scope: Scope, resource: Resource
    ) -> SpanFacts:
        return self._recogniser.span(
            name=self._name(span.name),
            kind=span.kind if 0 <= span.kind <= 5 else 0,
            status=status if 0 <= (status := span.status.code) <= 2 else 0,
            start_ns=span.start_ns,
            end_ns=span.end_ns,
            hits=hits,
            scope=scope,
            resource=resource,
            events=self._events(events) if events else (),
        )

    def _template(self, span: Any, hits: Sequence[Hit], scope: Scope, resource: Resource) -> FactsTemplate | None:
        """The facts of a span with hardly any attributes, which differ from others' only in the duration.

        Such spans (database, HTTP, tool) are most of all spans and repeat endlessly. None if it is no such span.
        """
        key = (id(resource), id(scope), span.name, span.kind, span.status.code, *map(id, hits))
        known = self._templates.get(key)
        if known is not None:
            return known[0]
        facts = self._facts(span, hits, (), scope, resource)
        template = facts_template(facts) if facts.role == Role.PLAIN and not facts.flags else None
        if len(self._templates) >= _TEMPLATES:
            self._templates.clear()
        self._templates[key] = (template, (resource, scope, hits))  # held, so that no other object gets their ids
        return template

    def _odd_parent(self, raw: bytes) -> int:
        if raw:
            self._odd["invalid_parent_id"] += 1
        return 0

    def _name(self, raw: bytes) -> str:
        name = raw.decode("utf-8", "replace")
        if len(name) > self._limits.name_chars:
            self._odd["names_cut"] += 1
            name = name[: self._limits.name_chars]
        return name

    def _events(self, events: Sequence[Any]) -> list[Event]:
        limit = self._limits.events
        if len(events) > limit:
            self._odd["events_cut"] += len(events) - limit
            events = events[:limit]
        hits = self._attributes.hits
        return [Event(event.name.decode("utf-8", "replace"), event.time_ns, hits(event.attributes)) for event in events]

    @property
    def _odd(self) -> Counter[str]:
        return self._attributes.cuts.odd

    def _log_records(self, group: Group, batch: Batch) -> Iterator[None]:
        resource, scope = self._context(group)
        for number, record in enumerate(self._allowed(group.items, batch), 1):
            self._log_record(record, resource, scope, batch)
            if not number % PAUSE:
                yield

    def _log_record(self, record: Any, resource: Resource, scope: Scope, batch: Batch) -> None:
        trace_id, span_id = record.trace_id, record.span_id
        span = self._recogniser.log_record(
            event_name=self._name(record.event_name),
            body=self._codec.value(record.body, self._attributes.cuts),
            time_ns=record.time_ns or record.observed_ns,
            trace_id=trace_id if len(trace_id) == 16 and trace_id != _NO_TRACE else b"",
            span_id=int.from_bytes(span_id, "big", signed=True) if len(span_id) == 8 else 0,
            hits=self._attributes.hits(record.attributes),
            scope=scope,
            resource=resource,
        )
        if span is None:
            batch.ignored += 1
            return
        if not self._earliest_ns <= span.start_ns <= self._latest_ns:
            span.facts.flags |= SpanFlag.TIME_OUT_OF_RANGE
            batch.odd["time_out_of_range"] += 1
        batch.rows.append(encode_row(batch.project_id, *span))

    def _metrics(self, group: Group, batch: Batch) -> Iterator[None]:
        resource, scope = self._context(group)
        for metric in group.items:
            points = self._allowed(list(self._codec.points(metric)), batch)
            for number, point in enumerate(points, 1):
                self._point(metric.name, point, resource, group.resource, scope, batch)
                if not number % PAUSE:
                    yield

    def _point(
        self, name: bytes, point: Any, resource: Resource, resource_key: bytes, scope: Scope, batch: Batch
    ) -> None:
        found = self._recogniser.metric_point(
            metric=self._name(name),
            value=point.value,
            start_ns=point.start_ns,
            time_ns=point.time_ns,
            is_delta=point.is_delta,
            attributes=self._attributes.pairs(point.attributes),
            scope=scope,
            resource=resource,
            resource_key=resource_key,
        )
        if found is None:
            batch.ignored += 1
        else:
            batch.points.append(found)


def _undecodable(error: Exception) -> Refusal:
    if isinstance(error, RecursionError):
        return bad_data("undecodable", "The body is nested too deeply.")
    if isinstance(error, msgspec.ValidationError):  # says where and which type, nothing of the payload
        return bad_data("undecodable", f"The body is JSON, but not OTLP: {error}.")
    if isinstance(error, wire.DecodeError):
        return bad_data("undecodable", f"The body is not an OTLP protobuf message. {_CHECK}")
    return bad_data("undecodable", f"The body is not JSON. {_CHECK}")


def make_decoder(recogniser: Recogniser, limits: Settings, *, is_json: bool) -> Decoder:
    return Decoder(JSON if is_json else PROTOBUF, recogniser, limits)
