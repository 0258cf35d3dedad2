"""The partitioned usage_event table. The default partition catches what no month was made for yet."""

from django.db import migrations

SQL = """
CREATE TABLE usage_event (
  id uuid NOT NULL, time timestamptz NOT NULL, request_id varchar(128) NOT NULL, attempt smallint NOT NULL,
  final boolean NOT NULL, key_id uuid, team_id uuid, customer varchar(254) NOT NULL, provider_id uuid,
  credential_id uuid, credential_version integer, route varchar(200) NOT NULL, model varchar(200) NOT NULL,
  dialect varchar(16) NOT NULL, endpoint varchar(16) NOT NULL, stream boolean NOT NULL, status smallint NOT NULL,
  outcome varchar(9) NOT NULL, exactness varchar(9) NOT NULL,
  input_tokens bigint NOT NULL, output_tokens bigint NOT NULL, cache_read_tokens bigint NOT NULL,
  cache_write_tokens bigint NOT NULL, reasoning_tokens bigint NOT NULL, units jsonb NOT NULL,
  cost_nanos bigint NOT NULL, held_nanos bigint NOT NULL, price_id uuid, arithmetic jsonb NOT NULL,
  budgets uuid[] NOT NULL, latency_us bigint NOT NULL, ttft_us bigint, overhead_us bigint,
  tags varchar(64)[] NOT NULL, flags varchar(32)[] NOT NULL, error_code varchar(64) NOT NULL,
  error_message varchar(500) NOT NULL, trace jsonb NOT NULL,
  PRIMARY KEY (time, id)
) PARTITION BY RANGE (time);
CREATE INDEX usage_event_key ON usage_event (key_id, time);
CREATE INDEX usage_event_request ON usage_event (request_id);
CREATE TABLE usage_event_default PARTITION OF usage_event DEFAULT;
CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON usage_price
  FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot');
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial"), ("core", "0002_epoch")]
    operations = [
        migrations.RunSQL(SQL, "DROP TABLE usage_event; DROP TRIGGER conduit_changed ON usage_price;"),
    ]
