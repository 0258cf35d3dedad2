"""The catalogue of models raises the catalogue's epoch, beside the snapshot's."""

from django.db import migrations

TABLES = ("providers_cataloguemodel", "providers_cataloguevendor")
SQL = """
DROP TRIGGER conduit_changed ON {table};
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON {table}
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('{topic}');
"""


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0008_cut_off'),
        ('core', '0008_catalogue_epoch'),
    ]

    operations = [
        migrations.RunSQL(SQL.format(table=table, topic="catalogue"), SQL.format(table=table, topic="snapshot"))
        for table in TABLES
    ]
