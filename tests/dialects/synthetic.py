"""Builds the spans and events of clients that we have no recording of, from what is known of their output."""

from collections.abc import Mapping
from typing import Any

from collectors.dialects import Event, Hit, Recogniser, Scalar, Scope
from costapp.core.values import Span

SECOND = 1_000_000_000
T0 = 1_800_000_000 * SECOND
RECOGNISER = Recogniser(hash_secret=b"synthetic secret of 32 bytes ...")


def hits(attributes: Mapping[str, Scalar], recogniser: Recogniser = RECOGNISER) -> list[Hit]:
    return [hit for key, value in attributes.items() if (hit := recogniser.recognise(key, value))]


class Client:
    """One process with one trace at a time."""

    def __init__(self, scope: str, version: str = "", *, service: str = "app", resource: Mapping[str, Scalar] = {},
                 recogniser: Recogniser = RECOGNISER) -> None:  # fmt: skip
        self.scope = Scope(scope, version)
        self.recogniser = recogniser
        self.resource = recogniser.resource(hits({"service.name": service, **resource}, recogniser))
        self.trace = b"t" * 16
        self._last = 0

    def span(
        self, name: str, attributes: Mapping[str, Scalar] | None = None, parent: Span | None = None, *, at: float = 0.0,
        lasts: float = 1.0, status: int = 0, kind: int = 1, scope: str | None = None, version: str = "",
        events: Mapping[str, Mapping[str, Scalar]] | None = None, trace: bytes | None = None,
    ) -> Span:  # fmt: skip
        self._last += 1
        start = T0 + round(at * SECOND)
        facts = self.recogniser.span(
            name=name, kind=kind, status=status, start_ns=start, end_ns=start + round(lasts * SECOND),
            hits=hits(attributes or {}, self.recogniser), resource=self.resource,
            scope=self.scope if scope is None else Scope(scope, version),
            events=[Event(n, start + SECOND // 10, hits(a, self.recogniser)) for n, a in (events or {}).items()],
        )  # fmt: skip
        return Span(trace or self.trace, self._last, parent.span_id if parent else 0, start, facts)

    def log(self, attributes: Mapping[str, Scalar], *, name: str = "", body: Any = None, at: float = 0.0,
            inside: Span | None = None) -> Span | None:  # fmt: skip
        return self.recogniser.log_record(
            event_name=name, body=body, time_ns=T0 + round(at * SECOND), trace_id=inside.trace_id if inside else b"",
            span_id=inside.span_id if inside else 0, hits=hits(attributes, self.recogniser), scope=self.scope,
            resource=self.resource,
        )  # fmt: skip
