"""Budgets: how much may be spent on what, in which period, and who is told when."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from costapp.core.budgets import (
    BUDGET_DIMENSIONS,
    DEFAULT_THRESHOLDS,
    FILTERS_OF_EACH_USER,
    LEAST_PERCENT,
    MOST_PERCENT,
    Basis,
    CarryOver,
)
from costapp.core.periods import MAX_ROLLING_DAYS, PeriodKind
from costapp.models.channel import Channel
from costapp.models.project import Project

MAX_VALUES = 20  # as many as a page's address can filter by
MAX_VALUE_LENGTH = 512
MAX_THRESHOLDS = 12
#: A hundred million dollars: a hundred periods of it still fit into a bigint of nano-dollars.
MAX_AMOUNT_NANO = 10**17


#: A change of these makes another revision.
_REVISED = ("amount_nano", "dimension", "values", "filters", "period", "rolling_days", "starts_on")


def default_thresholds() -> list[list[Any]]:
    return [[threshold.basis.value, threshold.percent] for threshold in DEFAULT_THRESHOLDS]


def validate_thresholds(value: object) -> None:
    if not isinstance(value, list) or len(value) > MAX_THRESHOLDS:
        raise ValidationError(f"A budget has at most {MAX_THRESHOLDS} thresholds.")
    seen = set()
    for item in value:
        if not (isinstance(item, list) and len(item) == 2 and item[0] in set(Basis) and type(item[1]) is int):
            raise ValidationError('A threshold is a basis and a whole percentage, such as ["actual", 80].')
        if not LEAST_PERCENT <= item[1] <= MOST_PERCENT:
            raise ValidationError(f"A threshold lies between {LEAST_PERCENT} % and {MOST_PERCENT} %, not {item[1]} %.")
        if tuple(item) in seen:
            raise ValidationError(f"The threshold of {item[1]} % is there twice.")
        seen.add(tuple(item))


def validate_values(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValidationError("Names are a list of texts.")
    if len(value) > MAX_VALUES:
        raise ValidationError(f"A budget names at most {MAX_VALUES} values. Leave the names empty to cover each one.")
    if any(len(each) > MAX_VALUE_LENGTH or "\x00" in each for each in value):
        raise ValidationError(f"A name has at most {MAX_VALUE_LENGTH} characters.")


def validate_filters(value: object) -> None:
    if not isinstance(value, dict):
        raise ValidationError('Filters are an object of lists, such as {"environment": ["production"]}.')
    for key, values in value.items():
        if key not in BUDGET_DIMENSIONS:
            raise ValidationError(f"{key!r} cannot be filtered by. Use one of: {', '.join(BUDGET_DIMENSIONS)}.")
        validate_values(values)
        if not values:
            raise ValidationError(f"Say which {BUDGET_DIMENSIONS[key]}, or remove the filter.")


class Budget(models.Model):
    """An amount per period for a project, a part of it, or each feature, team, user ... of it (a template)."""

    class Period(models.TextChoices):
        DAY = PeriodKind.DAY.value, "Day"
        WEEK = PeriodKind.WEEK.value, "ISO week (Monday to Sunday)"
        MONTH = PeriodKind.MONTH.value, "Calendar month"
        QUARTER = PeriodKind.QUARTER.value, "Quarter"
        ROLLING = PeriodKind.ROLLING.value, "Rolling: the last N days"

    class Carry(models.TextChoices):
        NONE = CarryOver.NONE.value, "No: each period begins with the amount"
        UNSPENT = CarryOver.UNSPENT.value, "Unspent money is added to the next period"
        BOTH = CarryOver.BOTH.value, "Unspent money is added, overspent money is taken away"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="budgets")
    name = models.CharField(max_length=100, help_text="As it is called in messages, for example Support bot.")
    dimension = models.CharField(
        "for", max_length=20, blank=True,
        choices=[(key, label.capitalize()) for key, label in BUDGET_DIMENSIONS.items()],
        help_text="Empty: the whole project, or what the filters below leave of it.",
    )  # fmt: skip
    values = models.JSONField(
        "which ones", default=list, blank=True, validators=[validate_values],
        help_text="Named: together they have the amount. None named: each one has the amount, unless it has a budget "
        "of its own for the same period.",
    )  # fmt: skip
    filters = models.JSONField(
        "only where", default=dict, blank=True, validators=[validate_filters],
        help_text="Further dimensions that the calls must have.",
    )  # fmt: skip
    amount_nano = models.BigIntegerField(
        "amount", validators=[MinValueValidator(1), MaxValueValidator(MAX_AMOUNT_NANO)],
        help_text="Per period. A change counts from now on, within the current period too.",
    )  # fmt: skip
    period = models.CharField(max_length=10, choices=Period, default=Period.MONTH)
    rolling_days = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(MAX_ROLLING_DAYS)],
        help_text="Only of a rolling period: how many days, today included.",
    )  # fmt: skip
    starts_on = models.DateField(null=True, blank=True, help_text="Spend before this day does not count. Empty: all.")
    ends_on = models.DateField(null=True, blank=True, help_text="The last day. Empty: until further notice.")
    carry_over = models.CharField(
        max_length=10, choices=Carry, default=Carry.NONE, help_text="At most one more amount is carried over."
    )
    thresholds = models.JSONField(
        "tell at", default=default_thresholds, blank=True, validators=[validate_thresholds],
        help_text="Shares of the limit, reached by spend or by the forecast of the period.",
    )  # fmt: skip
    blocks = models.BooleanField(
        "block when spent", default=False,
        help_text="Apps that ask the guard are told to stop once all of it is spent, until the period ends.",
    )  # fmt: skip
    channels = models.ManyToManyField(
        Channel, blank=True, related_name="budgets", help_text="Who is told. None: only the pages say it."
    )
    owner = models.CharField(max_length=100, blank=True, help_text="Who answers for it; named in messages.")
    note = models.TextField(max_length=2000, blank=True, help_text="For those who read the message.")
    enabled = models.BooleanField(default=True)
    revision = models.PositiveIntegerField(default=1, editable=False, help_text="Counts changes of what it covers.")
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"], name="one_budget_per_name",
                violation_error_message="This project has a budget of that name already.",
            ),
            models.CheckConstraint(condition=models.Q(amount_nano__gt=0), name="budget_amount_is_positive"),
            models.CheckConstraint(
                condition=models.Q(period="rolling", rolling_days__isnull=False)
                | (~models.Q(period="rolling") & models.Q(rolling_days=None)),
                name="only_rolling_periods_have_days",
                violation_error_message="Say over how many days, for a rolling period and only for one.",
            ),
            models.CheckConstraint(
                condition=models.Q(ends_on__gte=models.F("starts_on")) | models.Q(starts_on=None)
                | models.Q(ends_on=None),
                name="budget_ends_after_it_starts",
                violation_error_message="The budget ends before it starts. Swap the two days.",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.name

    @property
    def is_template(self) -> bool:
        return bool(self.dimension) and not self.values

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Another amount, part or period is another revision: what fired for the old one may fire for the new one."""
        known = Budget.objects.filter(pk=self.pk).first() if self.pk else None
        if known:
            self.revision = known.revision + any(getattr(known, name) != getattr(self, name) for name in _REVISED)
        super().save(*args, **kwargs)

    def clean(self) -> None:
        problems: dict[str, str] = {}
        if self.values and not self.dimension:
            problems["dimension"] = "Choose what the names are: features, teams, users, models ..."
        if self.dimension and self.dimension in (self.filters or {}):
            problems["filters"] = "The filter names what the budget is for already. Put the names into “which ones”."
        if self.dimension == "user" and self.is_template and set(self.filters or {}) - FILTERS_OF_EACH_USER:
            problems["filters"] = (
                "Users are summed per day and feature: a budget for each user can be narrowed by feature only."
            )
        if self.period == self.Period.ROLLING and self.carry_over != self.Carry.NONE:
            problems["carry_over"] = "A rolling period has no end at which money could be carried over."
        if problems:
            raise ValidationError(problems)
