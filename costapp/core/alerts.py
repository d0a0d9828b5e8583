"""What an alert is: values that producers (budgets, rules, guardrails, anomalies) hand to ``services.alerts``."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


#: From harmless to severe; the place in it is the rank that channels filter by.
LEVELS = (Level.INFO, Level.WARNING, Level.CRITICAL)


class Source(StrEnum):
    """What found it."""

    BUDGET = "budget"
    RULE = "rule"
    GUARDRAIL = "guardrail"
    ANOMALY = "anomaly"
    SYSTEM = "system"  # Costapp about itself


class AlertState(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"


class EventKind(StrEnum):
    """What happened to an alert; a line of its timeline."""

    OPENED = "opened"
    ESCALATED = "escalated"
    DEESCALATED = "deescalated"
    REMINDED = "reminded"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"
    RESOLVED = "resolved"
    LATE = "late"
    NOTE = "note"


class Fact(NamedTuple):
    """One figure of the message, ready to show: ``Fact("Spent", "$81.20 of $100.00")``."""

    label: str
    text: str


class Finding(NamedTuple):
    """What a producer found. The same firing has the same ``key``, for ever: that is what makes alerts single."""

    project_id: int
    source: Source
    source_id: int  # of the budget, rule ... 0 = none
    key: str
    level: Level
    title: str  # one sentence for people, figures included
    subject: Mapping[str, str]  # {"feature": "support-bot"}; {} = the whole project
    facts: tuple[Fact, ...]
    driver: str  # one sentence, "" when unknown
    path: str  # of the page that shows the same number, with its query
    group_key: str  # alerts of one group are one message per channel
    period_start: datetime | None
    period_end: datetime | None
    complete_until: datetime | None  # data is whole up to here
    parent_key: str = ""  # while this alert is open, the finding sends no message of its own


class Change(NamedTuple):
    """A new level (or only new figures) of an open alert."""

    project_id: int
    key: str
    level: Level
    title: str
    facts: tuple[Fact, ...]


class Open(NamedTuple):
    """An open alert as its producer needs it to decide what is new, worse, over or due for a reminder."""

    project_id: int
    id: int
    key: str
    source_id: int
    subject: Mapping[str, str]
    level: Level
    opened_at: datetime
    period_end: datetime | None
    last_notified_at: datetime | None
    acknowledged_at: datetime | None
    snoozed_until: datetime | None


class Pace(NamedTuple):
    """How long messages wait for others of their group."""

    group_wait: timedelta
    group_interval: timedelta


#: Budgets and guardrails are told at once: what crosses together is found together.
IMMEDIATE = frozenset({Source.BUDGET, Source.GUARDRAIL})


def rank(level: str) -> int:
    return LEVELS.index(Level(level))


#: Bytes of a key: subjects are names that anybody may choose, and a database index takes 2,700 at most.
KEY_BYTES = 500
TITLE_LENGTH = 500
FACTS = 20


def bounded_key(key: str) -> str:
    """The key itself, or when it is too long for an index its beginning and a digest of the whole."""
    encoded = key.encode()
    if len(encoded) <= KEY_BYTES:
        return key
    return encoded[: KEY_BYTES - 40].decode(errors="ignore") + "~" + sha256(encoded).hexdigest()[:32]


def cut(text: str, length: int = TITLE_LENGTH) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
