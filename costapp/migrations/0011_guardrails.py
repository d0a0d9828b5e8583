"""Guardrails as people set them, and the tables of storage/schema_guardrails.sql."""

from pathlib import Path

import costapp.core.alerts
import costapp.models.channel
import django.core.validators
import django.db.models.deletion
from decimal import Decimal
from django.db import migrations, models

SCHEMA = Path(__file__).resolve().parent.parent / "storage" / "schema_guardrails.sql"


class Migration(migrations.Migration):

    dependencies = [
        ('costapp', '0010_rules'),
    ]

    operations = [
        migrations.AddField(
            model_name='project',
            name='guard_fails_closed',
            field=models.BooleanField(default=False, help_text='What apps that ask the guard are told while it cannot look anything up. Off (recommended): go on. On: stop, so that no call is made unwatched.'),
        ),
        migrations.CreateModel(
            name='Guardrail',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='What messages call it, for example Runaway session.', max_length=100)),
                ('enabled', models.BooleanField(default=True, help_text='Off: nothing is judged, and blocks end within two seconds.')),
                ('per', models.CharField(choices=[('session', 'Session'), ('trace', 'Trace'), ('user', 'User')], default='session', max_length=10, verbose_name='of each')),
                ('metric', models.CharField(choices=[('calls', 'Calls'), ('tokens', 'Tokens'), ('cost', 'Cost (US dollars)')], default='calls', max_length=10, verbose_name='add up')),
                ('limit_value', models.DecimalField(decimal_places=9, help_text='Calls, tokens or US dollars, as chosen above. Reaching it is crossing it.', max_digits=19, validators=[django.core.validators.MaxValueValidator(Decimal('1000000000'), 'The limit can be at most one thousand million.')], verbose_name='limit')),
                ('minutes', models.PositiveSmallIntegerField(default=5, help_text='Calls whose start times lie within so many minutes of each other are added up.', validators=[django.core.validators.MinValueValidator(1, 'At least one minute.'), django.core.validators.MaxValueValidator(120, "At most 120 minutes. Longer is a budget's work.")], verbose_name='within minutes')),
                ('feature', models.CharField(blank=True, help_text='Empty: calls of any feature.', max_length=256, verbose_name='only feature')),
                ('environment', models.CharField(blank=True, help_text='For example production. Empty: any.', max_length=256, verbose_name='only environment')),
                ('action', models.CharField(choices=[('warn', 'Warn'), ('block', 'Block: apps that ask the guard are told to stop')], default='warn', help_text='What apps that ask the guard are told. Nothing stands between an app and its provider: an app that does not ask is not stopped.', max_length=10, verbose_name='answer')),
                ('hold_minutes', models.PositiveSmallIntegerField(blank=True, help_text='How long the answer holds after the last call that was too many. Empty: as long as the window.', null=True, validators=[django.core.validators.MinValueValidator(1, 'At least one minute.'), django.core.validators.MaxValueValidator(1440, 'At most a day (1440 minutes).')], verbose_name='for minutes')),
                ('level', models.CharField(choices=costapp.models.channel.levels, default=costapp.core.alerts.Level['WARNING'], max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('channels', models.ManyToManyField(blank=True, help_text='Who is told, at once and once per incident. None: it only shows on the page Alerts.', related_name='guardrails', to='costapp.channel')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='guardrails', to='costapp.project')),
            ],
            options={
                'ordering': ['name'],
                'indexes': [models.Index(fields=['project', 'enabled'], name='guardrail_watched')],
                'constraints': [models.UniqueConstraint(fields=('project', 'name'), name='one_guardrail_per_name', violation_error_message='This project has a guardrail of that name already.'), models.CheckConstraint(condition=models.Q(('limit_value__gt', 0)), name='guardrail_has_a_limit', violation_error_message='The limit must be above 0.')],
            },
        ),
        migrations.RunSQL(SCHEMA.read_text(), migrations.RunSQL.noop),
    ]
