"""From raw OTLP attributes to dialect hits, parsing each frequent attribute once.

Attributes repeat: service names, models, features, even token counts. Their raw bytes are looked up in a
bounded cache first; only unknown ones are parsed and given to the recogniser.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from collectors.codecs import Codec, Cuts
from collectors.dialects import Hit, Recogniser, Resource, Scalar, Scope, may_vary
from collectors.settings import Settings

_CACHED_BYTES = 160  # longer attributes hardly ever repeat
_GENERATION = 8_192  # entries; at most twice that many are kept
_CACHED_RESOURCES = 512
_KEYS = 4_096  # distinct keys of which it is known whether they are of interest
UNIQUE = 0
Value = TypeVar("Value")
Reader = Callable[[Scalar], Hit | None]


class Entry(NamedTuple):
    """What one attribute states. Two spans whose entries have the same likes state the same, but for the values
    of entries that may vary; `UNIQUE` is like nothing else."""

    like: int
    hit: Hit


class Attributes:
    """The attributes, resources and scopes of one project in one encoding."""

    def __init__(self, codec: Codec, recogniser: Recogniser, limits: Settings) -> None:
        self._codec = codec
        self._recogniser = recogniser
        self._limits = limits
        self.cuts = Cuts(limits)
        self._entries = _Entries(codec, recogniser, self.cuts)
        self._resources: dict[bytes, Resource] = {}
        self._scopes: dict[bytes, Scope] = {}

    def entries(self, raws: Sequence[bytes]) -> list[Entry]:
        """What the attributes state, in wire order; those that state nothing are left out."""
        if len(raws) > self._limits.attributes:
            raws = self._cut(raws)
        # A slice is a list, which is read faster than a protobuf container.
        found = list(filter(None, map(self._entries.__getitem__, raws[:])))
        self._entries.age()
        return found

    def hits(self, raws: Sequence[bytes]) -> list[Hit]:
        return [entry.hit for entry in self.entries(raws)]

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


class _Entries(dict[bytes, Entry | None]):
    """Attributes as they are on the wire -> what they state; None = nothing. Unseen ones are read when looked up."""

    def __init__(self, codec: Codec, recogniser: Recogniser, cuts: Cuts) -> None:
        super().__init__()
        self._codec = codec
        self._cuts = cuts
        self._readers = _Readers(recogniser)
        self._old: dict[bytes, Entry | None] = {}
        self._likes: dict[Any, int] = {}  # of entries that may vary: (slot, rank) -> like
        self._last_like = UNIQUE

    def __missing__(self, raw: bytes) -> Entry | None:
        known: Any = self._old.get(raw, self)
        if known is not self:
            self[raw] = known
            return known  # type: ignore[no-any-return]
        hit = self._read(raw)
        if hit is not None and may_vary(hit):
            entry = Entry(self._like_of(hit), hit)
            if hit[0].slot == "response_id":
                return entry  # the next one is another
        elif len(raw) > _CACHED_BYTES:
            return Entry(UNIQUE, hit) if hit else None
        else:
            entry = Entry(self._next_like(), hit) if hit else None  # type: ignore[assignment]
        if len(raw) <= _CACHED_BYTES:
            self[raw] = entry
        return entry

    def age(self) -> None:
        """Forget entries that were not used for a whole generation."""
        if len(self) > _GENERATION:
            self._old = dict(self)
            self.clear()

    def _read(self, raw: bytes) -> Hit | None:
        pair = self._codec.key_value(raw, self._cuts, self._readers)
        return pair[0](pair[1]) if pair is not None else None

    def _like_of(self, hit: Hit) -> int:
        key = hit[0][:2]
        like = self._likes.get(key)
        if like is None:
            like = self._likes[key] = self._next_like()
        return like

    def _next_like(self) -> int:
        self._last_like += 1
        return self._last_like


class _Readers(dict[bytes, Reader | None]):
    """Keys -> how to read their values; None for those that cannot state anything, whose values need not be parsed."""

    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self._recogniser = recogniser

    def __missing__(self, key: bytes) -> Reader | None:
        if len(self) >= _KEYS:
            self.clear()
        self[key] = found = self._recogniser.reader(key.decode("utf-8", "replace"))
        return found


def _remember(cache: dict[bytes, Value], raw: bytes, value: Value) -> None:
    if len(cache) >= _CACHED_RESOURCES:
        cache.clear()
    if len(raw) <= 16_384:
        cache[raw] = value
