from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('costapp', '0012_budgets'),
    ]

    operations = [
        migrations.AddField(
            model_name='budget',
            name='blocks',
            field=models.BooleanField(default=False, help_text='Apps that ask the guard are told to stop once all of it is spent, until the period ends.', verbose_name='block when spent'),
        ),
    ]
