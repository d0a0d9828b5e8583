"""Spans for the tests of the core. Each factory states only what matters to the test."""

from typing import Any

from costapp.core.values import Role, Signal, Span, SpanFacts

SECOND = 1_000_000_000
T0 = 1_800_000_000 * SECOND
TRACE = bytes(range(16))
_ids = iter(range(1 << 33, 1 << 40))  # never the small ids a test chooses


def span(
    parent: Span | int | None = None, *, at: float = 0.0, lasts: float | None = 1.0, trace: bytes = TRACE,
    span_id: int | None = None, role: int = Role.PLAIN, **facts: Any,
) -> Span:  # fmt: skip
    """A span that starts `at` seconds after T0 and lasts that many seconds."""
    parent_id = parent.span_id if isinstance(parent, Span) else parent or 0
    duration_us = None if lasts is None else round(lasts * 1_000_000)
    return Span(
        trace,
        span_id or next(_ids),
        parent_id,
        T0 + round(at * SECOND),
        SpanFacts(duration_us=duration_us, role=int(role), **facts),
    )


def call(parent: Span | int | None = None, **wishes: Any) -> Span:
    """A successful chat call of 100 input and 20 output tokens, by an OpenTelemetry instrumentation."""
    defaults: dict[str, Any] = {
        "role": Role.CALL, "name": "chat", "scope": "otel.openai", "operation": "chat", "provider_raw": "openai",
        "model_requested": "gpt-4o-mini", "input": 100, "output": 20,
    }  # fmt: skip
    return span(parent, **{**defaults, **wishes})


def failed(parent: Span | int | None = None, **wishes: Any) -> Span:
    """A call that failed before the provider billed anything."""
    return call(parent, **{"input": None, "output": None, "status": 2, "error": "RateLimitError", **wishes})


def event(parent: Span | int | None = None, **wishes: Any) -> Span:
    """A log event that reports a call."""
    return call(parent, **{"signal": Signal.EVENT, "lasts": 0.0, **wishes})


def agent(parent: Span | int | None = None, **wishes: Any) -> Span:
    """A wrapper that repeats the sum of its calls."""
    return span(parent, **{"role": Role.AGGREGATE, "name": "invoke_agent", "scope": "otel.agents", **wishes})
