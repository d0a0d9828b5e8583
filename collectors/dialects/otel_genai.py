"""OpenTelemetry GenAI semantic conventions, all generations, and the names they never had but clients send.

Covers the OpenTelemetry instrumentations, the anthropic SDK's native spans, Google ADK, Semantic Kernel,
strands, and everything else that follows the conventions.
"""

from collectors.dialects.rules import Rule, Table, choice, count, duration, flag, stated, text
from collectors.dialects.scalars import document_of, text_of
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.values import Role, SpanFlag

#: gen_ai.operation.name -> role. Unknown operations are aggregates: never charged beside calls below them.
OPERATION_ROLES = {
    "chat": Role.CALL, "text_completion": Role.CALL, "completion": Role.CALL, "generate_content": Role.CALL,
    "embeddings": Role.CALL, "embedding": Role.CALL, "llm_call": Role.CALL, "rerank": Role.CALL,
    "image_generation": Role.CALL, "speech": Role.CALL, "transcription": Role.CALL,
    "execute_tool": Role.PLAIN, "retrieval": Role.PLAIN,
}
ROLE_RANK = 6


def _operation(value: Scalar) -> Hit | None:
    word = text_of(value)
    if word is None:
        return None
    role = OPERATION_ROLES.get(word.lower(), Role.AGGREGATE)
    return (Fact("operation", 0, word[:64]), Fact("role", ROLE_RANK, int(role)))


def _first_of_list(slot: str) -> Rule:
    def read(value: Scalar) -> Hit | None:
        document = document_of(value) if not isinstance(value, str) or value[:1] in '["' else value
        if isinstance(document, (list, tuple)):
            document = document[0] if document else None
        return stated(slot, text_of(document))

    return Rule((slot,), read)


TABLE: Table = {
    "gen_ai.operation.name": Rule(("operation", "role"), _operation),
    "gen_ai.provider.name": text("provider_raw"),
    "gen_ai.system": text("provider_raw", 1),
    "gen_ai.request.model": text("model_requested"),
    "gen_ai.response.model": text("model_responded"),
    "gen_ai.response.id": text("response_id"),
    "gen_ai.response.finish_reasons": _first_of_list("finish_reason"),
    "gen_ai.response.finish_reason": text("finish_reason", 1),
    "gen_ai.usage.input_tokens": count("input"),
    "gen_ai.usage.output_tokens": count("output"),
    "gen_ai.usage.prompt_tokens": count("input", 2),
    "gen_ai.usage.completion_tokens": count("output", 2),
    "gen_ai.usage.cache_read.input_tokens": count("cache_read"),
    "gen_ai.usage.cache_read_input_tokens": count("cache_read", 1),
    "gen_ai.usage.cache_write.input_tokens": count("cache_write"),
    "gen_ai.usage.cache_creation.input_tokens": count("cache_write", 1),
    "gen_ai.usage.cache_creation_input_tokens": count("cache_write", 2),
    "gen_ai.usage.cache_write_input_tokens": count("cache_write", 3),
    "gen_ai.usage.reasoning.output_tokens": count("reasoning"),
    "gen_ai.usage.reasoning_tokens": count("reasoning", 1),
    "gen_ai.usage.audio.input_tokens": count("audio_in"),
    "gen_ai.usage.audio.output_tokens": count("audio_out"),
    "gen_ai.usage.image.input_tokens": count("image_in"),
    "gen_ai.usage.image.output_tokens": count("image_out"),
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": count("cache_write_1h"),
    "gen_ai.request.stream": flag(SpanFlag.STREAM),
    "gen_ai.is_streaming": flag(SpanFlag.STREAM),
    "gen_ai.response.time_to_first_chunk": duration("ttft_us", per_second=1),
    "gen_ai.client.operation.time_to_first_chunk": duration("ttft_us", 1, per_second=1),
    "gen_ai.conversation.id": text("session", 20),
    "gen_ai.agent.name": text("agent"),
    "gen_ai.prompt.name": text("prompt_name"),
    "gen_ai.prompt.version": text("prompt_version"),
    "openai.response.service_tier": text("service_tier"),
    "openai.request.service_tier": text("service_tier", 3),
    "gen_ai.openai.response.service_tier": text("service_tier", 1),
    "gen_ai.openai.request.service_tier": text("service_tier", 4),
    "anthropic.response.service_tier": text("service_tier"),
    "server.address": text("host"),
    "server.port": count("port"),
    "error.type": text("error"),
    "http.request.resend_count": count("resends"),
    "span.type": choice("role", 5, {"llm_request": Role.CALL}),
}
