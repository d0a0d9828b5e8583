"""Undoing Content-Encoding in steps, so that a small body cannot become a large one unnoticed."""

import zlib
from typing import Any

import zstandard

from collectors.errors import WRONG_TYPE, Refusal, bad_data, too_large
from collectors.limits import Hold

_STEP = 256 * 1024
_ZSTD_STEP = 512
CODINGS = "gzip, deflate, zstd, identity"


def decompress(body: bytes, encoding: str, *, limit: int, hold: Hold) -> bytes:
    """The plain body. Refusal 413 as soon as it exceeds the limit, 400 if it is damaged, 415 for other codings."""
    coding = encoding.strip().lower()
    if coding in {"", "identity", "none"}:
        return body
    opener = _OPENERS.get(coding)
    if opener is None:
        raise Refusal(WRONG_TYPE, "wrong_encoding", f"Content-Encoding must be one of {CODINGS}.")
    if not body:
        return body
    try:
        return _drain(opener, body, limit, hold)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise bad_data("undecodable", f"The body is not valid {coding}.") from None


def _drain(opener: Any, body: bytes, limit: int, hold: Hold) -> bytes:
    parts: list[bytes] = []
    total = 0
    for part in opener(body):
        total += len(part)
        if total > limit:
            raise too_large(limit)
        hold.add(len(part))
        parts.append(part)
    return b"".join(parts)


def _inflate(body: bytes, window_bits: int) -> Any:
    """Every member of a gzip body, or the one deflate stream, at most _STEP bytes at a time."""
    while body:
        stream = zlib.decompressobj(window_bits)
        data = body
        while not stream.eof:
            part = stream.decompress(data, _STEP)
            data = stream.unconsumed_tail
            if part:
                yield part
            elif not data and not stream.eof:
                raise EOFError
        body = stream.unused_data.lstrip(b"\0")  # padding after the last member is legal
        if window_bits < 16:
            return


def _gunzip(body: bytes) -> Any:
    return _inflate(body, 31)


def _undeflate(body: bytes) -> Any:
    """HTTP's deflate is zlib; some senders leave the zlib header out."""
    has_header = body[0] & 0x0F == 8 and len(body) > 1 and (body[0] << 8 | body[1]) % 31 == 0
    return _inflate(body, 15 if has_header else -15)


def _unzstd(body: bytes) -> Any:
    """Every frame. The output of a step cannot be limited, so its input is: 512 bytes make 16 MiB at most."""
    stream = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()
    at = 0
    while at < len(body):
        data = body[at : at + _ZSTD_STEP]
        at += len(data)
        while data:
            if part := stream.decompress(data):
                yield part
            data = stream.unused_data if stream.eof else b""
            if data or (stream.eof and at < len(body)):
                stream = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()
    if not stream.eof:
        raise EOFError


_OPENERS = {"gzip": _gunzip, "x-gzip": _gunzip, "deflate": _undeflate, "zstd": _unzstd}
