"""Langfuse SDKs: OpenAI wrapper, LangChain callback, hand-written generations. Values are often JSON-quoted."""

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation

from collectors.dialects.otel_genai import error_hint
from collectors.dialects.rules import Rule, Table, both, choice, text
from collectors.dialects.scalars import clean, mapping_of, nano_of, text_of
from collectors.dialects.types import Fact, Hit, Scalar
from collectors.dialects.usage import usage_hit
from costapp.core.values import Role

_STATUS = re.compile(r"\b(?:error code|status|status code|http)\b\D{0,12}(\d{3})\b", re.IGNORECASE)


def _usage(value: Scalar) -> Hit | None:
    return usage_hit(value, 0)


def _cost(value: Scalar) -> Hit | None:
    """The total, else the sum of the parts. All zero (as on failed calls) states nothing."""
    costs = mapping_of(value)
    nano = nano_of(costs.get("total")) if "total" in costs else _sum_nano(costs.values())
    name = "langfuse.observation.cost_details"
    return (Fact("reported_nano", 0, nano), Fact("reported_source", 0, name)) if nano else None


def _sum_nano(values: object) -> int | None:
    total = Decimal(0)
    try:
        for value in values:  # type: ignore[attr-defined]
            total += Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return nano_of(str(total))


def _started(value: Scalar) -> Hit | None:
    """ISO 8601, JSON-quoted: when the first token came."""
    written = text_of(value)
    if written is None:
        return None
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return None
    if at.tzinfo is None or not 1970 < at.year < 2200:
        return None
    seconds = int(at.replace(microsecond=0).timestamp())
    return (Fact("first_token_ns", 0, seconds * 1_000_000_000 + at.microsecond * 1000),)


def _level(value: Scalar) -> Hit | None:
    return (Fact("failed", 0, True),) if text_of(value) == "ERROR" else None


def _message(value: Scalar) -> Hit | None:
    """Only the HTTP status in it: the message itself may quote the prompt."""
    message = text_of(value)
    found = _STATUS.search(message[:400]) if message else None
    return (Fact("http_status", 20, int(found.group(1))),) if found else error_hint(value)


def _parameters(value: Scalar) -> Hit | None:
    tier = text_of(mapping_of(value).get("service_tier"))
    return (Fact("service_tier", 25, clean(tier)),) if tier else None


TABLE: Table = {
    "langfuse.observation.type": both(choice("role", 2, {
        "generation": Role.CALL, "embedding": Role.CALL, "event": Role.PLAIN, "tool": Role.AGGREGATE,
        "span": Role.AGGREGATE, "agent": Role.AGGREGATE, "chain": Role.AGGREGATE, "retriever": Role.AGGREGATE,
        "evaluator": Role.AGGREGATE, "guardrail": Role.AGGREGATE,
    }), choice("operation", 30, {"embedding": "embeddings"})),
    "langfuse.observation.model.name": text("model_responded", 8),
    "langfuse.observation.model": text("model_responded", 9),
    "langfuse.observation.model.parameters": Rule(("service_tier",), _parameters),
    "langfuse.observation.usage_details": Rule(
        ("input", "output", "cache_read", "cache_write", "reasoning", "usage_shape"), _usage),
    "langfuse.observation.cost_details": Rule(("reported_nano",), _cost),
    "langfuse.observation.completion_start_time": Rule(("ttft_us",), _started),
    "langfuse.observation.level": Rule(("status",), _level),
    "langfuse.observation.status_message": Rule(("error",), _message),
    "langfuse.observation.prompt.name": text("prompt_name", 5),
    "langfuse.observation.prompt.version": text("prompt_version", 15),
    "langfuse.prompt.name": text("prompt_name", 6),
    "langfuse.prompt.version": text("prompt_version", 16),
}  # fmt: skip
