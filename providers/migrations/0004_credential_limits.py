"""Credentials have rate limits of their own, as providers have; a change of them is a change of the configuration."""

from django.db import migrations, models

TRIGGER = """
DROP TRIGGER conduit_changed ON providers_credential;
CREATE TRIGGER conduit_changed AFTER INSERT OR DELETE OR UPDATE OF
  provider_id, name, weight, account, enabled, expires_at{} ON providers_credential
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
"""


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0003_vendors'),
    ]

    operations = [
        migrations.AddField('credential', 'rpm', models.BigIntegerField(blank=True, null=True)),
        migrations.AddField('credential', 'tpm', models.BigIntegerField(blank=True, null=True)),
        migrations.AddField('credential', 'max_parallel', models.IntegerField(blank=True, null=True)),
        migrations.RunSQL(TRIGGER.format(", rpm, tpm, max_parallel"), TRIGGER.format("")),
    ]
