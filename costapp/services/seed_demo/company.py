"""The invented company: Larkfield, an online shop for outdoor gear, and the AI features it runs.

Variation lives here as data; ``generate`` turns it into spans. Nothing in here is measured or real.
"""

from typing import NamedTuple

PROJECT_SLUG = "demo"
PROJECT_NAME = "Larkfield (demo data)"
TIME_ZONE = "Europe/Berlin"
USERS = 5_000
DAYS = 60
RELEASE_HOUR = 8  # UTC: prompts and code go out in the morning


class Model(NamedTuple):
    """One way to reach a model, with the names that its instrumentation puts on the wire."""

    requested: str
    responded: str
    provider: str
    scope: str
    first_token_ms: int
    token_ms: float
    id_prefix: str
    host: str
    cache_write: bool = False  # bills cache writes (Anthropic style)
    input_excludes_cache: bool = False


_OPENAI = "opentelemetry.instrumentation.genai.openai"
_ANTHROPIC = "com.anthropic.sdk.python"
_GOOGLE = "opentelemetry.instrumentation.google_genai"

MODELS = {
    "gpt-4o-mini": Model(
        "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai", _OPENAI, 380, 8, "chatcmpl-", "api.openai.com"
    ),
    "gpt-4o": Model("gpt-4o", "gpt-4o-2024-08-06", "openai", _OPENAI, 520, 13, "chatcmpl-", "api.openai.com"),
    "gpt-4.1": Model("gpt-4.1", "gpt-4.1-2025-04-14", "openai", _OPENAI, 560, 13, "chatcmpl-", "api.openai.com"),
    "gpt-4.1-mini": Model(
        "gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", "openai", _OPENAI, 420, 9, "chatcmpl-", "api.openai.com"
    ),
    "gpt-4.1-nano": Model(
        "gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", "openai", _OPENAI, 260, 5, "chatcmpl-", "api.openai.com"
    ),
    "o4-mini": Model("o4-mini", "o4-mini-2025-04-16", "openai", _OPENAI, 2600, 9, "resp_", "api.openai.com"),
    "embed-small": Model(
        "text-embedding-3-small", "text-embedding-3-small", "openai", _OPENAI, 90, 0, "", "api.openai.com"
    ),
    "embed-large": Model(
        "text-embedding-3-large", "text-embedding-3-large", "openai", _OPENAI, 140, 0, "", "api.openai.com"
    ),
    "sonnet": Model(
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        "anthropic",
        _ANTHROPIC,
        900,
        15,
        "msg_",
        "api.anthropic.com",
        cache_write=True,
    ),
    "haiku": Model(
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "anthropic",
        _ANTHROPIC,
        450,
        8,
        "msg_",
        "api.anthropic.com",
        cache_write=True,
    ),
    "bedrock-sonnet": Model(
        "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        "aws.bedrock",
        "opentelemetry.instrumentation.botocore.bedrock-runtime",
        1000,
        16,
        "",
        "bedrock-runtime.eu-central-1.amazonaws.com",
        cache_write=True,
        input_excludes_cache=True,
    ),
    "gemini-flash": Model(
        "gemini-2.5-flash",
        "gemini-2.5-flash",
        "gcp.gemini",
        _GOOGLE,
        400,
        6,
        "",
        "generativelanguage.googleapis.com",
    ),
    "gemini-lite": Model(
        "gemini-2.5-flash-lite",
        "gemini-2.5-flash-lite",
        "gcp.gemini",
        _GOOGLE,
        280,
        4,
        "",
        "generativelanguage.googleapis.com",
    ),
    "mistral-small": Model(
        "mistral-small-latest",
        "mistral-small-latest",
        "mistral_ai",
        "openinference.instrumentation.mistralai",
        350,
        7,
        "",
        "api.mistral.ai",
    ),
    "fit-advisor": Model(
        "larkfield-fit-7b",
        "larkfield-fit-7b",
        "openai",
        _OPENAI,
        120,
        11,
        "chatcmpl-",
        "vllm.larkfield.internal:8000",
    ),
    "llama-70b": Model(
        "llama-3.3-70b-instruct",
        "llama-3.3-70b-instruct",
        "openai",
        _OPENAI,
        240,
        19,
        "chatcmpl-",
        "llm.larkfield.internal:8000",
    ),
}


class Feature(NamedTuple):
    """One AI feature: who runs it, how often, on which models and with which habits."""

    name: str  # "" = the app does not say: unattributed traffic
    team: str
    service: str
    route: str  # name of the root span
    sessions_per_day: int
    profile: str  # whose recorded hours it follows
    models: tuple[tuple[str, float], ...]  # model key, share
    shape: str  # conv | code | turns | embed: which recorded requests it replays
    weekend: float = 1.0  # load on Saturday and Sunday
    growth: float = 0.0  # per day, over the sixty days
    input_scale: float = 1.0
    output_scale: float = 1.0
    system_tokens: int = 0  # fixed prompt in front of every request
    cached: float = 0.0  # share of the fixed prompt and known prefix that the provider's cache serves
    reasoning: float = 0.0  # share of output
    errors: float = 0.006
    stream: bool = False
    stream_without_usage: float = 0.0
    app_cache: float = 0.0  # share answered by the shop's own cache
    embeds_first: bool = False  # looks the question up before it asks the model
    own_attributes: bool = True  # False: only the root span says feature, user and session
    signed_in: bool = True  # False: no user (batch work)
    prompt_versions: tuple[tuple[int, str], ...] = ()  # in force since this many days ago, newest last
    variants: tuple[str, ...] = ()
    batch: bool = False


FEATURES = (
    Feature(
        "support-bot",
        "customer-care",
        "support-api",
        "POST /support/messages",
        420,
        "mid",
        (("haiku", 0.5), ("sonnet", 0.3), ("gpt-4o-mini", 0.2)),
        "turns",
        weekend=1.15,
        growth=0.004,
        input_scale=0.6,
        output_scale=0.7,
        system_tokens=1_400,
        cached=0.85,
        stream=True,
        own_attributes=False,
        prompt_versions=((60, "v13"), (34, "v14"), (9, "v15"), (7, "v16")),
    ),
    Feature(
        "search-answers",
        "discovery",
        "search-api",
        "GET /search",
        560,
        "small",
        (("gemini-flash", 0.85), ("gpt-4.1-mini", 0.15)),
        "conv",
        weekend=1.3,
        growth=0.006,
        input_scale=0.9,
        stream=True,
        embeds_first=True,
        app_cache=0.12,
        own_attributes=False,
        variants=("control", "short-answers"),
        prompt_versions=((60, "2"), (21, "3")),
    ),
    Feature(
        "doc-summary",
        "operations",
        "backoffice",
        "POST /documents/summary",
        120,
        "large",
        (("gpt-4.1", 0.7), ("gpt-4.1-mini", 0.3)),
        "conv",
        weekend=0.15,
        input_scale=9.0,
        output_scale=1.4,
        prompt_versions=((60, "5"),),
    ),
    Feature(
        "code-assist",
        "engineering",
        "dev-proxy",
        "agent turn",
        60,
        "large",
        (("sonnet", 0.85), ("haiku", 0.15)),
        "code",
        weekend=0.12,
        growth=0.01,
        input_scale=4.0,
        output_scale=12.0,
        system_tokens=38_000,
        cached=0.97,
        stream=True,
        prompt_versions=((60, "2026-08"),),
    ),
    Feature(
        "product-copy",
        "catalogue",
        "catalogue-jobs",
        "write_copy",
        110,
        "mid",
        (("gpt-4o", 0.6), ("gpt-4o-mini", 0.4)),
        "conv",
        weekend=0.2,
        output_scale=2.2,
        signed_in=False,
        prompt_versions=((60, "v4"), (15, "v5")),
        variants=("plain", "story"),
    ),
    Feature(
        "review-moderation",
        "trust-and-safety",
        "reviews-api",
        "POST /reviews",
        620,
        "small",
        (("gpt-4.1-nano", 1.0),),
        "conv",
        weekend=1.2,
        input_scale=0.35,
        output_scale=0.08,
        system_tokens=450,
        prompt_versions=((60, "11"),),
    ),
    Feature(
        "translate-listings",
        "catalogue",
        "catalogue-jobs",
        "translate_listing",
        640,
        "mid",
        (("llama-70b", 0.9), ("gemini-lite", 0.1)),
        "conv",
        weekend=0.5,
        input_scale=0.7,
        output_scale=2.6,
        signed_in=False,
        batch=True,
        stream=True,
    ),
    Feature(
        "returns-triage",
        "customer-care",
        "returns-api",
        "POST /returns",
        90,
        "mid",
        (("gpt-4.1-mini", 0.8), ("o4-mini", 0.2)),
        "turns",
        input_scale=0.12,
        output_scale=0.5,
        system_tokens=700,
        cached=0.5,
        errors=0.012,
        own_attributes=False,
        prompt_versions=((60, "r7"),),
    ),
    Feature(
        "fraud-review",
        "trust-and-safety",
        "payments-risk",
        "review_order",
        140,
        "small",
        (("bedrock-sonnet", 1.0),),
        "conv",
        input_scale=5.0,
        system_tokens=6_200,
        cached=0.7,
        signed_in=False,
        prompt_versions=((60, "fr-3"), (28, "fr-4")),
    ),
    Feature(
        "email-drafts",
        "marketing",
        "campaigns",
        "POST /drafts",
        85,
        "large",
        (("mistral-small", 0.75), ("gpt-4o-mini", 0.25)),
        "conv",
        weekend=0.1,
        output_scale=1.9,
        stream=True,
        stream_without_usage=0.16,
    ),
    Feature(
        "fit-advisor",
        "discovery",
        "storefront",
        "GET /products/fit",
        480,
        "small",
        (("fit-advisor", 1.0),),
        "conv",
        weekend=1.4,
        growth=0.02,
        input_scale=0.5,
        output_scale=0.6,
        stream=True,
    ),
    Feature(
        "demand-notes",
        "planning",
        "planning-jobs",
        "write_weekly_note",
        22,
        "large",
        (("o4-mini", 1.0),),
        "conv",
        weekend=0.0,
        input_scale=6.0,
        output_scale=5.0,
        reasoning=0.65,
        signed_in=False,
    ),
    Feature(
        "alt-text",
        "catalogue",
        "media-jobs",
        "describe_image",
        190,
        "mid",
        (("gemini-flash", 0.7), ("gpt-4o-mini", 0.3)),
        "conv",
        weekend=0.4,
        input_scale=0.9,
        output_scale=0.3,
        signed_in=False,
    ),
    Feature(
        "catalogue-index",
        "discovery",
        "indexer",
        "reindex",
        260,
        "mid",
        (("embed-large", 1.0),),
        "embed",
        weekend=0.6,
        input_scale=1.0,
        signed_in=False,
    ),
    Feature(
        "",
        "",
        "legacy-scripts",
        "main",
        45,
        "large",
        (("gpt-4o", 0.7), ("gpt-4o-mini", 0.3)),
        "conv",
        weekend=0.3,
        signed_in=False,
    ),
)


class Incident(NamedTuple):
    """Something that went wrong, so that there is something to find. Days count back from the first seeding."""

    feature: str
    from_day: int
    to_day: int  # it ends on this day, at the same hour
    what: str
    from_hour: int = 0  # UTC: things break, and are mended, when somebody releases them
    on_workdays: bool = False  # one that would begin on a weekend begins on the Monday after


PROMPT_TRIPLED = Incident(
    "support-bot", 9, 7, "prompt v15 pasted the whole help centre into every request", from_hour=RELEASE_HOUR
)
CACHE_LOST = Incident(
    "code-assist",
    21,
    18,
    "a time stamp at the start of the prompt stopped the provider's cache from hitting",
    from_hour=RELEASE_HOUR,
    on_workdays=True,
)
RUNAWAY_LOOP = Incident("returns-triage", 4, 3, "one return bounced between two agents for two hours")
