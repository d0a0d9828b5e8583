"""From decoded OTLP to `SpanFacts`: one attribute at a time, then one span at a time.

`Recogniser.recognise` is pure in (key, value), so callers cache it; `Recogniser.span` only merges hits.
"""

from collections.abc import Mapping, Sequence

from collectors.dialects import attribution, otel_genai
from collectors.dialects.rules import FLAG, Rule, joined, text
from collectors.dialects.scalars import NAME_LIMIT, clean
from collectors.dialects.types import Event, Hit, MetricPoint, Resource, Scalar, Scope
from costapp.core.values import Role, Span, SpanFacts, SpanFlag

BUILT_IN = joined([attribution.TABLE, otel_genai.TABLE, {"service.name": text("service")}])


class Recogniser:
    """Reads spans of one project: the built-in tables plus the project's own attribute names."""

    def __init__(
        self, attribute_names: Mapping[str, Sequence[str]] | None = None, *, hash_secret: bytes, store_content: bool = False
    ) -> None:
        self._rules: dict[str, Rule] = dict(BUILT_IN)
        self._secret = hash_secret
        self.store_content = store_content
        for field, names in (attribute_names or {}).items():
            for rank, name in enumerate(names):
                self._rules[name] = text(field, rank - len(names))

    def recognise(self, key: str, value: Scalar) -> Hit | None:
        """What this attribute states; None if it is of no interest. Pure in (key, value)."""
        rule = self._rules.get(key)
        return rule.read(value) if rule is not None else None

    def resource(self, hits: Sequence[Hit]) -> Resource:
        """Digest a resource once for everything below it."""
        found = merged(hits)
        flags = found.get(FLAG, 0)
        names = Resource._fields[:-1]
        return Resource(**{name: found[name] for name in names if name in found},
                        truncated=bool(flags & SpanFlag.TRUNCATED))

    def span(
        self, *, name: str, kind: int, status: int, start_ns: int, end_ns: int, hits: Sequence[Hit],
        scope: Scope, resource: Resource, events: Sequence[Event] = (),
    ) -> SpanFacts:
        """What one span states."""
        found = merged(hits) if hits else {}
        flags = found.pop(FLAG, 0)
        duration_us = (end_ns - start_ns) // 1000 if 0 < start_ns <= end_ns else None
        if duration_us is None:
            flags |= SpanFlag.TIME_INVALID
        role = found.pop("role", None)
        if role is None:
            role = int(Role.MAYBE) if "input" in found or "output" in found else int(Role.PLAIN)
        if role:
            found["scope"], found["scope_version"] = scope.name or None, scope.version or None
        port = found.pop("port", None)
        if port and "host" in found:
            found["host"] = f"{found['host']}:{port}"
        for slot in ("service", "region"):
            found.pop(slot, None)
        return SpanFacts(
            name=clean(name, NAME_LIMIT), service=resource.service, duration_us=duration_us, status=status, kind=kind,
            role=role, flags=flags, environment=found.pop("environment", resource.environment),
            resource_feature=resource.feature, resource_user=resource.user, resource_session=resource.session,
            resource_team=resource.team, resource_variant=resource.variant, **found,
        )

    def log_record(
        self, *, event_name: str, body: Scalar, time_ns: int, trace_id: bytes, span_id: int,
        hits: Sequence[Hit], scope: Scope, resource: Resource,
    ) -> Span | None:
        """A log record that reports a model call becomes a Span with signal EVENT; None = not a usage event."""
        return None

    def metric_point(
        self, *, metric: str, value: float, start_ns: int, time_ns: int, is_delta: bool,
        attributes: Mapping[str, Scalar], scope: Scope, resource: Resource, resource_key: bytes,
    ) -> MetricPoint | None:
        """A data point of a token counter (histograms: `value` is the sum); None = some other metric.

        `resource_key` identifies the sending process (the raw bytes of its Resource message).
        """
        return None


def merged(hits: Sequence[Hit]) -> dict[str, object]:
    """The best fact per slot: lowest rank, then wire order. Flags add up."""
    found: dict[str, object] = {}
    ranks: dict[str, int] = {}
    flags = 0
    for hit in hits:
        for slot, rank, value in hit:
            if slot == FLAG:
                flags |= value
            elif slot not in ranks or rank < ranks[slot]:
                ranks[slot] = rank
                found[slot] = value
    if flags:
        found[FLAG] = flags
    return found
