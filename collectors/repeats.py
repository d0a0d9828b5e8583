"""Spans that repeat earlier ones, so that what was found out about those need not be found out again.

Two ways, the cheaper first. Database, HTTP, cache and tool spans often repeat in all but their ids and times: nearly
every SDK writes the fields of a span in the order of their numbers, so these lie at known places, and all the rest
(name, kind, attributes, status) is looked up as one string of bytes, without parsing it. Model calls repeat in all but
a few values (token counts, response id, user): their attributes are looked up one by one, and if those that do not vary
were seen together before, the others are filled into a template of the document.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from collectors.attributes import Entry
from collectors.dialects import Resource, Scope
from costapp.core.ids import response_hash
from costapp.storage.facts import BytesTemplate, FactsTemplate

_KNOWN = 4_096  # templates kept per project and encoding
_REST_BYTES = 512  # longer spans hardly ever repeat


class Shape(NamedTuple):
    """How spans with the same name and like attributes become documents."""

    template: FactsTemplate
    indexes: tuple[int, ...]  # of the entries whose values vary, in the template's order
    hashed: int  # response_hash of all of them, 0 = none
    response_at: int  # index of the entry with the response id of each, -1 = none

    def fill(self, duration_us: int, entries: Sequence[Entry]) -> tuple[bytes, int]:
        """The document, and the hash of the response id."""
        document = self.template.fill(duration_us, [entries[index][1][0][2] for index in self.indexes])
        if self.response_at < 0:
            return document, self.hashed
        return document, response_hash(str(entries[self.response_at][1][0][2]))


@dataclass(slots=True)
class Context:
    """What is known about the spans of one resource and scope."""

    resource: Resource
    scope: Scope
    copies: dict[bytes, BytesTemplate] = field(default_factory=dict)  # by `cut`'s rest
    shapes: dict[tuple[object, ...], Shape | None] = field(default_factory=dict)  # None: each such span is different


class Repeats:
    """Bounded memory of all contexts: forgets everything now and then, and learns again."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[int, int], Context] = {}
        self._known = 0

    def context(self, resource: Resource, scope: Scope) -> Context:
        key = (id(resource), id(scope))  # held by the context, so no other object gets these ids
        found = self._contexts.get(key)
        if found is None:
            found = Context(resource, scope)
            if self._room():
                self._contexts[key] = found
        return found

    def remember_copy(self, context: Context, rest: bytes, template: BytesTemplate) -> None:
        if len(rest) <= _REST_BYTES and self._room():
            context.copies[rest] = template

    def remember_shape(self, context: Context, key: tuple[object, ...], shape: Shape | None) -> None:
        if self._room():
            context.shapes[key] = shape

    def _room(self) -> bool:
        """A sender may change its resource with every request, so contexts count as much as templates."""
        self._known += 1
        if self._known > _KNOWN:
            self._known = 0
            self._contexts.clear()
        return self._known > 0
