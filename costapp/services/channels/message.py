"""What is sent, before it takes the form of a channel; and what became of sending it."""

from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from costapp.core.alerts import Fact

#: Items shown in full; the rest is a count and a link.
ITEMS_SHOWN = 10


#: How a title is introduced.
EVENT_WORDS = {
    "resolved": "Over: ",
    "reminded": "Still open: ",
    "escalated": "Worse: ",
    "deescalated": "Better: ",
    "late": "Late data: ",
}


class Item(NamedTuple):
    """One alert in a message, or one part of a report."""

    key: str
    event: str  # core.alerts.EventKind; "" in reports
    level: str
    title: str
    subject: dict[str, str]
    facts: tuple[Fact, ...]
    driver: str
    url: str  # of the page that shows the same number; "" = none
    alert_url: str  # of the alert's own page; "" = none

    @property
    def headline(self) -> str:
        return f"{EVENT_WORDS.get(self.event, '')}{self.title}"


class Message(NamedTuple):
    dedupe_key: str  # the same for every attempt
    group_key: str
    kind: str  # alerts | digest | test
    project: str  # slug
    project_name: str
    heading: str  # one line that says it all
    items: tuple[Item, ...]
    more: int  # alerts beyond ``items``
    more_url: str


class Result(StrEnum):
    SENT = "sent"
    LATER = "later"  # try again
    REJECTED = "rejected"  # this message never; the channel works
    BROKEN = "broken"  # the channel never, until somebody looks at it


class Outcome(NamedTuple):
    result: Result
    words: str  # a sentence without secrets
    after: timedelta | None = None  # LATER: not before


def sent(words: str) -> Outcome:
    return Outcome(Result.SENT, words)


def later(words: str, after: timedelta | None = None) -> Outcome:
    return Outcome(Result.LATER, words, after)


def rejected(words: str) -> Outcome:
    return Outcome(Result.REJECTED, words)


def broken(words: str) -> Outcome:
    return Outcome(Result.BROKEN, words)
