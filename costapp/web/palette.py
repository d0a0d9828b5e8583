"""Colour means identity: every value of a dimension has one place in the palette, on all pages.

A place is (colour, pattern). Values take places in the order in which they were first seen, so a new feature
never recolours an old one. The colours themselves are in tokens.css, for both themes.
"""

import time

from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.spend import first_seen
from costapp.storage.reports.sql import Connection

COLOURS = 11
PATTERNS = ("", "/", ".", "\\", "x")
NEUTRAL = "other"  #: "other", and '' (not attributed)
REMEMBER_S = 300

_remembered: dict[tuple[int, str], tuple[float, dict[str, int]]] = {}


class Palette:
    """Places of the values of one dimension of one project."""

    def __init__(self, places: dict[str, int]) -> None:
        self.places = places

    def slot(self, value: str | None) -> str:
        """The suffix of the CSS class and custom property: ``series-3``."""
        place = self._place(value)
        return NEUTRAL if place is None else str(place % COLOURS)

    def pattern(self, value: str | None) -> str:
        place = self._place(value)
        if place is None:
            return "/" if value == "" else ""
        return PATTERNS[place // COLOURS % len(PATTERNS)]

    def css(self, value: str | None) -> str:
        """Classes of a swatch."""
        pattern = PATTERNS.index(self.pattern(value)) if self._place(value) is not None else 0
        return f"series-{self.slot(value)} p{pattern}" if pattern else f"series-{self.slot(value)}"

    def _place(self, value: str | None) -> int | None:
        if not value:
            return None
        return self.places.setdefault(value, len(self.places))


def palette(conn: Connection, project_id: int, by: str) -> Palette:
    """Read at most every five minutes per process; a value that came since then takes the next place."""
    if not DIMENSIONS[by].in_rollup:
        return Palette({})
    key, now = (project_id, by), time.monotonic()
    since, places = _remembered.get(key, (-REMEMBER_S, {}))
    if now - since >= REMEMBER_S:
        places = {value: place for place, value in enumerate(first_seen(conn, project_id, by))}
        _remembered[key] = (now, places)
    return Palette(dict(places))


def forget() -> None:
    """For tests: identities of a database that is gone."""
    _remembered.clear()
