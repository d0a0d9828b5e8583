"""The vocabulary of the attribute tables: what an attribute states, and how to read its value.

A table maps an attribute name to a `Rule`. Rules are made by the small factories below, so that a
table reads as data: ``"gen_ai.request.model": text("model_requested")``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from collectors.dialects.scalars import (
    TEXT_LIMIT,
    clean,
    count_of,
    loose_count_of,
    micros_of,
    nano_of,
    text_of,
    truth_of,
)
from collectors.dialects.types import Fact, Hit, Scalar
from costapp.core.values import SpanFlag

FLAG = "flags"  #: slot of SpanFlag bits; facts of rank -1 add up instead of competing

TRUNCATED = Fact(FLAG, -1, int(SpanFlag.TRUNCATED))
INVALID = Fact(FLAG, -1, int(SpanFlag.USAGE_INVALID))


class Rule(NamedTuple):
    """How to read one attribute. `slots` names the canonical fields it can state (for docs/attributes.md)."""

    slots: tuple[str, ...]
    read: Callable[[Scalar], Hit | None]


Table = Mapping[str, Rule]


def stated(slot: str, value: str | None, rank: int = 0) -> Hit | None:
    """A hit for a text value, cut to the limit."""
    if value is None:
        return None
    if len(value) > TEXT_LIMIT:
        return (Fact(slot, rank, clean(value)), TRUNCATED)
    return (Fact(slot, rank, clean(value)),)


def text(slot: str, rank: int = 0) -> Rule:
    """A text value."""
    return Rule((slot,), lambda value: stated(slot, text_of(value), rank))


def count(slot: str, rank: int = 0, *, loose: bool = False) -> Rule:
    """A token count; anything else states nothing and is flagged."""
    parse = loose_count_of if loose else count_of

    def read(value: Scalar) -> Hit | None:
        number = parse(value)
        if number is not None:
            return (Fact(slot, rank, number),)
        return (INVALID,) if value is not None else None

    return Rule((slot,), read)


def flag(bit: SpanFlag) -> Rule:
    """A boolean that sets a SpanFlag."""
    hit: Hit = (Fact(FLAG, -1, int(bit)),)
    return Rule((bit.name.lower() if bit.name else "flags",), lambda value: hit if truth_of(value) else None)


def usd(slot: str = "reported_nano", rank: int = 0, *, name: str, units_per_usd: int = 1) -> Rule:
    """A cost the client computed; zero states nothing, because clients send 0 when they do not know."""
    source = "reported_source" if slot == "reported_nano" else f"{slot}_source"

    def read(value: Scalar) -> Hit | None:
        nano = nano_of(value, units_per_usd=units_per_usd)
        return (Fact(slot, rank, nano), Fact(source, rank, name)) if nano else None

    return Rule((slot,), read)


def duration(slot: str, rank: int = 0, *, per_second: int) -> Rule:
    """A time span in 1/per_second seconds."""

    def read(value: Scalar) -> Hit | None:
        micros = micros_of(value, per_second=per_second)
        return (Fact(slot, rank, micros),) if micros is not None else None

    return Rule((slot,), read)


def choice(slot: str, rank: int, values: Mapping[str, int | str], default: int | None = None) -> Rule:
    """A word that selects a constant, for example a span kind that selects a role."""
    hits: dict[str, Hit] = {word: (Fact(slot, rank, _plain(number)),) for word, number in values.items()}
    other: Hit | None = (Fact(slot, rank, int(default)),) if default is not None else None

    def read(value: Scalar) -> Hit | None:
        word = text_of(value)
        return hits.get(word.lower(), other) if word is not None else None

    return Rule((slot,), read)


def _plain(value: int | str) -> int | str:
    return int(value) if isinstance(value, int) else value  # enums are slower to merge and to store


def both(*rules: Rule) -> Rule:
    """Several statements read from one value."""

    def read(value: Scalar) -> Hit | None:
        facts = tuple(fact for rule in rules for fact in rule.read(value) or ())
        return facts or None

    return Rule(tuple(dict.fromkeys(slot for rule in rules for slot in rule.slots)), read)


def joined(tables: Sequence[Table]) -> dict[str, Rule]:
    """One table from many. Two dialects may not claim one name: that would make order matter."""
    result: dict[str, Rule] = {}
    for table in tables:
        overlap = result.keys() & table.keys()
        assert not overlap, f"claimed by two dialects: {sorted(overlap)}"
        result.update(table)
    return result
