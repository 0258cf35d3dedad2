"""Answers of /v1/responses that are kept for their tenants."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0006_refused_addresses'),
    ]

    operations = [
        migrations.CreateModel(
            name='StoredResponse',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('tenant', models.UUIDField()),
                ('previous', models.UUIDField(help_text='the response that it continues', null=True)),
                ('state', models.CharField(help_text='queued, in_progress, completed, incomplete, failed or cancelled', max_length=12)),
                ('worker', models.UUIDField(null=True)),
                ('content', models.BinaryField(help_text='input items and the answer, sealed')),
                ('key_version', models.IntegerField(help_text='of the purpose key responses')),
                ('created_at', models.DateTimeField()),
                ('used_at', models.DateTimeField(help_text='when it was made, or last continued by a later one')),
            ],
            options={
                'indexes': [models.Index(fields=['used_at'], name='stored_response_age')],
            },
        ),
    ]
