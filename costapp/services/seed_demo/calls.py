"""One request of the invented company: a root span, what it looked up, and its model calls."""

from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import NamedTuple

from costapp.core.values import Role, Span, SpanFacts, SpanFlag
from costapp.services.seed_demo import company
from costapp.services.seed_demo.company import MODELS, Feature, Model
from costapp.services.seed_demo.recorded import Turn

MILLISECOND_NS = 1_000_000
_SERVER, _CLIENT, _INTERNAL = 2, 3, 1  # OTLP span kinds
_ERROR = 2  # OTLP status
_ID_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_FAILURES = (("429", 0.6), ("timeout", 0.25), ("500", 0.15))


class Visit(NamedTuple):
    """What stays the same over one session."""

    feature: Feature
    at: datetime
    days_ago: int
    user: str | None
    session: str | None
    model: str
    variant: str | None
    environment: str

    @property
    def prompt_version(self) -> str | None:
        """The newest one released: in the morning of its day. The first was there before."""
        versions = self.feature.prompt_versions
        released = self.days_ago + (self.at.hour < company.RELEASE_HOUR)
        return next((version for since, version in reversed(versions) if since >= released), None) or (
            versions[0][1] if versions else None
        )


class Sizes(NamedTuple):
    """Tokens of one call; ``input`` counts all of the prompt, ``reasoning`` lies inside ``output``."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int


class _Trace:
    """Collects the spans of one trace; the clock moves with every call that is added."""

    def __init__(self, visit: Visit, start_ns: int, rng: Random) -> None:
        self.visit, self.rng, self.start_ns, self.clock_ns = visit, rng, start_ns, start_ns
        self.trace_id = rng.getrandbits(128).to_bytes(16, "big")
        self.root_id = _span_id(rng)
        self.children: list[Span] = []

    def add(self, facts: SpanFacts) -> None:
        duration_us = facts.duration_us or 0
        self.children.append(Span(self.trace_id, _span_id(self.rng), self.root_id, self.clock_ns, facts))
        self.clock_ns += duration_us * 1000 + self.rng.randrange(1, 9) * MILLISECOND_NS

    def spans(self, root: SpanFacts) -> list[Span]:
        root.duration_us = (self.clock_ns - self.start_ns) // 1000
        return [Span(self.trace_id, self.root_id, 0, self.start_ns, root), *self.children]


def answer(visit: Visit, turn: Turn, *, first: bool, start_ns: int, rng: Random) -> tuple[list[Span], int]:
    """The spans of one request of a session and how long it took, in nanoseconds."""
    feature, trace = visit.feature, _Trace(visit, start_ns, rng)
    trace.clock_ns += rng.randrange(2, 20) * MILLISECOND_NS
    if feature.embeds_first:
        question = Sizes(max(8, turn.input // 40), 0, 0, 0, 0)
        trace.add(_call(visit, MODELS["embed-small"], question, rng))
        trace.add(_plain("SELECT products", visit, "postgresql", rng))
    model, sizes = MODELS[visit.model], _sizes(visit, turn, first=first, rng=rng)
    while rng.random() < feature.errors * (4 if len(trace.children) else 1) and len(trace.children) < 4:
        trace.add(_failed(visit, model, sizes, rng))
    if rng.random() < feature.app_cache:
        trace.add(_from_app_cache(visit, model, sizes, rng))
    else:
        trace.add(_call(visit, model, sizes, rng))
    return trace.spans(_root(visit)), trace.clock_ns - start_ns


def _sizes(visit: Visit, turn: Turn, *, first: bool, rng: Random) -> Sizes:
    feature, model = visit.feature, MODELS[visit.model]
    asked = max(1, int(turn.input * feature.input_scale))
    seen = min(asked, int(turn.cached * feature.input_scale))
    system = feature.system_tokens
    if _during(visit, company.PROMPT_TRIPLED):
        system += 2 * (asked + system)  # three times the prompt, all of it new on every request
        seen, cacheable = 0, 0
    else:
        cacheable = system + seen
    hits = feature.cached if not _during(visit, company.CACHE_LOST) else 0.02
    served = rng.random() < hits and not (first and rng.random() < 0.3)
    cache_read = cacheable // 128 * 128 if served and cacheable >= 1024 else 0
    cache_write = max(0, asked + system - cache_read) if model.cache_write and cacheable >= 1024 else 0
    output = 0 if feature.shape == "embed" else max(1, int(turn.output * feature.output_scale))
    return Sizes(
        asked + system, cache_read, cache_write // 2 if served else cache_write, output, int(output * feature.reasoning)
    )


def _during(visit: Visit, incident: company.Incident) -> bool:
    if visit.feature.name != incident.feature:
        return False
    first_day = visit.at.date() + timedelta(days=visit.days_ago - incident.from_day)
    if incident.on_workdays and first_day.weekday() >= 5:
        first_day += timedelta(days=7 - first_day.weekday())
    start = datetime.combine(first_day, time(incident.from_hour), UTC)
    end = start + timedelta(days=incident.from_day - incident.to_day)
    return start <= visit.at < end


def _call(visit: Visit, model: Model, sizes: Sizes, rng: Random) -> SpanFacts:
    facts = _request(visit, model, rng)
    facts.model_responded = model.responded or None
    facts.response_id = _response_id(model, rng)
    facts.duration_us, first_token_us = _latency(model, sizes.output, rng)
    feature = visit.feature
    if feature.stream and sizes.output:
        facts.flags |= SpanFlag.STREAM
        facts.ttft_us = first_token_us
    if sizes.output:
        facts.finish_reason = "stop"
        facts.output_chars = sizes.output * 4
    if not (feature.stream and rng.random() < feature.stream_without_usage):
        _set_usage(facts, model, sizes)
    return facts


def _set_usage(facts: SpanFacts, model: Model, sizes: Sizes) -> None:
    facts.input = sizes.input
    if sizes.output:
        facts.output = sizes.output
    if sizes.reasoning:
        facts.reasoning = sizes.reasoning
    if sizes.cache_read or model.cache_write:
        facts.cache_read = sizes.cache_read
    if model.cache_write:
        facts.cache_write = sizes.cache_write
    if model.input_excludes_cache:
        facts.input = sizes.input - sizes.cache_read - sizes.cache_write


def _failed(visit: Visit, model: Model, sizes: Sizes, rng: Random) -> SpanFacts:
    facts = _request(visit, model, rng)
    facts.status = _ERROR
    facts.error = rng.choices([name for name, _ in _FAILURES], [share for _, share in _FAILURES])[0]
    facts.duration_us = 30_000_000 if facts.error == "timeout" else rng.randrange(40_000, 400_000)
    return facts


def _from_app_cache(visit: Visit, model: Model, sizes: Sizes, rng: Random) -> SpanFacts:
    facts = _request(visit, model, rng)
    facts.flags |= SpanFlag.APP_CACHED
    facts.model_responded = model.responded or None
    facts.duration_us = rng.randrange(1_500, 9_000)
    facts.input, facts.output = sizes.input, sizes.output
    return facts


def _request(visit: Visit, model: Model, rng: Random) -> SpanFacts:
    embeds = model.requested.startswith("text-embedding")
    operation = "embeddings" if embeds else "chat"
    facts = SpanFacts(
        name=f"{operation} {model.requested}",
        service=visit.feature.service,
        kind=_CLIENT,
        role=Role.CALL,
        environment=visit.environment,
        scope=model.scope,
        operation=operation,
        provider_raw=model.provider,
        model_requested=model.requested,
        host=model.host,
        flags=SpanFlag.BATCH if visit.feature.batch else SpanFlag.NONE,
    )
    if model.provider == "aws.bedrock":
        facts.region = "eu-central-1"
    if visit.feature.own_attributes:
        _attribute(facts, visit)
    return facts


def _root(visit: Visit) -> SpanFacts:
    facts = SpanFacts(name=visit.feature.route, service=visit.feature.service, environment=visit.environment)
    facts.kind = _SERVER if "/" in visit.feature.route else _INTERNAL
    _attribute(facts, visit)
    return facts


def _plain(name: str, visit: Visit, scope: str, rng: Random) -> SpanFacts:
    return SpanFacts(
        name=name,
        service=visit.feature.service,
        kind=_CLIENT,
        environment=visit.environment,
        scope=f"opentelemetry.instrumentation.{scope}",
        duration_us=rng.randrange(900, 14_000),
    )


def _attribute(facts: SpanFacts, visit: Visit) -> None:
    facts.feature = visit.feature.name or None
    facts.team = visit.feature.team or None
    facts.user, facts.session = visit.user, visit.session
    facts.variant, facts.prompt_version = visit.variant, visit.prompt_version


def _latency(model: Model, output: int, rng: Random) -> tuple[int, int]:
    """Duration and time to first token in microseconds."""
    first_us = int(model.first_token_ms * 1000 * rng.lognormvariate(0, 0.35))
    return first_us + int(output * model.token_ms * 1000 * rng.lognormvariate(0, 0.15)), first_us


def _response_id(model: Model, rng: Random) -> str | None:
    if not model.id_prefix:
        return None
    return model.id_prefix + "".join(rng.choices(_ID_LETTERS, k=24))


def _span_id(rng: Random) -> int:
    return (rng.getrandbits(64) - (1 << 63)) | 1  # never 0, which would mean "none"
