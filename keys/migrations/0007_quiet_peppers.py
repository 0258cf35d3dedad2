"""A secret's move to a newer pepper is no news for the workers.

Its digest alone changes: who was let through stays so, who comes anew is checked against what is stored then. Before,
each move made every worker forget the key, so that a new version of the pepper cost a read of each key by each worker
over and over. What ends a secret, or gives it to another key, is told as it was.
"""

from django.db import migrations

TRIGGER = """
DROP TRIGGER conduit_changed ON keys_keysecret;
CREATE TRIGGER conduit_changed AFTER INSERT OR DELETE OR UPDATE OF {columns} ON keys_keysecret
  FOR EACH ROW EXECUTE FUNCTION conduit_changed('keys');
"""
NOW = TRIGGER.format(columns="key_id, public_id, expires_at, destroyed_at")
BEFORE = TRIGGER.format(columns="key_id, public_id, digest, pepper_version, expires_at, destroyed_at")


class Migration(migrations.Migration):
    dependencies = [("keys", "0006_key_life")]
    operations = [migrations.RunSQL(NOW, BEFORE)]
