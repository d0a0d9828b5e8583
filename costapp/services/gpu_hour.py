"""Works out one GPU hour from what is known about it: GPUs from samples, servers, shares, and the sums kept of them.

No database here: facts and calls in, rows out. The money is split in costapp.core.allocation.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from costapp.core import allocation
from costapp.core.allocation import HOUR_US, Buckets, Calls, Device, Method, Sample, Sight, Split, Stretch, Weights
from costapp.core.allocation import State as Doing
from costapp.core.engines import Engine, Gpu, Rule, Server, servers
from costapp.core.gpu_samples import FULL_BP, MAX_GAP_SECONDS
from costapp.storage.gpu_columns import CallColumns, Shares
from costapp.storage.gpu_hours import DeviceRow, HourFacts, PlaceRow, PoolRow, RateRow, SampleRow

GAP_US = MAX_GAP_SECONDS * 1_000_000
_SLICES = re.compile(r"(\d+)g\b")
_OF_SEVEN = 7
_SECOND = 1_000_000
#: More memory than drivers and monitoring take.
_LOADED_MIB = 1024
Ints = NDArray[np.int64]


@dataclass
class HourResult:
    nodes: list[tuple[Any, ...]] = field(default_factory=list)  #: gpu_hours.NODE_COLUMNS
    models: list[tuple[Any, ...]] = field(default_factory=list)  #: gpu_hours.MODEL_COLUMNS
    shares: list[Shares] = field(default_factory=list)
    lost_calls: int = 0
    unrated_calls: int = 0
    open_gpus: list[int] = field(default_factory=list)


@dataclass
class _Readings:
    """Sums over the samples of one GPU: reading x time, and the time."""

    util_bp_us: int = 0
    util_us: int = 0
    memory_mib_us: int = 0
    memory_us: int = 0
    energy_mj: int = 0
    energy_us: int = 0

    @property
    def worked_us(self) -> int | None:
        return self.util_bp_us // FULL_BP if self.util_us else None


class _Gpu(NamedTuple):
    row: DeviceRow
    node: str
    pods: frozenset[str]
    model: str
    pool: PoolRow | None
    stretches: list[Stretch]
    readings: _Readings
    is_open: bool  #: its end was taken as switched off


def work_out(facts: HourFacts, calls: CallColumns, rules: Sequence[Rule], *, start_us: int) -> HourResult:
    """The hour that begins at ``start_us``: bills, buckets, shares."""
    found = _gpus(facts, start_us)
    gpus = {gpu.row.device_id: gpu for gpu in found}
    groups, lost = servers(_as_gpus(found), _engines(facts), list(facts.targets.values()), rules)
    result = HourResult(open_gpus=sorted(gpu.row.ref for gpu in found if gpu.is_open))
    book = _Book(facts, calls, result, start_us)
    book.lose(set(lost))
    for server in groups:
        book.add(server, [gpus[key] for key in server.gpus])
    book.close(found)
    return result


def _as_gpus(found: Iterable[_Gpu]) -> list[Gpu]:
    """Whole GPUs and slices that were there, as engines are joined to them. A split GPU is its slices."""
    return [Gpu(gpu.row.device_id, gpu.node, gpu.pods, gpu.model) for gpu in found if gpu.stretches]


def _engines(facts: HourFacts) -> list[Engine]:
    """Engines that told of themselves, and pods that hold GPUs without an engine that does."""
    known = {f"{engine.namespace}/{engine.pod}" for engine in facts.engines if engine.pod}
    pods: dict[str, Engine] = {}
    for place in facts.places:
        for holder in place.holders:
            namespace, pod, _ = (*holder.split("/"), "", "")[:3]
            name = f"{namespace}/{pod}"
            if pod and name not in known:
                model = place.served_model if len(place.holders) == 1 else ""
                old = pods.get(name)
                model = old.model if old and old.model else model
                pods[name] = Engine(f"pod {name}", model, "", place.node, namespace, pod)
    return [*facts.engines, *(pods[name] for name in sorted(pods))]


# -- GPUs ----------------------------------------------------------------------------------------------------------


def _gpus(facts: HourFacts, start_us: int) -> list[_Gpu]:
    """Every GPU and MIG slice of the hour with its price, and what is left of split GPUs."""
    samples: dict[int, list[SampleRow]] = defaultdict(list)
    for sample in facts.samples:
        samples[sample.ref].append(sample)
    places = {place.place: place for place in facts.places}
    rates: dict[int, list[RateRow]] = defaultdict(list)
    for rate in facts.rates:
        rates[rate.pool_id].append(rate)
    made = [_gpu(row, samples[row.ref], places, facts, rates, start_us) for row in facts.devices]
    return _with_slices(made)


def _gpu(
    row: DeviceRow, samples: Sequence[SampleRow], places: Mapping[int, PlaceRow], facts: HourFacts,
    rates: Mapping[int, Sequence[RateRow]], start_us: int,
) -> _Gpu:  # fmt: skip
    end_us = start_us + HOUR_US
    here = [places[sample.place] for sample in samples if sample.place in places]
    node = here[-1].node if here else row.node
    pool = next((pool for pool in facts.pools if _fits(pool, node, row.gpu_model)), None)
    prices = rates.get(pool.pool_id, []) if pool else []
    always_on = any(rate.always_on for rate in prices)
    targets = {place.target for place in here}
    gaps = [
        gap.at_us
        for gap in facts.gaps
        if gap.device_id == row.device_id or (not gap.device_id and gap.target in targets)
    ]
    sight = Sight(GAP_US, pool.busy_bp) if pool else Sight(GAP_US)
    states = allocation.states(
        [Sample(s.at_us, s.util_bp, _is_held(s)) for s in samples], start_us=start_us, end_us=end_us,
        seen_before=row.ref in facts.seen_before, seen_after=row.ref in facts.seen_after, always_on=always_on,
        gaps=gaps, sight=sight,
    )  # fmt: skip
    return _Gpu(
        row,
        node,
        frozenset("/".join(holder.split("/")[:2]) for place in here for holder in place.holders),
        next((place.served_model for place in reversed(here) if place.served_model), ""),
        pool,
        _priced(states, prices),
        _readings(samples, start_us, end_us),
        bool(states) and states[-1][1] < end_us,
    )


def _is_held(sample: SampleRow) -> bool:
    """Whether a model is loaded: as told, else by the memory in use, of which an empty GPU has next to none."""
    return sample.held if sample.held is not None else (sample.memory_mib or 0) >= _LOADED_MIB


def _fits(pool: PoolRow, node: str, gpu_model: str) -> bool:
    return _like(pool.node_pattern, node) and _like(pool.model_pattern, gpu_model)


def _like(pattern: str, text: str) -> bool:
    return not pattern or fnmatchcase(text.lower(), pattern.lower())


def _priced(states: Iterable[tuple[int, int, Doing]], rates: Sequence[RateRow]) -> list[Stretch]:
    """States cut where the price changes. Of several rates the one that began last counts."""
    edges = sorted({edge for rate in rates for edge in (rate.from_us, rate.to_us)})
    stretches = []
    for start_us, end_us, state in states:
        cuts = [start_us, *(edge for edge in edges if start_us < edge < end_us), end_us]
        for first, last in pairwise(cuts):
            price = next((r.nano_per_hour for r in reversed(rates) if r.from_us <= first < r.to_us), None)
            stretches.append(Stretch(first, last, state, price))
    return stretches


def _readings(samples: Sequence[SampleRow], start_us: int, end_us: int) -> _Readings:
    """Each sample stands until the next, or for the gap; energy is what the counter grew by, else power x time."""
    sums = _Readings()
    for place, sample in enumerate(samples):
        following = samples[place + 1] if place + 1 < len(samples) else None
        until = min(following.at_us if following else end_us, sample.at_us + GAP_US, end_us)
        first = max(sample.at_us, start_us)
        us = until - first
        if us <= 0:
            continue
        if sample.util_bp is not None:
            sums.util_bp_us += sample.util_bp * us
            sums.util_us += us
        if sample.memory_mib is not None:
            sums.memory_mib_us += sample.memory_mib * us
            sums.memory_us += us
        grown = None
        if (
            following
            and sample.energy_mj is not None
            and following.energy_mj is not None
            and us == until - sample.at_us
        ):
            grown = following.energy_mj - sample.energy_mj if until == following.at_us else None
        if grown is not None and grown >= 0:
            sums.energy_mj += grown
            sums.energy_us += us
        elif sample.power_mw is not None:
            sums.energy_mj += sample.power_mw * us // 1_000_000
            sums.energy_us += us
    return sums


def _with_slices(gpus: list[_Gpu]) -> list[_Gpu]:
    """A GPU that is split (MIG) costs by its slices, sevenths of its price each; what no slice has is idle."""
    slices: dict[str, list[_Gpu]] = defaultdict(list)
    for gpu in gpus:
        if gpu.row.parent_id and gpu.stretches:
            slices[gpu.row.parent_id].append(gpu)
    found = []
    for gpu in gpus:
        if gpu.row.parent_id:
            share = _sevenths(gpu.row.mig_profile)
            found.append(gpu._replace(stretches=[_part(stretch, share) for stretch in gpu.stretches]))
        elif gpu.row.device_id in slices:
            # it still tells of its energy; its money is that of its slices
            found.append(gpu._replace(stretches=[], is_open=False))
        else:
            found.append(gpu)
    return found + [_unassigned(parent, slices[parent]) for parent in sorted(slices)]


def _sevenths(profile: str) -> int:
    stated = _SLICES.search(profile)
    return min(int(stated.group(1)), _OF_SEVEN) if stated else _OF_SEVEN


def _part(stretch: Stretch, sevenths: int) -> Stretch:
    if stretch.nano_per_hour is None:
        return stretch
    return stretch._replace(nano_per_hour=stretch.nano_per_hour * sevenths // _OF_SEVEN)


def _unassigned(parent: str, slices: Sequence[_Gpu]) -> _Gpu:
    """The part of a split GPU that belongs to no slice, for as long as any slice was there: idle and empty."""
    edges = sorted({edge for gpu in slices for stretch in gpu.stretches for edge in stretch[:2]})
    stretches = []
    for first, last in pairwise(edges):
        prices: list[int | None] = []
        rest = _OF_SEVEN
        for gpu in slices:
            here = next((s for s in gpu.stretches if s.start_us <= first and last <= s.end_us), None)
            if here:
                rest -= _sevenths(gpu.row.mig_profile)
                prices.append(here.nano_per_hour)
        whole = prices[0] if prices else None
        if rest <= 0 or not prices:
            continue
        taken = [
            (whole or 0) * _sevenths(gpu.row.mig_profile) // _OF_SEVEN
            for gpu in slices
            if any(s.start_us <= first and last <= s.end_us for s in gpu.stretches)
        ]
        left = None if whole is None else whole - sum(taken)
        stretches.append(Stretch(first, last, Doing.FREE, left))
    first_slice = slices[0]
    row = first_slice.row._replace(device_id=f"{parent}/unassigned", parent_id=parent, mig_profile="", ref=0)
    return _Gpu(row, first_slice.node, frozenset(), "", first_slice.pool, stretches, _Readings(), False)


# -- the book of the hour ------------------------------------------------------------------------------------------


class _Book:
    """Collects what the servers of an hour come to."""

    def __init__(self, facts: HourFacts, calls: CallColumns, result: HourResult, start_us: int) -> None:
        self._facts, self._calls, self._result = facts, calls, result
        self._start_us, self._end_us = start_us, start_us + HOUR_US
        self._numbers = {target: number for number, target in facts.targets.items()}
        self._by_target = _places_by(calls.target)
        self._hours: dict[str, allocation.DeviceHour] = {}
        self._nano: dict[int, Ints] = {}
        self._shared: dict[int, NDArray[np.bool_]] = {}
        self._estimate = np.zeros(len(calls.target), np.bool_)
        self._models: dict[tuple[int, str], list[int]] = {}

    def lose(self, targets: set[Any]) -> None:
        self._result.lost_calls = sum(len(self._by_target.get(self._numbers[target], ())) for target in targets)

    def add(self, server: Server, gpus: list[_Gpu]) -> None:
        """Split one server's money over its calls."""
        places, columns = self._calls_of(server)
        pool = next((gpu.pool for gpu in gpus if gpu.pool), None)
        method, weights = _manner(pool)
        devices = [
            Device(g.row.device_id, g.pool.pool_id if g.pool else 0, g.stretches, g.readings.worked_us) for g in gpus
        ]
        split = allocation.split(
            devices, columns, start_us=self._start_us, end_us=self._end_us, method=method, weights=weights
        )
        for hour in split.devices:
            self._hours[hour.key] = hour
        rated = any(hour.us.total > hour.unrated_us for hour in split.devices)
        unrated = any(hour.unrated_us for hour in split.devices)
        chosen = np.flatnonzero(split.active)
        if not rated:
            is_there = any(hour.us.total for hour in split.devices)
            count = len(np.unique(places[chosen]))
            self._result.unrated_calls += count if is_there else 0
            self._result.lost_calls += 0 if is_there else count
        else:
            for pool_id, nano in split.shares.items():
                if any(hour.us.total > hour.unrated_us for hour in split.devices if hour.pool == pool_id):
                    self._take(pool_id, places[chosen], nano[chosen], unrated)
        self._sum_models(server, gpus, split, places)

    def _calls_of(self, server: Server) -> tuple[Ints, Calls]:
        """The calls of a server as columns, with their places among all. Phases on other servers are left out."""
        prefill, decode = set(server.prefill), set(server.decode)
        parts: list[tuple[Ints, Ints, Ints]] = []  # places, start, end
        calls = self._calls
        for target in sorted(prefill | decode):
            places = self._by_target.get(self._numbers[target], np.zeros(0, np.int64))
            start = calls.start_us if target in prefill else calls.border_us
            end = calls.end_us if target in decode else calls.border_us
            parts.append((places, start[places], end[places]))
        empty = np.zeros(0, np.int64)
        places, start, end = (np.concatenate([empty, *(part[n] for part in parts)]) for n in range(3))
        return places, Calls(
            calls.key[places], start, calls.border_us[places], end, calls.input_tokens[places],
            calls.cached_tokens[places], calls.output_tokens[places],
        )  # fmt: skip

    def _take(self, pool_id: int, places: Ints, nano: Ints, is_estimate: bool) -> None:
        if pool_id not in self._nano:
            self._nano[pool_id] = np.zeros(len(self._calls.target), np.int64)
            self._shared[pool_id] = np.zeros(len(self._calls.target), np.bool_)
        np.add.at(self._nano[pool_id], places, nano)
        self._shared[pool_id][places] = True
        if is_estimate:
            self._estimate[places] = True

    def _sum_models(self, server: Server, gpus: list[_Gpu], split: Split, places: Ints) -> None:
        """Sums per pool and served model. A shared server's unused money is divided by what was attributed."""
        calls = self._calls
        own, codes = self._models_of(places)
        own = own or [self._idle_model(server)]
        prefills = set(server.prefill)
        begins = (calls.start_us[places] >= self._start_us) & (calls.start_us[places] < self._end_us)
        if len(prefills) < len(server.decode) or prefills != set(server.decode):
            begins &= np.isin(calls.target[places], [self._numbers[target] for target in prefills])
        energy = {gpu.row.device_id: gpu.readings.energy_mj for gpu in gpus}
        for pool_id in sorted({hour.pool for hour in split.devices}):
            mine = [hour for hour in split.devices if hour.pool == pool_id]
            nano = split.shares[pool_id]
            masks = [codes == code for code in range(len(own))]
            attributed = [int(nano[mask].sum()) for mask in masks]
            divided = {
                name: allocation.divide(sum(getattr(hour.nano, name) for hour in mine), attributed)
                for name in ("busy", "held", "free", "unobserved")
            }
            times = allocation.divide(sum(hour.us.total for hour in mine), attributed)
            active = allocation.divide(sum(hour.us.attributed for hour in mine), attributed)
            joules = allocation.divide(sum(energy[hour.key] for hour in mine), attributed)
            for place, name in enumerate(own):
                mask = masks[place] & begins
                unused = [divided[bucket][place] for bucket in ("busy", "held", "free", "unobserved")]
                read = int(np.rint((nano[masks[place]] * split.prefill[masks[place]]).sum())) if len(nano) else 0
                chosen = places[mask]
                row = [
                    attributed[place] + sum(unused), attributed[place], min(read, attributed[place]), *unused,
                    len(chosen), int(calls.input_tokens[chosen].sum()), int(calls.cached_tokens[chosen].sum()),
                    int(calls.output_tokens[chosen].sum()), times[place], active[place], joules[place],
                ]  # fmt: skip
                known = self._models.setdefault((pool_id, name), [0] * len(row))
                self._models[pool_id, name] = [a + b for a, b in zip(known, row, strict=True)]

    def _models_of(self, places: Ints) -> tuple[list[str], Ints]:
        """The models of calls: their names, and for each call the place of its name."""
        numbers, inverse = np.unique(self._calls.target[places], return_inverse=True)
        models = [self._facts.targets[int(number)].model for number in numbers]
        names = sorted(set(models))
        return names, np.array([names.index(model) for model in models], np.int64)[inverse]

    def _idle_model(self, server: Server) -> str:
        """What a server without calls would serve, if its engines all say the same."""
        models = {engine.model for engine in _engines(self._facts) if engine.key in set(server.engines)}
        return models.pop() if len(models) == 1 else ""

    def close(self, gpus: Iterable[_Gpu]) -> None:
        """Sums per node, and the shares of each pool."""
        rows: dict[tuple[int, str, str], list[int]] = {}
        for gpu in gpus:
            key = (gpu.pool.pool_id if gpu.pool else 0, gpu.node, gpu.row.gpu_model)
            row = _node_row(gpu, self._hours.get(gpu.row.device_id))
            known = rows.setdefault(key, [0] * len(row))
            rows[key] = [a + b for a, b in zip(known, row, strict=True)]
        self._result.nodes = [(*key, *row) for key, row in sorted(rows.items()) if any(row)]
        self._result.models = [(*key, *row) for key, row in sorted(self._models.items()) if any(row)]
        for pool_id in sorted(self._nano):
            chosen = np.flatnonzero(self._shared[pool_id])
            shares = Shares(pool_id, chosen, self._nano[pool_id][chosen], self._estimate[chosen])
            self._result.shares.append(shares)


def _node_row(gpu: _Gpu, hour: allocation.DeviceHour | None) -> list[int]:
    """In the order of gpu_hours.NODE_COLUMNS, after its key."""
    us, nano = (hour.us, hour.nano) if hour else (Buckets(), Buckets())
    read = gpu.readings
    total_us = read.memory_us if gpu.row.memory_total_mib else 0
    is_device = bool(us.total) and gpu.row.ref > 0
    return [
        int(is_device), nano.total, *nano, us.total, *us, hour.unrated_us if hour else 0,
        read.util_bp_us // _SECOND, read.util_us // _SECOND, read.memory_mib_us // _SECOND,
        (gpu.row.memory_total_mib or 0) * total_us // _SECOND, read.memory_us // _SECOND, read.energy_mj,
        read.energy_us,
    ]  # fmt: skip


def _manner(pool: PoolRow | None) -> tuple[Method, Weights]:
    if pool is None:
        return Method.SHARING, allocation.PLAIN
    weights = Weights(
        pool.prefill_weight, pool.decode_weight, pool.input_weight, pool.cached_weight, pool.output_weight,
        pool.capacity_tokens * 1000,
    )  # fmt: skip
    return Method(pool.method), weights


def _places_by(targets: Ints) -> dict[int, Ints]:
    """Where each target stands in the column."""
    order = np.argsort(targets, kind="stable")
    numbers, starts = np.unique(targets[order], return_index=True)
    return (
        {int(number): part for number, part in zip(numbers, np.split(order, starts[1:]), strict=True)}
        if len(numbers)
        else {}
    )
