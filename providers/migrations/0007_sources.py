"""A field may hold a reference to a secret that lives elsewhere; `asked_at` makes every worker read it anew."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0006_reminders'),
    ]

    operations = [
        migrations.AddField(
            model_name='credentialfield',
            name='asked_at',
            field=models.DateTimeField(blank=True, help_text='when it was last wanted anew from its source', null=True),
        ),
        migrations.AddField(
            model_name='credentialfield',
            name='source',
            field=models.BooleanField(db_default=False, default=False, help_text='a reference is sealed, not the secret'),
        ),
        migrations.AlterField(
            model_name='credentialfield',
            name='hint',
            field=models.CharField(blank=True, help_text='prefix and last four characters, or the reference', max_length=300),
        ),
    ]
