"""The document of a span: SpanFacts as a MessagePack array, the longer ones compressed with a shared dictionary.

Calls repeat each other: the same scopes, models, hosts, and mostly absent fields. A dictionary of what they have in
common (facts_v1.zdict, made by benchmarks/facts_dictionary.py) shrinks a call to about a third for a microsecond.
The first byte tells the forms apart: MessagePack arrays begin with 0x90 or above, compressed documents with the
version of their dictionary. Stored rows need the dictionary they were written with: it is never changed, a
better one becomes version 2 beside it.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from costapp.core.values import SpanFacts

PLAIN_BYTES = 96  # documents up to this size are stored as they are
_VERSION = b"\x01"
_DICTIONARY = zstandard.ZstdCompressionDict((Path(__file__).parent / "facts_v1.zdict").read_bytes())
_LEVEL = 1

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SpanFacts).decode
_astuple = msgspec.structs.astuple
_DEFAULTS = _astuple(SpanFacts())
_PLACES = {name: place for place, name in enumerate(SpanFacts.__struct_fields__)}
_DURATION = _PLACES["duration_us"]
_LONGEST_NUMBER = 2**63
# Where a facts array may be cut: all behind must be defaults. Most spans state nothing behind the first of
# these (they are no model calls); calls seldom state anything behind the last.
_SHORT = _PLACES["scope"]
_SHORT_CUTS = (9, 10, 14)
_LONG_CUTS = (37, 42, 49)


class _Zstd(threading.local):
    """Compressors may not be used by two threads at the same time."""

    def __init__(self) -> None:
        form = zstandard.FORMAT_ZSTD1_MAGICLESS
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL, format=form, write_content_size=1, write_checksum=0, write_dict_id=0
        )
        self.compress = zstandard.ZstdCompressor(dict_data=_DICTIONARY, compression_params=parameters).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=_DICTIONARY, format=form).decompress


_zstd = _Zstd()


def _stated(facts: SpanFacts) -> tuple[Any, ...]:
    """The values of the fields without (most of) the defaults at their end."""
    values = _astuple(facts)
    if values[_SHORT:] == _DEFAULTS[_SHORT:]:
        values, cuts = values[:_SHORT], _SHORT_CUTS
    else:
        cuts = _LONG_CUTS
    for cut in cuts:
        if values[cut:] == _DEFAULTS[cut : len(values)]:
            return values[:cut]
    return values


def encode_plain(facts: SpanFacts) -> bytes:
    """Facts as a MessagePack array without its trailing defaults."""
    return _encode(_stated(facts))


def encode_facts(facts: SpanFacts) -> bytes:
    """Facts as they are stored."""
    return _packed(_encode(_stated(facts)))


def _packed(document: bytes) -> bytes:
    if len(document) <= PLAIN_BYTES:
        return document
    packed = _zstd.compress(document)
    return _VERSION + packed if len(packed) < len(document) - 1 else document


def decode_facts(data: bytes) -> SpanFacts:
    if data[:1] == _VERSION:
        data = _zstd.decompress(data[1:])
    return _decode(data)


class FactsTemplate:
    """Encodes facts that differ from others only in their duration and some other stated fields.

    Gives the same bytes as `encode_facts`, without making the facts.
    """

    def __init__(self, facts: SpanFacts, varying: Sequence[str] = ()) -> None:
        self._values = _stated(facts)
        self._places = [_PLACES[name] for name in varying]

    def fill(self, duration_us: int, varying: Sequence[Any] = ()) -> bytes:
        """`varying`: the values of those fields, in the same order; none may be the field's default."""
        values = list(self._values)
        values[_DURATION] = duration_us
        for place, value in zip(self._places, varying, strict=True):
            values[place] = value
        return _packed(_encode(values))


class BytesTemplate(NamedTuple):
    """Like `FactsTemplate` for short documents in which only the duration varies: the bytes around it."""

    head: bytes
    tail: bytes

    def fill(self, duration_us: int) -> bytes:
        return self.head + _encode(duration_us) + self.tail


def bytes_template(facts: SpanFacts) -> BytesTemplate | None:
    """None if the document might be long enough to be compressed."""
    values = _stated(facts)
    head, tail = values[:_DURATION], values[_DURATION + 1 :]
    opening = _encode(values)[: 1 if len(values) < 16 else 3]  # says how many values follow
    template = BytesTemplate(opening + b"".join(map(_encode, head)), b"".join(map(_encode, tail)))
    return template if len(template.fill(_LONGEST_NUMBER)) <= PLAIN_BYTES else None
