"""LiteLLM (SDK callback and proxy), MLflow, logfire and pydantic-ai: clients with a few names of their own."""

import re

from collectors.dialects.rules import Rule, Table, both, choice, stated, text
from collectors.dialects.scalars import clean, mapping_of, nano_of, text_of, truth_of
from collectors.dialects.types import Fact, Hit, Scalar
from collectors.dialects.usage import usage_hit
from costapp.core.values import Role, SpanFlag

_USAGE_SLOTS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")


def _filling_usage(value: Scalar) -> Hit | None:
    return usage_hit(value, 40, authoritative=False)


def _hidden(value: Scalar) -> Hit | None:
    """LiteLLM's hidden_params: cost, base URL, whether its own cache answered, region."""
    parameters = mapping_of(value)
    facts: list[Fact] = []
    nano = nano_of(parameters.get("response_cost"))
    if nano:
        facts += [Fact("reported_nano", 20, nano), Fact("reported_source", 20, "hidden_params.response_cost")]
    for slot, key in (("host", "api_base"), ("region", "region_name")):
        value_text = text_of(parameters.get(key))
        if value_text:
            facts.append(Fact(slot, 30, clean(value_text)))
    if parameters.get("cache_hit") is True:
        facts.append(Fact("flags", -1, int(SpanFlag.APP_CACHED)))
    return tuple(facts) or None


def _mlflow_usage(value: Scalar) -> Hit | None:
    return usage_hit(value, 5)


def _mlflow_cost(value: Scalar) -> Hit | None:
    nano = nano_of(mapping_of(value).get("total_cost"))
    return (Fact("reported_nano", 5, nano), Fact("reported_source", 5, "mlflow.llm.cost")) if nano else None


def _late_log(value: Scalar) -> Hit | None:
    return (Fact("flags", -1, int(SpanFlag.LATE_RESULT)),) if text_of(value) == "log" else None


def _request_data(value: Scalar) -> Hit | None:
    request = mapping_of(value)
    facts = list(stated("model_requested", text_of(request.get("model")), 30) or ())
    if truth_of(request.get("stream")):
        facts.append(Fact("flags", -1, int(SpanFlag.STREAM)))
    return tuple(facts) or None


def _response_data(value: Scalar) -> Hit | None:
    usage = mapping_of(value).get("usage")
    return usage_hit(usage, 41, authoritative=False) if usage else None


#: Providers as LiteLLM names them. The child span ``raw_gen_ai_request`` repeats the provider's response as
#: ``llm.<provider>.<field>``. Under an application's own span it is all that LiteLLM sends: a span without
#: a role, so a call only if no ``litellm_request`` lies around it.
LITELLM_PROVIDERS = (
    "anthropic", "azure", "azure_ai", "bedrock", "bedrock_converse", "cerebras", "cohere", "databricks", "deepseek",
    "fireworks_ai", "gemini", "groq", "hosted_vllm", "mistral", "nvidia_nim", "ollama", "openai", "openrouter",
    "perplexity", "together_ai", "vertex_ai", "watsonx", "xai",
)  # fmt: skip


_RAW = re.compile(rf"llm\.({'|'.join(LITELLM_PROVIDERS)})\.(\w+)")
_RAW_FIELDS: Table = {
    "model": text("model_responded", 40),
    "modelVersion": text("model_responded", 41),
    "id": text("response_id", 40),
    "responseId": text("response_id", 41),
    "service_tier": text("service_tier", 40),
}
_RAW_USAGE = ("usage", "usageMetadata")
#: For the reference page.
LITELLM_RAW = tuple(f"llm.<provider>.{field}" for field in (*_RAW_USAGE, *_RAW_FIELDS))


def raw_response(key: str) -> Rule | None:
    """The rule for a field of the provider's own response, weaker than everything LiteLLM itself states."""
    found = _RAW.fullmatch(key)
    if found is None:
        return None
    provider, field = found.groups()
    if field not in _RAW_USAGE:
        return _RAW_FIELDS.get(field)
    named = Fact("provider_raw", 40, provider)

    def read(value: Scalar) -> Hit | None:
        hit = usage_hit(value, 40)
        return (*hit, named) if hit else None

    return Rule((*_USAGE_SLOTS, "usage_shape", "provider_raw"), read)


LITELLM: Table = {
    "litellm.provider.model": text("model_requested", 30),
    "litellm.call_id": text("call_id"),
    "metadata.usage_object": Rule(_USAGE_SLOTS, _filling_usage),
    "hidden_params": Rule(("reported_nano", "host", "region"), _hidden),
    "litellm.cache_hit": Rule(
        ("app_cached",), lambda value: (Fact("flags", -1, int(SpanFlag.APP_CACHED)),) if truth_of(value) else None
    ),
}

MLFLOW: Table = {
    "mlflow.spanType": both(choice("role", 7, {
        "chat_model": Role.CALL, "llm": Role.CALL, "embedding": Role.CALL, "reranker": Role.PLAIN,
        "retriever": Role.PLAIN, "parser": Role.PLAIN,
    }, default=Role.AGGREGATE), choice("operation", 30, {"embedding": "embeddings"})),
    "mlflow.chat.tokenUsage": Rule((*_USAGE_SLOTS, "usage_shape"), _mlflow_usage),
    "mlflow.llm.model": text("model_responded", 18),
    "mlflow.llm.provider": text("provider_raw", 18),
    "mlflow.llm.cost": Rule(("reported_nano",), _mlflow_cost),
}  # fmt: skip

LOGFIRE: Table = {
    "logfire.span_type": Rule(("late_result",), _late_log),
    "request_data": Rule(("model_requested",), _request_data),
    "response_data": Rule(_USAGE_SLOTS, _response_data),
    "usage": Rule(_USAGE_SLOTS, _filling_usage),  # of the OpenAI Agents SDK; its turns and tasks repeat it
    "model_name": text("model_bare", 1),
}
