"""Points of one request -> samples: one per device (or engine) and slot, without what cannot be believed.

What is left out is counted by reason. A value that cannot be believed becomes "unknown"; it never becomes 0.
"""

import math
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from collectors.gpu import tables
from collectors.gpu.series import Device, Engine, Series
from costapp.core.gpu_samples import (
    FULL_BP,
    NO_UTIL,
    EngineSample,
    Gap,
    GapKind,
    GpuSample,
    Holder,
    Source,
    slot_of,
)

#: dcgm-exporter's "no value" for integers and doubles; other blanks lie outside what is plausible.
_BLANK_INTEGER, _BLANK_DOUBLE = 9_223_372_036_854_775_792, 140_737_488_355_328
_BLANK_KINDS = 16  # not found, not supported, not permitted ... follow the first one
#: field -> largest value in canonical units. Utilisation may overshoot by 1 % and is cut.
_LIMITS = {
    tables.UTIL: FULL_BP + FULL_BP // 100,
    tables.POWER: 5_000_000,  # mW
    tables.USED: 2**41,  # bytes
    tables.FREE: 2**41,
    tables.RESERVED: 2**41,
    tables.TOTAL: 2**41,
    tables.ENERGY: 2**62,  # mJ
    tables.HELD: 2**41,
    tables.PROCESS: 2**41,
    "running": 10**9,
    "waiting": 10**9,
    "kv_bp": FULL_BP + FULL_BP // 100,
}
_COUNTER_LIMIT = 2**62
_MEMORY = (tables.USED, tables.FREE, tables.RESERVED, tables.TOTAL)
_PARENT_FIELDS = frozenset({tables.POWER, tables.ENERGY})  # a MIG slice is told those of the whole GPU
_DAY_NS = 86_400_000_000_000
_FUTURE_NS = 300_000_000_000


class Result(NamedTuple):
    samples: list[GpuSample]
    engines: list[EngineSample]
    gaps: list[Gap]


class _Row:
    """What is known about one device in one slot."""

    __slots__ = ("device", "held", "holders", "is_split", "values")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.held: bool | None = None
        self.is_split = False
        self.holders: set[Holder] = set()
        # field -> rank -> holder (None = the device's own series) -> value in canonical units
        self.values: dict[str, dict[int, dict[Holder | None, int]]] = {}


class Samples:
    """Collects the points of one request."""

    def __init__(self, *, now_ns: int, keep_days: int) -> None:
        self._earliest_ns, self._latest_ns = now_ns - keep_days * _DAY_NS, now_ns + _FUTURE_NS
        self.rejected: Counter[str] = Counter()  # points
        self.odd: Counter[str] = Counter()  # values that were read, and not believed
        self.points = 0  # that were taken
        self._rows: dict[tuple[str, datetime], _Row] = {}
        self._engines: dict[tuple[Engine, datetime], dict[str, dict[Any, tuple[int, int]]]] = {}
        self._gaps: set[Gap] = set()
        self._slots: dict[int, datetime] = {}

    def add(self, series: Series, value: float | None, time_ns: int, key: Any = None) -> None:
        """One point. `value` None: the sender says that there is none any more. `key` tells series apart that differ
        in labels which are not read."""
        if not self._earliest_ns <= time_ns <= self._latest_ns:
            self.rejected["gpu_time_out_of_range"] += 1
            return
        slot = self._slot(time_ns)
        self.points += 1
        if value is None or series.metric.field == tables.UP:
            self._silence(series, value, slot)
        elif series.engine is not None:
            self._add_figure(series, series.engine, value, slot, key)
        elif series.device is not None:
            self._add_reading(series, series.device, value, slot)

    def result(self) -> Result:
        split = {row.device.parent_id for row in self._rows.values()}
        for (device_id, _), row in self._rows.items():
            row.is_split |= device_id in split
        samples = [self._sample(row, slot) for (_, slot), row in self._rows.items()]
        engines = [_engine_sample(engine, slot, found) for (engine, slot), found in self._engines.items()]
        return Result(samples, engines, sorted(self._gaps))

    def _slot(self, time_ns: int) -> datetime:
        second = time_ns // 1_000_000_000
        found = self._slots.get(second)
        if found is None:
            found = self._slots[second] = slot_of(time_ns)
        return found

    def _silence(self, series: Series, value: float | None, slot: datetime) -> None:
        """The target is down, or the series has ended."""
        if series.metric.field == tables.UP and value is not None:
            if value == 0:
                device_id = series.device.device_id if series.device else ""
                self._gaps.add(Gap(slot, GapKind.TARGET_DOWN, series.target, device_id))
        elif series.device is not None:
            self._gaps.add(Gap(slot, GapKind.SERIES_ENDED, series.target, series.device.device_id))

    def _canonical(self, series: Series, value: float) -> int | None:
        """The value in the unit of its field; None (counted) if no such value can be."""
        metric = series.metric
        if not math.isfinite(value):
            self._reject("gpu_not_a_number")
            return None
        if value >= _BLANK_INTEGER or _BLANK_DOUBLE <= value < _BLANK_DOUBLE + _BLANK_KINDS:
            self._reject("gpu_sentinel")
            return None
        scaled = round(value * metric.scale)
        if not 0 <= scaled <= _LIMITS.get(metric.field, _COUNTER_LIMIT):
            self._reject("gpu_out_of_range")
            return None
        return min(scaled, FULL_BP) if metric.field in {tables.UTIL, "kv_bp"} else scaled

    def _reject(self, reason: str) -> None:
        self.rejected[reason] += 1
        self.points -= 1

    def _add_figure(self, series: Series, engine: Engine, value: float, slot: datetime, key: Any) -> None:
        found = self._canonical(series, value)
        if found is None:
            return
        of_field = self._engines.setdefault((engine, slot), {}).setdefault(series.metric.field, {})
        of_field.setdefault((series.metric.rank, key), (series.metric.rank, found))

    def _add_reading(self, series: Series, device: Device, value: float, slot: datetime) -> None:
        metric = series.metric
        row = self._row(device, slot)
        if series.holder is not None:
            row.holders.add(series.holder)
            row.held = True
        found = self._canonical(series, value)
        if found is None:
            return
        if metric.field in {tables.HELD, tables.PROCESS}:
            row.held = bool(row.held) or found > 0 if metric.field == tables.HELD else True
            return
        if device.mig_profile and metric.field in _PARENT_FIELDS:
            if not device.parent_id:
                return
            row = self._row(device._replace(device_id=device.parent_id, parent_id="", mig_profile=""), slot)
            row.is_split = True
            series = series._replace(holder=None)
        elif device.mig_profile and metric.field == tables.UTIL and metric.dialect == Source.DCGM and metric.rank:
            self.odd["gpu_util_on_mig"] += 1  # of the whole GPU, or 0
            return
        row.values.setdefault(metric.field, {}).setdefault(metric.rank, {}).setdefault(series.holder, found)

    def _row(self, device: Device, slot: datetime) -> _Row:
        row = self._rows.get((device.device_id, slot))
        if row is None:
            row = self._rows[device.device_id, slot] = _Row(device)
        elif row.device != device:
            row.device = Device(*(mine or theirs for mine, theirs in zip(row.device, device, strict=True)))
        return row

    def _sample(self, row: _Row, slot: datetime) -> GpuSample:
        device = row.device
        util_rank = min(row.values.get(tables.UTIL, ()), default=NO_UTIL)
        util = _of_device(row.values.get(tables.UTIL), FULL_BP)
        used, free, reserved, total = (_of_device(row.values.get(field)) for field in _MEMORY)
        power = _of_device(row.values.get(tables.POWER))
        if device.source == Source.OPENLIT:
            util, used, total, power = self._believed_zeros(util, used, total, power)
        if total is None and used is not None and free is not None:
            total = used + free + (reserved or 0)
        if used is not None and total is not None and used > total:
            self.odd["gpu_memory_above_total"] += 1
            used = None
        return GpuSample(
            device_id=device.device_id, sampled_at=slot, util_bp=util, util_rank=NO_UTIL if util is None else util_rank,
            memory_used_bytes=used, memory_total_bytes=total or None, power_mw=power,
            energy_mj=_of_device(row.values.get(tables.ENERGY)), held=row.held, node=device.node,
            gpu_model=device.gpu_model, mig_profile=device.mig_profile, holders=tuple(sorted(row.holders)),
            served_model=device.served_model, target=device.target, source=device.source, parent_id=device.parent_id,
            is_split=row.is_split,
        )  # fmt: skip

    def _believed_zeros(
        self, util: int | None, used: int | None, total: int | None, power: int | None
    ) -> tuple[int | None, ...]:
        """OpenLIT's SDK writes 0 when a read fails. No GPU draws 0 W or has no memory, so such zeros are failures;
        and then a utilisation or memory of 0 from the same moment is no better."""
        failed = not power or not total
        doubted = [value for value in (power, total) if value == 0]
        doubted += [value for value in (util, used) if failed and value == 0]
        self.odd["gpu_zero_not_believed"] += len(doubted)
        if failed:
            util, used = util or None, used or None
        return util, used, total or None, power or None


def _of_device(by_rank: dict[int, dict[Holder | None, int]] | None, full: int | None = None) -> int | None:
    """The value of a device from its series. Time-slicing repeats the device's value for each pod; an exporter that
    measures processes gives each pod its own part. Equal values are the former; parts are added up."""
    if not by_rank:
        return None
    values = by_rank[min(by_rank)]
    if None in values:
        return values[None]
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    total = sum(values.values())
    return total if full is None else min(total, full)


def _engine_sample(engine: Engine, slot: datetime, found: dict[str, dict[Any, tuple[int, int]]]) -> EngineSample:
    figures = {field: _sum_of_best(ranked.values()) for field, ranked in found.items()}
    return EngineSample(
        kind=engine.kind, target=engine.target, served_model=engine.served_model, sampled_at=slot,
        replica=engine.replica, node=engine.node, namespace=engine.namespace, pod=engine.pod, **figures,
    )  # fmt: skip


def _sum_of_best(values: Iterable[tuple[int, int]]) -> int:
    values = list(values)
    best = min(rank for rank, _ in values)
    return sum(value for rank, value in values if rank == best)
