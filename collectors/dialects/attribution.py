"""Who a span says it works for: feature, user, session, team, environment, variant, prompt version.

Keys vary between apps, so names are data, and a project can add its own, tried before these. Values that
are empty or scrubbed by the client state nothing. Slots `weak_feature` and `weak_session` hold names that
count only when nothing in the trace states the real thing.
"""

from collections.abc import Iterator, Mapping, Sequence

from collectors.dialects.rules import Rule, Table, stated, text
from collectors.dialects.scalars import document_of, mapping_of, text_of
from collectors.dialects.types import Fact, Hit, Scalar

FIELDS = ("feature", "user", "session", "team", "environment", "variant", "prompt_version", "prompt_name")

#: Exact names, best first.
NAMES: Mapping[str, Sequence[str]] = {
    "feature": ("app.feature", "feature", "feature.name", "feature_name", "app.feature.name", "costapp.feature"),
    "user": ("user.id", "enduser.id", "langfuse.user.id", "user_id", "userId", "gen_ai.user", "llm.user",
             "gen_ai.request.user", "metadata.user_api_key_end_user_id", "metadata.user_api_key_user_id"),
    "session": ("session.id", "langfuse.session.id", "session_id", "sessionId"),
    "team": ("team.id", "team.name", "app.team", "team", "metadata.user_api_key_team_alias",
             "metadata.user_api_key_team_id"),
    "environment": ("deployment.environment.name", "deployment.environment", "langfuse.environment", "app.environment"),
    "variant": ("app.variant", "variant", "experiment.variant", "ab.variant", "ab_variant"),
    "prompt_version": ("app.prompt_version", "app.prompt.version", "prompt.version", "gen_ai.prompt.version",
                       "prompt_version"),
    # Fallbacks, in the order in which they are believed.
    "weak_feature": ("gen_ai.workflow.name", "traceloop.workflow.name", "ai.telemetry.functionId", "gen_ai.agent.name"),
    "weak_session": ("gen_ai.conversation.id", "conversation.id", "thread_id", "spring.ai.chat.client.conversation.id",
                     "gcp.vertex.agent.session_id", "gcp.vertex.agent.conversation_id"),
}  # fmt: skip

#: Prefixes below which apps put metadata of their own; the last part of the name says what it is.
PREFIXES = (
    "traceloop.association.properties.", "ai.telemetry.metadata.", "ai.settings.context.", "langfuse.trace.metadata.",
    "langfuse.observation.metadata.", "langsmith.metadata.", "mlflow.traceTag.", "mlflow.trace.", "metadata.",
    "llm.metadata.", "app.", "baggage.",
)  # fmt: skip

#: Last part of a name -> field, below those prefixes and in metadata documents.
WORDS: Mapping[str, str] = {
    "feature": "feature", "feature_name": "feature", "featureName": "feature",
    "user": "user", "user_id": "user", "userId": "user", "userID": "user", "user.id": "user",
    "session": "session", "session_id": "session", "sessionId": "session", "sessionID": "session",
    "session.id": "session", "langfuse_session_id": "session", "langfuse_user_id": "user",
    "team": "team", "team_id": "team", "teamId": "team", "team_name": "team",
    "environment": "environment",
    "variant": "variant", "ab_variant": "variant", "abVariant": "variant", "experiment_variant": "variant",
    "prompt_version": "prompt_version", "promptVersion": "prompt_version",
    "prompt_name": "prompt_name", "promptName": "prompt_name",
    "thread_id": "weak_session", "threadId": "weak_session", "conversation_id": "weak_session",
    "conversationId": "weak_session",
}  # fmt: skip

#: Last parts that are believed anywhere, whatever stands before them.
SUFFIXES: Mapping[str, str] = {
    "userId": "user",
    "user_id": "user",
    "sessionId": "session",
    "session_id": "session",
    "thread_id": "weak_session",
    "feature": "feature",
}

#: Attributes that hold a document of metadata (JSON or a Python literal).
DOCUMENTS = (
    "metadata",
    "metadata.requester_metadata",
    "langfuse.trace.metadata",
    "langfuse.observation.metadata",
    "mlflow.trace.metadata",
    "metadata.spend_logs_metadata",
)
#: Attributes that hold a list of tags; only ``feature:search`` says what it is.
TAGS = ("tag.tags", "langfuse.trace.tags", "metadata.tags")

_PREFIX_RANK, _DOCUMENT_RANK, _TAG_RANK, _SUFFIX_RANK = 20, 30, 40, 50


def stated_as(field: str, value: Scalar, rank: int) -> Hit | None:
    """A statement about one field. The rank of a weak feature also says how weak it is."""
    return stated(field, text_of(value), rank)


def _document(value: Scalar) -> Hit | None:
    document = mapping_of(value)
    facts = [
        fact
        for key, inner in document.items()
        if (field := WORDS.get(key))
        for fact in stated_as(field, inner, _DOCUMENT_RANK) or ()
    ]
    nested = document.get("requester_metadata")
    if nested:
        facts += _document(nested) or ()
    return tuple(facts) or None


def _tags(value: Scalar) -> Hit | None:
    facts: list[Fact] = []
    tags = document_of(value)
    for tag in tags[:50] if isinstance(tags, list) else ():
        word, colon, rest = tag.partition(":") if isinstance(tag, str) else ("", "", "")
        field = WORDS.get(word.strip())
        if colon and field:
            facts += stated_as(field, rest.strip(), _TAG_RANK) or ()
    return tuple(facts) or None


def _rules() -> Iterator[tuple[str, Rule]]:
    for field, names in NAMES.items():
        for rank, name in enumerate(names):
            yield name, text(field, rank + 1 if field == "weak_feature" else rank)
    for name in DOCUMENTS:
        yield name, Rule(FIELDS, _document)
    for name in TAGS:
        yield name, Rule(FIELDS, _tags)


TABLE: Table = dict(_rules())


def by_pattern(key: str) -> Rule | None:
    """The rule for a name that is not in the table, by its prefix or its last part."""
    for prefix in PREFIXES:
        if key.startswith(prefix):
            field = WORDS.get(key[len(prefix) :])
            if field:
                return text(field, _PREFIX_RANK)
    field = SUFFIXES.get(key.rpartition(".")[2])
    return text(field, _SUFFIX_RANK) if field and "." in key else None
