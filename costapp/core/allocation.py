"""How one hour of GPUs is split: what each call caused, and what nobody used. Pure; columns are NumPy arrays.

A *server* is what calls compete for: one engine with its GPUs, or all engines that share a GPU. In a window,
r(t) is the price per second of its GPUs and W(t) the sum of the weights of the phases (prefill, decode) that are
active at t. A call is charged ∫ w r / W over its phases (weighted processor sharing, computed with a virtual clock
dV = r / W dt); the time in which no phase is active is unattributed-busy, held, free or unobserved, as each GPU's
samples say. Other methods divide the same attributed money by tokens or phases.

Every amount is an integer. The bill of a GPU is split over its five buckets, and the attributed part of a server
over its calls, by largest remainder: parts always add up to the whole. Ties go to the smaller key, so the order in
which calls are given changes nothing. A share differs from the exact value by less than one nano-dollar per window.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HOUR_US = 3_600_000_000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Method(StrEnum):
    """How the money of the time in which calls were active is divided between them."""

    SHARING = "sharing"  #: weighted processor sharing: by time, divided by who else was active
    TOKENS = "tokens"  #: by weighted token counts; needs no times
    PHASES = "phases"  #: prefill and decode time apart; then by uncached input, and by decode time
    CAPACITY = "capacity"  #: at a fixed price per unit of work; what is left is unused capacity


class Weights(NamedTuple):
    """Relative weights, in thousandths so that they add up exactly."""

    prefill: int = 1000
    decode: int = 1000
    input: int = 1000  #: per uncached input token
    cached: int = 100  #: per input token read from the cache
    output: int = 4000  #: per output token
    capacity: int = 0  #: thousandths of weighted tokens that one GPU does in an hour (method CAPACITY)


PLAIN = Weights()


class State(IntEnum):
    """What a GPU did in a stretch of time, judged from its samples alone."""

    OFF = 0  #: not there: costs nothing
    UNOBSERVED = 1  #: no sample covers it: never called idle
    FREE = 2  #: no model loaded
    HELD = 3  #: a model is loaded, and the GPU does little
    BUSY = 4


class Stretch(NamedTuple):
    """A GPU's state and price in [start, end)."""

    start_us: int
    end_us: int
    state: State
    nano_per_hour: int | None  #: None = nobody said what it costs


class Device(NamedTuple):
    key: str
    pool: int  #: whose money this is; 0 = no pool
    stretches: Sequence[Stretch]  #: ascending and disjoint
    worked_us: int | None = None  #: utilisation x time, as samples report it; None = not known


class Buckets(NamedTuple):
    """Where the money, or the time, of an hour went. The sum of the five is the whole."""

    attributed: int = 0
    busy: int = 0  #: no call was active, yet the GPU worked: traffic that is not traced
    held: int = 0  #: idle with a model loaded
    free: int = 0  #: idle and empty
    unobserved: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    def plus(self, other: "Buckets") -> "Buckets":
        return Buckets(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


#: State -> place of its bucket while no call is active.
_BUCKET = {State.BUSY: 1, State.HELD: 2, State.FREE: 3, State.UNOBSERVED: 4}


class DeviceHour(NamedTuple):
    """One GPU in the window."""

    key: str
    pool: int
    us: Buckets  #: time that it was there
    nano: Buckets  #: money of the part that has a price
    unrated_us: int  #: time without a price: the money is a lower bound, or not known at all

    @property
    def bill_nano(self) -> int:
        return self.nano.total


class Calls(NamedTuple):
    """Calls of one server as columns of equal length. Prefill is [start, border), decode is [border, end)."""

    key: NDArray[np.uint64]  #: (n, 3): identity; decides ties
    start_us: Ints
    border_us: Ints
    end_us: Ints
    input_tokens: Ints  #: uncached
    cached_tokens: Ints
    output_tokens: Ints


class Split(NamedTuple):
    """The window of one server."""

    devices: list[DeviceHour]
    shares: Mapping[int, Ints]  #: per pool: nano-dollars of each call, in the order in which calls were given
    prefill: Floats  #: which part of its share each call caused by its prompt, 0 to 1
    active: NDArray[np.bool_]  #: which calls touch the window


def split(
    devices: Sequence[Device], calls: Calls, *, start_us: int, end_us: int, method: Method = Method.SHARING,
    weights: Weights = PLAIN,
) -> Split:  # fmt: skip
    """Split the bills of a server's GPUs in [start, end) over its calls and the buckets of unused time."""
    order = np.lexsort((calls.key[:, 2], calls.key[:, 1], calls.key[:, 0]))
    calls = Calls._make(column[order] for column in calls)  # sums of floats depend on their order
    clipped = _clip(calls, start_us, end_us)
    devices = sorted(devices)
    clock = _Clock(clipped, weights, _moments(devices, start_us, end_us), (start_us, end_us))
    hours = [_explained(_device_hour(device, clock), device.worked_us) for device in devices]
    shares: dict[int, Ints] = {}
    prefill = np.zeros(len(order))
    for pool in sorted({device.pool for device in devices}):
        mine = [place for place, device in enumerate(devices) if device.pool == pool]
        total_nano = sum(hours[place].nano.attributed for place in mine)
        rates = [devices[place].stretches for place in mine]
        if method is Method.CAPACITY:
            used_nano = min(total_nano, _capacity_nano(_work(calls, clipped, weights), weights, rates, total_nano))
            _return_unused(hours, mine, total_nano - used_nano)
            total_nano = used_nano
        read, written = _claims(method, weights, calls, clipped, clock, rates)
        claims = read + written
        shares[pool] = np.empty(len(order), np.int64)
        shares[pool][order] = apportion(total_nano, claims)
        prefill[order] = np.divide(read, claims, out=prefill[order], where=claims > 0)
    active = np.empty(len(order), np.bool_)
    active[order] = clipped.end_us > clipped.start_us
    return Split(hours, shares, prefill, active)


# -- time ----------------------------------------------------------------------------------------------------------


def _clip(calls: Calls, start_us: int, end_us: int) -> Calls:
    """The calls inside the window: phases cut at its edges."""
    start, border, end = (np.clip(edge, start_us, end_us) for edge in (calls.start_us, calls.border_us, calls.end_us))
    border = np.clip(border, start, np.maximum(start, end))
    return calls._replace(start_us=start, border_us=border, end_us=np.maximum(border, end))


class _Clock:
    """W(t) of a server as steps, and how long anything was active up to any moment. Exact: integers only."""

    def __init__(self, calls: Calls, weights: Weights, moments: Sequence[int], window: tuple[int, int]) -> None:
        """``moments``: where prices change. Edges of phases and moments become the steps."""
        edges = [calls.start_us, calls.border_us, calls.end_us]
        deltas = [weights.prefill, weights.decode - weights.prefill, -weights.decode]
        count = len(calls.start_us)
        fixed = np.array(sorted({*window, *moments}), np.int64)
        every = np.concatenate([fixed, *edges])
        delta = np.concatenate([np.zeros(len(fixed), np.int64), *(np.full(count, by, np.int64) for by in deltas)])
        order = np.argsort(every, kind="stable")
        every = every[order]
        changes = np.append(True, every[1:] != every[:-1])
        self.times = every[changes]
        starts = np.flatnonzero(changes)
        #: In force from each moment to the next.
        self.weight = np.cumsum(np.add.reduceat(delta[order], starts))
        self._active = self.weight > 0
        self._elapsed = np.append(0, np.cumsum(np.diff(self.times) * self._active[:-1]))
        place = np.empty(len(every), np.int64)
        place[order] = np.cumsum(changes) - 1
        #: At which moment each call starts, passes from prefill to decode, and ends.
        self.places = place[len(fixed) :].reshape(3, count)

    def active_us(self, start_us: int, end_us: int) -> int:
        """For how long any phase was active in [start, end)."""
        return self._until(end_us) - self._until(start_us)

    def _until(self, at_us: int) -> int:
        at_us = min(max(at_us, int(self.times[0])), int(self.times[-1]))
        place = int(np.searchsorted(self.times, at_us, "right")) - 1
        return int(self._elapsed[place]) + (at_us - int(self.times[place])) * int(self._active[place])

    def virtual(self, rates: Iterable[Sequence[Stretch]]) -> Floats:
        """The virtual clock V at every moment: dV/dt = r / W where W > 0."""
        moments, steps = _price_steps(rates, int(self.times[0]), int(self.times[-1]))
        rate = steps[np.searchsorted(moments, self.times, "right") - 1]
        speed = np.divide(rate, self.weight, out=np.zeros(len(self.times)), where=self._active)
        return np.append(0.0, np.cumsum(speed[:-1] * np.diff(self.times)))


def _moments(devices: Iterable[Device], start_us: int, end_us: int) -> list[int]:
    """Where any GPU's price begins, changes or ends in the window."""
    edges = (edge for device in devices for stretch in device.stretches for edge in stretch[:2])
    return [edge for edge in edges if start_us < edge < end_us]


def _price_steps(rates: Iterable[Sequence[Stretch]], start_us: int, end_us: int) -> tuple[Ints, Floats]:
    """The summed price of several GPUs as steps: moments, and the price from each moment on."""
    change: dict[int, int] = {start_us: 0, end_us: 0}
    for stretches in rates:
        for stretch in stretches:
            price = stretch.nano_per_hour or 0
            if stretch.state is not State.OFF and price:
                first, last = max(stretch.start_us, start_us), min(stretch.end_us, end_us)
                if first < last:
                    change[first] = change.get(first, 0) + price
                    change[last] = change.get(last, 0) - price
    moments = np.array(sorted(change), np.int64)
    steps = np.cumsum(np.array([change[int(moment)] for moment in moments], np.int64))
    return moments, steps.astype(np.float64)


def _device_hour(device: Device, clock: _Clock) -> DeviceHour:
    """The bill of one GPU and the five buckets it goes to, in money and in time."""
    time = [0] * 5
    worth = [0] * 5  # nano-dollars x microseconds per hour: exact
    unrated_us = 0
    for start_us, end_us, state, nano_per_hour in device.stretches:
        if state is State.OFF or end_us <= start_us:
            continue
        active_us = clock.active_us(start_us, end_us)
        rest_us = end_us - start_us - active_us
        time[0] += active_us
        time[_BUCKET[state]] += rest_us
        if nano_per_hour is None:
            unrated_us += end_us - start_us
        else:
            worth[0] += active_us * nano_per_hour
            worth[_BUCKET[state]] += rest_us * nano_per_hour
    bill_nano = (2 * sum(worth) + HOUR_US) // (2 * HOUR_US)
    return DeviceHour(device.key, device.pool, Buckets(*time), Buckets(*divide(bill_nano, worth)), unrated_us)


def _explained(hour: DeviceHour, worked_us: int | None) -> DeviceHour:
    """Busy time without a call stays busy only as far as the GPU worked longer than calls were active.

    A sample speaks until the next one: one that met a short call would else make all the time after it look like
    traffic that nobody traced. The rest is held. Both stay parts of the same bill.
    """
    if worked_us is None or not hour.us.busy:
        return hour
    busy_us = min(hour.us.busy, max(0, worked_us - hour.us.attributed))
    held_us = hour.us.busy - busy_us
    busy_nano, held_nano = divide(hour.nano.busy, [busy_us, held_us])
    us, nano = hour.us, hour.nano
    return hour._replace(
        us=us._replace(busy=busy_us, held=us.held + held_us),
        nano=nano._replace(busy=busy_nano, held=nano.held + held_nano),
    )


# -- claims --------------------------------------------------------------------------------------------------------


def _claims(
    method: Method, weights: Weights, calls: Calls, clipped: Calls, clock: _Clock, rates: list[Sequence[Stretch]]
) -> tuple[Floats, Floats]:
    """How much of the attributed money each call claims, in any unit: for its prompt, and for its answer."""
    claims = None
    if method is Method.TOKENS or method is Method.CAPACITY:
        claims = _work(calls, clipped, weights)
    elif method is Method.PHASES:
        claims = _by_phase(calls, clipped)
    # Calls without token counts still used the GPU: then time decides.
    return claims if claims is not None and sum(map(np.sum, claims)) > 0 else _by_time(weights, clock, rates)


def _by_time(weights: Weights, clock: _Clock, rates: list[Sequence[Stretch]]) -> tuple[Floats, Floats]:
    at_start, at_border, at_end = clock.virtual(rates)[clock.places]
    return (at_border - at_start) * weights.prefill, (at_end - at_border) * weights.decode


def _portion(part: Ints, whole: Ints, inside: NDArray[np.bool_]) -> Floats:
    """The share of a phase that lies in the window; a phase without length is inside or it is not."""
    return np.divide(part, whole, out=inside.astype(np.float64), where=whole > 0)


def _tokens_inside(calls: Calls, clipped: Calls) -> tuple[Floats, Floats, Floats]:
    """Uncached input, cached input and output tokens of the part of each call that lies in the window.

    Input belongs to prefill and output to decode, evenly over the phase. A phase without length goes with the rest
    of its call.
    """
    inside = clipped.end_us > clipped.start_us
    whole = _portion(clipped.end_us - clipped.start_us, calls.end_us - calls.start_us, inside)
    prefill, decode = calls.border_us - calls.start_us, calls.end_us - calls.border_us
    first = np.where(prefill > 0, _portion(clipped.border_us - clipped.start_us, prefill, inside), whole)
    second = np.where(decode > 0, _portion(clipped.end_us - clipped.border_us, decode, inside), whole)
    counts = (column.astype(np.float64) for column in (calls.input_tokens, calls.cached_tokens, calls.output_tokens))
    uncached, cached, output = counts
    return uncached * first, cached * first, output * second


def _work(calls: Calls, clipped: Calls, weights: Weights) -> tuple[Floats, Floats]:
    """Weighted tokens, in thousandths."""
    uncached, cached, output = _tokens_inside(calls, clipped)
    return uncached * weights.input + cached * weights.cached, output * weights.output


def _by_phase(calls: Calls, clipped: Calls) -> tuple[Floats, Floats]:
    prefill = (clipped.border_us - clipped.start_us).astype(np.float64)
    decode = (clipped.end_us - clipped.border_us).astype(np.float64)
    uncached = _tokens_inside(calls, clipped)[0]
    by_input = uncached if uncached.sum() > 0 else prefill
    scale = prefill.sum() / by_input.sum() if by_input.sum() > 0 else 0.0
    return by_input * scale, decode  # seconds of decode are their own measure


def _capacity_nano(
    work: tuple[Floats, Floats], weights: Weights, rates: list[Sequence[Stretch]], otherwise: int
) -> int:
    """What the work is worth at the mean price of a GPU-hour, divided by what a GPU can do in an hour."""
    if weights.capacity <= 0:
        raise ValueError("Practical capacity needs to know how much one GPU can do in an hour.")
    priced = [s for stretches in rates for s in stretches if s.nano_per_hour and s.state is not State.OFF]
    time_us = sum(s.end_us - s.start_us for s in priced)
    thousandths = int(np.rint(work[0].sum() + work[1].sum()))
    if not time_us or not thousandths:
        return otherwise
    worth = sum((s.end_us - s.start_us) * (s.nano_per_hour or 0) for s in priced)
    return thousandths * worth // (time_us * weights.capacity)


def _return_unused(hours: list[DeviceHour], mine: list[int], unused_nano: int) -> None:
    """Capacity that calls did not use is idle (held), on each GPU in proportion to its attributed money."""
    parts = divide(unused_nano, [hours[place].nano.attributed for place in mine])
    for place, part in zip(mine, parts, strict=True):
        nano = hours[place].nano
        changed = nano._replace(attributed=nano.attributed - part, held=nano.held + part)
        hours[place] = hours[place]._replace(nano=changed)


# -- whole numbers -------------------------------------------------------------------------------------------------


def divide(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in whole parts proportional to ``weights`` (all to the first if they are 0), by largest remainder."""
    whole = sum(weights)
    if not whole:
        return [total, *[0] * (len(weights) - 1)] if weights else []
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def apportion(total: int, claims: Floats) -> Ints:
    """``total`` in whole parts proportional to ``claims``, by largest remainder; of equal ones the first gets more.

    A claim of 0 gets nothing. The parts add up to ``total`` unless nobody claims anything.
    """
    parts = np.zeros(len(claims), np.int64)
    claiming = np.flatnonzero(claims > 0)
    if not len(claiming) or total <= 0:
        return parts
    mine = claims[claiming]
    exact = mine / float(mine.sum()) * total
    floors = np.floor(exact)
    whole = floors.astype(np.int64)
    left = total - int(whole.sum())
    if left < 0:  # rounding of the sum itself: one too many here and there
        place = np.lexsort((exact - floors, whole == 0))[:-left]
        whole[place] -= 1
    elif left:
        each, more = divmod(left, len(whole))
        whole += each
        place = np.argsort(floors - exact, kind="stable")[:more]
        whole[place] += 1
    parts[claiming] = whole
    return parts


# -- from samples to states ----------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One reading of one GPU."""

    at_us: int
    util_bp: int | None  #: 0..10000; None = not known
    held: bool  #: a model is loaded: a process or pod holds the GPU


class Sight(NamedTuple):
    """How samples are read."""

    gap_us: int = 120_000_000  #: a sample speaks for at most this long
    busy_bp: int = 500  #: from this utilisation on, time without a traced call is unattributed-busy


#: How a device is seen unless somebody sets it.
SIGHT = Sight()


def states(
    samples: Sequence[Sample], *, start_us: int, end_us: int, seen_before: bool, seen_after: bool, always_on: bool,
    gaps: Sequence[int] = (), sight: Sight = SIGHT,
) -> list[tuple[int, int, State]]:  # fmt: skip
    """What a GPU did from ``start`` to ``end``, as ascending stretches. ``samples`` may begin a moment before.

    A sample holds until the next one, but not longer than ``gap``, nor past a moment in ``gaps`` from which on
    somebody said that nothing is known. What no sample covers is unobserved, never idle. At an edge beyond which the
    GPU is not seen for an hour it is off, unless it is paid for whether it is seen or not.
    """
    found: list[tuple[int, int, State]] = []
    covered_us = start_us
    for place, sample in enumerate(samples):
        until = min(
            samples[place + 1].at_us if place + 1 < len(samples) else end_us, sample.at_us + sight.gap_us, end_us
        )
        next_gap = bisect_left(gaps, sample.at_us)
        if next_gap < len(gaps):
            until = min(until, gaps[next_gap])
        first = max(sample.at_us, start_us)
        if until <= first:
            continue
        if first > covered_us and (found or seen_before or always_on):
            found.append((covered_us, first, State.UNOBSERVED))
        found.append((first, until, _state(sample, sight)))
        covered_us = until
    if covered_us < end_us and (always_on or (seen_after and (found or seen_before))):
        found.append((covered_us, end_us, State.UNOBSERVED))
    return _joined(found)


def _state(sample: Sample, sight: Sight) -> State:
    if sample.util_bp is None:
        return State.HELD if sample.held else State.UNOBSERVED
    if sample.util_bp >= sight.busy_bp:
        return State.BUSY
    return State.HELD if sample.held else State.FREE


def _joined(found: Iterable[tuple[int, int, State]]) -> list[tuple[int, int, State]]:
    """Neighbours of one state as one stretch."""
    joined: list[tuple[int, int, State]] = []
    for start_us, end_us, state in found:
        if joined and joined[-1][1] == start_us and joined[-1][2] is state:
            joined[-1] = (joined[-1][0], end_us, state)
        else:
            joined.append((start_us, end_us, state))
    return joined
