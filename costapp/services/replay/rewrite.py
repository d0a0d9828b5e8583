"""Fresh identities for a recording, so that it can be sent again without meeting its earlier self.

Trace and span ids, the provider's response ids (wherever their text occurs) and, for events outside any
trace, the sub-millisecond part of their time are replaced. The replacement is a keyed hash of the old
value: the same id gets the same new one in every body of a recording. Everything else stays as it is.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from costapp.services.replay.messages import JSON_IDS, REQUESTS, exemplars, items, resources
from costapp.services.replay.recording import Body, Recording, encode

_ID_KEYS = frozenset(
    {
        "gen_ai.response.id",
        "ai.response.id",
        "llm.response.id",
        "response_id",
        "responseId",
        "gen_ai.request.previous_response.id",
        "previous_response_id",
        "litellm.call_id",
        "anthropic.request.id",
        "request_id",
        "prompt.id",  # coding agents: events of one prompt are kept together by it
    }
)
_PROVIDER_ID = re.compile(
    r"(?<![A-Za-z0-9_-])(?:chatcmpl|cmpl|resp|msg|gen|embd)[-_](?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{8,}"
)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{12,}")
_RESPONSE_SHAPE = frozenset({"choices", "usage", "usageMetadata", "output", "content", "candidates"})
_SHORT = 12  # letters and digits; a variant of the same length would not be unique below this
_SUB_MILLISECOND_NS = 999_983


class Identities:
    """New ids of one recording in one run. ``secret`` is None: everything keeps its identity."""

    def __init__(self, recording: str, secret: bytes | None) -> None:
        self._key = secret and hashlib.blake2b(recording.encode(), key=secret, digest_size=32).digest()
        self._texts: dict[str, str] = {}
        self.traces: set[bytes] = set()
        self.event_times_ns: set[int] = set()  # of events outside any trace, as sent
        self.span_times_ns: set[int] = set()

    @property
    def renews(self) -> bool:
        return self._key is not None

    def _digest(self, value: bytes, size: int) -> bytes:
        assert self._key is not None
        return hashlib.blake2b(value, key=self._key, digest_size=size).digest()

    def span_id(self, old: bytes) -> bytes:
        """Absent (empty, all zero) and malformed ids stay as they are: how they are met is part of the recording."""
        return self._digest(old, 8) if self._key and len(old) == 8 and any(old) else old

    def trace_id(self, old: bytes) -> bytes:
        """As `span_id`; remembers the new id."""
        if len(old) != 16 or not any(old):
            return old
        new = self._digest(old, 16) if self._key else old
        self.traces.add(new)
        return new

    def event_time(self, time_ns: int) -> int:
        """Time of an event outside any trace: such events are told apart by time only."""
        if not time_ns:
            return time_ns
        shift = 1 + int.from_bytes(self._digest(b"time", 8), "big") % _SUB_MILLISECOND_NS if self._key else 0
        self.event_times_ns.add(time_ns + shift)
        return time_ns + shift

    def learn(self, response_id: str) -> None:
        if self._key and response_id and not response_id.startswith("["):  # "[Scrubbed ...]" is no id
            self._texts[response_id] = self._variant(response_id)

    def text(self, value: str) -> str:
        """``value`` with every known response id replaced."""
        if value in self._texts:
            return self._texts[value]
        return _TOKEN.sub(lambda token: self._texts.get(token[0], token[0]), value) if self._texts else value

    def _variant(self, old: str) -> str:
        """Same shape, other letters: the vendor's prefix, length, case and separators stay."""
        prefix = re.match(r"(?:[A-Za-z]+[-_]+)+", old)
        start = prefix.end() if prefix else 0
        if sum(letter.isalnum() for letter in old[start:]) < _SHORT:
            return f"{old}-{self._digest(old.encode(), 8).hex()}"
        stream = hashlib.shake_256(self._digest(old.encode(), 32)).digest(len(old) - start)
        return old[:start] + "".join(map(_other_letter, old[start:], stream))


_ALPHABETS = ("0123456789", "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _other_letter(old: str, noise: int) -> str:
    alphabet = next((letters for letters in _ALPHABETS if old in letters), old)
    return alphabet[noise % len(alphabet)]


def rewrite(recording: Recording, secret: bytes | None) -> tuple[list[bytes], Identities]:
    """The bodies of a recording under new identities, encoded as recorded, and those identities.

    Bodies that cannot be read stay as they are: the collector's answer to them is of interest too.
    """
    identities = Identities(recording.id, secret)
    documents = [_read(body) for body in recording.bodies]
    for document in documents:
        for key, value in _strings(document):
            for response_id in response_ids(key, value):
                identities.learn(response_id)
    return [
        _renew(body, document, identities) for body, document in zip(recording.bodies, documents, strict=True)
    ], identities


def _read(body: Body) -> Any:
    """Parsed JSON, a protobuf message, or None where the body is neither."""
    if not body.signal:
        return None
    try:
        plain = body.decoded()
        return json.loads(plain) if body.is_json else REQUESTS[body.signal].FromString(plain)
    except Exception:
        return None


def _renew(body: Body, document: Any, identities: Identities) -> bytes:
    if document is None:
        return body.data
    if body.is_json:
        plain = json.dumps(_renew_json(document, identities), ensure_ascii=False, separators=(",", ":")).encode()
    else:
        _renew_message(body.signal, document, identities)
        plain = document.SerializeToString()
    return encode(body.content_encoding, plain) if identities.renews else body.data


# -- response ids ------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def response_ids(key: str, value: str) -> frozenset[str]:
    """The provider's response ids in one attribute: as its value, in its text, or inside its JSON."""
    found = set(_PROVIDER_ID.findall(value))
    if key in _ID_KEYS or key.endswith(".response_id"):
        found.add(value)
    if value[:1] in "{[" and '"id"' in value:
        with suppress(ValueError, RecursionError):
            found.update(_ids_in(json.loads(value)))
    return frozenset(found)


def _ids_in(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _ids_in(child)
    elif isinstance(node, dict):
        if isinstance(node.get("id"), str) and not _RESPONSE_SHAPE.isdisjoint(node):
            yield node["id"]
        for child in node.values():
            yield from _ids_in(child)


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(attribute name, string) for every string value in a JSON document or a protobuf message."""
    if isinstance(node, list):
        for child in node:
            yield from _strings(child, key)
    elif isinstance(node, dict):
        name = node.get("key")
        for field, child in node.items():
            yield from _strings(child, name if isinstance(name, str) and field == "value" else key)
    elif isinstance(node, str):
        yield key, node
    elif hasattr(node, "ListFields"):
        name = getattr(node, "key", "")
        for field, child in node.ListFields():
            children = child if field.is_repeated else (child,)
            for one in children:
                yield from _strings(one, name if name and field.name == "value" else key)


# -- bodies ------------------------------------------------------------------------------------


def _renew_json(node: Any, identities: Identities) -> Any:
    if isinstance(node, list):
        return [_renew_json(child, identities) for child in node]
    if isinstance(node, str):
        return identities.text(node)
    if not isinstance(node, dict):
        return node
    if "parentSpanId" in node or ("spanId" in node and "startTimeUnixNano" in node):
        identities.span_times_ns.add(_int(node.get("startTimeUnixNano")))
    new = {
        field: _hex_id(child, field, identities) if field in JSON_IDS else _renew_json(child, identities)
        for field, child in node.items()
    }
    for record, old in zip(new.get("logRecords") or (), node.get("logRecords") or (), strict=True):
        if isinstance(old, dict) and not _has_id(old.get("traceId")):
            record.update(_shifted(old, identities))
    return new


def _has_id(text: Any) -> bool:
    return isinstance(text, str) and text.strip("0") != ""


def _shifted(record: dict[str, Any], identities: Identities) -> dict[str, Any]:
    """The times of a log record, moved."""
    times = {field: record.get(field) for field in ("timeUnixNano", "observedTimeUnixNano")}
    return {
        field: type(old)(identities.event_time(_int(old)))
        for field, old in times.items()
        if isinstance(old, (int, str))
    }


def _int(value: Any) -> int:
    """OTLP/JSON writes 64-bit integers as strings or as numbers."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _hex_id(text: Any, field: str, identities: Identities) -> Any:
    try:
        old = bytes.fromhex(text)
    except (TypeError, ValueError):
        return text
    return (identities.trace_id(old) if JSON_IDS[field] == 16 else identities.span_id(old)).hex()


def _renew_message(signal: str, request: Any, identities: Identities) -> None:
    renew_item: Callable[[Any, Identities], None] = {
        "traces": _renew_span,
        "logs": _renew_record,
        "metrics": _renew_metric,
    }[signal]
    for item in items(signal, request):
        renew_item(item, identities)
    for resource in resources(signal, request):
        _renew_attributes(resource.resource.attributes, identities)


def _renew_context(item: Any, identities: Identities) -> None:
    item.trace_id = identities.trace_id(item.trace_id)
    item.span_id = identities.span_id(item.span_id)


def _renew_span(span: Any, identities: Identities) -> None:
    _renew_context(span, identities)
    identities.span_times_ns.add(span.start_time_unix_nano)
    span.parent_span_id = identities.span_id(span.parent_span_id)
    _renew_attributes(span.attributes, identities)
    for event in span.events:
        _renew_attributes(event.attributes, identities)
    for link in span.links:  # the linked trace need not be part of the recording
        _renew_context(link, identities)
        _renew_attributes(link.attributes, identities)


def _renew_record(record: Any, identities: Identities) -> None:
    _renew_context(record, identities)
    _renew_value(record.body, identities)
    _renew_attributes(record.attributes, identities)
    if not any(record.trace_id):
        record.time_unix_nano = identities.event_time(record.time_unix_nano)
        record.observed_time_unix_nano = identities.event_time(record.observed_time_unix_nano)


def _renew_metric(metric: Any, identities: Identities) -> None:
    for exemplar in exemplars(metric):
        _renew_context(exemplar, identities)


def _renew_attributes(attributes: Any, identities: Identities) -> None:
    for attribute in attributes:
        _renew_value(attribute.value, identities)


def _renew_value(value: Any, identities: Identities) -> None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        new = identities.text(value.string_value)
        if new != value.string_value:
            value.string_value = new
    elif kind == "array_value":
        for child in value.array_value.values:
            _renew_value(child, identities)
    elif kind == "kvlist_value":
        _renew_attributes(value.kvlist_value.values, identities)
