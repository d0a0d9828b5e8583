"""The dimensions by which reports split and filter: an allow-list of names and the columns behind them."""

from typing import NamedTuple


class Dimension(NamedTuple):
    key: str  #: in addresses and exports
    column: str  #: in `charge`, and in rollups where `in_rollup`
    label: str
    plural: str
    empty: str  #: what '' means, in words
    in_rollup: bool = True
    in_latency: bool = False  #: kept in the latency histogram


DIMENSIONS: dict[str, Dimension] = {
    dimension.key: dimension
    for dimension in (
        Dimension("feature", "feature", "Feature", "features", "(unattributed)", in_latency=True),
        Dimension("model", "model", "Model", "models", "(model not stated)", in_latency=True),
        Dimension("provider", "provider", "Provider", "providers", "(unknown provider)"),
        Dimension("user", "user_id", "User", "users", "(no user)", in_rollup=False),
        Dimension("session", "session_id", "Session", "sessions", "(no session)", in_rollup=False),
        Dimension("team", "team", "Team", "teams", "(no team)"),
        Dimension("environment", "environment", "Environment", "environments", "(not stated)", in_latency=True),
        Dimension("service", "service", "Service", "services", "(unknown service)", in_latency=True),
        Dimension("workload", "span_name", "Workload", "workloads", "(unnamed)", in_latency=True),
        Dimension("variant", "variant", "Variant", "variants", "(no variant)"),
        Dimension("prompt_version", "prompt_version", "Prompt version", "prompt versions", "(not stated)"),
    )
}
