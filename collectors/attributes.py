"""From raw OTLP attributes to dialect hits, parsing each frequent attribute once.

Attributes repeat: service names, models, features, even token counts. Their raw bytes are looked up in a
bounded cache first; only unknown ones are parsed and given to the recogniser.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from collectors.codecs import Codec, Cuts
from collectors.dialects import Hit, Recogniser, Resource, Scalar, Scope
from collectors.settings import Settings

_CACHED_BYTES = 160  # longer attributes hardly ever repeat
_GENERATION = 8_192  # entries; at most twice that many are kept
_CACHED_RESOURCES = 512
_KEYS = 4_096  # distinct keys of which it is known whether they are of interest
_UNKNOWN: Any = object()
Value = TypeVar("Value")


class Attributes:
    """The attributes, resources and scopes of one project in one encoding."""

    def __init__(self, codec: Codec, recogniser: Recogniser, limits: Settings) -> None:
        self._codec = codec
        self._recogniser = recogniser
        self._limits = limits
        self.cuts = Cuts(limits)
        self._young: dict[bytes, Hit | None] = {}
        self._old: dict[bytes, Hit | None] = {}
        self._names = Names(recogniser)
        self._resources: dict[bytes, Resource] = {}
        self._scopes: dict[bytes, Scope] = {}

    def hits(self, raws: Sequence[bytes]) -> list[Hit]:
        """What the attributes state, in wire order."""
        if len(raws) > self._limits.attributes:
            raws = self._cut(raws)
        young = self._young
        known = young.get
        found = []
        for raw in raws[:]:  # a slice is a list, which is read faster than a protobuf container
            hit = known(raw, _UNKNOWN)
            if hit is _UNKNOWN:
                hit = self._unseen(raw)
            if hit is not None:
                found.append(hit)
        if len(young) > _GENERATION:
            self._old, self._young = young, {}
        return found

    def pairs(self, raws: Sequence[bytes]) -> list[tuple[str, Scalar]]:
        """All attributes as plain values."""
        if len(raws) > self._limits.attributes:
            raws = self._cut(raws)
        return [pair for raw in raws if (pair := self._codec.key_value(raw, self.cuts)) is not None]

    def resource(self, raw: bytes) -> Resource:
        found = self._resources.get(raw)
        if found is None:
            found = self._recogniser.resource(self.hits(self._codec.resource_attributes(raw)))
            _remember(self._resources, raw, found)
        return found

    def scope(self, raw: bytes) -> Scope:
        found = self._scopes.get(raw)
        if found is None:
            found = self._codec.scope(raw)
            _remember(self._scopes, raw, found)
        return found

    def _cut(self, raws: Sequence[bytes]) -> Sequence[bytes]:
        limit = self._limits.attributes
        self.cuts.odd["attributes_cut"] += len(raws) - limit
        return raws[:limit]

    def _unseen(self, raw: bytes) -> Hit | None:
        if len(raw) > _CACHED_BYTES:
            return self._recognise(raw)
        hit: Hit | None = self._old.get(raw, _UNKNOWN)
        if hit is _UNKNOWN:
            hit = self._recognise(raw)
        self._young[raw] = hit
        return hit

    def _recognise(self, raw: bytes) -> Hit | None:
        pair = self._codec.key_value(raw, self.cuts, self._names)
        return self._recogniser.recognise(*pair) if pair is not None else None


class Names(dict[bytes, str | None]):
    """Keys as text; None for those that cannot state anything, whose values need not be parsed."""

    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self._recogniser = recogniser

    def __missing__(self, key: bytes) -> str | None:
        if len(self) >= _KEYS:
            self.clear()
        name = key.decode("utf-8", "replace")
        self[key] = found = name if self._recogniser.wants(name) else None
        return found


def _remember(cache: dict[bytes, Value], raw: bytes, value: Value) -> None:
    if len(cache) >= _CACHED_RESOURCES:
        cache.clear()
    if len(raw) <= 16_384:
        cache[raw] = value
