"""Who bills for a call, from what the client wrote where the provider belongs.

Frameworks and gateways often put their own name there; then the model's own vendor is taken, and the
call says so (ChargeFlag.PROVIDER_GUESSED). The names are those of the price catalogue.
"""

import re
from functools import lru_cache
from typing import NamedTuple


class Provider(NamedTuple):
    """A canonical provider name; "" = cannot be told. `guessed`: taken from the model's vendor."""

    name: str
    guessed: bool


#: Spelling on the wire (lower case) -> canonical name.
ALIASES = {
    "openai": "openai", "openai.chat": "openai", "openai.responses": "openai", "openai.completion": "openai",
    "openai.embedding": "openai", "openai-chat": "openai", "openai-responses": "openai",
    "anthropic": "anthropic", "anthropic.messages": "anthropic",
    "aws.bedrock": "aws", "aws_bedrock": "aws", "bedrock": "aws", "amazon-bedrock": "aws", "amazon_bedrock": "aws",
    "bedrock_converse": "aws", "aws": "aws", "amazon": "aws",
    "azure": "azure", "azure.ai.openai": "azure", "az.ai.openai": "azure", "azure.ai.inference": "azure",
    "az.ai.inference": "azure", "azure_openai": "azure", "azure-openai": "azure", "azure_ai": "azure",
    "gcp.gemini": "google", "gcp.gen_ai": "google", "gcp.vertex_ai": "google",
    "gemini": "google", "google": "google", "google_genai": "google", "google-gla": "google", "google-vertex": "google",
    "google.generative-ai": "google", "google.vertex": "google", "vertex_ai": "google", "vertexai": "google",
    "vertex": "google", "gcp": "google", "google_vertexai": "google",
    "mistral": "mistral", "mistral_ai": "mistral", "mistralai": "mistral",
    "x_ai": "x-ai", "xai": "x-ai", "grok": "x-ai", "x-ai": "x-ai",
    "cohere": "cohere", "deepseek": "deepseek", "groq": "groq", "perplexity": "perplexity",
    "together": "together", "together_ai": "together", "fireworks": "fireworks", "fireworks_ai": "fireworks",
    "openrouter": "openrouter", "moonshot": "moonshotai", "moonshot_ai": "moonshotai", "moonshotai": "moonshotai",
    "voyage": "voyageai", "voyageai": "voyageai", "ibm.watsonx.ai": "ibm.watsonx.ai", "cerebras": "cerebras",
    "ollama": "self-hosted", "vllm": "self-hosted", "hosted_vllm": "self-hosted",
}  # fmt: skip

#: Names of frameworks, gateways and agents that are not providers.
FRAMEWORKS = frozenset({
    "gcp.vertex.agent",  # Google ADK, whatever model it drives
    "strands-agents", "strands", "langchain", "langgraph", "spring_ai", "litellm", "litellm_proxy", "llama_index",
    "llamaindex", "crewai", "haystack", "autogen", "semantic_kernel", "vercel", "gateway", "pydantic-ai", "pydantic_ai",
    "google_adk", "smolagents", "agno", "mastra", "dspy", "unknown", "none", "fake", "_other", "custom", "traceloop",
})  # fmt: skip

#: Model names that only their vendor trains, most specific first; used when the provider is not stated.
VENDORS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), vendor)
    for pattern, vendor in (
        (r"^([a-z]{2,6}\.)?(anthropic|amazon|meta|mistral|cohere|deepseek|ai21)\.", "aws"),
        (r"^(ft:)?(gpt-|chatgpt|o[1345](-|$)|text-embedding-(3|ada)|dall-e|whisper|tts-1|davinci|codex-)", "openai"),
        (r"^claude", "anthropic"),
        (r"^(models/)?(gemini|gemma|imagen|veo-|text-embedding-00|embedding-001|learnlm)", "google"),
        (r"^(mistral|mixtral|codestral|ministral|pixtral|magistral|devstral)", "mistral"),
        (r"^grok", "x-ai"),
        (r"^(command|embed-|rerank-|c4ai)", "cohere"),
        (r"^deepseek", "deepseek"),
        (r"^sonar", "perplexity"),
        (r"^voyage", "voyageai"),
    )
)


@lru_cache(maxsize=4096)
def provider_of(raw: str, model: str) -> Provider:
    """The canonical provider of a call, given its provider attribute and model, both as on the wire."""
    said = raw.strip().lower()
    if said in FRAMEWORKS:
        said = ""
    known = (ALIASES.get(said) or ALIASES.get(said.split(".", 1)[0])) if said else None
    if known:
        return Provider(known, False)
    guess = vendor_of(model.strip().lower())
    return Provider(guess or said, bool(guess))


def vendor_of(model: str) -> str:
    """The vendor of a lower-case model name, or the provider named in ``provider/model``; "" if unknown."""
    prefix, slash, rest = model.partition("/")
    if slash and (known := ALIASES.get(prefix)):
        return known
    name = rest if slash else model
    return next((vendor for pattern, vendor in VENDORS if pattern.search(name)), "")
