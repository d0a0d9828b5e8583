"""Price lists and their dated rates. Rates are never edited: they end, or a correction supersedes them."""

from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from costapp.core.rates import MAX_RATE_NANO, RATE_METERS
from costapp.models.project import Project

CATALOGUE_PRIORITY = 0
PROJECT_PRIORITY = 100


def validate_rates(rates: Any) -> None:
    """``{"input": {"nano": 2500000000, "tiers": [[200000, 5000000000]]}}``: known meters, integers only."""
    if not isinstance(rates, dict):
        raise ValidationError('Rates are a JSON object such as {"input": {"nano": 2500000000}}.')
    for meter, rate in rates.items():
        if meter not in RATE_METERS:
            raise ValidationError(f"{meter!r} is not a meter. Meters: {', '.join(sorted(RATE_METERS))}.")
        tiers = rate.get("tiers", []) if isinstance(rate, dict) else None
        prices = [rate.get("nano"), *(tier[-1] for tier in tiers)] if tiers is not None else [None]
        if not all(type(price) is int and 0 <= price <= MAX_RATE_NANO for price in prices):
            raise ValidationError(f"The rate of {meter} must be whole nano-dollars per million units, 0 to 10^14.")


class PriceList(models.Model):
    """A set of rates from one source: the shared catalogue, or a project's own agreement."""

    class Kind(models.TextChoices):
        CATALOGUE = "catalogue", "Catalogue (public list prices)"
        CUSTOM = "custom", "Own prices"

    project = models.ForeignKey(
        Project, null=True, blank=True, on_delete=models.CASCADE, related_name="price_lists",
        help_text="Empty: shared by all projects.",
    )  # fmt: skip
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.CUSTOM)
    priority = models.IntegerField(
        default=PROJECT_PRIORITY, help_text="Where two lists price the same call, the higher number counts."
    )
    source = models.CharField(max_length=200, blank=True, help_text="Where the prices come from.")
    version = models.CharField(max_length=50, blank=True)
    imported_at = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField(auto_now=True)
    names = models.JSONField(
        null=True, blank=True, editable=False, help_text="How an imported catalogue recognises providers and models."
    )

    class Meta:
        ordering = ["-priority", "name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="one_price_list_per_name", nulls_distinct=False)
        ]

    def __str__(self) -> str:
        return self.name


class RateSet(models.Model):
    """The prices of one SKU from - to. `charge.rate_id` points here."""

    id = models.AutoField(primary_key=True)
    price_list = models.ForeignKey(PriceList, on_delete=models.CASCADE, related_name="rate_sets")
    provider = models.CharField(max_length=100, blank=True, help_text="For example openai. Empty: any provider.")
    model = models.CharField(max_length=200, help_text="For example gpt-4o, or acme-* for all that begin with acme-.")
    region = models.CharField(max_length=50, blank=True, help_text="Empty: any region.")
    service_tier = models.CharField(max_length=50, blank=True, help_text="flex, priority ... Empty: standard.")
    batch = models.BooleanField(default=False)
    window_start = models.TimeField(null=True, blank=True, help_text="Time of day (UTC) from which these prices hold.")
    window_end = models.TimeField(null=True, blank=True, help_text="Exclusive. May be earlier than the start.")
    valid_from = models.DateTimeField(null=True, blank=True, help_text="Empty: always has been.")
    valid_to = models.DateTimeField(null=True, blank=True, help_text="Exclusive. Empty: until further notice.")
    rates = models.JSONField(
        default=dict, blank=True, validators=[validate_rates],
        help_text='Nano-dollars per million units by meter: {"input": {"nano": 2500000000}} is $2.50 per million.',
    )  # fmt: skip
    discount_percent = models.DecimalField(
        max_digits=7, decimal_places=4, null=True, blank=True,
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(100))],
        help_text="Instead of own rates: this share off the catalogue's.",
    )  # fmt: skip
    priced_as = models.CharField(
        max_length=300, blank=True,
        help_text="With a discount (0 is fine): the provider/model of the catalogue that this name stands for.",
    )  # fmt: skip
    currency = models.CharField(max_length=3, default="USD")
    usd_per_unit = models.DecimalField(
        max_digits=20, decimal_places=10, null=True, blank=True,
        help_text="Exchange rate the prices were converted at.",
    )  # fmt: skip
    stated = models.JSONField(null=True, blank=True, help_text="The prices as the source wrote them.")
    source = models.CharField(max_length=300, blank=True)
    imported_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True, db_index=True)
    superseded_at = models.DateTimeField(null=True, blank=True, help_text="Set: a correction; no longer used.")
    superseded_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["provider", "model", "service_tier", "batch", "valid_from"]
        indexes = [models.Index(fields=["price_list", "provider", "model"], name="rateset_sku")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(valid_to__gt=models.F("valid_from")) | models.Q(valid_to=None)
                | models.Q(valid_from=None),
                name="rates_end_after_they_start",
            ),
            models.CheckConstraint(
                condition=models.Q(window_start=None, window_end=None)
                | models.Q(window_start__isnull=False, window_end__isnull=False),
                name="a_window_has_two_ends",
            ),
            models.CheckConstraint(
                condition=models.Q(priced_as="") | models.Q(discount_percent__isnull=False),
                name="priced_as_is_a_discount",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        since = f" from {self.valid_from:%Y-%m-%d}" if self.valid_from else ""
        return f"{self.provider or 'any'}/{self.model}{since}"

    def clean(self) -> None:
        if not self.rates and self.discount_percent is None:
            raise ValidationError("State rates, or a discount on the catalogue's rates.")


class RepriceRun(models.Model):
    """One re-pricing of a project's charges: how far it came, so that an interrupted one goes on from there."""

    class State(models.TextChoices):
        REQUESTED = "requested", "waits for a worker"
        RUNNING = "running", "running"
        DONE = "done", "done"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="reprice_runs")
    first_day = models.DateField(help_text="UTC.")
    last_day = models.DateField(help_text="UTC, included.")
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    requested_by = models.CharField(
        max_length=254, blank=True, help_text="Whose run the worker carries out. Empty: the command's own."
    )
    next_day = models.DateField(help_text="Days before this one are done.")
    next_shard = models.PositiveSmallIntegerField(default=0, help_text="Parts of that day before this one are done.")
    rates_version = models.BigIntegerField(help_text="Prices at the start: with other prices it is another run.")
    prices_moved = models.BooleanField(
        "prices changed meanwhile", default=False, help_text="Some charges may have the earlier ones: run it again."
    )
    requests = models.BigIntegerField("requests looked at", default=0)
    changed = models.BigIntegerField("requests changed", default=0)
    old_nano = models.BigIntegerField("cost before", default=0)
    new_nano = models.BigIntegerField("cost after", default=0)
    newly_priced = models.BigIntegerField("priced for the first time", default=0)
    newly_unpriced = models.BigIntegerField("without a price now", default=0)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.project}, {self.first_day} to {self.last_day}"
