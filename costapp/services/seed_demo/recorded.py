"""The real request traces that give the demo its shapes: sizes, conversations, hours (see data/README.md)."""

import csv
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import NamedTuple

HOURS_RECORDED = 336  # fourteen days


class Turn(NamedTuple):
    """One request of a recorded conversation. ``cached`` tokens of the input had been seen before."""

    input: int
    output: int
    cached: int


def _rows(name: str) -> list[list[str]]:
    text = (files(__package__) / "data" / name).read_text(encoding="ascii")
    return list(csv.reader(text.splitlines()))[1:]


@cache
def single_requests(name: str) -> list[list[Turn]]:
    """Requests of ``azure-conv`` or ``azure-code``, each a conversation of one turn."""
    return [[Turn(int(tokens_in), int(tokens_out), 0)] for tokens_in, tokens_out in _rows(f"{name}.csv")]


@cache
def conversations() -> list[list[Turn]]:
    """Recorded conversations, their turns in order."""
    by_conversation = groupby(_rows("mooncake-turns.csv"), key=lambda row: row[0])
    return [[Turn(int(row[1]), int(row[2]), int(row[3])) for row in rows] for _, rows in by_conversation]


@cache
def hourly_load(profile: str) -> list[float]:
    """Requests per hour relative to the mean, for ``large``, ``mid`` or ``small``; 336 values."""
    column = {"large": 1, "mid": 2, "small": 3}[profile]
    return [float(row[column]) for row in _rows("servegen-hourly.csv")]
