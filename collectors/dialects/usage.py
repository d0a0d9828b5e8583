"""Usage written as one document (JSON text or a Python literal): many shapes, told apart by their keys.

* ``input`` / ``output``: disjoint buckets (Langfuse, hand-written or from LangChain)
* ``prompt_tokens`` / ``input_tokens`` with ``*_details``: OpenAI, inclusive
* ``input_tokens`` with ``cache_read_input_tokens`` beside it: Anthropic, cache excluded, unless a total
  proves otherwise (MLflow, LiteLLM)
* ``inputTokens`` with ``cacheReadInputTokens``: Bedrock, cache excluded
* ``promptTokenCount`` ...: Gemini, thoughts beside the candidates
"""

from collections.abc import Iterator, Mapping

from collectors.dialects.rules import INVALID
from collectors.dialects.scalars import count_of, mapping_of
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.values import UsageShape

#: Canonical field -> names, in documents whose parts are not nested.
_FLAT: Mapping[str, tuple[str, ...]] = {
    "input": ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens"),
    "output": ("output_tokens", "completion_tokens", "outputTokens", "completionTokens"),
    "cache_read": ("cache_read_input_tokens", "cacheReadInputTokens", "cached_input_tokens", "cachedInputTokens",
                   "cache_read_tokens", "cached_tokens"),
    "cache_write": ("cache_creation_input_tokens", "cacheWriteInputTokens", "cache_write_input_tokens",
                    "cacheCreationInputTokens", "cache_creation_tokens", "cache_write_tokens"),
    "reasoning": ("reasoning_tokens", "reasoning_output_tokens", "reasoningTokens"),
    "cache_write_1h": ("cache_creation_input_tokens_above_1hr",),
}  # fmt: skip
#: Documents of parts of the input and of the output, by any of their names.
_INPUT_DETAILS = (
    "prompt_tokens_details",
    "input_tokens_details",
    "input_token_details",
    "prompt_token_details",
    "inputTokenDetails",
)
_OUTPUT_DETAILS = (
    "completion_tokens_details",
    "output_tokens_details",
    "output_token_details",
    "completion_token_details",
    "outputTokenDetails",
)
_IN_INPUT: Mapping[str, tuple[str, ...]] = {
    "cache_read": ("cached_tokens", "cache_read", "cacheReadTokens", "cache_read_tokens"),
    "cache_write": ("cache_write_tokens", "cache_creation", "cache_creation_tokens", "cacheWriteTokens"),
    "audio_in": ("audio_tokens", "audio"),
    "image_in": ("image_tokens", "image"),
}
_IN_OUTPUT: Mapping[str, tuple[str, ...]] = {
    "reasoning": ("reasoning_tokens", "reasoning", "thinking_tokens", "reasoningTokens"),
    "audio_out": ("audio_tokens", "audio"),
    "image_out": ("image_tokens", "image"),
}
#: Disjoint buckets. Names of one field add up: each is a bucket of its own.
_BUCKETS: Mapping[str, tuple[str, ...]] = {
    "input": ("input", "input_text"),
    "output": ("output", "output_text"),
    "cache_read": ("input_cached_tokens", "input_cache_read", "cache_read_input_tokens", "input_cached",
                   "cached_input"),
    "cache_write": (
        "input_cache_creation", "cache_creation_input_tokens", "input_cache_write", "input_cache_creation_5m",
        "input_cache_creation_1h", "input_ephemeral_5m_input_tokens", "input_ephemeral_1h_input_tokens",
    ),
    "cache_write_1h": (
        "input_cache_creation_1h", "input_ephemeral_1h_input_tokens", "cache_creation_ephemeral_1h_input_tokens",
    ),
    "reasoning": ("output_reasoning", "output_reasoning_tokens", "reasoning_tokens"),
    "audio_in": ("input_audio", "input_audio_tokens"),
    "audio_out": ("output_audio", "output_audio_tokens"),
    "image_in": ("input_image", "input_image_tokens"),
    "image_out": ("output_image", "output_image_tokens"),
}  # fmt: skip
_GEMINI: Mapping[str, tuple[str, ...]] = {
    "input": ("promptTokenCount", "prompt_token_count"),
    "output": ("candidatesTokenCount", "candidates_token_count"),
    "cache_read": ("cachedContentTokenCount", "cached_content_token_count"),
    "reasoning": ("thoughtsTokenCount", "thoughts_token_count"),
    "tool": ("toolUsePromptTokenCount", "tool_use_prompt_token_count"),
}
_TOTALS = ("total_tokens", "totalTokens", "total")


def usage_hit(value: Scalar, rank: int, *, authoritative: bool = True) -> Hit | None:
    """Token facts of a usage document; None if it has none.

    An authoritative document decides the shape too; others only fill in counts that are stated nowhere else.
    """
    document = mapping_of(value)
    found, shape = _read(document)
    found = {slot: number for slot, number in found.items() if number is not None}
    if not found:
        return (INVALID,) if _has_odd_counts(document) else None
    facts = [Fact(slot, rank, number) for slot, number in found.items()]
    if authoritative:
        facts.append(Fact("usage_shape", rank, int(shape)))
    return tuple(facts)


def _read(document: Mapping[str, Scalar]) -> tuple[dict[str, int | None], UsageShape]:
    if _first(document, _GEMINI["input"]) is not None:
        return _gemini(document), UsageShape.INCLUSIVE
    if _first(document, (*_FLAT["input"], *_FLAT["output"])) is None and ("input" in document or "output" in document):
        return _buckets(document), UsageShape.DISJOINT
    found = {slot: _first(document, names) for slot, names in _FLAT.items()}
    nested = False
    for details, parts in ((_INPUT_DETAILS, _IN_INPUT), (_OUTPUT_DETAILS, _IN_OUTPUT)):
        for name in details:
            inner = mapping_of(document.get(name))
            for slot, names in parts.items():
                number = _first(inner, names)
                if number is not None and found.get(slot) is None:
                    found[slot] = number
                    nested = nested or slot.startswith("cache")
    for creation in _cache_creations(document):
        if "ephemeral_1h_input_tokens" in creation:
            found["cache_write_1h"] = count_of(creation["ephemeral_1h_input_tokens"])
    return found, UsageShape.INCLUSIVE if nested else _flat_shape(document, found)


def _cache_creations(document: Mapping[str, Scalar]) -> Iterator[Mapping[str, Scalar]]:
    """Where the cache writes are split by lifetime: Anthropic's own place, and LiteLLM's inside the details."""
    yield mapping_of(document.get("cache_creation"))
    for name in _INPUT_DETAILS:
        yield mapping_of(mapping_of(document.get(name)).get("cache_creation_token_details"))


def _flat_shape(document: Mapping[str, Scalar], found: Mapping[str, int | None]) -> UsageShape:
    """Cache counts beside the input: inside it or not? A total, if there is one, settles it."""
    cached = (found["cache_read"] or 0) + (found["cache_write"] or 0)
    if found["cache_read"] is None and found["cache_write"] is None:
        return UsageShape.INCLUSIVE
    total = _first(document, _TOTALS)
    plain = (found["input"] or 0) + (found["output"] or 0)
    if total is not None and total == plain + cached and cached:
        return UsageShape.INPUT_EXCLUDES_CACHE
    return UsageShape.INPUT_EXCLUDES_CACHE if total is None else UsageShape.INCLUSIVE


def _gemini(document: Mapping[str, Scalar]) -> dict[str, int | None]:
    found = {slot: _first(document, names) for slot, names in _GEMINI.items()}
    thoughts, tool = found["reasoning"] or 0, found.pop("tool") or 0
    if found["output"] is not None or thoughts:
        found["output"] = (found["output"] or 0) + thoughts
    if found["input"] is not None:
        found["input"] += tool
    return found


def _buckets(document: Mapping[str, Scalar]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for slot, names in _BUCKETS.items():
        numbers = [number for name in names if (number := count_of(document.get(name))) is not None]
        if numbers:
            found[slot] = sum(numbers)
    return found


def _first(document: Mapping[str, Scalar], names: tuple[str, ...]) -> int | None:
    return next((n for name in names if (n := count_of(document.get(name))) is not None), None)


def _has_odd_counts(document: Mapping[str, Scalar]) -> bool:
    return any(value is not None for value in _counts(document))


def _counts(document: Mapping[str, Scalar]) -> Iterator[Scalar]:
    for names in (*_FLAT.values(), *_GEMINI.values(), ("input", "output")):
        for name in names:
            if name in document:
                yield document[name]
