"""An index to find what one version of a credential did: the rotation cockpit asks every two seconds."""

from django.db import migrations

SQL = "CREATE INDEX usage_event_version ON usage_event (credential_id, credential_version, time);"


class Migration(migrations.Migration):
    dependencies = [("usage", "0004_days")]
    operations = [migrations.RunSQL(SQL, "DROP INDEX usage_event_version;")]
