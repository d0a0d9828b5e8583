"""Imports GPU rates from CSV: spot steps, agreements. A rate is known by its pool, kind and start; equal ones stay."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.dateparse import parse_datetime

from costapp.models import GpuPool, GpuRate, Project

COLUMNS = ("pool", "kind", "valid_from", "valid_to", "gpus", "usd_per_hour", "source")
NEEDED = ("pool", "usd_per_hour")
MAX_ROWS = 100_000


class GpuRateError(Exception):
    """What is wrong with the file, one line per row. For people."""


class Imported(NamedTuple):
    added: int
    changed: int
    unchanged: int


@transaction.atomic
def import_gpu_rates(project: Project, text: str) -> Imported:
    """All rows or none. A row for a rate that is known replaces its figures; others are never removed."""
    rows = list(_rows(text))
    pools = {pool.name: pool for pool in GpuPool.objects.filter(project=project)}
    known = {(rate.pool_id, rate.kind, rate.valid_from): rate for rate in GpuRate.objects.filter(pool__project=project)}
    counts = {"added": 0, "changed": 0, "unchanged": 0}
    problems = []
    for number, row in rows:
        try:
            counts[_take(row, pools, known)] += 1
        except (ValueError, InvalidOperation) as error:
            problems.append(f"Line {number}: {error if isinstance(error, ValueError) else 'a figure is not a number'}.")
        except ValidationError as error:
            problems.append(f"Line {number}: {' '.join(error.messages)}")
    if problems:
        raise GpuRateError("\n".join(problems[:20]))
    return Imported(**counts)


def _rows(text: str) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text))
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    missing = [name for name in NEEDED if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if missing or unknown:
        wrong = f"missing: {', '.join(missing)}" if missing else f"not known: {', '.join(unknown)}"
        raise GpuRateError(f"The first line names the columns ({', '.join(COLUMNS)}); {wrong}.")
    rows = [
        (number, {key: (value or "").strip() for key, value in row.items() if key})
        for number, row in enumerate(reader, 2)
    ]
    if len(rows) > MAX_ROWS:
        raise GpuRateError(f"More than {MAX_ROWS:,} rows.")
    return rows


def _take(
    row: dict[str, str], pools: dict[str, GpuPool], known: dict[tuple[int, str, datetime | None], GpuRate]
) -> str:
    """Add or change one rate; says which."""
    pool = pools.get(row["pool"])
    if pool is None:
        raise ValueError(f"there is no pool {row['pool']!r}")
    kind, start = row.get("kind") or GpuRate.Kind.ON_DEMAND.value, _moment(row.get("valid_from", ""))
    key = (pool.pk, kind, start)
    rate = known.get(key)
    is_new = rate is None
    rate = rate or GpuRate(pool=pool, kind=kind, valid_from=start)
    wanted = {
        "valid_to": _moment(row.get("valid_to", "")),
        "gpus": int(row.get("gpus") or 1),
        "usd_per_hour": Decimal(row["usd_per_hour"]),
        "source": row.get("source", ""),
    }
    if not is_new and all(getattr(rate, name) == value for name, value in wanted.items()):
        return "unchanged"
    for name, value in wanted.items():
        setattr(rate, name, value)
    rate.full_clean()
    rate.save()
    known[key] = rate
    return "added" if is_new else "changed"


def _moment(text: str) -> datetime | None:
    """An ISO date or time; without a zone it is UTC."""
    if not text:
        return None
    found = parse_datetime(text if "T" in text or " " in text else f"{text}T00:00")
    if found is None:
        raise ValueError(f"{text!r} is not a time such as 2026-05-29T12:00Z")
    return found if found.tzinfo else found.replace(tzinfo=UTC)
