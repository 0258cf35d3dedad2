"""Prices raise the catalogue's epoch, beside the snapshot's."""

from django.db import migrations

TABLES = ("usage_price",)
SQL = """
DROP TRIGGER conduit_changed ON {table};
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON {table}
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('{topic}');
"""


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0007_stored_responses'),
        ('core', '0008_catalogue_epoch'),
    ]

    operations = [
        migrations.RunSQL(SQL.format(table=table, topic="catalogue"), SQL.format(table=table, topic="snapshot"))
        for table in TABLES
    ]
