"""The nouns of the data plane, as typed values that cross layers. No behaviour lives here.

``SpanFacts`` is what one OTLP span (or log event) *states*, already mapped from its dialect to
canonical names, but not yet resolved against its trace. It is stored as a MessagePack array in
``span.facts``: fields are positional, so new fields are appended at the end and a field is never
moved, renamed in meaning or removed. Trailing defaults are not stored.

``Call`` is one billable model call, resolved from all spans that saw it. ``Charge`` is a Call with
its price; it is what the table ``charge`` holds.
"""

from enum import IntEnum, IntFlag
from typing import NamedTuple

import msgspec


class Role(IntEnum):
    """What a span says it is, judged from its own attributes only (see collectors.dialects)."""

    PLAIN = 0  #: not about a model call: HTTP, database, tool, retriever ...
    CALL = 1  #: claims to be one model call (a leaf)
    AGGREGATE = 2  #: agent, workflow, wrapper: may repeat its children's usage, never charged beside them
    MAYBE = 3  #: carries usage but no role: a call only if no call lies below it


class Signal(IntEnum):
    """Which OTLP signal a fact came from. Precedence for one call: span, else event."""

    SPAN = 0
    EVENT = 1


class SpanFlag(IntFlag):
    """Oddities met while reading a span; each is counted and shown, none is fatal."""

    NONE = 0
    USAGE_INVALID = 1  #: a token count was not an integer in 0..10^9
    TIME_INVALID = 2  #: end before start, or no start
    TIME_OUT_OF_RANGE = 4  #: event time outside [now - retention, now + 24 h]
    TRUNCATED = 8  #: a value, list or nesting was cut to its limit
    CONTENT_DROPPED = 16  #: prompt or completion text was on the wire and was not stored
    STREAM = 32  #: the response was streamed
    BATCH = 64  #: provider batch processing
    APP_CACHED = 128  #: answered by the application's own cache; the provider was not called
    LATE_RESULT = 256  #: reports the outcome (usage) of an earlier sibling span of the same scope


class UsageShape(IntEnum):
    """How the wire's counts overlap, as far as the span itself tells (conventions: token semantics)."""

    AUTO = 0  #: the token rules decide, by scope, version and provider
    INCLUSIVE = 1  #: input contains cache; output contains reasoning
    DISJOINT = 2  #: input, cache, output and reasoning are separate buckets
    INPUT_EXCLUDES_CACHE = 3  #: input excludes cache; output contains reasoning
    OUTPUT_EXCLUDES_REASONING = 4  #: input contains cache; output excludes reasoning


class SpanFacts(msgspec.Struct, array_like=True, gc=False, omit_defaults=True):
    """What one span states. ``None`` means "not stated"; an explicit zero stays zero."""

    # every span
    name: str = ""
    service: str | None = None
    duration_us: int | None = None
    status: int = 0  # OTLP: 0 unset, 1 ok, 2 error
    kind: int = 0  # OTLP span kind
    role: int = 0  # Role
    flags: int = 0  # SpanFlag
    signal: int = 0  # Signal
    environment: str | None = None
    # attribution stated by this span's own attributes
    feature: str | None = None
    feature_rank: int = 0  # 0 = explicit name; larger = weaker fallback such as a workflow name
    user: str | None = None
    session: str | None = None
    session_rank: int = 0  # 0 = explicit name; 1 = weaker fallback such as a conversation or thread id
    team: str | None = None
    variant: str | None = None
    prompt_version: str | None = None
    # the model call
    scope: str | None = None
    scope_version: str | None = None
    operation: str | None = None  # chat, text_completion, embeddings, rerank, image, audio ...
    provider_raw: str | None = None
    model_requested: str | None = None
    model_responded: str | None = None
    response_id: str | None = None
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None  # all cache writes, the 1 h part included
    cache_write_1h: int | None = None
    reasoning: int | None = None
    usage_shape: int = 0  # UsageShape
    ttft_us: int | None = None
    error: str | None = None  # raw error.type, exception type or HTTP status
    host: str | None = None  # server.address[:port]
    service_tier: str | None = None
    region: str | None = None
    finish_reason: str | None = None
    reported_nano: int | None = None  # the client's own cost figure; kept, never summed with ours
    reported_source: str | None = None  # the attribute that carried it
    prompt_hash: int | None = None  # signed 64 bits of a keyed hash of the prompt text
    prompt_chars: int | None = None
    output_chars: int | None = None
    prompt_name: str | None = None
    agent: str | None = None
    audio_in: int | None = None
    audio_out: int | None = None
    image_in: int | None = None
    image_out: int | None = None
    resends: int | None = None  # http.request.resend_count: retries hidden inside the span
    # attribution stated only by the resource (weaker than anything in the trace)
    resource_feature: str | None = None
    resource_user: str | None = None
    resource_session: str | None = None
    resource_team: str | None = None
    resource_variant: str | None = None
    link_trace: bytes | None = None  # trace id this record belongs to by context, when stored under another
    link_span: int | None = None
    units: int | None = None  # images, seconds, characters, searches ... for calls not billed by token
    unit: str | None = None
    # what an inference server says about its own work (vLLM spans)
    queue_us: int | None = None
    prefill_us: int | None = None
    decode_us: int | None = None
    instance: str | None = None  # pod, host or instance id of that server


class Span(NamedTuple):
    """One stored span: identity, position in its trace, and what it states."""

    trace_id: bytes  # 16 bytes
    span_id: int  # signed 64 bits of the 8 wire bytes
    parent_id: int  # 0 = root
    start_ns: int  # Unix time
    facts: SpanFacts


class Usage(NamedTuple):
    """Disjoint billable quantities of one call. They sum to the reported totals."""

    input: int = 0  # uncached text (and otherwise unsplit) input
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0  # visible output
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_out: int = 0
    units: int = 0  # of `Call.unit`


class UsageState(IntEnum):
    UNKNOWN = 0  #: nothing usable on the wire: never zero cost
    REPORTED = 1
    PARTIAL = 2  #: totals known, the cached part is not sent by this client: cost is an upper bound
    ESTIMATED = 3


class CostStatus(IntEnum):
    UNPRICED = 0  #: no rate, or usage unknown: cost_nano is null, never 0
    PRICED = 1
    ESTIMATED = 2
    REPORTED = 3  #: the provider's or client's own figure, by project policy
    FREE = 4  #: known to cost nothing (failed before the provider billed, or the app's own cache)
    GPU = 5  #: made on GPUs of our own: its share of what they cost in the hours it ran


class AttributionSource(IntEnum):
    NONE = 0
    OWN = 1
    ANCESTOR = 2
    TRACE = 3
    RESOURCE = 4
    RULE = 5


class ChargeFlag(IntFlag):
    NONE = 0
    STREAM = 1
    BATCH = 2
    RETRY = 4  #: repeats an earlier failed call of the same trace
    FALLBACK = 8  #: another model after a failed call of the same trace
    USAGE_SUSPECT = 16  #: counts contradicted each other; priced conservatively
    TIME_SUSPECT = 32
    APP_CACHED = 64
    PROVIDER_GUESSED = 128  #: provider missing or unknown: the model's own vendor was taken
    CACHE_SPLIT_ASSUMED = 256  #: 5-minute cache writes assumed, the wire did not say
    VENDOR_PRICE = 512  #: the seller does not list the model: the price of the model's own vendor was taken


class Call(NamedTuple):
    """One model call, resolved from every span that saw it."""

    trace_id: bytes
    span_id: int  # the span that carries the charge
    start_ns: int
    duration_us: int | None
    ttft_us: int | None
    service: str
    span_name: str
    operation: str
    provider: str  # canonical; "" if it cannot be told
    provider_raw: str
    model: str  # responded if known, else requested; as on the wire
    model_requested: str
    region: str
    service_tier: str
    host: str
    feature: str
    user: str
    session: str
    team: str
    environment: str
    variant: str
    prompt_version: str
    attribution_source: int  # AttributionSource of the feature
    usage: Usage
    usage_state: int  # UsageState
    usage_rule: str  # name of the token rule that decided how counts overlap
    unit: str  # what usage.units counts; "" if none
    error: str  # normalised error class; "" = ok
    finish_reason: str
    flags: int  # ChargeFlag
    attempts: int
    members: int  # how many spans or events described this call
    reported_nano: int | None
    reported_source: str
    prompt_hash: int | None
    prompt_chars: int | None
    output_chars: int | None
    signal: int  # Signal
    # stated by the inference server itself, if one of the spans is its own
    queue_us: int | None = None
    prefill_us: int | None = None
    decode_us: int | None = None
    instance: str = ""
    served_ns: int | None = None  # when the request reached the server


class Verdict(NamedTuple):
    """Why a span was charged, merged or ignored: what `manage.py explain` prints."""

    trace_id: bytes
    span_id: int
    outcome: str  # charged | merged | aggregate | plain | duplicate-signal
    into_trace_id: bytes | None  # for merged: the charged span
    into_span_id: int | None
    why: str  # one sentence


class Priced(NamedTuple):
    """The price of one call: components are null when nothing of that kind was used."""

    status: int  # CostStatus
    rate_id: int | None  # rates.rate_set row, None = unpriced
    input_nano: int  # text, audio and image input
    cache_read_nano: int
    cache_write_nano: int
    output_nano: int  # text, reasoning, audio and image output
    other_nano: int  # per-request fees, units
    cost_nano: int | None  # sum of the components; None = unpriced
    possible_nano: int | None  # upper bound for a failed or unknown call that may have been billed
    avoided_nano: int | None  # what a call served by the app's own cache would have cost
    flags: int = 0  # ChargeFlag bits the pricing adds
    gpu_nano: int | None = None  # share of GPU hours; None = none was worked out
