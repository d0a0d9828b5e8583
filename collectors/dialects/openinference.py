"""OpenInference (Arize Phoenix): also CrewAI, LlamaIndex, Haystack, Agno, DSPy, OpenAI Agents."""

import json
import re

from collectors.dialects.rules import Rule, Table, both, choice, count, stated, text, usd
from collectors.dialects.scalars import clean, mapping_of, text_of
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.values import Role, SpanFlag

_PROVIDER_ID = re.compile(r"[A-Za-z]{3,10}[-_][\w.-]{6,120}")
_ID = re.compile(rf'^\s*\{{\s*"id":\s*"({_PROVIDER_ID.pattern})"')
#: LangChain's result holds what the provider said about the response under this key of the first message.
_LANGCHAIN = re.compile(r'^\s*\{\s*"generations":.*?"response_metadata":\s*(?=\{)', re.DOTALL)
_DECODER = json.JSONDecoder()


def _invocation(value: Scalar) -> Hit | None:
    """On error spans these parameters are the only place with a model."""
    parameters = mapping_of(value)
    model = next(
        (name for key in ("model", "model_name", "model_id", "modelId") if (name := text_of(parameters.get(key)))), None
    )
    facts = list(stated("model_requested", model, 29) or ())
    if parameters.get("stream") is True:
        facts.append(Fact("flags", -1, int(SpanFlag.STREAM)))
    tier = text_of(parameters.get("service_tier"))
    if tier:
        facts.append(Fact("service_tier", 25, clean(tier)))
    return tuple(facts) or None


def response_id_of_output(value: Scalar) -> Hit | None:
    """The provider's response id, when the output is the provider's own JSON or LangChain's result around it."""
    if not isinstance(value, str):
        return None
    found = _ID.match(value[:300])
    identity = found.group(1) if found else _langchain_id(value)
    return (Fact("response_id", 30, identity),) if identity else None


def _langchain_id(value: str) -> str:
    """LangChain's spans are not parents of the SDK's: without a span around both, only this id joins the two."""
    found = _LANGCHAIN.match(value)
    if found is None:
        return ""
    try:
        metadata, _ = _DECODER.raw_decode(value, found.end())
    except (json.JSONDecodeError, RecursionError):  # cut to the limit of one value
        return ""
    identity = metadata.get("id")
    return identity if isinstance(identity, str) and _PROVIDER_ID.fullmatch(identity) else ""


TABLE: Table = {
    "openinference.span.kind": both(choice("role", 3, {
        "llm": Role.CALL, "embedding": Role.CALL, "reranker": Role.PLAIN, "chain": Role.AGGREGATE,
        "agent": Role.AGGREGATE, "tool": Role.AGGREGATE, "retriever": Role.PLAIN, "guardrail": Role.AGGREGATE,
        "evaluator": Role.AGGREGATE, "prompt": Role.PLAIN,
    }, default=Role.AGGREGATE), choice("operation", 30, {"embedding": "embeddings"})),
    "llm.response.model_name": text("model_responded", 10),
    "llm.output_model_name": text("model_responded", 11),
    "llm.model_name": text("model_responded", 12),
    "embedding.model_name": text("model_responded", 13),
    "llm.request.model_name": text("model_requested", 10),
    "llm.input_model_name": text("model_requested", 11),
    "llm.invocation_parameters": Rule(("model_requested", "service_tier"), _invocation),
    "embedding.invocation_parameters": Rule(("model_requested", "service_tier"), _invocation),
    "llm.provider": text("provider_raw", 12),
    "llm.system": text("provider_raw", 13),
    "llm.token_count.prompt": count("input", 11),
    "llm.token_count.completion": count("output", 11),
    "llm.token_count.prompt_details.cache_read": count("cache_read", 11),
    "llm.token_count.prompt_details.cache_write": count("cache_write", 11),
    "llm.token_count.prompt_details.cache_input": count("cache_read", 12),
    "llm.token_count.prompt_details.audio": count("audio_in", 11),
    "llm.token_count.completion_details.reasoning": count("reasoning", 11),
    "llm.token_count.completion_details.audio": count("audio_out", 11),
    "llm.finish_reason": text("finish_reason", 12),
    "llm.cost.total": usd(rank=12, name="llm.cost.total"),
    "llm.prompt_template.version": text("prompt_version", 20),
    "prompt.name": text("prompt_name", 24),
}  # fmt: skip
