"""Who changed what, when and from where. Rows are added and, when too old, dropped by retention; never edited."""

from typing import Any, NoReturn

from django.conf import settings
from django.db import models

from costapp.models.project import Project


class AppendOnly(models.QuerySet["AuditEntry"]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError("Audit entries are never edited.")

    def delete(self) -> NoReturn:
        raise TypeError("Audit entries are never deleted by hand; retention drops those that are too old.")


class AuditEntry(models.Model):
    """One act of one person. Written by ``costapp.services.audit``, in the transaction of what it tells about."""

    class Action(models.TextChoices):
        """The usual ones; a producer may state another verb in the past tense."""

        CREATED = "created"
        CHANGED = "changed"
        DELETED = "deleted"
        IMPORTED = "imported"
        REVOKED = "revoked"
        SUPERSEDED = "superseded"
        SIGNED_IN = "signed in"
        SIGNED_OUT = "signed out"
        SIGN_IN_FAILED = "failed to sign in"

    at = models.DateTimeField("when (UTC)", auto_now_add=True, db_index=True)
    project = models.ForeignKey(
        Project, null=True, on_delete=models.SET_NULL, related_name="audit_entries",
        help_text="Empty: about the whole installation, or about a project that is gone.",
    )  # fmt: skip
    project_name = models.CharField("project (name at the time)", max_length=100, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField("who", max_length=254, help_text="The account's name at the time, or the command.")
    action = models.CharField(max_length=40)
    object_type = models.CharField("kind of object", max_length=100, blank=True)
    object_id = models.CharField(max_length=64, blank=True)
    object_name = models.CharField("object", max_length=300, blank=True)
    changes = models.JSONField(default=dict, help_text="Per field: value before, value after. Secrets are masked.")
    address = models.CharField("from address", max_length=64, blank=True)

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "audit log"
        indexes = [
            models.Index(fields=["project", "-at"], name="audit_of_project"),
            models.Index(fields=["project", "object_type", "object_id"], name="audit_of_object"),
        ]

    def __str__(self) -> str:
        return " ".join(filter(None, [self.actor, self.action, self.object_type, self.object_name]))

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("Audit entries are never edited.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("Audit entries are never deleted by hand; retention drops those that are too old.")
