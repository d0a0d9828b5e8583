"""Reading a recorded text as one scrape."""

import time
from pathlib import Path

from collectors.gpu.samples import Samples
from collectors.gpu.text import TextReader

TEXTS = Path(__file__).resolve().parents[1] / "data/gpu"
MIB = 2**20


class Read:
    """What a text says."""

    def __init__(self, text, *, target="10.0.0.1:9400", time_ns=None, **options):
        now_ns = time.time_ns()
        collected = Samples(now_ns=now_ns, keep_days=30)
        self.lines = TextReader(target, **options).read(text, collected, time_ns=time_ns or now_ns, limit=10_000)
        result = collected.result()
        self.devices = {sample.device_id: sample for sample in result.samples}
        self.engines, self.gaps = result.engines, result.gaps
        self.rejected, self.odd, self.points = dict(collected.rejected), dict(+collected.odd), collected.points

    @property
    def device(self):
        (found,) = self.devices.values()
        return found

    @property
    def engine(self):
        (found,) = self.engines
        return found


def read_file(name, **options):
    return Read((TEXTS / name).read_text(), **options)
