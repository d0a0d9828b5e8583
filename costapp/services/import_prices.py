"""Brings prices into dated rate tables: the `genai-prices` catalogue, or a project's own list.

Nothing booked is ever edited. A later price closes the earlier one (its end date is set) and opens a
new row; a corrected price supersedes the wrong row, which stays for the charges that point to it;
a correction that is taken back brings the old row back to life, so that its charges are as before.
Importing the same thing twice changes nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from costapp.core.money import format_nano
from costapp.models.pricing import CATALOGUE_PRIORITY, PROJECT_PRIORITY, PriceList, RateSet
from costapp.models.project import Project
from costapp.services.genai_catalogue import PACKAGE, CatalogueData, package_version, read_package
from costapp.services.price_csv import PriceListError, parse_price_csv

MAX_CHANGES = 500
_SKU = ("provider", "model", "region", "service_tier", "batch", "window_start", "window_end", "valid_from")


@dataclass
class ImportResult:
    """What an import did, in rows. Everything 0 but ``unchanged`` means nothing new."""

    name: str
    version: str = ""
    opened: int = 0
    closed: int = 0
    superseded: int = 0
    restored: int = 0
    unchanged: int = 0
    skipped: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)  #: one line per change, at most MAX_CHANGES

    @property
    def changed(self) -> bool:
        return bool(self.opened or self.closed or self.superseded or self.restored)

    def sentence(self) -> str:
        about = f"{self.name} {self.version}".strip()
        if not self.changed:
            return f"{about}: nothing new, {self.unchanged:,} rates are as they were."
        return (
            f"{about}: {self.opened:,} rates opened, {self.closed:,} end dates moved, "
            f"{self.superseded:,} superseded, {self.restored:,} restored, {self.unchanged:,} unchanged."
        )


@transaction.atomic
def import_catalogue(data: CatalogueData | None = None, *, now: datetime | None = None) -> ImportResult:
    """Load the installed package (or given data) into the shared catalogue."""
    now = now or timezone.now()
    data = data or read_package()
    PriceList.objects.get_or_create(
        project=None, name=PACKAGE, defaults={"kind": PriceList.Kind.CATALOGUE, "priority": CATALOGUE_PRIORITY}
    )
    price_list = PriceList.objects.select_for_update().get(project=None, name=PACKAGE)
    listed = {(row.provider, row.model) for row in data.rows}
    rows = [RateSet(price_list=price_list, source=f"{PACKAGE} {data.version}", **row._asdict()) for row in data.rows]
    result = sync_rates(price_list, rows, retire=listed, reason=f"corrected in {PACKAGE} {data.version}", now=now)
    result.version, result.skipped = data.version, data.skipped
    names = _keep_old_names(price_list.names, data.names)
    if result.changed or price_list.version != data.version or price_list.names != names:
        price_list.names, price_list.version, price_list.imported_at = names, data.version, now
        price_list.source = "https://github.com/pydantic/genai-prices"
        price_list.save()
    return result


def catalogue_is_current() -> bool:
    """Whether the installed package's version is the one in the tables."""
    known = PriceList.objects.filter(project=None, name=PACKAGE, version=package_version())
    return known.exists()


@transaction.atomic
def import_csv(
    project: Project, text: str, *, name: str = "own prices", source: str = "", dry_run: bool = False,
    now: datetime | None = None,
) -> ImportResult:  # fmt: skip
    """Make a project's list say what a CSV text says; rows that are gone from it are superseded.

    Raises PriceListError, with every problem in a sentence, before anything is written.
    """
    now = now or timezone.now()
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise PriceListError(["The name of a price list has 1 to 100 characters that can be shown."])
    rows = parse_price_csv(text)
    PriceList.objects.get_or_create(
        project=project, name=name, defaults={"kind": PriceList.Kind.CUSTOM, "priority": PROJECT_PRIORITY}
    )
    price_list = PriceList.objects.select_for_update().get(project=project, name=name)
    for row in rows:
        row.price_list = price_list
        row.source = row.source or source
    result = sync_rates(price_list, rows, retire=None, reason=f"not in {source or 'the new list'} any more", now=now)
    if result.changed:
        price_list.source, price_list.imported_at = source, now
        price_list.save()
    if dry_run:
        transaction.set_rollback(True)
    return result


def sync_rates(
    price_list: PriceList,
    wanted: Iterable[RateSet],
    *,
    retire: set[tuple[str, str]] | None,
    reason: str,
    now: datetime,
) -> ImportResult:
    """Make a list's rates in force equal ``wanted``, keeping the identity of every row that is meant again.

    Rows that are not wanted any more are superseded if their (provider, model) is in ``retire``
    (None = all of the list); others stay, because a source that drops a model does not unsay its price.
    """
    known = {_identity(row): row for row in RateSet.objects.filter(price_list=price_list).order_by("-id")}
    result = ImportResult(price_list.name)
    opened, touched, meant = [], [], set()
    for row in wanted:
        identity = _identity(row)
        meant.add(identity)
        old = known.get(identity)
        if old is None:
            opened.append(row)
            _note(result, f"+ {describe(row)}")
        elif _revive(old, row.valid_to, result):
            touched.append(old)
            _note(result, f"~ {describe(old)}")
        else:
            result.unchanged += 1
    for identity, old in known.items():
        unwanted = identity not in meant and old.superseded_at is None
        if unwanted and (retire is None or (old.provider, old.model) in retire):
            old.superseded_at, old.superseded_reason = now, reason
            result.superseded += 1
            touched.append(old)
            _note(result, f"- {describe(old)} (superseded)")
    _write(opened, touched, now)
    result.opened = len(opened)
    return result


def _revive(old: RateSet, valid_to: datetime | None, result: ImportResult) -> bool:
    """Bring a known row to its wanted state; False when it already is."""
    superseded, moved = old.superseded_at is not None, old.valid_to != valid_to
    result.restored += superseded
    result.closed += moved and not superseded
    old.superseded_at, old.superseded_reason, old.valid_to = None, "", valid_to
    return superseded or moved


def describe(row: RateSet) -> str:
    """``openai/gpt-4o, batch, from 2026-01-01: input $2.50, output $10.00``."""
    about = [f"{row.provider or 'any provider'}/{row.model}"]
    about += [text for text in (row.region, row.service_tier, "batch" if row.batch else "") if text]
    if row.window_start and row.window_end:
        about.append(f"{row.window_start:%H:%M}-{row.window_end:%H:%M} UTC")
    about += [f"from {row.valid_from:%Y-%m-%d}"] if row.valid_from else []
    about += [f"until before {row.valid_to:%Y-%m-%d}"] if row.valid_to else []
    prices = [
        f"{meter} {format_nano(rate['nano'])}{'+' if rate.get('tiers') else ''}" for meter, rate in row.rates.items()
    ]
    if row.discount_percent is not None:
        prices.append(f"{row.discount_percent.normalize():f} % off" + (f" {row.priced_as}" if row.priced_as else ""))
    return f"{', '.join(about)}: {', '.join(prices)}"


def _note(result: ImportResult, change: str) -> None:
    if len(result.changes) < MAX_CHANGES:
        result.changes.append(change)


def _write(opened: Sequence[RateSet], touched: Sequence[RateSet], now: datetime) -> None:
    for row in touched:
        row.changed_at = now
    RateSet.objects.bulk_update(
        touched, ["valid_to", "superseded_at", "superseded_reason", "changed_at"], batch_size=500
    )
    RateSet.objects.bulk_create(opened, batch_size=1000)


def _identity(row: RateSet) -> tuple[Any, ...]:
    """What makes two rows the same price: everything but the end date and the bookkeeping."""
    discount = None if row.discount_percent is None else row.discount_percent.normalize()
    rates = json.dumps(row.rates, sort_keys=True)
    return (*(getattr(row, name) for name in _SKU), rates, discount, row.priced_as)


def _keep_old_names(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """New names, followed by providers and models that only the old catalogue knew: history needs them."""
    if not old:
        return new
    providers = {provider["id"]: dict(provider) for provider in new["providers"]}
    for provider in old["providers"]:
        current = providers.setdefault(provider["id"], provider)
        known = {model for model, _ in current["models"]}
        gone = [[model, clause] for model, clause in provider["models"] if model not in known]
        current["models"] = [*current["models"], *gone]
    return {"providers": list(providers.values())}
