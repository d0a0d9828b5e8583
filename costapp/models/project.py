"""Projects (tenants), who belongs to them, and the keys their apps send with."""

import hashlib
import secrets
import zoneinfo

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models

from costapp.core.token_rules import parse_rules

KEY_PREFIX = "ca_ing_"


def validate_time_zone(name: str) -> None:
    if name not in zoneinfo.available_timezones():
        raise ValidationError(f"{name!r} is not an IANA time zone. Use a name such as Europe/Berlin.")


def validate_attribute_names(names: object) -> None:
    if not isinstance(names, dict) or not all(
        isinstance(found, list) and all(isinstance(name, str) and name for name in found) for found in names.values()
    ):
        raise ValidationError('Enter an object of lists of names, such as {"feature": ["acme.feature"]}.')


def validate_token_rules(rules: object) -> None:
    try:
        parse_rules(rules)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def new_hash_secret() -> bytes:
    return secrets.token_bytes(32)


def hash_key(plain: str) -> str:
    """SHA-256 hex: keys have 192 random bits, so a slow hash would only cost time per request."""
    return hashlib.sha256(plain.encode()).hexdigest()


class Project(models.Model):
    """A tenant: owns ingest keys, prices and data. First column of every data-plane key."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    time_zone = models.CharField(
        max_length=64,
        default="UTC",
        validators=[validate_time_zone],
        help_text="IANA name. Days and months of this project begin at midnight here.",
    )
    store_content = models.BooleanField(
        default=False,
        help_text="Store prompt and completion text. Off by default: only sizes and a keyed hash are kept.",
    )
    attribute_names = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_attribute_names],
        help_text="Own attribute names per dimension, tried before the built-in ones, for example "
        '{"feature": ["acme.feature"], "user": ["acme.uid"]}.',
    )
    token_rules = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_token_rules],
        help_text="Own rules for what token counts mean, tried before the built-in ones, for example "
        '[{"name": "gateway", "scope": "acme.gateway*", "provider": "anthropic", "shape": "input_excludes_cache"}]. '
        "Calls already charged keep their reading until their trace changes.",
    )
    reported_cost_counts = models.BooleanField(
        default=False,
        help_text="Let the cost that the client reports count instead of ours, where both are known.",
    )
    guard_fails_closed = models.BooleanField(
        default=False,
        help_text="What apps that ask the guard are told while it cannot look anything up. Off (recommended): go on. "
        "On: stop, so that no call is made unwatched.",
    )
    is_demo = models.BooleanField(
        default=False,
        editable=False,
        help_text="Holds made-up data (seed_demo). Pages say so; real data is kept out.",
    )
    hash_secret = models.BinaryField(default=new_hash_secret, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """Who may see (viewer), change (editor) or manage (owner) a project."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        EDITOR = "editor", "Editor"
        VIEWER = "viewer", "Viewer"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.VIEWER)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_role_per_member")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}: {self.role}"


class IngestKey(models.Model):
    """A secret that lets an app send telemetry to one project. Stored hashed, shown once."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="ingest_keys")
    name = models.CharField(max_length=100)
    key_hash = models.CharField(max_length=64, unique=True, editable=False)
    last4 = models.CharField(max_length=4, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({KEY_PREFIX}…{self.last4})"

    @classmethod
    def issue(cls, project: Project, name: str) -> tuple["IngestKey", str]:
        """A new key and its plain text, which exists only in the return value."""
        plain = KEY_PREFIX + secrets.token_urlsafe(24)
        key = cls.objects.create(project=project, name=name, key_hash=hash_key(plain), last4=plain[-4:])
        return key, plain
