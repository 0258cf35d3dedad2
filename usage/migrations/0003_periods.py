"""A usage event names the budget periods that it counts in, as the worker that held the money knew them."""

from django.db import migrations

SQL = """
ALTER TABLE usage_event ADD COLUMN periods bigint[] NOT NULL DEFAULT '{}';
UPDATE usage_event e SET periods = found.periods
  FROM (
    SELECT e.time, e.id, array_agg(p.id) AS periods
      FROM usage_event e CROSS JOIN LATERAL (SELECT DISTINCT unnest(e.budgets) AS id) AS named
      JOIN keys_budget b ON b.id = named.id
      JOIN LATERAL (
        SELECT p.id FROM keys_budgetperiod p WHERE p.budget_id = b.id AND p.starts_at <= greatest(e.time, b.created_at)
         ORDER BY p.starts_at DESC LIMIT 1
      ) AS p ON true
     GROUP BY e.time, e.id
  ) AS found
 WHERE e.time = found.time AND e.id = found.id;
ALTER TABLE usage_event ALTER COLUMN periods DROP DEFAULT;
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_events"), ("keys", "0003_leases")]
    operations = [migrations.RunSQL(SQL, "ALTER TABLE usage_event DROP COLUMN periods;")]
