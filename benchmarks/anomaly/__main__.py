"""`make bench-anomaly`: the detectors on the development half of the anomaly benchmark, next to the baselines.

    python -m benchmarks.anomaly [--only cost nab rca rca-public many] [--baselines] [--cross-validate]

Our figures are at the fixed thresholds of the code. The data took part in choosing those thresholds, so the honest
estimate is the cross-validated line: threshold from one half of the series, scored on the other. `--baselines` computes
the cost baselines anew (minutes); those of NAB are published figures. What the data are: DATA.md.
"""

import argparse
import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, as the product's worker has

import numpy as np

from anomaly.detect import THRESHOLD
from anomaly.detect_novelty import NOVELTY_THRESHOLD
from benchmarks import conditions
from benchmarks.anomaly import many, score

HERE = Path(__file__).parent
TRACKS = ("cost", "nab", "rca", "rca-public", "many")
BASELINES = {
    "isolation forest (lags + calendar)": "isolation_forest",
    "3-sigma, rolling": "sigma3",
    "EWMA": "ewma",
    "CUSUM": "cusum",
    "Holt-Winters": "holt_winters",
    "seasonal median + MAD": "seasonal_mad",
    "rolling median + MAD": "rolling_mad",
}
COST_COLUMNS = (
    ("precision", "precision"), ("recall", "recall"), ("f1", "F1"), ("median_delay_hours", "delay h"),
    ("excess_caught", "excess caught"), ("false_alerts_per_series_month", "false/month"),
)  # fmt: skip


def scored(track: str, *options: str) -> dict[str, Any]:
    """The scorer's own report, from its own process: what is quoted is what it prints."""
    command = [sys.executable, "-W", "ignore", str(HERE / "score.py"), track.split("-")[0], "--data", str(HERE / track)]
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def table(title: str, names: list[str], rows: list[list[Any]]) -> None:
    cells = [[title, *names]] + [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    wide = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, wide, strict=True))))
    print()


def figures(found: dict[str, Any], ms: float) -> list[Any]:
    return [*(found[key] for key, _ in COST_COLUMNS), ms]


def cost(stored: dict[str, Any], cross: bool) -> None:
    ours = scored("cost", "--detector", "anomaly.detect:make", "--threshold", str(THRESHOLD))
    rows = [["Costapp, fixed threshold", *figures(ours["fixed"], ours["cpu_ms_per_1000_points"])]]
    rows += [[name + ", best threshold", *baseline["cost"]] for name, baseline in stored.items() if "cost" in baseline]
    table("cost track", [*(label for _, label in COST_COLUMNS), "ms/1000"], rows)
    kinds = ours["fixed"]["by_kind"]
    table("by kind", ["incidents", "found", "delay h"], [
        [kind, k["n"], f"{k['recall']:.0%}", k["median_delay_hours"]] for kind, k in kinds.items()
    ])  # fmt: skip
    print("harmless changes that drew an alert:", ours["fixed"]["legit_alerted"], "\n")
    if cross:
        cross_validated_cost()


def cross_validated_cost() -> None:
    """Threshold from a random half of the series, F1 on the other; twelve splits."""
    series, labels, excess = score.cost_load(str(HERE / "cost"))
    make = importlib.import_module("anomaly.detect").make
    scores = {meta["series"]: make(meta).scores(frame) for meta, frame, _ in series}
    truth = score.CostTruth(series, labels, excess)

    def part(names: list[str]) -> tuple[Any, dict[str, Any]]:
        half = copy.copy(truth)
        half.times = {name: truth.times[name] for name in names}
        return half, {name: scores[name] for name in names}

    found = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(sorted(scores)).tolist()
        for mine, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            half, own = part(mine)
            best = max(
                (half.evaluate(own, t) for t in score.candidate_thresholds(own, half)), key=lambda each: each["f1"]
            )
            half, own = part(other)
            found.append(half.evaluate(own, best["threshold"])["f1"])
    print(
        f"cross-validated F1: {np.mean(found):.3f}, from {min(found):.3f} to {max(found):.3f} in {len(found)} halves\n"
    )


def nab(stored: dict[str, Any], cross: bool) -> None:
    ours = scored("nab", "--detector", "anomaly.detect:make", "--threshold", str(NOVELTY_THRESHOLD))
    ms = ours["cpu_ms_per_1000_points"]
    profiles = ("standard", "reward_low_FP_rate", "reward_low_FN_rate")
    rows = [
        ["Costapp, fixed threshold", *(ours[profile]["fixed"] for profile in profiles), ms],
        ["Costapp, best threshold", *(ours[profile]["best"] for profile in profiles), ms],
    ]
    rows += [[name, *each["nab"]] for name, each in stored.items() if "nab" in each]
    table("nab track", ["standard", "low FP", "low FN", "ms/1000"], rows)
    if cross:
        cross_validated_nab()


def cross_validated_nab() -> None:
    series, parts = score.nab_load(str(HERE / "nab"))
    make = importlib.import_module("anomaly.detect").make
    scores = {meta["series"]: make(meta).scores(frame) for meta, frame, _ in series}
    weights, found = score.NAB_PROFILES["standard"], []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(sorted(parts)).tolist()
        halves = [{name: parts[name] for name in order[i::2]} for i in (0, 1)]
        total = 0.0
        for mine, other in (halves, halves[::-1]):
            total += score.nab_raw(other, scores, score.nab_sweep(mine, scores, weights)[1], weights)
        found.append(score.nab_normalise(total, parts, weights))
    print(f"cross-validated standard score: {np.mean(found):.1f}, from {min(found):.1f} to {max(found):.1f}\n")


def causes(track: str, stored: dict[str, Any]) -> None:
    try:
        importlib.import_module("anomaly.blame")
    except ModuleNotFoundError:
        print(f"{track}: anomaly.blame is not there\n")
        return
    ours = scored(track, "--blame", "anomaly.blame:blame")
    rows = [["Costapp", *(ours[key] for key in ("f1", "top1", "top3", "cpu_ms_per_case"))]]
    rows += [[name, *each[track]] for name, each in stored.items() if track in each]
    table(track, ["F1", "top-1", "top-3", "ms/case"], rows)


def baselines(stored: dict[str, Any]) -> None:
    """Run again what needs no further package; the others keep their published or earlier figures."""
    for name, function in BASELINES.items():
        found = scored("cost", "--detector", f"baselines:{function}")
        stored[name] = {"cost": figures(found["tuned_here"], found["cpu_ms_per_1000_points"])}
        print(name, stored[name], flush=True)
    (HERE / "baselines.json").write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TRACKS, default=TRACKS)
    parser.add_argument("--baselines", action="store_true", help="compute the table of baselines anew and store it")
    parser.add_argument("--no-cross-validation", action="store_true")
    args = parser.parse_args()
    print("\n".join(conditions.lines()), "\n")
    stored: dict[str, Any] = json.loads((HERE / "baselines.json").read_text())
    if args.baselines:
        baselines(stored)
    for track in args.only:
        if track == "many":
            many.main()
        elif track in ("cost", "nab"):
            (cost if track == "cost" else nab)(stored, not args.no_cross_validation)
        else:
            causes(track, stored)


if __name__ == "__main__":
    main()
