"""What the ledger's self-check found: one row per invariant and run. Written by services.verify_ledger."""

from django.db import models


class LedgerCheck(models.Model):
    """One invariant, checked once."""

    run_at = models.DateTimeField(db_index=True)
    name = models.CharField(max_length=50)
    invariant = models.CharField(max_length=200)
    differences = models.PositiveBigIntegerField()
    shown = models.JSONField(default=list, help_text="The first differences: project, where, expected, actual.")
    took_ms = models.PositiveIntegerField()

    class Meta:
        ordering = ["-run_at", "id"]

    def __str__(self) -> str:
        return f"{self.name} at {self.run_at:%Y-%m-%d %H:%M}: {self.differences or 'no'} differences"

    @property
    def holds(self) -> bool:
        return self.differences == 0
