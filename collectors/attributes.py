"""From raw OTLP attributes to dialect hits, parsing each distinct attribute once.

Attributes repeat: service names, models, features, even token counts. Their raw bytes are looked up in a
bounded cache first; only unknown ones are parsed and given to the recogniser.
"""

import base64
import binascii
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from collectors import wire
from collectors.dialects import Hit, Recogniser, Scalar
from collectors.settings import Settings
from collectors.wire_json import KeyValue as JsonKeyValue

_CACHED_BYTES = 160  # longer attributes hardly ever repeat
_GENERATION = 8_192  # entries; at most twice that many are kept
_KEYS = 4_096  # distinct keys remembered as wanted or not

_decode_json = msgspec.json.Decoder(JsonKeyValue).decode
_UNKNOWN = object()


class Attributes:
    """The attributes of one project and one encoding. `odd` counts what was cut since it was last emptied."""

    def __init__(self, recogniser: Recogniser, limits: Settings, *, is_json: bool) -> None:
        self._recogniser = recogniser
        self._limits = limits
        self._parse = self._parse_json if is_json else self._parse_protobuf
        self._young: dict[bytes, Hit | None] = {}
        self._old: dict[bytes, Hit | None] = {}
        self.odd: Counter[str] = Counter()

    def hits(self, raws: Iterable[bytes]) -> list[Hit]:
        """Hits in wire order."""
        young = self._young
        found = []
        for raw in raws:
            try:
                hit = young[raw]
            except KeyError:
                hit = self._unseen(raw)
            if hit is not None:
                found.append(hit)
        if len(young) > _GENERATION:
            self._old, self._young = young, {}
        return found

    def _unseen(self, raw: bytes) -> Hit | None:
        if len(raw) > _CACHED_BYTES:
            return self._recognise(raw)
        hit = self._old.get(raw, _UNKNOWN)
        if hit is _UNKNOWN:
            hit = self._recognise(raw)
        self._young[raw] = hit  # type: ignore[assignment]
        return hit  # type: ignore[return-value]

    def _recognise(self, raw: bytes) -> Hit | None:
        pair = self._parse(raw)
        return self._recogniser.recognise(*pair) if pair is not None else None

    def mapping(self, raws: Iterable[bytes]) -> dict[str, Scalar]:
        """All attributes as plain values; of several with the same key the last one."""
        return dict(pair for raw in raws if (pair := self._parse(raw)) is not None)

    def pairs(self, raws: Iterable[bytes]) -> list[tuple[str, Scalar]]:
        return [pair for raw in raws if (pair := self._parse(raw)) is not None]

    def _parse_protobuf(self, raw: bytes) -> tuple[str, Scalar] | None:
        try:
            item = wire.KeyValue.FromString(raw)
        except wire.DecodeError:
            self._lost("attribute_undecodable")
            return None
        key: bytes = item.key
        if len(key) > self._limits.key_bytes:
            self._lost("keys_cut")
            return None
        return key.decode("utf-8", "replace"), self.scalar(item.value)

    def _parse_json(self, raw: bytes) -> tuple[str, Scalar] | None:
        try:
            item = _decode_json(raw)
        except (msgspec.DecodeError, RecursionError):  # ValidationError is a DecodeError
            self._lost("attribute_undecodable")
            return None
        if len(item.key) > self._limits.key_bytes:
            self._lost("keys_cut")
            return None
        return item.key, self.json_scalar(item.value)

    def _lost(self, reason: str) -> None:
        self.odd[reason] += 1

    def scalar(self, value: Any, depth: int = 1) -> Scalar:
        """A protobuf AnyValue as a plain value."""
        kind = value.WhichOneof("value")
        if kind == "string":
            return self._text(value.string)
        if kind in {"int", "double", "bool"}:
            return getattr(value, kind)  # type: ignore[no-any-return]
        if kind == "bytes":
            return bytes(value.bytes[: self._limits.value_chars])
        if kind is None:
            return None
        if depth >= self._limits.nesting:
            self._lost("nesting_cut")
            return None
        if kind == "array":
            return [self.scalar(item, depth + 1) for item in value.array.values]
        return {item.key.decode("utf-8", "replace"): self.scalar(item.value, depth + 1) for item in value.kvlist.values}

    def _text(self, raw: bytes) -> str:
        limit = self._limits.value_chars
        if len(raw) > limit:  # bytes, so at least as many as characters
            self.odd["values_cut"] += 1
            raw = raw[:limit]
        return raw.decode("utf-8", "replace")

    def json_scalar(self, value: Any, depth: int = 1) -> Scalar:
        """A JSON AnyValue as a plain value. Of several members the first one present counts."""
        if value is None:
            return None
        if value.text is not None:
            limit = self._limits.value_chars
            if len(value.text) > limit:
                self.odd["values_cut"] += 1
            return value.text[:limit]  # type: ignore[no-any-return]
        if value.integer is not None:
            return integer_of(value.integer)
        if value.number is not None:
            return number_of(value.number)
        if value.flag is not None:
            return value.flag  # type: ignore[no-any-return]
        if value.base64 is not None:
            return _base64(value.base64)
        return self._json_nested(value, depth)

    def _json_nested(self, value: Any, depth: int) -> Scalar:
        if value.array is None and value.kvlist is None:
            return None
        if depth >= self._limits.nesting:
            self._lost("nesting_cut")
            return None
        if value.array is not None:
            return [self.json_scalar(item, depth + 1) for item in value.array.values or ()]
        return {item.key: self.json_scalar(item.value, depth + 1) for item in value.kvlist.values or ()}


def integer_of(value: int | float | str) -> int | float | None:
    try:
        return int(value) if not isinstance(value, float) or value.is_integer() else value
    except (ValueError, OverflowError):
        return None


def number_of(value: float | str) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
