from pathlib import Path

from django.db import migrations

SCHEMA = Path(__file__).resolve().parent.parent / "storage" / "schema_anomalies.sql"


class Migration(migrations.Migration):

    dependencies = [
        ('costapp', '0018_channel_words'),
    ]

    operations = [
        migrations.RunSQL(SCHEMA.read_text(), migrations.RunSQL.noop),
    ]
