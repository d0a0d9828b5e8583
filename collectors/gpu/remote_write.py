"""Prometheus remote-write 1.0: a snappy-compressed `WriteRequest` -> points.

https://prometheus.io/docs/specs/prw/remote_write_spec/. Senders drop what is answered 4xx and repeat what is answered
429 or 5xx, so a bad series is counted and left out, never a reason to refuse the good ones with it.
"""

import struct
from collections.abc import Iterator, Sequence

from cramjam import DecompressionError
from cramjam import snappy as _snappy

from collectors import wire
from collectors.batch import Batch
from collectors.errors import WRONG_TYPE, Refusal, bad_data, too_large
from collectors.gpu.samples import Samples
from collectors.gpu.series import Series, is_wanted, plain_name, resolve
from collectors.limits import Hold

#: The NaN by which Prometheus says that a series has ended.
_STALE = 0x7FF0000000000002
_DOUBLE, _WORD = struct.Struct("<d"), struct.Struct("<Q")
_NAME = b"\x0a\x08__name__\x12"  # a Label message whose name is __name__, up to the length of its value
_PAUSE = 2_000  # series between two pauses
_KNOWN = 50_000  # series remembered per project
_UNSEEN = object()


def decompress(body: bytes, encoding: str, *, limit: int, hold: Hold) -> bytes:
    """The plain body. Snappy's block format begins with its plain length, so nothing larger is ever unpacked."""
    if encoding.strip().lower() != "snappy":
        raise Refusal(WRONG_TYPE, "wrong_encoding", "Remote-write needs Content-Encoding: snappy.")
    size = _plain_size(body)
    if size > limit:
        raise too_large(limit)
    hold.add(size)
    try:
        return bytes(_snappy.decompress_raw(body))
    except DecompressionError:
        raise bad_data("undecodable", "The body is not valid snappy (block format).") from None


def _plain_size(body: bytes) -> int:
    size = 0
    for place, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return size
    raise bad_data("undecodable", "The body is not valid snappy (block format).")


class RemoteWrite:
    """Reads the requests of one project."""

    def __init__(self) -> None:
        self._known: dict[bytes, Series | str | None] = {}

    def decode(self, body: bytes, batch: Batch, samples: Samples, *, limit: int) -> Iterator[None]:
        """Add the points of a request. Refusal if it is none."""
        try:
            request = wire.WriteRequest.FromString(body)
        except wire.DecodeError:
            raise bad_data("undecodable", "The body is not a prometheus.WriteRequest (remote-write 1.0).") from None
        for number, series in enumerate(request.series, 1):
            batch.received += len(series.samples)
            if batch.received > limit:
                batch.rejected["too_many_items"] += len(series.samples)
            else:
                self._series(series, batch, samples)
            if not number % _PAUSE:
                yield

    def _series(self, item: "wire.WriteRequest", batch: Batch, samples: Samples) -> None:
        labels = item.labels[:]
        name = _name(labels)
        if not is_wanted(name):
            batch.ignored += len(item.samples)
            return
        key = b"".join(labels)
        series = self._known.get(key, _UNSEEN)
        if series is _UNSEEN:
            series = self._remember(key, _resolve(name, labels))
        if isinstance(series, str):
            batch.rejected[series] += len(item.samples)
        elif isinstance(series, Series):
            for sample in item.samples:
                samples.add(series, _value(sample.value), sample.time_ms * 1_000_000, key)
        else:
            batch.ignored += len(item.samples)

    def _remember(self, key: bytes, series: Series | str | None) -> Series | str | None:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[key] = series
        return series


def _name(labels: Sequence[bytes]) -> str:
    """The metric's name. Labels are sorted, so it is usually the first or soon after."""
    for raw in labels:
        if raw.startswith(_NAME):
            name: str = wire.Label.FromString(raw).value.decode("utf-8", "replace")
            return name
    return ""


def _resolve(name: str, raws: Sequence[bytes]) -> Series | str | None:
    labels = {}
    for raw in raws:
        try:
            label = wire.Label.FromString(raw)
        except wire.DecodeError:
            return "gpu_bad_line"
        labels[plain_name(label.name.decode("utf-8", "replace"))] = label.value.decode("utf-8", "replace")
    return resolve(name, labels)


def _value(value: float) -> float | None:
    """None if the series has ended."""
    if value == value:
        return value
    (bits,) = _WORD.unpack(_DOUBLE.pack(value))
    return None if bits == _STALE else value
