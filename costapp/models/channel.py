"""Where alerts go, and when they keep quiet. Secrets of a channel are kept sealed (``services.sealed``)."""

import uuid

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models

from costapp.core.alerts import Level, Source
from costapp.models.project import Project


def levels() -> list[tuple[str, str]]:
    return [(level.value, level.value.capitalize()) for level in Level]


def sources() -> list[tuple[str, str]]:
    return [(source.value, source.value.capitalize()) for source in Source]


def validate_subject(subject: object) -> None:
    if not isinstance(subject, dict) or not all(isinstance(value, str) for value in subject.values()):
        raise ValidationError('Enter an object such as {"feature": "support-bot"}; {} matches everything.')


class Channel(models.Model):
    """One place that messages go to."""

    class Kind(models.TextChoices):
        SLACK_WEBHOOK = "slack_webhook", "Slack (incoming webhook)"
        SLACK_BOT = "slack_bot", "Slack (bot token)"
        EMAIL = "email", "E-mail"
        WEBHOOK = "webhook", "Webhook (signed JSON)"
        APPRISE = "apprise", "Another service (Teams, Discord, PagerDuty, Opsgenie, Telegram ...)"

    class Digest(models.TextChoices):
        NONE = "none", "No report"
        DAILY = "daily", "Every day"
        WEEKLY = "weekly", "Every Monday"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="channels")
    name = models.CharField(max_length=100, help_text="As people know it, for example #finops or On-call.")
    kind = models.CharField(max_length=20, choices=Kind)
    config = models.JSONField(default=dict, blank=True, help_text="What is no secret: recipients, Slack channel.")
    seal_id = models.UUIDField(default=uuid.uuid4, editable=False, help_text="What the sealed secret is bound to.")
    key_id = models.CharField(max_length=16, blank=True, editable=False, help_text="Which field key sealed it.")
    secret = models.BinaryField(default=bytes, editable=True)  # masked in the audit log
    enabled = models.BooleanField(default=True, help_text="Off: messages wait, for a day at most.")
    least_level = models.CharField(
        max_length=10, choices=levels, default=Level.INFO.value, help_text="Alerts below this level are not sent here."
    )
    digest = models.CharField(
        "report",
        max_length=10, choices=Digest, default=Digest.NONE,
        help_text="Report of spend, change, top movers, budgets and open alerts.",
    )  # fmt: skip
    digest_hour = models.PositiveSmallIntegerField(
        "report at",
        default=8,
        validators=[MaxValueValidator(23)],
        help_text="Hour of the day (0 to 23) in the project's time zone at which the report is sent.",
    )
    disabled_reason = models.CharField(max_length=300, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"], name="one_channel_per_name",
                violation_error_message="This project has a channel of that name already.",
            ),
            models.CheckConstraint(condition=models.Q(digest_hour__lte=23), name="digest_hour_is_an_hour"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.name


class Silence(models.Model):
    """A time in which matching alerts are recorded but not sent: a silence, or a planned maintenance window."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="silences")
    starts_at = models.DateTimeField(help_text="In UTC.")
    ends_at = models.DateTimeField(help_text="In UTC. What is still open then is sent then.")
    reason = models.CharField(max_length=200, help_text="Shown with every message that is held back.")
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    source = models.CharField(max_length=20, choices=sources, blank=True, help_text="Empty: of any source.")
    source_id = models.BigIntegerField(
        null=True, blank=True, help_text="Number of one budget or rule. Empty: all of the source."
    )
    level = models.CharField(
        max_length=10, choices=levels, blank=True, help_text="Only up to this level. Empty: whatever the level."
    )
    subject = models.JSONField(
        default=dict, blank=True, validators=[validate_subject],
        help_text='Only about this, for example {"feature": "support-bot"}. {}: whatever it is about.',
    )  # fmt: skip
    group_key = models.CharField(max_length=300, blank=True, help_text="Only alerts of this group. Empty: any.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-starts_at"]
        indexes = [models.Index(fields=["project", "ends_at"], name="silence_until")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(ends_at__gt=models.F("starts_at")), name="a_silence_ends_after_it_starts",
                violation_error_message="A silence must end after it starts.",
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.reason} ({self.starts_at:%Y-%m-%d %H:%M} to {self.ends_at:%Y-%m-%d %H:%M} UTC)"


class Notification(models.Model):
    """A row of the outbox, as the admin shows it. The table belongs to ``storage/schema_alerts.sql``."""

    project = models.ForeignKey(Project, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    channel = models.ForeignKey(
        Channel, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+",
        help_text="Where it goes. Empty: the channel was deleted.",
    )  # fmt: skip
    dedupe_key = models.TextField("event", help_text="Key of the alert, and what happened to it.")
    state = models.TextField(
        choices=[(name, name.capitalize()) for name in ("pending", "sent", "failed", "suppressed")]
    )
    reason = models.TextField(help_text="Why it was held back, or given up.")
    attempts = models.IntegerField()
    created_at = models.DateTimeField("queued at")
    next_at = models.DateTimeField("not before", null=True)
    sent_at = models.DateTimeField(null=True)
    last_error = models.TextField()
    answer = models.TextField(help_text="What the receiver answered.")
    message_id = models.BigIntegerField("message", null=True, help_text="Rows with one number were one message.")

    class Meta:
        managed = False
        db_table = "notification"
        verbose_name, verbose_name_plural = "message", "delivery log"
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.dedupe_key
