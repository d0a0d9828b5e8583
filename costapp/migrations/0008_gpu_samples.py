"""Creates the tables of GPU and engine samples from storage/schema_gpu_samples.sql."""

from pathlib import Path

from django.db import migrations

SCHEMA = Path(__file__).resolve().parent.parent / "storage" / "schema_gpu_samples.sql"


class Migration(migrations.Migration):
    dependencies = [("costapp", "0007_audit_log")]
    operations = [migrations.RunSQL(SCHEMA.read_text(), migrations.RunSQL.noop)]
