"""OpenLLMetry / Traceloop, old (0.40) and new generation, Python and JavaScript. OpenLIT has no names of its own."""

from collectors.dialects.rules import Rule, Table, choice, count, text
from collectors.dialects.scalars import text_of
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.values import Role

_REQUESTS = {
    "chat": "chat", "completion": "chat", "embedding": "embeddings", "embeddings": "embeddings", "rerank": "rerank",
    "image": "image",
}  # fmt: skip


def _request_type(value: Scalar) -> Hit | None:
    word = text_of(value)
    operation = _REQUESTS.get(word.lower()) if word else None
    return (Fact("operation", 20, operation), Fact("role", 9, int(Role.CALL))) if operation else None


TABLE: Table = {
    "llm.request.type": Rule(("operation", "role"), _request_type),
    "traceloop.span.kind": choice("role", 8, {}, default=Role.AGGREGATE),
    "gen_ai.completion.0.finish_reason": text("finish_reason", 20),
    "llm.response.finish_reason": text("finish_reason", 21),
    "llm.usage.prompt_tokens": count("input", 20),
    "llm.usage.completion_tokens": count("output", 20),
    "traceloop.prompt.key": text("prompt_name", 20),
    "traceloop.prompt.version": text("prompt_version", 21),
    "llm.request.model": text("model_requested", 20),
    "llm.response.model": text("model_responded", 20),
}
