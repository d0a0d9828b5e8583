"""OpenTelemetry GenAI semantic conventions, all generations, and the names they never had but clients send.

Covers the OpenTelemetry instrumentations, the anthropic SDK's native spans, Google ADK, Semantic Kernel,
Microsoft.Extensions.AI, Spring AI, strands, rig, and everything else that follows the conventions.
Ranks here are 10 and up, so that a dialect that knows better can state its own value at 0 to 9.
"""

from collectors.dialects.rules import Rule, Table, choice, count, duration, flag, stated, text, usd
from collectors.dialects.scalars import document_of, text_of
from collectors.dialects.types import Fact, Hit, Scalar
from collectors.dialects.usage import usage_hit
from costapp.core.errors import OTHER, error_class
from costapp.core.values import Role, SpanFlag

#: gen_ai.operation.name -> role and canonical operation. Unknown operations are aggregates: agents,
#: workflows and frameworks, never charged beside calls below them.
OPERATIONS = {
    "chat": "chat", "chat_streaming": "chat", "chat_completions": "chat", "chat.completions": "chat",
    "responses": "chat", "messages": "chat", "llm_call": "chat", "call_llm": "chat", "generate_text": "chat",
    "generate_content": "generate_content", "text_completion": "text_completion", "completion": "text_completion",
    "completions": "text_completion", "text.completions": "text_completion",
    "chat.streaming_completions": "chat", "text.streaming_completions": "text_completion",
    "embeddings": "embeddings", "embedding": "embeddings", "embed": "embeddings",
    "embed_content": "embeddings", "rerank": "rerank", "image": "image", "image_generation": "image",
    "images": "image", "generate_image": "image", "speech": "audio", "audio": "audio", "transcription": "audio",
    "transcriptions": "audio",
    # LiteLLM names its own functions, the asynchronous ones apart.
    "acompletion": "chat", "aresponses": "chat", "anthropic_messages": "chat",
    "generate_content_stream": "generate_content",
    "agenerate_content": "generate_content", "agenerate_content_stream": "generate_content",
    "atext_completion": "text_completion", "aembedding": "embeddings", "arerank": "rerank",
    "aimage_generation": "image", "image_edit": "image", "aimage_edit": "image", "aspeech": "audio",
    "atranscription": "audio",
}  # fmt: skip
PLAIN_OPERATIONS = frozenset({"execute_tool", "retrieval", "vector_store", "retrieve"})
ROLE_RANK = 6


def _operation(value: Scalar) -> Hit | None:
    word = text_of(value)
    if word is None:
        return None
    word = word[:64].lower()
    if word in OPERATIONS:
        return (Fact("operation", 10, OPERATIONS[word]), Fact("role", ROLE_RANK, int(Role.CALL)))
    role = Role.PLAIN if word in PLAIN_OPERATIONS else Role.AGGREGATE
    return (Fact("operation", 10, word), Fact("role", ROLE_RANK, int(role)))


def first_of_list(slot: str, rank: int = 10) -> Rule:
    """The first element of an array, also when it is written as JSON text."""

    def read(value: Scalar) -> Hit | None:
        document = document_of(value) if not isinstance(value, str) or value[:1] in ("[", '"') else value
        if isinstance(document, list):
            document = document[0] if document else None
        return stated(slot, text_of(document), rank)

    return Rule((slot,), read)


def error_hint(value: Scalar) -> Hit | None:
    """The class of an error message. The message itself is not kept: it may quote the prompt."""
    message = text_of(value)
    found = error_class(message[:200]) if message else OTHER
    return (Fact("error_hint", 10, found),) if found != OTHER else None


TABLE: Table = {
    "gen_ai.operation.name": Rule(("operation", "role"), _operation),
    "gen_ai.provider.name": text("provider_raw", 10),
    "gen_ai.system": text("provider_raw", 11),
    "gen_ai.request.model": text("model_requested", 12),
    "gen_ai.response.model": text("model_responded", 14),
    "gen_ai.response.id": text("response_id", 10),
    "gen_ai.response.finish_reasons": first_of_list("finish_reason"),
    "gen_ai.response.finish_reason": text("finish_reason", 11),
    "gen_ai.usage.input_tokens": count("input", 10),
    "gen_ai.usage.output_tokens": count("output", 10),
    "gen_ai.usage.prompt_tokens": count("input", 12),
    "gen_ai.usage.completion_tokens": count("output", 12),
    "gen_ai.usage.cache_read.input_tokens": count("cache_read", 10),
    "gen_ai.usage.cache_read_input_tokens": count("cache_read", 12),
    "gen_ai.usage.input_tokens.cached": count("cache_read", 13),
    "gen_ai.usage.details.cache_read_tokens": count("cache_read", 14),
    "gen_ai.usage.cache_write.input_tokens": count("cache_write", 10),
    "gen_ai.usage.cache_creation.input_tokens": count("cache_write", 11),
    "gen_ai.usage.cache_creation_input_tokens": count("cache_write", 12),
    "gen_ai.usage.cache_write_input_tokens": count("cache_write", 13),
    "gen_ai.usage.details.cache_write_tokens": count("cache_write", 14),
    "gen_ai.usage.reasoning.output_tokens": count("reasoning", 10),
    "gen_ai.usage.reasoning_tokens": count("reasoning", 11),
    "gen_ai.usage.output_tokens.reasoning": count("reasoning", 13),
    "gen_ai.usage.details.reasoning_tokens": count("reasoning", 14),
    "gen_ai.usage.audio.input_tokens": count("audio_in", 10),
    "gen_ai.usage.audio.output_tokens": count("audio_out", 10),
    "gen_ai.usage.image.input_tokens": count("image_in", 10),
    "gen_ai.usage.image.output_tokens": count("image_out", 10),
    "gen_ai.usage.raw": Rule(("input", "output", "cache_read", "cache_write", "reasoning"),
                             lambda value: usage_hit(value, 40, authoritative=False)),
    "gen_ai.usage.cost": usd(rank=10, name="gen_ai.usage.cost"),
    "gen_ai.cost.total_cost": usd(rank=11, name="gen_ai.cost.total_cost"),
    "operation.cost": usd(rank=12, name="operation.cost"),
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": count("cache_write_1h", 10),
    "gen_ai.request.stream": flag(SpanFlag.STREAM),
    "gen_ai.is_streaming": flag(SpanFlag.STREAM),
    "llm.is_streaming": flag(SpanFlag.STREAM),
    "gen_ai.response.time_to_first_chunk": duration("ttft_us", 10, per_second=1),
    "gen_ai.client.operation.time_to_first_chunk": duration("ttft_us", 11, per_second=1),
    "gen_ai.server.time_to_first_token": duration("ttft_unsure_us", 10, per_second=1),
    "gen_ai.prompt.name": text("prompt_name", 10),
    "openai.response.service_tier": text("service_tier", 10),
    "gen_ai.openai.response.service_tier": text("service_tier", 11),
    "anthropic.response.service_tier": text("service_tier", 12),
    "openai.request.service_tier": text("service_tier", 20),
    "gen_ai.openai.request.service_tier": text("service_tier", 21),
    "server.address": text("host", 10),
    "gen_ai.openai.api_base": text("host", 20),
    "server.port": count("port", 10),
    "cloud.region": text("region", 10),
    "aws.region": text("region", 11),
    "error.type": text("error", 10),
    "exception.type": text("error", 20),
    "exception.message": Rule(("error",), error_hint),
    "error.message": Rule(("error",), error_hint),
    "http.response.status_code": count("http_status", 10),
    "http.status_code": count("http_status", 11),
    "error.code": count("http_status", 12, loose=True),
    "http.request.resend_count": count("resends", 10),
    "retry_attempts": count("resends", 11),
    "span.type": choice("role", 5, {"llm_request": Role.CALL}),
}  # fmt: skip
