"""Alert rules: which metric of which subjects is watched, and when somebody is told."""

import json
from datetime import timedelta
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from costapp.core.alert_metrics import METRICS, WINDOWS, Metric, Window, parse_amount
from costapp.core.alert_rules import Condition, NoData, Rule, of_threshold, threshold_unit, usual_clear
from costapp.core.alert_sentences import Wording
from costapp.models.channel import Channel
from costapp.models.project import Project

CONDITIONS = {
    Condition.ABOVE: "is above",
    Condition.BELOW: "is below",
    Condition.RISES: "has risen, in %, by more than",
    Condition.FALLS: "has fallen, in %, by more than",
    Condition.OVER_BAND: "is above the usual band, in usual spreads, by more than",
    Condition.OUTSIDE: "is outside the usual band, in usual spreads, by more than",
}
NO_DATA = {
    NoData.OK: "Nothing is wrong",
    NoData.ALERT: "That is an alert",
    NoData.KEEP: "Keep the state as it was",
}
MOST_FILTER_VALUES = 20


def metrics() -> list[tuple[str, str]]:
    return [(metric.key, metric.label[:1].upper() + metric.label[1:]) for metric in METRICS.values()]


def windows() -> list[tuple[str, str]]:
    return [(window.key, window.words) for window in WINDOWS.values()]


def conditions() -> list[tuple[str, str]]:
    return [(condition.value, words) for condition, words in CONDITIONS.items()]


def no_data_modes() -> list[tuple[str, str]]:
    return [(mode.value, words) for mode, words in NO_DATA.items()]


def validate_filters(filters: object) -> None:
    if not isinstance(filters, dict) or not all(
        isinstance(values, list) and 0 < len(values) <= MOST_FILTER_VALUES and all(isinstance(v, str) for v in values)
        for values in filters.values()
    ):
        raise ValidationError('Enter an object of lists of values, such as {"environment": ["production"]}.')


def _threshold(help_text: str) -> "models.DecimalField[Decimal | None, Decimal | None]":
    return models.DecimalField(max_digits=20, decimal_places=9, null=True, blank=True, help_text=help_text)


class AlertRule(models.Model):
    """One rule: one state per subject. Thresholds are in what people type: $, %, seconds, minutes, tokens."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="alert_rules")
    name = models.CharField(max_length=100, help_text="What you will call it, for example Expensive answers.")
    metric = models.CharField(max_length=30, choices=metrics, default="cost")
    by = models.CharField(
        "for each", max_length=20, blank=True, help_text="One state for each value. Empty: one for the whole project."
    )
    filters = models.JSONField(
        default=dict, blank=True, validators=[validate_filters],
        help_text='Only calls like these, for example {"environment": ["production"]}. {}: all calls.',
    )  # fmt: skip
    window = models.CharField("over", max_length=5, choices=windows, default="1h")
    condition = models.CharField(max_length=12, choices=conditions, default=Condition.ABOVE.value)
    warning = _threshold("Beyond this it is a warning. Empty: no warning.")
    critical = _threshold("Beyond this it is critical. Empty: never critical.")
    clear = _threshold("The alert is over only here. Empty: a tenth short of the lowest threshold.")
    minimum_requests = models.PositiveIntegerField(
        default=0, help_text="With fewer requests in the window nothing is concluded."
    )
    lasting_minutes = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(43200)], help_text="Only when it lasts this many minutes. 0: at once."
    )
    calm_readings = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="So many calm windows in a row end the alert.",
    )  # fmt: skip
    no_data = models.CharField("when nothing arrives", max_length=5, choices=no_data_modes, default=NoData.OK.value)
    remind_minutes = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(15), MaxValueValidator(43200)],
        help_text="Tell again after so many minutes while it lasts and nobody acknowledged it. Empty: never.",
    )  # fmt: skip
    channels = models.ManyToManyField(
        Channel, blank=True, related_name="alert_rules", help_text="Who is told. None: it shows on the page only."
    )
    note = models.CharField(max_length=300, blank=True, help_text="What to do about it; part of every message.")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"], name="one_rule_per_name",
                violation_error_message="This project has a rule of that name already.",
            ),
            models.CheckConstraint(
                condition=models.Q(warning__isnull=False) | models.Q(critical__isnull=False),
                name="a_rule_has_a_threshold",
                violation_error_message="Enter a warning or a critical threshold, or both.",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.name

    @property
    def the_metric(self) -> Metric:
        return METRICS[self.metric]

    @property
    def the_window(self) -> Window:
        return WINDOWS[self.window]

    @property
    def the_condition(self) -> Condition:
        return Condition(self.condition)

    @property
    def remind_every(self) -> timedelta | None:
        return timedelta(minutes=self.remind_minutes) if self.remind_minutes else None

    @property
    def filter_pairs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((key, tuple(sorted(values))) for key, values in sorted(self.filters.items()))

    @property
    def fingerprint(self) -> str:
        """What is watched. With another one, what was remembered no longer applies."""
        return json.dumps([self.metric, self.by, self.filter_pairs, self.window, self.condition])

    def to_rule(self) -> Rule:
        """What the state machine needs."""
        warning, critical = self._badness(self.warning), self._badness(self.critical)
        lowest = min(limit for limit in (warning, critical) if limit is not None)
        clear = self._badness(self.clear)
        return Rule(
            metric=self.metric,
            condition=self.the_condition,
            warning=warning,
            critical=critical,
            clear=usual_clear(lowest) if clear is None else min(clear, lowest),
            minimum_requests=self.minimum_requests,
            no_data=NoData(self.no_data),
            lasting=timedelta(minutes=self.lasting_minutes),
            calm_readings=self.calm_readings,
            remind_every=self.remind_every,
        )

    def wording(self, labels: dict[str, str]) -> Wording:
        """The rule for sentences; ``labels``: dimension -> its name."""
        rule = self.to_rule()
        return Wording(
            metric=self.the_metric,
            condition=self.the_condition,
            window=self.the_window,
            by=labels[self.by] if self.by else "",
            filters={labels[key]: values for key, values in self.filter_pairs},
            warning=self._base(self.warning),
            critical=self._base(self.critical),
            clear=of_threshold(rule.clear, self.the_condition),
            minimum_requests=self.minimum_requests,
            no_data=NoData(self.no_data),
            lasting=rule.lasting,
            calm_readings=self.calm_readings,
            remind_every=self.remind_every,
        )

    def _base(self, typed: Decimal | None) -> int | None:
        if typed is None:
            return None
        return parse_amount(typed, threshold_unit(self.the_metric, self.the_condition))

    def _badness(self, typed: Decimal | None) -> int | None:
        base = self._base(typed)
        return None if base is None else of_threshold(base, self.the_condition)
