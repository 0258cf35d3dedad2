"""A temporary raise changes what a budget allows, so it raises the keys epoch like a change of the budget itself."""

from django.db import migrations

SQL = """
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON keys_budgetraise
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('keys');
"""


class Migration(migrations.Migration):
    dependencies = [("keys", "0003_leases"), ("core", "0002_epoch")]
    operations = [migrations.RunSQL(SQL, "DROP TRIGGER conduit_changed ON keys_budgetraise;")]
