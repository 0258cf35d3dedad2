"""An index to find the addresses that a key's own list turned away: the blast radius of a leaked key asks for them."""

from django.db import migrations

SQL = "CREATE INDEX usage_event_refused ON usage_event (key_id, time) WHERE error_code = 'ip_not_allowed';"


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_version_use")]
    operations = [migrations.RunSQL(SQL, "DROP INDEX usage_event_refused;")]
