"""Creates the data plane from storage/schema.sql."""

from pathlib import Path

from django.db import migrations

SCHEMA = Path(__file__).resolve().parent.parent / "storage" / "schema.sql"


class Migration(migrations.Migration):
    dependencies = [("costapp", "0001_initial")]
    operations = [migrations.RunSQL(SCHEMA.read_text(), migrations.RunSQL.noop)]
