"""Recordings on disk: folders of OTLP bodies, with a manifest that describes them or without one."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from google.protobuf.message import DecodeError

from costapp.services.replay.messages import REQUESTS, plausible_items

_PART_OF = re.compile(
    r"^(?P<recording>.+?)(?:\.\d+)?(?:[.-](?:traces|logs|metrics))?(?:\.(?:protobuf|proto|pb|json|bin|gz|zst))+$"
)
_JSON_ROOTS = {"resourceSpans": "traces", "resourceLogs": "logs", "resourceMetrics": "metrics"}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MAX_DECODED = 256 * 1024 * 1024  # bytes of one body


class RecordingError(Exception):
    """The folder cannot be replayed; the text says why and what to do."""


class Body(NamedTuple):
    """One recorded request."""

    file: str
    signal: str  # traces | logs | metrics; "" = not OTLP, cannot be replayed
    endpoint: str
    content_type: str
    content_encoding: str  # identity | gzip | deflate | zstd
    data: bytes  # as recorded

    @property
    def is_json(self) -> bool:
        return "json" in self.content_type

    def decoded(self) -> bytes:
        """The body without its content encoding. Raises RecordingError."""
        try:
            return _decode(self.content_encoding, self.data)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise RecordingError(f"{self.file} is not valid {self.content_encoding}: {error}") from error


class Recording(NamedTuple):
    """What one client sent in one scenario; its bodies in the order in which they were sent."""

    id: str
    bodies: list[Body]
    expected: dict[str, int]  # the manifest's recoverable_from_wire; empty = not stated


def load(folder: Path) -> list[Recording]:
    """The recordings of a folder, in the manifest's order, else by name. Raises RecordingError."""
    if not folder.is_dir():
        raise RecordingError(f"{folder} is not a folder. Name a folder of recorded OTLP bodies.")
    manifest = folder / "manifest.json"
    recordings = _described(folder, manifest) if manifest.is_file() else _guessed(folder)
    if not recordings:
        raise RecordingError(f"{folder} holds no recorded bodies.")
    return recordings


def _described(folder: Path, manifest: Path) -> list[Recording]:
    try:
        captures = json.loads(manifest.read_bytes())["captures"]
        return [
            Recording(
                capture["id"],
                [_described_body(folder, entry) for entry in sorted(capture["files"], key=_position)],
                capture.get("recoverable_from_wire", {}),
            )
            for capture in captures
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{manifest} is not a manifest of recordings: {type(error).__name__} {error}") from error


def _position(entry: Mapping[str, Any]) -> int:
    """Files without a stated order are sent as they are listed."""
    return int(entry.get("order", 0))


def _described_body(folder: Path, entry: Mapping[str, Any]) -> Body:
    try:
        data = (folder / entry["file"]).read_bytes()
    except OSError as error:
        raise RecordingError(f"The manifest names {entry['file']}, which cannot be read: {error.strerror}.") from error
    found = guess(entry["file"], data)
    endpoint = entry.get("endpoint", found.endpoint)
    signal = entry.get("signal", endpoint.rsplit("/", 1)[-1])
    return Body(
        entry["file"],
        signal if signal in REQUESTS else "",
        endpoint,
        entry.get("content_type", found.content_type),
        entry.get("content_encoding", found.content_encoding),
        data,
    )


def _guessed(folder: Path) -> list[Recording]:
    """Files that share the part of their name before ``.00-traces`` belong together."""
    recordings: dict[str, Recording] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        body = guess(path.name, path.read_bytes())
        match = _PART_OF.match(path.name)
        name = match["recording"] if match else path.stem
        recordings.setdefault(name, Recording(name, [], {})).bodies.append(body)
    return list(recordings.values())


def guess(name: str, data: bytes) -> Body:
    """Signal and encoding of a bare file, by its content first and its name second."""
    encoding = "gzip" if data.startswith(_GZIP) else "zstd" if data.startswith(_ZSTD) else "identity"
    try:
        plain = _decode(encoding, data)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        plain, encoding = data, "identity"
    if plain.lstrip()[:1] == b"{":
        signal, content_type = _json_signal(plain), "application/json"
    else:
        signal, content_type = _protobuf_signal(plain, name), "application/x-protobuf"
    return Body(name, signal, f"/v1/{signal}" if signal else "", content_type, encoding, data)


def _json_signal(plain: bytes) -> str:
    try:
        document = json.loads(plain)
    except ValueError:
        return ""
    return next((signal for root, signal in _JSON_ROOTS.items() if root in document), "")


def _protobuf_signal(plain: bytes, name: str) -> str:
    """The signal under which the bytes make most sense; the file's name decides between equals."""

    def score(signal: str) -> tuple[int, bool]:
        try:
            return plausible_items(signal, REQUESTS[signal].FromString(plain)), signal in name
        except DecodeError:
            return 0, False

    best = max(REQUESTS, key=score)
    return best if score(best)[0] else ""


def _decode(encoding: str, data: bytes) -> bytes:
    match encoding:
        case "gzip":
            return gzip.decompress(data)
        case "deflate":
            return zlib.decompress(data)
        case "zstd":
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_DECODED)
        case _:
            return data


def encode(encoding: str, plain: bytes) -> bytes:
    """``plain`` under a content encoding; unknown ones are left to the collector to refuse."""
    match encoding:
        case "gzip":
            return gzip.compress(plain, compresslevel=1, mtime=0)
        case "deflate":
            return zlib.compress(plain, 1)
        case "zstd":
            return zstandard.ZstdCompressor().compress(plain)
        case _:
            return plain


def bodies_of(recordings: list[Recording]) -> Iterator[tuple[Recording, Body]]:
    """Every body with its recording, in order."""
    return ((recording, body) for recording in recordings for body in recording.bodies)
