"""Quality does not drop: a part of the development data of benchmarks/anomaly, by its own scorer."""

import gc
import warnings
from pathlib import Path

import pytest

from anomaly.detect import THRESHOLD, make
from anomaly.detect_novelty import NOVELTY_THRESHOLD
from benchmarks.anomaly import score

# The scorer is taken over unchanged and leaves files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")
DATA = Path(__file__).resolve().parents[2] / "benchmarks/anomaly"


def loaded(load, track):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        found = load(str(DATA / track))
        gc.collect()
    return found


@pytest.fixture(scope="module")
def cost_report():
    series, labels, excess = loaded(score.cost_load, "cost")
    part = [each for k, each in enumerate(series) if k % 3 == 0]
    names = {meta["series"] for meta, _, _ in part}
    labels = {kind: [x for x in labels[kind] if x["series"] in names] for kind in ("incidents", "legit")}
    truth = score.CostTruth(part, labels, excess)
    scores = {meta["series"]: score.stream(make, meta, frame, columns, check=True)[0] for meta, frame, columns in part}
    return truth.evaluate(scores, THRESHOLD, detail=True)


def test_cost_incidents_are_found_with_few_false_alerts(cost_report):
    assert cost_report["f1"] >= 0.9
    assert cost_report["false_alerts_per_series_month"] <= 0.1
    assert cost_report["median_delay_hours"] <= 1
    assert cost_report["excess_caught"] >= 0.65


def test_no_kind_of_incident_is_left_out(cost_report):
    kinds = cost_report["by_kind"]
    assert len(kinds) == 9
    assert {kind: each["recall"] for kind, each in kinds.items() if each["recall"] < 0.6} == {}


def test_univariate_series_are_judged_as_well_as_by_the_best_simple_detectors():
    series, parts = loaded(score.nab_load, "nab")
    part = [each for each in series if len(each[1]) < 4500]
    scores = {meta["series"]: score.stream(make, meta, frame, [], check=False)[0] for meta, frame, _ in part}
    parts = {name: parts[name] for name in scores}
    weights = score.NAB_PROFILES["standard"]
    assert score.nab_normalise(score.nab_raw(parts, scores, NOVELTY_THRESHOLD, weights), parts, weights) >= 60
