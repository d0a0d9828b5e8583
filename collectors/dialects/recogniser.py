"""From decoded OTLP to `SpanFacts`: one attribute at a time, then one span at a time.

`Recogniser.recognise` is pure in (key, value), so callers cache it; `Recogniser.span` only merges hits and
settles what needs several attributes at once.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collectors.dialects import (
    app,
    attribution,
    coding_agents,
    content,
    finish,
    gateways,
    inference_servers,
    langfuse,
    openinference,
    openllmetry,
    otel_genai,
    vercel,
)
from collectors.dialects.metrics import token_point
from collectors.dialects.rules import FLAG, Rule, both, joined, text
from collectors.dialects.scalars import DOCUMENT_LIMIT, NAME_LIMIT, clean, text_of
from collectors.dialects.types import Event, Fact, Hit, MetricPoint, Resource, Scalar, Scope
from costapp.core.ids import hash64
from costapp.core.values import Role, Signal, Span, SpanFacts, SpanFlag

#: Every recognised attribute name. docs/attributes.md is held equal to it by a test.
BUILT_IN: Mapping[str, Rule] = joined([
    {"service.name": text("service")}, attribution.TABLE, app.TABLE, otel_genai.TABLE, openinference.TABLE,
    openllmetry.TABLE, vercel.TABLE, langfuse.TABLE, gateways.LITELLM, gateways.MLFLOW, gateways.LOGFIRE,
    coding_agents.TABLE, inference_servers.TABLE,
])  # fmt: skip

#: The OpenTelemetry event that repeats the usage of a call.
OPERATION_DETAILS = "gen_ai.client.inference.operation.details"
_MAX_KEYS = 10_000
_RANKED = frozenset({"weak_feature", "prompt_part", "answer_part"})  # slots whose rank or number matters
_DROPPED: Hit = (Fact(FLAG, -1, int(SpanFlag.CONTENT_DROPPED)),)
_PLAIN, _CALL, _AGGREGATE = int(Role.PLAIN), int(Role.CALL), int(Role.AGGREGATE)
_TIME_INVALID, _LATE = int(SpanFlag.TIME_INVALID), int(SpanFlag.LATE_RESULT)


class Recogniser:
    """Reads the telemetry of one project: the built-in tables plus the project's own attribute names.

    `attribute_names` maps a field (feature, user, session, team, environment, variant, prompt_version) to
    names tried before the built-in ones, best first. Thread-safe; holds no state but a cache of names.
    """

    def __init__(
        self, attribute_names: Mapping[str, Sequence[str]] | None = None, *, hash_secret: bytes,
        store_content: bool = False,
    ) -> None:  # fmt: skip
        self.store_content = store_content
        self._secret = hash_secret
        self._rules: dict[str, Rule] = dict(BUILT_IN)
        for field, names in (attribute_names or {}).items():
            if field in attribution.FIELDS:
                names = [names] if isinstance(names, str) else names
                for position, name in enumerate(names):
                    own = text(field, position - len(names) - 1000)
                    known = self._rules.get(name)
                    self._rules[name] = both(own, known) if known else own
        for name in (*content.PROMPTS, *content.ANSWERS, *content.OTHERS):
            self._rules[name] = self._content_rule(name, self._rules.get(name))
        self._by_pattern: dict[str, Rule | None] = {}

    def recognise(self, key: str, value: Scalar) -> Hit | None:
        """What this attribute states; None if it is of no interest. Pure in (key, value); never raises."""
        read = self.reader(key)
        return read(value) if read is not None else None

    def reader(self, key: str) -> Callable[[Scalar], Hit | None] | None:
        """`recognise` for one key; None if an attribute of this name cannot state anything at all."""
        rule = self._rules.get(key) or self._pattern_rule(key)
        return rule.read if rule is not None else None

    def resource(self, hits: Sequence[Hit]) -> Resource:
        """Digest a resource once for everything below it."""
        found = merged(hits)
        stated = {name: found[name] for name in Resource._fields if name in found}
        return Resource(**stated, truncated=bool(found.get(FLAG, 0) & SpanFlag.TRUNCATED))

    def span(
        self, *, name: str, kind: int, status: int, start_ns: int, end_ns: int, hits: Sequence[Hit], scope: Scope,
        resource: Resource, events: Sequence[Event] = (),
    ) -> SpanFacts:  # fmt: skip
        """What one span states. `hits` in wire order."""
        duration_us, flags = None, _TIME_INVALID
        if 0 < start_ns <= end_ns:
            duration_us, flags = (end_ns - start_ns) // 1000, 0
        if not hits:
            return SpanFacts(clean(name, NAME_LIMIT), resource.service, duration_us, status, kind, 0,
                             flags, 0, resource.environment)  # fmt: skip
        found = merged(hits)
        flags |= found.pop(FLAG, 0)
        role = finish.role_of(found, scope=scope, service=resource.service or "")
        if role == _PLAIN or (role == _AGGREGATE and not finish.states_usage(found)):
            return self._plain(name, kind, status, duration_us, role, flags, found, resource)
        flags = finish.call(
            found,
            name=name,
            role=role,
            status=status,
            start_ns=start_ns,
            flags=flags,
            scope=scope,
            service=resource.service or "",
            events=events,
            secret=self._secret,
        )
        return _facts(
            found,
            name=name,
            kind=kind,
            role=role,
            flags=flags,
            duration_us=duration_us,
            scope=scope,
            resource=resource,
            status=found.pop("status", status),
        )

    def varying(self, hits: Sequence[Hit], facts: SpanFacts, *, name: str, scope: Scope, resource: Resource
                ) -> dict[str, int] | None:  # fmt: skip
        """Where the facts of a span without events took values from hits as they are: field -> index of the hit.

        A span that differs only in those values and in its times has facts that differ only there and in the duration.
        None if other values could lead to other facts.
        """
        best = _places(hits)
        found = {slot: value for slot, (_, _, value) in best.items()}
        if not finish.takes_as_they_are(found, name=name, scope=scope, service=resource.service or ""):
            return None
        places = {slot: index for slot, (_, index, _) in best.items() if may_vary(hits[index])}
        if any(getattr(facts, slot) != found[slot] for slot in places):
            return None
        return places

    def log_record(
        self, *, event_name: str, body: Scalar, time_ns: int, trace_id: bytes, span_id: int, hits: Sequence[Hit],
        scope: Scope, resource: Resource,
    ) -> Span | None:  # fmt: skip
        """A log record that reports a model call becomes a Span with signal EVENT; None = any other record.

        Its ids are derived from what it says, so a resent record is the same span. Without trace context it
        gets a trace of its own, shared by the records of one prompt.
        """
        found = merged(hits)
        flags = found.pop(FLAG, 0)
        name = _event_name(event_name, found, body, scope)
        client = coding_agents.CLIENTS.get(name)
        if client is not None:
            if not coding_agents.event(client, name, found):
                return None
        elif name != OPERATION_DETAILS or not _reports_call(found, scope, resource):
            return None
        duration_us = found.get("bare_duration_us")
        start_ns = max(time_ns - (duration_us or 0) * 1000, 0)
        if time_ns <= 0:
            flags |= _TIME_INVALID
        flags = finish.call(
            found,
            name=name,
            role=_CALL,
            status=0,
            start_ns=start_ns,
            flags=flags,
            scope=scope,
            service=resource.service or "",
            events=(),
            secret=self._secret,
        )
        identity = _event_identity(name, time_ns, found, resource)
        own_trace = not any(trace_id)
        trace = _own_trace(found, identity, resource) if own_trace else trace_id
        facts = _facts(
            found,
            name=name,
            kind=0,
            role=_CALL,
            flags=flags,
            duration_us=duration_us,
            scope=scope,
            resource=resource,
            status=found.pop("status", 0),
            signal=int(Signal.EVENT),
        )
        own_id = hash64(trace + span_id.to_bytes(8, "big", signed=True) + identity)
        return Span(trace, own_id, 0 if own_trace else span_id, start_ns, facts)

    def metric_point(
        self, *, metric: str, value: float, start_ns: int, time_ns: int, is_delta: bool,
        attributes: Sequence[tuple[str, Scalar]], scope: Scope, resource: Resource, resource_key: bytes,
    ) -> MetricPoint | None:  # fmt: skip
        """A data point of a token counter; None for any other metric, and for counts that overlap others.

        For a histogram `value` is the sum. `resource_key` identifies the sending process (the raw bytes of
        its Resource message), because two processes may send equal series.
        """
        return token_point(
            metric=metric,
            value=value,
            start_ns=start_ns,
            time_ns=time_ns,
            is_delta=is_delta,
            attributes=attributes,
            scope=scope,
            resource=resource,
            resource_key=resource_key,
        )

    def content(self, hits: Sequence[Hit]) -> dict[str, str] | None:
        """Prompt and answer text, for projects that opted in; None if there is none or they did not."""
        if not self.store_content:
            return None
        found = merged(hits)
        return {slot: found[slot] for slot in ("prompt_text", "answer_text") if slot in found} or None

    def _plain(
        self, name: str, kind: int, status: int, duration_us: int | None, role: int, flags: int,
        found: dict[str, Any], resource: Resource,
    ) -> SpanFacts:  # fmt: skip
        """A span that only matters for its place in the tree and for whom it says it works."""
        kept, feature_rank, session_rank = finish.attribution_of(found)
        return SpanFacts(clean(name, NAME_LIMIT), resource.service, duration_us, status, kind, role,
                         flags & ~_LATE, 0,
                         found.get("environment", resource.environment), feature_rank=feature_rank,
                         session_rank=session_rank, **kept)  # fmt: skip

    def _pattern_rule(self, key: str) -> Rule | None:
        cache = self._by_pattern
        if key in cache:
            return cache[key]
        if len(cache) >= _MAX_KEYS:
            cache.clear()
        rule = cache[key] = self._part_rule(key) or gateways.raw_response(key) or attribution.by_pattern(key)
        return rule

    def _part_rule(self, key: str) -> Rule | None:
        """One attribute per message: ``gen_ai.prompt.3.content``."""
        for slot, pattern in (("prompt_part", content.PROMPT_PART), ("answer_part", content.ANSWER_PART)):
            found = pattern.match(key)
            if found:
                return Rule((slot,), self._part_reader(slot, int(found.group(1))))
        return None

    def _part_reader(self, slot: str, position: int) -> Any:
        def read(value: Scalar) -> Hit | None:
            if not isinstance(value, str) or not value:
                return None
            digest = content.of_text(self._secret, value)
            return (Fact(slot, -1, (position, digest)), *self._dropped())

        return read

    def _dropped(self) -> Hit:
        return () if self.store_content else _DROPPED

    def _content_rule(self, name: str, known: Rule | None) -> Rule:
        """Digest the text of one attribute, beside what the tables read from it."""
        slot = "prompt" if name in content.PROMPTS else "answer" if name in content.ANSWERS else ""
        rank = content.PROMPTS.get(name, content.ANSWERS.get(name, 0))

        def read(value: Scalar) -> Hit | None:
            facts = list(known.read(value) or ()) if known else []
            if slot == "answer" and name == "output.value":
                facts += openinference.response_id_of_output(value) or ()
            digest = content.digest(self._secret, value) if slot else None
            if digest is not None:
                facts.append(Fact(slot, rank, digest))
                if self.store_content:
                    kept = value if isinstance(value, str) else repr(value)
                    facts.append(Fact(f"{slot}_text", rank, clean(kept, DOCUMENT_LIMIT)))
            if value:
                facts += self._dropped()
            return tuple(facts) or None

        return Rule((*(known.slots if known else ()), slot or "content"), read)


def may_vary(hit: Hit) -> bool:
    """Whether a hit states nothing but one value that may go into the facts as it is."""
    return len(hit) == 1 and finish.passes_on(hit[0].slot, hit[0].value)


def _places(hits: Sequence[Hit]) -> dict[str, tuple[int, int, Any]]:
    """Like `merged`: the rank, the index of the hit and the value that wins each slot."""
    best: dict[str, tuple[int, int, Any]] = {}
    for index, hit in enumerate(hits):
        for slot, rank, value in hit:
            if slot not in best or rank < best[slot][0]:
                best[slot] = (rank, index, value)
    return best


def merged(hits: Sequence[Hit]) -> dict[str, Any]:
    """The best fact per slot: lowest rank, then wire order. Facts of rank -1 (flags, message parts) add up."""
    found: dict[str, Any] = {slot: value for hit in hits for slot, _, value in hit}
    if len(found) == sum(map(len, hits)) and _RANKED.isdisjoint(found):
        return found  # nothing competes and nothing adds up: most spans
    return _ranked(hits)


def _ranked(hits: Sequence[Hit]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for hit in hits:
        for slot, rank, value in hit:
            if rank == -1:
                if slot == FLAG:
                    found[FLAG] = found.get(FLAG, 0) | value
                else:
                    found.setdefault(slot, []).append(value)
            elif slot not in ranks or rank < ranks[slot]:
                ranks[slot] = rank
                found[slot] = value
    weak_rank = ranks.get("weak_feature")
    if weak_rank is not None:
        found["weak_feature_rank"] = weak_rank
    return found


def _facts(
    found: dict[str, Any], *, name: str, kind: int, role: int, flags: int, duration_us: int | None, scope: Scope,
    resource: Resource, status: int, signal: int = 0,
) -> SpanFacts:  # fmt: skip
    kept, feature_rank, session_rank = finish.attribution_of(found)
    for slot in found:
        if slot in finish.CALL_SLOTS:
            kept[slot] = found[slot]
    if "prefill_us" in kept or "decode_us" in kept:
        kept["instance"] = found.get("instance", resource.instance)  # the server itself speaks
    return SpanFacts(
        clean(name, NAME_LIMIT), resource.service, duration_us, status, kind, role, flags, signal,
        found.get("environment", resource.environment), feature_rank=feature_rank, session_rank=session_rank,
        scope=clean(scope.name) or None, scope_version=clean(scope.version, 64) or None,
        resource_feature=resource.feature, resource_user=resource.user, resource_session=resource.session,
        resource_team=resource.team, resource_variant=resource.variant, **kept,
    )  # fmt: skip


def _event_name(stated: str, found: Mapping[str, Any], body: Scalar, scope: Scope) -> str:
    """The event's name: its own field, an attribute, or the body (Claude Code); whichever we know."""
    candidates = [stated, found.get("event_name") or "", text_of(body) or ""]
    if scope.name.startswith("com.anthropic.claude_code"):
        candidates.append(f"claude_code.{found.get('event_name')}")
    for name in candidates:
        if name in coding_agents.CLIENTS or name == OPERATION_DETAILS:
            return name
    return ""


def _reports_call(found: Mapping[str, Any], scope: Scope, resource: Resource) -> bool:
    """The event has a result (not only a request), and no richer event of the same client repeats it."""
    if scope.name.startswith("gemini-cli") or resource.service == "gemini-cli":
        return False
    if found.get("role", _CALL) != _CALL:
        return False
    return any(slot in found for slot in ("input", "output", "error", "response_id"))


def _event_identity(name: str, time_ns: int, found: Mapping[str, Any], resource: Resource) -> bytes:
    parts = [name, time_ns, resource.service, *(found.get(slot) for slot in (
        "session", "prompt_id", "event_sequence", "event_timestamp", "response_id", "model_bare", "input", "output",
        "cache_read", "cache_write", "error"))]  # fmt: skip
    return repr(parts).encode("utf-8", "replace")


def _own_trace(found: Mapping[str, Any], identity: bytes, resource: Resource) -> bytes:
    """Records of one prompt belong together (retries); any other record stands alone."""
    key = identity
    if found.get("session") and found.get("prompt_id"):
        key = repr((resource.service, found["session"], found["prompt_id"])).encode("utf-8", "replace")
    return hashlib.blake2b(key, digest_size=16).digest()
