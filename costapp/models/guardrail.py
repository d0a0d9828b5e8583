"""Guardrails as people set them: too much by one session, trace or user within minutes."""

from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from costapp.core import guardrails
from costapp.core.alerts import Level
from costapp.core.guardrails import MAX_MINUTES
from costapp.core.money import NANO_PER_USD
from costapp.models.channel import Channel, levels
from costapp.models.project import Project

MAX_HOLD_MINUTES = 24 * 60
MAX_LIMIT = Decimal(10**9)


class Guardrail(models.Model):
    """Stops a runaway loop: judged within seconds of the call that crosses the limit."""

    class Per(models.TextChoices):
        SESSION = "session", "Session"
        TRACE = "trace", "Trace"
        USER = "user", "User"

    class Metric(models.TextChoices):
        CALLS = "calls", "Calls"
        TOKENS = "tokens", "Tokens"
        COST = "cost", "Cost (US dollars)"

    class Action(models.TextChoices):
        WARN = "warn", "Warn"
        BLOCK = "block", "Block: apps that ask the guard are told to stop"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guardrails")
    name = models.CharField(max_length=100, help_text="What messages call it, for example Runaway session.")
    enabled = models.BooleanField(default=True, help_text="Off: nothing is judged, and blocks end within two seconds.")
    per = models.CharField("of each", max_length=10, choices=Per, default=Per.SESSION)
    metric = models.CharField("add up", max_length=10, choices=Metric, default=Metric.CALLS)
    limit_value = models.DecimalField(
        "limit", max_digits=19, decimal_places=9,
        validators=[MaxValueValidator(MAX_LIMIT, "The limit can be at most one thousand million.")],
        help_text="Calls, tokens or US dollars, as chosen above. Reaching it is crossing it.",
    )  # fmt: skip
    minutes = models.PositiveSmallIntegerField(
        "within minutes", default=5,
        validators=[
            MinValueValidator(1, "At least one minute."),
            MaxValueValidator(MAX_MINUTES, f"At most {MAX_MINUTES} minutes. Longer is a budget's work."),
        ],
        help_text="Calls whose start times lie within so many minutes of each other are added up.",
    )  # fmt: skip
    feature = models.CharField("only feature", max_length=256, blank=True, help_text="Empty: calls of any feature.")
    environment = models.CharField(
        "only environment", max_length=256, blank=True, help_text="For example production. Empty: any."
    )
    action = models.CharField(
        "answer", max_length=10, choices=Action, default=Action.WARN,
        help_text="What apps that ask the guard are told. Nothing stands between an app and its provider: "
        "an app that does not ask is not stopped.",
    )  # fmt: skip
    hold_minutes = models.PositiveSmallIntegerField(
        "for minutes", null=True, blank=True,
        validators=[
            MinValueValidator(1, "At least one minute."),
            MaxValueValidator(MAX_HOLD_MINUTES, "At most a day (1440 minutes)."),
        ],
        help_text="How long the answer holds after the last call that was too many. Empty: as long as the window.",
    )  # fmt: skip
    level = models.CharField(max_length=10, choices=levels, default=Level.WARNING)
    channels = models.ManyToManyField(
        Channel, blank=True, related_name="guardrails",
        help_text="Who is told, at once and once per incident. None: it only shows on the page Alerts.",
    )  # fmt: skip
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"], name="one_guardrail_per_name",
                violation_error_message="This project has a guardrail of that name already.",
            ),
            models.CheckConstraint(condition=models.Q(limit_value__gt=0), name="guardrail_has_a_limit",
                                   violation_error_message="The limit must be above 0."),
        ]  # fmt: skip
        indexes = [models.Index(fields=["project", "enabled"], name="guardrail_watched")]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def give_first(cls, project: Project) -> "Guardrail":
        """What a new project begins with: told on the page Alerts, blocks nobody. docs/guardrails.md says why."""
        return cls.objects.create(project=project, name="Runaway session", limit_value=300, minutes=5)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> "Guardrail":
        """Limits without nine zeros behind the point, in forms and in the audit log."""
        guardrail = super().from_db(*args, **kwargs)
        guardrail.limit_value = guardrail.limit_value.normalize() + 0
        return guardrail

    def clean(self) -> None:
        super().clean()
        limit = self.limit_value
        if limit is not None and self.metric != self.Metric.COST and limit != int(limit):
            raise ValidationError({"limit_value": f"A limit of {self.metric} is a whole number."})

    def as_rule(self) -> guardrails.Guardrail:
        """As it is evaluated: the limit in nano-dollars, calls or tokens."""
        unit = NANO_PER_USD if self.metric == self.Metric.COST else 1
        return guardrails.Guardrail(
            self.pk or 0, self.project_id, self.name, guardrails.Per(self.per), guardrails.Metric(self.metric),
            int(self.limit_value * unit), self.minutes, self.hold_minutes or self.minutes,
            guardrails.Action(self.action), self.feature, self.environment,
        )  # fmt: skip

    def sentence(self) -> str:
        return self.as_rule().sentence()
