"""Changes of keys, teams, customers and budgets raise the keys epoch. `last_used_at` is bookkeeping and does not."""

from django.db import migrations

SQL = """
CREATE TRIGGER conduit_changed AFTER INSERT OR DELETE OR UPDATE OF
  name, team_id, owner, state, allowed_models, allowed_endpoints, rpm, tpm, max_parallel, max_output_tokens,
  expires_at, ip_allowlist, tags, metadata ON keys_virtualkey
  FOR EACH ROW EXECUTE FUNCTION conduit_changed('keys');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON keys_keysecret
  FOR EACH ROW EXECUTE FUNCTION conduit_changed('keys');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON keys_team
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('keys');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON keys_customer
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('keys');
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON keys_budget
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('keys');
"""
TABLES = ("keys_virtualkey", "keys_keysecret", "keys_team", "keys_customer", "keys_budget")


class Migration(migrations.Migration):
    dependencies = [("keys", "0001_initial"), ("core", "0002_epoch")]
    operations = [
        migrations.RunSQL(SQL, "".join(f"DROP TRIGGER conduit_changed ON {table};" for table in TABLES)),
    ]
