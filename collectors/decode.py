"""From a request body to a batch of rows, item by item.

A bad item is rejected and counted, the good rest goes on; an odd value is cut or ignored and counted. Only
a body that cannot be parsed at all is refused. Decoding pauses (yields) now and then, so that one large
request does not hold up the others.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from collectors import wire
from collectors.attributes import UNIQUE, Attributes, Entry
from collectors.batch import LOGS, TRACES, Batch
from collectors.codecs import JSON, PROTOBUF, Codec, Group
from collectors.dialects import Event, Hit, Recogniser, Resource, Scope
from collectors.errors import Refusal, bad_data
from collectors.gpu.otlp import OtlpMetrics, spellings
from collectors.gpu.samples import Samples
from collectors.repeats import Context, Repeats, Shape
from collectors.settings import Settings
from costapp.core.ids import response_hash
from costapp.core.values import SpanFacts, SpanFlag
from costapp.storage.facts import FactsTemplate, bytes_template, encode_facts
from costapp.storage.spans import encode_row, pack_row

PAUSE = 512  # items between two pauses
_UNSEEN: Any = object()
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
        self._repeats = Repeats()
        self._gpu = OtlpMetrics(self._attributes.pairs, codec.resource_attributes)
        self._earliest_ns = self._latest_ns = 0

    def decode(self, body: bytes, batch: Batch) -> Iterator[None]:
        """Fill the batch from the body. Refusal if the body cannot be parsed."""
        now_ns = time.time_ns()
        self._earliest_ns = now_ns - self._limits.retention_days * _DAY_NS
        self._latest_ns = now_ns + _DAY_NS
        samples = Samples(now_ns=now_ns, keep_days=self._limits.retention_days)
        read = {TRACES: self._spans, LOGS: self._log_records}.get(batch.signal, partial(self._metrics, samples))
        try:
            for group in self._codec.groups(batch.signal, body):
                yield from read(group, batch)
        except _UNDECODABLE as error:
            raise _undecodable(error) from None
        batch.add_samples(samples)
        batch.odd += self._attributes.cuts.odd
        self._attributes.cuts.odd.clear()

    def _context(self, group: Group) -> tuple[Resource, Scope]:
        return self._attributes.resource(group.resource), self._attributes.scope(group.scope)

    def _spans(self, group: Group, batch: Batch) -> Iterator[None]:
        context = self._repeats.context(*self._context(group))
        items = self._allowed(group.items, batch)
        for first in range(0, len(items), PAUSE):
            for item in items[first : first + PAUSE]:  # a slice is a list, which is read faster than a container
                if self._copy(item, context, batch):
                    continue
                reason = self._span(item, context, batch)
                if reason:
                    batch.rejected[reason] += 1
            yield

    def _copy(self, item: Any, context: Context, batch: Batch) -> bool:
        """Add a span that repeats an earlier one in all but ids and times; False if it does not."""
        cut = self._codec.cut(item)
        if cut is None:
            return False
        trace_id, span_id, parent_id, start_ns, end_ns, rest = cut
        template = context.copies.get(rest)
        if template is None or not self._earliest_ns <= start_ns <= self._latest_ns or end_ns < start_ns:
            return False
        if not span_id or trace_id == _NO_TRACE:
            return False
        document = template.fill((end_ns - start_ns) // 1000)
        batch.rows.append(pack_row(batch.project_id, trace_id, span_id, parent_id, start_ns, 0, document))
        return True

    def _allowed(self, items: Sequence[Any], batch: Batch) -> Sequence[Any]:
        room = self._limits.spans - batch.received
        batch.received += len(items)
        if len(items) <= room:
            return items
        batch.rejected["too_many_items"] += len(items) - max(room, 0)
        return items[: max(room, 0)]

    def _span(self, item: Any, context: Context, batch: Batch) -> str:
        """Add one span; the reason if it is rejected."""
        span = self._codec.span(item)
        trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
        if len(trace_id) != 16 or trace_id == _NO_TRACE:
            return "invalid_trace_id"
        if len(span_id) != 8 or span_id == _NO_SPAN:
            return "invalid_span_id"
        number = _integer(span_id)
        parent_id = _integer(parent) if len(parent) == 8 else self._odd_parent(parent)
        entries = self._attributes.entries(span.attributes)
        start_ns = span.start_ns
        if self._earliest_ns <= start_ns <= self._latest_ns:
            document, hashed = self._document(item, span, entries, context)
        else:
            batch.odd["time_out_of_range"] += 1
            document, hashed = _encoded(self._facts(span, _hits(entries), context), SpanFlag.TIME_OUT_OF_RANGE)
        if len(document) > self._limits.facts_bytes:
            return "span_too_large"
        row = pack_row(batch.project_id, trace_id, number, parent_id, start_ns, hashed, document)
        batch.rows.append(row)
        if self._recogniser.store_content and (content := self._recogniser.content(_hits(entries))):
            batch.content.append((row, orjson.dumps(content).decode()))
        return ""

    def _document(self, item: Any, span: Any, entries: list[Entry], context: Context) -> tuple[bytes, int]:
        """The document of a span, and the hash of its response id. Looks for its likes first."""
        start_ns, end_ns, name = span.start_ns, span.end_ns, span.name
        likes = [entry[0] for entry in entries]
        if UNIQUE in likes or start_ns > end_ns or len(name) > self._limits.name_chars or span.events:
            return _encoded(self._facts(span, _hits(entries), context))
        key = (name, span.kind, span.status.code, *likes)
        shape: Shape | None = context.shapes.get(key, _UNSEEN)
        if shape is _UNSEEN:
            return self._first_of(key, item, span, entries, context)
        if shape is None:
            return _encoded(self._facts(span, _hits(entries), context))
        return shape.fill((end_ns - start_ns) // 1000, entries)

    def _first_of(
        self, key: tuple[Any, ...], item: Any, span: Any, entries: list[Entry], context: Context
    ) -> tuple[bytes, int]:
        """The document of a span, made in full; how it was made is remembered for its likes."""
        hits = _hits(entries)
        facts = self._facts(span, hits, context)
        document, hashed = _encoded(facts)
        places = self._recogniser.varying(
            hits, facts, name=span.name.decode("utf-8", "replace"), scope=context.scope, resource=context.resource
        )
        shape = None
        if places is not None:
            template = FactsTemplate(facts, tuple(places))
            shape = Shape(template, tuple(places.values()), hashed, places.get("response_id", -1))
        self._repeats.remember_shape(context, key, shape)
        if shape is not None and not places and not hashed:
            self._remember_copy(item, span, facts, context)
        return document, hashed

    def _remember_copy(self, item: Any, span: Any, facts: SpanFacts, context: Context) -> None:
        """For spans that repeat to the byte, unless each of them has something to be counted or kept."""
        cut = self._codec.cut(item)
        template = bytes_template(facts)
        if cut is None or template is None or self._odd or self._recogniser.store_content:
            return
        ids = (span.trace_id, _integer(span.span_id), _integer(span.parent_span_id), span.start_ns, span.end_ns)
        if cut[:5] == ids:  # else a field was sent twice, and the last one counts
            self._repeats.remember_copy(context, cut[5], template)

    def _facts(self, span: Any, hits: Sequence[Hit], context: Context) -> SpanFacts:
        events = span.events
        return self._recogniser.span(
            name=self._name(span.name),
            kind=span.kind if 0 <= span.kind <= 5 else 0,
            status=status if 0 <= (status := span.status.code) <= 2 else 0,
            start_ns=span.start_ns,
            end_ns=span.end_ns,
            hits=hits,
            scope=context.scope,
            resource=context.resource,
            events=self._events(events) if events else (),
        )

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
            span_id=_integer(span_id) if len(span_id) == 8 else 0,
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

    def _metrics(self, samples: Samples, group: Group, batch: Batch) -> Iterator[None]:
        resource, scope = self._context(group)
        for metric in group.items:
            points = self._allowed(list(self._codec.points(metric)), batch)
            name = self._name(metric.name)
            for number, point in enumerate(points, 1):
                if spellings(name, point.observations is not None):
                    self._gpu_point(name, point, group.resource, batch, samples)
                else:
                    self._point(name, point, resource, group.resource, scope, batch)
                if not number % PAUSE:
                    yield

    def _gpu_point(self, name: str, point: Any, resource: bytes, batch: Batch, samples: Samples) -> None:
        left_out = self._gpu.add(name, point, resource, samples)
        if left_out == "-":
            batch.ignored += 1
        elif left_out:
            batch.rejected[left_out] += 1

    def _point(
        self, name: str, point: Any, resource: Resource, resource_key: bytes, scope: Scope, batch: Batch
    ) -> None:
        found = self._recogniser.metric_point(
            metric=name,
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


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _hits(entries: Sequence[Entry]) -> list[Hit]:
    return [entry.hit for entry in entries]


def _encoded(facts: SpanFacts, flags: int = 0) -> tuple[bytes, int]:
    """The document, and the hash of the response id (0 = none)."""
    facts.flags |= flags
    return encode_facts(facts), response_hash(facts.response_id) if facts.response_id else 0


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
