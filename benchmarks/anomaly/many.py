"""10,000 hourly series: time and memory of learning a day (once a day), and of judging one new hour (every hour).

    python -m benchmarks.anomaly.many [--series 10000] [--learn 200]

Learning is timed on `--learn` series of the cost track with 60 days of history each; the days learnt are copied, with
arrays of their own, until there are `--series`, and then every one of them judges three hours.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import psutil

from anomaly.detect_online import learn_today
from anomaly.detect_signals import COLUMNS
from anomaly.detect_today import Today
from benchmarks.anomaly import score

HERE = Path(__file__).parent
HISTORY_ROWS, HOURS = 60 * 24, 3


def main(series: int = 10_000, sample: int = 100) -> None:
    loaded, _, _ = score.cost_load(str(HERE / "cost"))
    before = psutil.Process().memory_info().rss
    days, rows, began = [], [], time.process_time()
    for k in range(sample):
        meta, frame, _ = loaded[k % len(loaded)]
        start = (k * 97) % (len(frame) - HISTORY_ROWS - 60)
        history = frame.iloc[start : start + HISTORY_ROWS].reset_index(drop=True)
        following = frame.iloc[start + HISTORY_ROWS : start + HISTORY_ROWS + HOURS]
        second = following["timestamp"].to_numpy("datetime64[s]").astype(float)
        days.append(learn_today(meta, history, second[0]).state())
        cells = following[list(COLUMNS)].to_dict("records")
        rows.append([(at, cell) for at, cell in zip(second, cells, strict=True) if at < days[-1]["begin"] + 86_400])
    learning = (time.process_time() - began) / sample
    size = sum(array.nbytes for array in [*days[0]["learned"].values(), days[0]["values"], days[0]["excess"]])
    many = [Today.restore(copy.deepcopy(days[k % sample])) for k in range(series)]
    began, judged, worst = time.process_time(), 0, []
    for k, day in enumerate(many):
        for at, cell in rows[k % sample]:
            if day.takes(at):
                worst.append(day.judge(at, cell)[0])
                judged += 1
    judging = (time.process_time() - began) / max(judged, 1)
    memory = psutil.Process().memory_info().rss - before
    print(f"{series} hourly series, one core:")
    print(f"  learn a day from 60 days: {1e3 * learning:.1f} ms each, {series * learning:.0f} s for all, once a day")
    print(f"  judge one new hour: {1e6 * judging:.0f} us each, {series * judging:.2f} s for all, every hour")
    print(f"  kept per series: {size / 1024:.0f} KiB; memory for all: {memory / 2**20:.0f} MiB")
    print(f"  (largest score {np.max(worst):.1f} of {judged} rows)\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--learn", type=int, default=100)
    args = parser.parse_args()
    main(args.series, args.learn)
