"""Changes of providers, credentials and routes raise the snapshot epoch. Bookkeeping columns do not."""

from django.db import migrations

SQL = """
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON providers_provider
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
CREATE TRIGGER conduit_changed AFTER INSERT OR DELETE OR UPDATE OF
  provider_id, name, weight, account, enabled, expires_at ON providers_credential
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
CREATE TRIGGER conduit_changed AFTER INSERT OR DELETE OR UPDATE OF state, kek_id, wrapped_key
  ON providers_credentialversion FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON providers_credentialfield
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON providers_route
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON providers_target
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON providers_cataloguemodel
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
"""
TABLES = ("provider", "credential", "credentialversion", "credentialfield", "route", "target", "cataloguemodel")


class Migration(migrations.Migration):
    dependencies = [("providers", "0001_initial"), ("core", "0002_epoch")]
    operations = [
        migrations.RunSQL(SQL, "".join(f"DROP TRIGGER conduit_changed ON providers_{table};" for table in TABLES)),
    ]
