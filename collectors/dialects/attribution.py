"""Who a span says it works for: feature, user, session, team, environment, variant, prompt version.

Keys vary between apps, so names are data. A project can add its own, tried before these.
"""

from collections.abc import Iterator, Mapping, Sequence

from collectors.dialects.rules import Rule, Table, text

#: Exact names, best first. Rank = position.
NAMES: Mapping[str, Sequence[str]] = {
    "feature": ("app.feature", "feature", "feature.name", "feature_name"),
    "user": ("user.id", "enduser.id", "langfuse.user.id", "user_id", "userId", "gen_ai.user", "llm.user"),
    "session": ("session.id", "langfuse.session.id", "session_id", "sessionId"),
    "team": ("team.id", "team.name", "app.team", "team"),
    "environment": ("deployment.environment.name", "deployment.environment", "langfuse.environment"),
    "variant": ("app.variant", "variant", "experiment.variant", "ab.variant"),
    "prompt_version": ("app.prompt_version", "prompt.version", "prompt_version"),
}

#: Attributes that name a feature only weakly: used when nothing in the trace names one outright.
WEAK_FEATURES = ("gen_ai.workflow.name", "traceloop.workflow.name", "ai.telemetry.functionId", "gen_ai.agent.name")


def _rules() -> Iterator[tuple[str, Rule]]:
    for field, names in NAMES.items():
        for rank, name in enumerate(names):
            yield name, text(field, rank)


TABLE: Table = dict(_rules())
