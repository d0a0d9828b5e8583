"""What Costapp scrapes. Only superusers list targets: a request from inside a network is not for everybody to send."""

import uuid

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from costapp.models.project import Project

MAX_TIMEOUT_S = 10


def validate_labels(labels: object) -> None:
    if not isinstance(labels, dict) or not all(isinstance(value, str) and name for name, value in labels.items()):
        raise ValidationError('Enter an object of texts, such as {"node": "rack-4"}; {} adds nothing.')


class ScrapeTarget(models.Model):
    """One exporter or inference server, or the file or name under which many are found."""

    class Discovery(models.TextChoices):
        URL = "url", "One address"
        FILE = "file", "A file of targets (Prometheus file_sd, JSON or YAML)"
        DNS = "dns", "Every address of a name (A, AAAA; SRV of _service._proto.name)"

    class Auth(models.TextChoices):
        NONE = "none", "None"
        BASIC = "basic", "User name and password"
        BEARER = "bearer", "Bearer token"

    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, related_name="scrape_targets", help_text="Whose GPUs these are."
    )
    name = models.CharField(max_length=100)
    discovery = models.CharField(max_length=10, choices=Discovery, default=Discovery.URL)
    address = models.CharField(
        max_length=500,
        help_text="http://gpu-1:9400/metrics, or a name such as http://dcgm.gpu.svc:9400/metrics, or a file in "
        "COSTAPP_SCRAPE_FILES such as gpus.yml.",
    )
    interval_s = models.PositiveSmallIntegerField(
        "every … seconds", default=15, validators=[MinValueValidator(5), MaxValueValidator(3600)],
        help_text="Samples are kept every 15 seconds; scraping more often keeps no more.",
    )  # fmt: skip
    timeout_s = models.PositiveSmallIntegerField(
        "time-out in seconds", default=MAX_TIMEOUT_S,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_TIMEOUT_S)],
    )  # fmt: skip
    auth = models.CharField("authentication", max_length=10, choices=Auth, default=Auth.NONE)
    username = models.CharField("user name", max_length=200, blank=True)
    seal_id = models.UUIDField(default=uuid.uuid4, editable=False, help_text="What the sealed secret is bound to.")
    key_id = models.CharField(max_length=16, blank=True, editable=False, help_text="Which field key sealed it.")
    secret = models.BinaryField(default=bytes, editable=False)
    labels = models.JSONField(
        default=dict, blank=True, validators=[validate_labels],
        help_text='Labels to add; they win over those of the exporter: {"node": "rack-4"}.',
    )  # fmt: skip
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # written by the collector (storage.scrape_targets)
    last_at = models.DateTimeField("last scrape", null=True, editable=False)
    up = models.PositiveIntegerField(default=0, editable=False)
    down = models.PositiveIntegerField(default=0, editable=False)
    samples = models.PositiveIntegerField("series", default=0, editable=False)
    detail = models.CharField("last problem", max_length=300, blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"], name="one_scrape_target_per_name",
                violation_error_message="This project has a scrape target of that name already.",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.timeout_s and self.interval_s and self.timeout_s > self.interval_s:
            raise ValidationError({"timeout_s": "A scrape must end before the next one begins."})
        if self.auth == self.Auth.BASIC and not self.username:
            raise ValidationError({"username": "Enter the user name."})
