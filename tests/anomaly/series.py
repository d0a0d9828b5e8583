"""Believable series of one feature, from a seed: a local day shape, weekends, users, tokens, cache, retries, prices."""

from typing import Any

import numpy as np
import pandas as pd

Frame = dict[str, Any]
META = {"timezone": "Europe/Berlin", "step_seconds": 3600, "metric": "feature_cost"}
PRICES = (2.5e-6, 0.25e-6, 10e-6)  # dollars per uncached, cached and output token


def hourly(days: int = 60, seed: int = 1, begin: str = "2025-01-20", meta: dict[str, Any] = META, scale: float = 1.0):
    """Frame with all columns, without an incident."""
    rng = np.random.default_rng(seed)
    step = meta["step_seconds"]
    rows = int(days * 86_400 / step)
    times = pd.date_range(begin, periods=rows, freq=pd.Timedelta(seconds=step))
    local = times.tz_localize("UTC").tz_convert(meta["timezone"])
    hour = np.asarray(local.hour + local.minute / 60)
    shape = 1 + 0.8 * np.sin((hour - 9) / 24 * 2 * np.pi) + np.where(local.day_of_week >= 5, -0.15, 0)
    wanted = 2000 * scale * step / 3600 * shape * np.exp(rng.normal(0, 0.1, rows))
    requests = rng.poisson(wanted).astype(float)
    users = rng.poisson(np.maximum(requests, 0.1) ** 0.8).astype(float)
    prompt, answer = 1000 * np.exp(rng.normal(0, 0.04, rows)), 250 * np.exp(rng.normal(0, 0.04, rows))
    frame = pd.DataFrame({"timestamp": times, "requests": requests, "users": users})
    frame["input_tokens"] = np.round(requests * prompt)
    frame["output_tokens"] = np.round(requests * answer)
    frame["cached_tokens"] = np.round(frame["input_tokens"] * np.clip(0.6 + rng.normal(0, 0.02, rows), 0, 1))
    frame["retries"] = rng.poisson(requests * 0.01).astype(float)
    frame["gpu_util"] = np.nan
    return priced(frame)


def priced(frame: pd.DataFrame, factor: Any = 1.0) -> pd.DataFrame:
    uncached, cached, output = PRICES
    tokens = (frame["input_tokens"] - frame["cached_tokens"]) * uncached + frame["cached_tokens"] * cached
    frame["value"] = (tokens + frame["output_tokens"] * output) * factor
    return frame


def times(frame: pd.DataFrame, rows: slice, factor: Any, *columns: str) -> None:
    """Multiply columns on some rows."""
    for column in columns:
        values = frame[column].to_numpy(copy=True)
        values[rows] = np.round(values[rows] * factor)
        frame[column] = values


VOLUME = ("requests", "input_tokens", "output_tokens", "cached_tokens", "retries")


def records(frame: pd.DataFrame) -> list[tuple[Any, float, dict[str, float]]]:
    """Rows as the online interface takes them."""
    side = frame.drop(columns=["timestamp", "value"]).to_dict("records")
    return list(zip(frame["timestamp"], frame["value"], side, strict=True))
