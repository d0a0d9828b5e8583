"""Token counters: for coverage ("spans explain x % of the tokens that metrics count"), never for cost.

Types on the wire overlap; the ones kept here are disjoint, so that their sum is a total.
"""

from collections.abc import Mapping, Sequence

from collectors.dialects.scalars import clean, count_of, text_of
from collectors.dialects.types import MetricPoint, Resource, Scalar, Scope
from costapp.core.ids import hash64

#: Metric -> token type on the wire -> canonical type; types that are not listed overlap others.
COUNTERS: Mapping[str, Mapping[str, str]] = {
    "gen_ai.client.token.usage": {"input": "input", "output": "output", "prompt": "input", "completion": "output"},
    "claude_code.token.usage": {"input": "input", "output": "output", "cacheRead": "cache_read",
                                "cacheCreation": "cache_write"},
    "gemini_cli.token.usage": {"input": "input", "output": "output", "thought": "reasoning", "tool": "input"},
    "codex.turn.token_usage": {"input": "input", "output": "output"},
}  # fmt: skip
_TYPE_NAMES = ("gen_ai.token.type", "type", "token_type")
_MODEL_NAMES = ("gen_ai.response.model", "gen_ai.request.model", "model")
#: Gemini CLI counts the same tokens under its own name, thoughts included.
_REPEATED = frozenset({("gemini-cli", "gen_ai.client.token.usage")})
_LIMIT = (1 << 63) - 1


def token_point(
    *, metric: str, value: float, start_ns: int, time_ns: int, is_delta: bool,
    attributes: Sequence[tuple[str, Scalar]], scope: Scope, resource: Resource, resource_key: bytes,
) -> MetricPoint | None:  # fmt: skip
    """See `Recogniser.metric_point`."""
    types = COUNTERS.get(metric)
    if types is None or (resource.service or "", metric) in _REPEATED:
        return None
    stated = dict(attributes)
    token_type = types.get(_first(stated, _TYPE_NAMES))
    tokens = _tokens(value)
    if token_type is None or tokens is None:
        return None
    series = repr((scope.name, metric, sorted((key, repr(inner)) for key, inner in stated.items())))
    return MetricPoint(
        stream=hash64(resource_key + b"\0" + series.encode("utf-8", "replace")), start_ns=start_ns, time_ns=time_ns,
        tokens=tokens, is_delta=is_delta, service=resource.service or "", metric=metric, token_type=token_type,
        model=clean(_first(stated, _MODEL_NAMES)),
    )  # fmt: skip


def _tokens(value: float) -> int | None:
    """A cumulative counter may exceed one call's limit by far, but not a bigint."""
    small = count_of(value)
    if small is not None:
        return small
    if isinstance(value, bool) or value != value or not 0 <= value < _LIMIT:
        return None
    return int(value)


def _first(stated: Mapping[str, Scalar], names: Sequence[str]) -> str:
    return next((found for name in names if (found := text_of(stated.get(name)))), "")
