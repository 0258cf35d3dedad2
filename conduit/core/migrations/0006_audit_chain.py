"""Numbers without gaps, a MAC per entry, a sealed head, and a trigger that keeps what is written.

What is there already is numbered here in its order; its MACs are made with the first entry that follows, because that
takes the audit key.
"""

from django.db import migrations, models

# In two steps, because a number that is taken over may not have been left yet.
NUMBER = """
UPDATE core_auditentry SET id = -numbered.number
  FROM (SELECT id AS was, row_number() OVER (ORDER BY id) AS number FROM core_auditentry) AS numbered
 WHERE id = numbered.was;
UPDATE core_auditentry SET id = -id;
"""

KEEP = """
ALTER TABLE core_auditentry ADD CONSTRAINT audit_chained CHECK (mac IS NOT NULL AND key_version IS NOT NULL) NOT VALID;

CREATE FUNCTION conduit_audit_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Sealing an entry of the time before the chain: nothing but the missing MAC is written, once.
  IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'core_auditentry' THEN
    IF OLD.mac IS NULL AND NEW.mac IS NOT NULL
       AND to_jsonb(NEW) - 'mac' - 'key_version' = to_jsonb(OLD) - 'mac' - 'key_version' THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'the audit log is append-only: % of % refused', lower(TG_OP), TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER conduit_audit_kept BEFORE UPDATE OR DELETE ON core_auditentry
  FOR EACH ROW EXECUTE FUNCTION conduit_audit_kept();
CREATE TRIGGER conduit_audit_not_truncated BEFORE TRUNCATE ON core_auditentry
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_audit_kept();
CREATE TRIGGER conduit_audit_kept BEFORE DELETE OR TRUNCATE ON core_audithead
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_audit_kept();
"""
RELEASE = """
DROP TRIGGER conduit_audit_kept ON core_audithead;
DROP TRIGGER conduit_audit_not_truncated ON core_auditentry;
DROP TRIGGER conduit_audit_kept ON core_auditentry;
DROP FUNCTION conduit_audit_kept();
ALTER TABLE core_auditentry DROP CONSTRAINT audit_chained;
"""


class Migration(migrations.Migration):
    dependencies = [("core", "0004_live_processes")]

    operations = [
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("number", models.BigIntegerField()),
                ("mac", models.BinaryField()),
                ("key_version", models.PositiveIntegerField()),
                ("seal", models.BinaryField()),
            ],
        ),
        migrations.AlterField(
            model_name="auditentry",
            name="id",
            field=models.BigIntegerField(
                help_text="its number: 1, 2, 3 … without a gap", primary_key=True, serialize=False
            ),
        ),
        migrations.AlterField(model_name="auditentry", name="time", field=models.DateTimeField()),
        migrations.AddField(
            model_name="auditentry",
            name="address",
            field=models.CharField(
                blank=True, default="", help_text="from where, for people and tokens", max_length=64
            ),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="key_version",
            field=models.PositiveIntegerField(help_text="of the audit key", null=True),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="mac",
            field=models.BinaryField(
                help_text="covers this entry and the mac before; null only before the chain began", null=True
            ),
        ),
        migrations.RunSQL(NUMBER, migrations.RunSQL.noop),
        migrations.RunSQL(KEEP, RELEASE),
    ]
