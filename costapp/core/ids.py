"""Identifiers of the data plane: their compact forms in the database and their text forms on screens.

A trace id is 16 raw bytes; a span id is the signed 64-bit big-endian value of its 8 wire bytes
(so that it fits PostgreSQL's bigint); 0 means "none".
"""

import hashlib

_SIGN = 1 << 63
_WRAP = 1 << 64


def signed64(raw: bytes) -> int:
    """The signed 64-bit big-endian value of 8 bytes; fewer are padded on the left, more are cut."""
    return int.from_bytes(raw[:8].rjust(8, b"\0"), "big", signed=True)


def hash64(raw: bytes) -> int:
    """A signed 64-bit hash, stable across processes and versions. Never 0, because 0 means "none"."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big", signed=True) or 1


def response_hash(text: str) -> int:
    """The key under which twins of one call in different traces find each other (``span.response_hash``)."""
    return hash64(text.encode("utf-8", "replace"))


def span_id_of(raw: bytes) -> int:
    """Span id from its wire bytes; empty = 0 = none."""
    return signed64(raw) if raw else 0


def trace_id_text(trace_id: bytes) -> str:
    """32 hex digits, as OpenTelemetry prints it."""
    return trace_id.hex()


def span_id_text(span_id: int) -> str:
    """16 hex digits, as OpenTelemetry prints it."""
    return f"{span_id % _WRAP:016x}"


def span_id_from_text(text: str) -> int:
    """The inverse of `span_id_text`. Raises ValueError if the text is not hexadecimal."""
    value = int(text, 16)
    return value - _WRAP if value >= _SIGN else value
