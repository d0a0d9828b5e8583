"""Who bills for a call, from what the client wrote where the provider belongs.

Frameworks and gateways often put their own name there; then the model's own vendor is taken, and the
call says so (ChargeFlag.PROVIDER_GUESSED). The names are those of the price catalogue.
"""

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

SELF_HOSTED = "self-hosted"


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
    "together": "together", "together_ai": "together", "togetherai": "together", "together-ai": "together",
    "fireworks": "fireworks", "fireworks_ai": "fireworks", "fireworksai": "fireworks",
    "openrouter": "openrouter", "moonshot": "moonshotai", "moonshot_ai": "moonshotai", "moonshotai": "moonshotai",
    "perplexity_ai": "perplexity", "perplexityai": "perplexity", "googleai": "google", "generative-ai": "google",
    "azureopenai": "azure", "azure.openai": "azure", "voyage": "voyageai", "voyage_ai": "voyageai",
    "voyageai": "voyageai", "z_ai": "zai", "zai": "zai", "zhipu": "zhipuai", "zhipu_ai": "zhipuai",
    "ibm.watsonx.ai": "ibm.watsonx.ai", "cerebras": "cerebras",
}  # fmt: skip
#: Inference servers that people run themselves: a public list price would be an invention.
ALIASES |= dict.fromkeys(
    (
        SELF_HOSTED, "self_hosted", "selfhosted", "local", "vllm", "hosted_vllm", "ollama", "ollama_chat", "lmstudio",
        "lm_studio", "llamacpp", "llama.cpp", "llama_cpp", "llamafile", "localai", "sglang", "tgi",
        "text-generation-inference", "tensorrt-llm", "triton", "nim", "xinference", "aphrodite", "mlx",
    ),
    SELF_HOSTED,
)  # fmt: skip

#: Names of frameworks, gateways and agents that are not providers.
FRAMEWORKS = frozenset({
    "gcp.vertex.agent",  # Google ADK, whatever model it drives
    "strands-agents", "strands", "langchain", "langgraph", "spring_ai", "litellm", "litellm_proxy", "llama_index",
    "llamaindex", "crewai", "haystack", "autogen", "semantic_kernel", "vercel", "gateway", "pydantic-ai", "pydantic_ai",
    "google_adk", "smolagents", "agno", "mastra", "dspy", "unknown", "none", "fake", "_other", "custom",
    "custom_openai", "openai-compatible", "openai_compatible", "openai-like", "portkey", "traceloop",
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


# -- what the host says -------------------------------------------------------------------------------

#: End of a public host name -> who bills there. OpenAI-compatible clients say "openai" at all of them.
HOSTS = {
    "api.anthropic.com": "anthropic", "api.arcee.ai": "arcee", "api.avian.io": "avian",
    "inference.baseten.co": "baseten",
    "api.cerebras.ai": "cerebras", "api.cloudflare.com": "cloudflare", "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere", "api.cursor.com": "cursor", "cloud.databricks.com": "databricks",
    "azuredatabricks.net": "databricks", "gcp.databricks.com": "databricks", "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks", "api.githubcopilot.com": "github-copilot", "googleapis.com": "google",
    "api.groq.com": "groq", "api.meta.ai": "meta", "api.minimax.io": "minimax", "api.minimaxi.com": "minimax",
    "api.mistral.ai": "mistral", "modal.run": "modal", "api.moonshot.ai": "moonshotai", "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita", "api.openai.com": "openai", "openrouter.ai": "openrouter",
    "oai.endpoints.kepler.ai.cloud.ovh.net": "ovhcloud", "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.together.ai": "together", "api.voyageai.com": "voyageai", "api.x.ai": "x-ai", "api.z.ai": "zai",
    "open.bigmodel.cn": "zhipuai", "openai.azure.com": "azure", "azure-api.net": "azure",
    "cognitiveservices.azure.com": "azure", "services.ai.azure.com": "azure",
}  # fmt: skip
_BEDROCK_HOST = re.compile(r"(^|\.)bedrock(-runtime)?(-fips)?\.[a-z0-9-]+\.(vpce\.)?amazonaws\.com(\.cn)?$")
#: Clouds that are reached through private endpoints: there a private host proves nothing.
_CLOUDS = frozenset({"aws", "azure", "google"})
#: Models that nobody can host themselves: on a private host they are reached through a gateway.
_CLOSED_MODEL = re.compile(
    r"(^|[/.])(gpt-(?!oss|2\b|j|neo)|chatgpt|o[134]($|-)|text-embedding-(3|ada)|dall-e|tts-1|claude|gemini-|grok-[2-9]"
    r"|nova-)"
)
_PRIVATE_SUFFIXES = (".local", ".localhost", ".internal", ".lan", ".home", ".svc", ".test", ".docker")


@lru_cache(maxsize=4096)
def at_host(provider: Provider, host: str, model: str) -> Provider:
    """Who bills when the call went to this host (``server.address[:port]`` or a URL).

    A provider's public host overrules the name. A private host is a self-hosted server, unless nobody
    can host the model: then it is a gateway, and the provider is as good as a guess.
    """
    seller = seller_at(host)
    if seller:
        return Provider(seller, False)
    if not is_private_host(host) or provider.name in _CLOUDS or provider.name == SELF_HOSTED:
        return provider
    return Provider(provider.name, True) if is_closed_model(model) else Provider(SELF_HOSTED, False)


def seller_at(host: str) -> str:
    """The provider whose public host this is; "" if it is none we know."""
    name = bare_host(host)
    if _BEDROCK_HOST.search(name):
        return "aws"
    labels = name.split(".")
    return next((found for i in range(len(labels) - 1) if (found := HOSTS.get(".".join(labels[i:])))), "")


def is_closed_model(model: str) -> bool:
    return _CLOSED_MODEL.search(model.lower()) is not None


def bare_host(host: str) -> str:
    """The host name alone, lower-case: without scheme, path, port and brackets."""
    text = host.strip().lower().split("://", 1)[-1].split("/", 1)[0]
    if text.startswith("["):
        return text[1:].split("]", 1)[0]
    return text.rsplit(":", 1)[0] if text.count(":") == 1 else text


def is_private_host(host: str) -> bool:
    """Loopback, a private address, or a name that only resolves inside somebody's network."""
    name = bare_host(host)
    if not name:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES)
    return address.is_private or address.is_loopback or address.is_link_local
