"""What a client's token numbers mean: a table, because it is knowledge that changes, not logic.

Instrumentations disagree on whether cached tokens are inside the input number. Most include them; the
exceptions were measured with real clients against a provider whose usage was known. A project can put
its own rules in front of this table (`TokenRules.extended`); a charge stores the name of its rule.
"""

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import NamedTuple

from costapp.core.values import UsageShape


class TokenRule(NamedTuple):
    """Spans of these scopes, versions and providers count tokens this way. Patterns are shell globs."""

    name: str
    scope: str = "*"
    provider: str = "*"  #: canonical provider name
    version_from: str = ""  #: inclusive; "" = any
    version_below: str = ""  #: exclusive; "" = any
    shape: UsageShape = UsageShape.INCLUSIVE
    cached_unseen: bool = False  #: the client never sends the cached part: cost is an upper bound
    estimates_streams: bool = False  #: the client invents counts for streams that report none


DEFAULT_RULE = TokenRule("inclusive")

_EXCLUDES = UsageShape.INPUT_EXCLUDES_CACHE

BUILT_IN: tuple[TokenRule, ...] = (
    TokenRule("botocore-bedrock-excludes-cache", "*botocore.bedrock-runtime", shape=_EXCLUDES),
    TokenRule("bedrock-excludes-cache", "*instrumentation.bedrock", shape=_EXCLUDES),
    TokenRule(
        "openlit-anthropic-excludes-cache", "openlit.instrumentation.anthropic", shape=_EXCLUDES, estimates_streams=True
    ),
    TokenRule("claude-code-excludes-cache", "com.anthropic.claude_code*", shape=_EXCLUDES),
    # ai 4 and 5 pass the provider's raw numbers on; ai 6 states its own shape (inputTokenDetails).
    TokenRule("vercel-anthropic-excludes-cache", "ai", provider="anthropic", shape=_EXCLUDES),
    TokenRule("vercel-bedrock-excludes-cache", "ai", provider="aws", shape=_EXCLUDES),
    TokenRule("gemini-cli-excludes-thoughts", "gemini-cli*", shape=UsageShape.OUTPUT_EXCLUDES_REASONING),
    TokenRule("openlit", "openlit.*", estimates_streams=True),
    TokenRule("openai-v2-hides-cache", "opentelemetry.instrumentation.openai_v2", cached_unseen=True),
    # The same instrumentation under OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental.
    TokenRule(
        "openai-v2-latest-hides-cache",
        "opentelemetry.util.genai.handler",
        provider="openai",
        version_below="1",
        cached_unseen=True,
    ),
    # Of chat completions; responses have it.
    TokenRule("openinference-agents-hides-cache", "openinference.instrumentation.openai_agents", cached_unseen=True),
    TokenRule("otel-js-hides-cache", "@opentelemetry/instrumentation-openai", cached_unseen=True),
    TokenRule("traceloop-js-hides-cache", "@traceloop/instrumentation-openai", cached_unseen=True),
    TokenRule("pydantic-ai-1-hides-cache", "pydantic-ai", provider="openai", version_below="2", cached_unseen=True),
    TokenRule("semantic-kernel-hides-cache", "semantic_kernel*", cached_unseen=True),
    TokenRule("mlflow-semconv-hides-cache", "mlflow*", cached_unseen=True),
    TokenRule("vercel-openai-hides-cache", "ai", provider="openai", cached_unseen=True),
)


#: Names of shapes in a project's own rules.
SHAPES = {shape.name.lower(): shape for shape in UsageShape if shape != UsageShape.AUTO}


def parse_rules(documents: object) -> tuple[TokenRule, ...]:
    """A project's own rules from JSON: a list of objects with the fields of `TokenRule`, shapes by name.

    ValueError with a sentence for people if one of them is not a rule.
    """
    if not isinstance(documents, list):
        raise ValueError("Token rules are a list of rules.")
    return tuple(_parse_rule(number, document) for number, document in enumerate(documents, 1))


def _parse_rule(number: int, document: object) -> TokenRule:
    if not isinstance(document, dict) or not isinstance(document.get("name"), str) or not document["name"]:
        raise ValueError(f"Rule {number} is not an object with a name.")
    unknown = sorted(set(document) - set(TokenRule._fields))
    if unknown:
        raise ValueError(f"Rule {number}: unknown field {unknown[0]!r}. Fields: {', '.join(TokenRule._fields)}.")
    shape = document.get("shape", "inclusive")
    if shape not in SHAPES:
        raise ValueError(f"Rule {number}: shape {shape!r} is none of {', '.join(SHAPES)}.")
    for field, value in document.items():
        expected = type(TokenRule._field_defaults.get(field, "")) if field != "shape" else str
        if type(value) is not expected:
            raise ValueError(f"Rule {number}: {field} is not a {expected.__name__}.")
    return TokenRule(**{**document, "shape": SHAPES[shape]})


def version_key(text: str) -> tuple[int, ...]:
    """Leading numbers of a version, for comparison: "1.3b0" -> (1, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("b", 1)[0].split("rc", 1)[0])[:4])


class TokenRules:
    """An ordered table; the first rule that fits decides, else inclusive."""

    def __init__(self, rules: Iterable[TokenRule] = BUILT_IN) -> None:
        self.rules = tuple(rules)
        self._compiled = [
            (rule, re.compile(translate(rule.scope)), re.compile(translate(rule.provider))) for rule in self.rules
        ]
        self._cache: dict[tuple[str | None, str | None, str], TokenRule] = {}

    def extended(self, own: Iterable[TokenRule]) -> "TokenRules":
        """This table with a project's own rules tried first."""
        return TokenRules((*own, *self.rules))

    def rule(self, scope: str | None, version: str | None, provider: str) -> TokenRule:
        """The rule for one span. Cached: there are few scopes, versions and providers."""
        key = (scope, version, provider)
        found = self._cache.get(key)
        if found is None:
            found = self._find(scope or "", version or "", provider)
            if len(self._cache) > 4096:  # hostile scope names
                self._cache.clear()
            self._cache[key] = found
        return found

    def _find(self, scope: str, version: str, provider: str) -> TokenRule:
        for rule, scope_pattern, provider_pattern in self._compiled:
            if scope_pattern.match(scope) and provider_pattern.match(provider) and _in_range(rule, version):
                return rule
        return DEFAULT_RULE


def _in_range(rule: TokenRule, version: str) -> bool:
    """A rule with a version range does not fit a span without a version."""
    if not (rule.version_from or rule.version_below):
        return True
    known = version_key(version)
    if not known:
        return False
    if rule.version_from and known < version_key(rule.version_from):
        return False
    return not (rule.version_below and known >= version_key(rule.version_below))


DEFAULT = TokenRules()
