"""Vercel AI SDK 4 to 6 (`ai.*`). Version 7 uses OpenTelemetry names and `ai.settings.context.*`."""

from collections.abc import Iterator

from collectors.dialects.rules import Rule, Table, count, duration, text
from collectors.dialects.scalars import clean, count_of, mapping_of, text_of
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.values import Role, SpanFlag, UsageShape


def _operation(value: Scalar) -> Hit | None:
    """`ai.<function>.do<Step>` is the call; `ai.<function>` without it wraps one or more of them."""
    word = text_of(value)
    if word is None:
        return None
    step = word.rsplit(".", 1)[-1]
    if word == "ai.toolCall":
        return (Fact("role", 1, int(Role.PLAIN)),)
    if not step.startswith("do"):
        return (Fact("role", 1, int(Role.AGGREGATE)),)
    facts = [Fact("role", 1, int(Role.CALL)), Fact("operation", 5, _step_operation(step))]
    if step == "doStream":
        facts.append(Fact("flags", -1, int(SpanFlag.STREAM)))
    return tuple(facts)


def _step_operation(step: str) -> str:
    return {
        "doEmbed": "embeddings",
        "doRerank": "rerank",
        "doGenerateImage": "image",
        "doSpeak": "audio",
        "doTranscribe": "audio",
    }.get(step, "chat")


def _inclusive_count(slot: str, rank: int) -> Rule:
    """A count that only versions send which include the cache in the input."""
    plain = count(slot, rank)
    shape = Fact("usage_shape", 0, int(UsageShape.INCLUSIVE))
    return Rule((slot,), lambda value: (*hit, shape) if (hit := plain.read(value)) else None)


def _provider_metadata(value: Scalar) -> Hit | None:
    """JSON by provider; the only place with cache counts in 4, and for Anthropic in 5."""
    facts: list[Fact] = []
    for name, inner in mapping_of(value).items():
        facts.extend(_metadata_facts(name, inner))
    return tuple(facts) or None


#: Field -> paths in one provider's metadata.
_PATHS = {
    "cache_read": ("cacheReadInputTokens", "usage.cache_read_input_tokens", "usage.cacheReadInputTokens",
                   "cachedPromptTokens", "usageMetadata.cachedContentTokenCount"),
    "cache_write": ("cacheCreationInputTokens", "usage.cache_creation_input_tokens", "usage.cacheWriteInputTokens",
                    "cacheWriteInputTokens"),
    "cache_write_1h": ("usage.cache_creation.ephemeral_1h_input_tokens",),
    "reasoning": ("reasoningTokens", "usageMetadata.thoughtsTokenCount"),
}  # fmt: skip


def _metadata_facts(provider: str, inner: Scalar) -> Iterator[Fact]:
    metadata = mapping_of(inner)
    for slot, paths in _PATHS.items():
        number = next((n for path in paths if (n := count_of(_at(metadata, path))) is not None), None)
        if number is not None:
            yield Fact(slot, 30, number)
    tier = text_of(metadata.get("serviceTier"))
    if tier:
        yield Fact("service_tier", 30, clean(tier))
    identity = text_of(metadata.get("responseId"))
    if identity and provider in ("openai", "azure"):
        yield Fact("response_id", 31, clean(identity))


def _at(document: object, path: str) -> Scalar:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document  # type: ignore[return-value]


TABLE: Table = {
    "ai.operationId": Rule(("role", "operation"), _operation),
    "ai.model.provider": text("provider_raw", 20),
    "ai.model.id": text("model_requested", 20),
    "ai.response.model": text("model_responded", 20),
    "ai.response.id": text("response_id", 20),
    "ai.response.finishReason": text("finish_reason", 20),
    "ai.usage.promptTokens": count("input", 21),
    "ai.usage.completionTokens": count("output", 21),
    "ai.usage.inputTokens": count("input", 20),
    "ai.usage.outputTokens": count("output", 20),
    "ai.usage.tokens": count("input", 22),
    "ai.usage.cachedInputTokens": count("cache_read", 21),
    "ai.usage.reasoningTokens": count("reasoning", 21),
    "ai.usage.inputTokenDetails.noCacheTokens": Rule(
        ("usage_shape",),
        lambda value: (Fact("usage_shape", 0, int(UsageShape.INCLUSIVE)),) if count_of(value) is not None else None,
    ),
    "ai.usage.inputTokenDetails.cacheReadTokens": _inclusive_count("cache_read", 20),
    "ai.usage.inputTokenDetails.cacheWriteTokens": _inclusive_count("cache_write", 20),
    "ai.usage.outputTokenDetails.reasoningTokens": count("reasoning", 20),
    "ai.response.providerMetadata": Rule(
        ("cache_read", "cache_write", "cache_write_1h", "reasoning", "service_tier", "response_id"), _provider_metadata
    ),
    "ai.response.msToFirstChunk": duration("ttft_us", 20, per_second=1000),
}
