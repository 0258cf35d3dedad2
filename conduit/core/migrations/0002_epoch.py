"""The epoch row and the trigger function that raises it and notifies workers, in the changing transaction."""

from django.db import migrations

SQL = """
INSERT INTO core_epoch (id, snapshot, keys) VALUES (1, 0, 0);

CREATE FUNCTION conduit_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  epoch bigint;
  changed record;
  subject text := '';
BEGIN
  IF TG_ARGV[0] = 'snapshot' THEN
    UPDATE core_epoch SET snapshot = snapshot + 1 WHERE id = 1 RETURNING snapshot INTO epoch;
  ELSE
    UPDATE core_epoch SET keys = keys + 1 WHERE id = 1 RETURNING keys INTO epoch;
    IF TG_LEVEL = 'ROW' THEN
      IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
      IF TG_TABLE_NAME = 'keys_virtualkey' THEN subject := changed.id::text;
      ELSIF TG_TABLE_NAME = 'keys_keysecret' THEN subject := changed.key_id::text;
      END IF;
    END IF;
  END IF;
  -- "keys:17:<key id>" drops one key from the workers' caches, "keys:17:" drops them all
  PERFORM pg_notify('conduit', TG_ARGV[0] || ':' || epoch || ':' || subject);
  RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial")]
    operations = [
        migrations.RunSQL(SQL, "DROP FUNCTION conduit_changed(); DELETE FROM core_epoch;"),
    ]
