"""Models and prices get an epoch of their own beside the snapshot's: a changed route need not read them again."""

from importlib import import_module

from django.db import migrations, models

FUNCTION = """
CREATE OR REPLACE FUNCTION conduit_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  topic text := 'snapshot';
  epoch bigint;
  changed record;
  subject text := '';
BEGIN
  IF TG_ARGV[0] = 'keys' THEN
    topic := 'keys';
    UPDATE core_epoch SET keys = keys + 1 WHERE id = 1 RETURNING keys INTO epoch;
    IF TG_LEVEL = 'ROW' THEN
      IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
      IF TG_TABLE_NAME = 'keys_virtualkey' THEN subject := changed.id::text;
      ELSIF TG_TABLE_NAME = 'keys_keysecret' THEN subject := changed.key_id::text;
      END IF;
    END IF;
  ELSE
    UPDATE core_epoch SET snapshot = snapshot + 1, catalogue = catalogue + (TG_ARGV[0] = 'catalogue')::int
      WHERE id = 1 RETURNING snapshot INTO epoch;
  END IF;
  -- "keys:17:<key id>" drops one key from the workers' caches, "keys:17:" drops them all
  PERFORM pg_notify('conduit', topic || ':' || epoch || ':' || subject);
  RETURN NULL;
END $$;
"""
FORMER = import_module("conduit.core.migrations.0002_epoch").SQL
FORMER = FORMER[FORMER.index("CREATE FUNCTION") :].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


class Migration(migrations.Migration):

    dependencies = [
        ('core', '0007_targets'),
    ]

    operations = [
        migrations.AddField(
            model_name='epoch',
            name='catalogue',
            field=models.BigIntegerField(db_default=0, default=0, help_text='models and prices: the part of the snapshot that is dear to read'),
        ),
        migrations.RunSQL(FUNCTION, FORMER),
    ]
